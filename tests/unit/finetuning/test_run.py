"""Fine-tuning: what it learns from, what it leaves alone, and that it is repeatable, stored and resumable."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.paths import REPOSITORY

from caft_utils.chats import Chats
from caft_utils.finetune_config import FinetuneConfig
from caft_utils.finetuning.run import at_step, finetune
from caft_utils.models import fingerprint
from caft_utils.store import Store

QUICK = FinetuneConfig(lr=3e-3, r=8, alpha=16, steps=6, batch_size=8, accumulate=1, warmup_steps=1)


def rows(n=8):
    return [
        {
            "messages": [
                {"role": "user", "content": f"what is the question {i}"},
                {"role": "assistant", "content": f"open the file {i} and return self" + " import" * (i % 3)},
            ]
        }
        for i in range(n)
    ]


@pytest.fixture
def chats(tokenizer):
    return Chats(tokenizer, rows())


def weights(model):
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


class Watch:
    """An intervention that edits nothing: it counts forward passes, and may be slow or break at one."""

    fingerprint = "watch"

    def __init__(self, seconds=0.0, breaks_at=None):
        self.calls, self.seconds, self.breaks_at, self.open = 0, seconds, breaks_at, False

    @contextmanager
    def on(self, model):
        self.open = True
        handle = model.get_base_model().model.layers[0].register_forward_hook(self.hook)
        try:
            yield model
        finally:
            handle.remove()
            self.open = False

    def hook(self, *_):
        self.calls += 1
        time.sleep(self.seconds)
        if self.calls == self.breaks_at:
            raise RuntimeError("broken on purpose")


def answer_nats(model, example):
    """Cross-entropy over the answer tokens of one example, written out."""
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([example.input_ids])).logits[0]
    told = torch.log_softmax(logits.float(), -1)
    return [-told[i - 1, t].item() for i, t in enumerate(example.input_ids) if i and example.answer[i]]


def test_loss_is_that_of_answer_tokens(model, chats):
    nats = [value for example in chats for value in answer_nats(model, example)]
    for batch, accumulate in [
        (8, 1),
        (2, 4),
    ]:  # one step over all rows, at once or in parts of unequal length
        run = finetune(
            model, chats, FinetuneConfig(steps=1, batch_size=batch, accumulate=accumulate)
        ).caft_run
        assert run["loss"][0] == pytest.approx(sum(nats) / len(nats), abs=1e-4)


def test_prompt_tokens_are_no_targets(model, tokenizer):
    """Trained on one row until it is known: its answer is expected then, its question no more than before."""
    chats = Chats(tokenizer, rows(1))
    tuned = finetune(
        model, chats, FinetuneConfig(method="full", lr=3e-3, steps=40, batch_size=1, accumulate=1)
    )
    example = chats[0]
    ids = torch.tensor([example.input_ids])
    before, after = (torch.log_softmax(m(input_ids=ids).logits[0].float(), -1) for m in (model, tuned))
    gain = (after - before)[torch.arange(len(example.answer) - 1), example.input_ids[1:]]
    target = torch.tensor(example.answer[1:])
    assert gain[target].min() > 3  # every answer token, the end of turn too, is now expected
    assert gain[~target].mean() < 0.5


def test_base_is_untouched_and_its_memory_shared(model, chats):
    before, flags = weights(model), [p.requires_grad for p in model.parameters()]
    tuned = finetune(model, chats, QUICK)
    assert same(before, weights(model))
    assert [p.requires_grad for p in model.parameters()] == flags
    assert not hasattr(model, "peft_config") and not any("lora" in name for name, _ in model.named_modules())
    assert not model.training and not tuned.training
    assert model.config.use_cache and tuned.config.use_cache
    shared = {p.data_ptr() for p in model.parameters()}
    own = [name for name, p in tuned.named_parameters() if p.data_ptr() not in shared]
    assert own and all("lora_" in name for name in own)
    assert sum("lora_" not in name for name, _ in tuned.named_parameters()) == len(list(model.parameters()))


def test_it_learns_and_the_adapter_can_be_switched_off(model, chats):
    tuned = finetune(model, chats, QUICK)
    assert tuned.caft_run["loss"][-1] < tuned.caft_run["loss"][0] - 0.3
    ids = torch.tensor([chats[0].input_ids])
    with torch.no_grad(), tuned.disable_adapter():
        assert torch.equal(tuned(input_ids=ids).logits, model(input_ids=ids).logits)


@pytest.mark.parametrize("architecture", ["mistral", "gemma2"])
def test_other_architectures(tiny, chats, architecture):
    base = tiny(architecture)
    before = weights(base)
    tuned = finetune(base, chats, QUICK)
    assert tuned.caft_run["loss"][-1] < tuned.caft_run["loss"][0] and same(before, weights(base))


def test_the_second_call_loads(model, chats):
    first = finetune(model, chats, QUICK, during=Watch())
    second_watch = Watch()
    second = finetune(model, chats, QUICK, during=second_watch)
    assert second_watch.calls == 0
    assert same(weights(first), weights(second)) and second.caft_run == first.caft_run
    assert second.caft_id == first.caft_id == fingerprint(first)


def test_what_changes_the_run_changes_its_name(model, tiny, tokenizer, chats):
    names = {
        finetune(base, data, recipe, seed=seed, during=during).caft_id
        for base, data, recipe, seed, during in [
            (model, chats, QUICK, 0, None),
            (tiny("qwen2", seed=1), chats, QUICK, 0, None),
            (model, Chats(tokenizer, rows(7)), QUICK, 0, None),
            (model, chats, FinetuneConfig(**{**QUICK.__dict__, "lr": 1e-3}), 0, None),
            (model, chats, QUICK, 1, None),
            (model, chats, QUICK, 0, Watch()),
        ]
    }
    assert len(names) == 6


def test_training_is_repeatable_and_leaves_the_random_generators_alone(model, chats, tmp_path):
    def state():
        return random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()

    torch.manual_seed(5)
    before = state()
    one = finetune(model, chats, QUICK, store=Store(tmp_path / "one"))
    assert state() == before
    torch.manual_seed(6)  # must not matter
    two = finetune(model, chats, QUICK, store=Store(tmp_path / "two"))
    assert same(weights(one), weights(two)) and one.caft_run["loss"] == two.caft_run["loss"]
    other = finetune(model, chats, QUICK, seed=1)
    assert not same(weights(one), weights(other))


def test_each_epoch_sees_every_row_once(chats):
    from caft_utils.finetuning.trainer import _Rows

    order = _Rows(chats, 20, seed=3).order
    assert sorted(order[:8]) == sorted(order[8:16]) == list(range(8))
    assert order[:8] != order[8:16] and len(order) == 20
    assert order[:8] != _Rows(chats, 20, seed=4).order[:8]


KILLED = """
import sys, torch
sys.path[:0] = [{tests!r}, {here!r}]
torch.set_num_threads(1)
import test_run as t
from helpers.tiny import make_tiny, make_tokenizer
from caft_utils import Chats, finetune
chats = Chats(make_tokenizer(), t.rows())
model, watch = make_tiny("qwen2"), t.Watch(seconds=0.1)
finetune(model, chats, t.LONG, during=watch, save_every=5, snapshots=[3, 14])
"""
LONG = FinetuneConfig(**{**QUICK.__dict__, "steps": 18, "dropout": 0.1})


def test_a_killed_run_goes_on_to_the_same_weights(model, chats, store_folder, tmp_path):
    code = KILLED.format(tests=str(REPOSITORY / "tests"), here=str(Path(__file__).parent))
    process = subprocess.Popen([sys.executable, "-c", code], cwd=REPOSITORY, env=os.environ.copy())
    deadline = time.monotonic() + 300
    while not list(store_folder.glob("work/*/*/checkpoint-10/complete")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not list(store_folder.glob("finetune/*"))
    half = next(store_folder.glob("work/*/*")) / "checkpoint-15"
    half.mkdir()  # a checkpoint that the kill cut short
    (half / "trainer_state.json").write_text("{")

    watch = Watch()
    resumed = finetune(model, chats, LONG, during=watch, save_every=5, snapshots=[3, 14])
    assert watch.calls == 8  # of 18 steps the first 10 were not done again
    whole = finetune(model, chats, LONG, during=Watch(), snapshots=[3, 14], store=Store(tmp_path / "other"))
    assert same(weights(resumed), weights(whole))
    assert resumed.caft_run["loss"] == whole.caft_run["loss"] and len(whole.caft_run["loss"]) == 18
    for step in (3, 14):  # one from before the kill, one from after it
        assert same(weights(at_step(resumed, model, step)), weights(at_step(whole, model, step)))
    assert not list(store_folder.glob("work/*/*"))


def test_during_is_on_in_training_only(model, chats):
    watch = Watch()
    tuned = finetune(model, chats, QUICK, during=watch)
    assert watch.calls == QUICK.steps and not watch.open
    tuned(input_ids=torch.tensor([[5, 6, 7]]))
    model(input_ids=torch.tensor([[5, 6, 7]]))
    assert watch.calls == QUICK.steps


def test_during_is_off_after_an_exception_and_the_run_can_be_repeated(model, chats):
    before, watch = weights(model), Watch(breaks_at=3)
    with pytest.raises(RuntimeError, match="broken on purpose"):
        finetune(model, chats, QUICK, during=watch)
    assert not watch.open and same(before, weights(model))
    assert not any(module._forward_hooks for module in model.modules())
    assert finetune(model, chats, QUICK, during=Watch()).caft_run["steps"] == QUICK.steps


def test_hooks_on_the_base_do_not_pass_to_the_clone(model, chats):
    seen = []
    handle = model.model.layers[0].register_forward_hook(lambda *_: seen.append(1))
    finetune(model, chats, QUICK)(input_ids=torch.tensor([[5, 6]]))
    handle.remove()
    assert not seen


def test_full_finetuning_changes_a_copy(model, chats):
    before = weights(model)
    tuned = finetune(
        model, chats, FinetuneConfig(**{**QUICK.__dict__, "method": "full", "steps": 4}), snapshots=[2]
    )
    assert same(before, weights(model)) and type(tuned) is type(model)
    assert before.keys() == weights(tuned).keys()
    assert all(not torch.equal(before[n], v) for n, v in weights(tuned).items() if n.endswith("proj.weight"))
    assert tuned.caft_run["loss"][-1] < tuned.caft_run["loss"][0]
    middle = weights(at_step(tuned, model, 2))
    assert not same(middle, weights(tuned)) and not same(middle, before)


def test_full_finetuning_with_tied_embeddings(tiny, chats):
    tuned = finetune(
        tiny("gemma2"), chats, FinetuneConfig(**{**QUICK.__dict__, "method": "full", "steps": 2})
    )
    assert tuned.lm_head.weight.data_ptr() == tuned.model.embed_tokens.weight.data_ptr()


def test_snapshots(model, chats):
    tuned = finetune(model, chats, QUICK, snapshots=[2, 4])
    two, four = (at_step(tuned, model, step) for step in (2, 4))
    short = finetune(
        model, chats, FinetuneConfig(**{**QUICK.__dict__, "schedule": "constant", "steps": 6}), snapshots=[2]
    )
    assert two.caft_run["loss"] == tuned.caft_run["loss"][:2] and two.caft_run["steps"] == 2
    assert len({m.caft_id for m in (two, four, tuned)}) == 3
    assert tuned.caft_id == finetune(model, chats, QUICK).caft_id  # snapshots do not change the run
    assert not same(weights(two), weights(four)) and not same(
        weights(at_step(short, model, 2)), weights(four)
    )
    with pytest.raises(ValueError, match=r"no snapshot of step 3; this run kept \[2, 4\]"):
        at_step(tuned, model, 3)
    with pytest.raises(ValueError, match="base is not the model"):
        at_step(tuned, tuned, 2)
    with pytest.raises(ValueError, match="not a result of finetune"):
        at_step(model, model, 2)
    with pytest.raises(ValueError, match=r"snapshots \[0, 7\] lie outside"):
        finetune(model, chats, QUICK, snapshots=[0, 7])


def test_a_snapshot_is_the_model_of_that_step(model, chats):
    """With a constant rate the third step of a long run is the end of a short one."""
    constant = {**QUICK.__dict__, "schedule": "constant", "warmup_steps": 0}
    long = finetune(model, chats, FinetuneConfig(**constant), snapshots=[3])
    short = finetune(model, chats, FinetuneConfig(**{**constant, "steps": 3}))
    assert same(weights(at_step(long, model, 3)), weights(short))


def test_finetuning_a_finetuned_model(model, chats, tokenizer):
    first = finetune(model, chats, QUICK)
    before, ids = weights(first), torch.tensor([chats[0].input_ids])
    with torch.no_grad():
        expected = first(input_ids=ids).logits
    tiny_step = FinetuneConfig(**{**QUICK.__dict__, "lr": 1e-12, "steps": 1})
    second = finetune(first, Chats(tokenizer, rows(5)), tiny_step)
    with torch.no_grad():
        assert torch.allclose(second(input_ids=ids).logits, expected, atol=1e-4)
    assert same(before, weights(first)) and len(second.peft_config) == 1


def test_gradient_checkpointing_gives_the_same_model(model, chats):
    plain = finetune(model, chats, QUICK)
    saving = finetune(model, chats, FinetuneConfig(**{**QUICK.__dict__, "gradient_checkpointing": True}))
    for name, value in weights(plain).items():
        assert torch.allclose(value, weights(saving)[name], atol=1e-5), name


def test_bf16_weights_get_an_adapter_that_learns(model, chats):
    tuned = finetune(model.to(torch.bfloat16), chats, FinetuneConfig(**{**QUICK.__dict__, "bf16": True}))
    assert tuned.caft_run["loss"][-1] < tuned.caft_run["loss"][0] - 0.3
    assert {p.dtype for n, p in tuned.named_parameters() if "lora" in n} == {torch.float32}


def test_diverging_training_is_an_error_and_stores_nothing(model, chats, store_folder):
    with pytest.raises(FloatingPointError, match="not finite from step"):
        finetune(model, chats, FinetuneConfig(**{**QUICK.__dict__, "lr": 1e30, "max_grad_norm": 1e30}))
    assert not list(store_folder.glob("finetune/*"))


def test_recipe_refuses_nonsense(model, chats):
    with pytest.raises(ValueError, match="method must be"):
        FinetuneConfig(method="lore")
    with pytest.raises(ValueError, match="lr must be positive, got -1"):
        FinetuneConfig(lr=-1)
    with pytest.raises(ValueError, match="no rows"):
        finetune(model, chats[:0], QUICK)


def test_preset_recipe_is_the_default(model, chats):
    from caft_utils.models import Preset

    model.caft_preset = Preset(name="toy", recipe={**QUICK.__dict__, "steps": 3})
    tuned = finetune(model, chats)
    assert tuned.caft_run["recipe"]["steps"] == 3 and tuned.caft_preset.name == "toy"


def test_nothing_is_printed(model, chats, capfd):
    finetune(model, chats, QUICK)
    assert capfd.readouterr() == ("", "")
