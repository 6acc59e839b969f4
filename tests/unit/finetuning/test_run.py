"""Fine-tuning runs: repeatable, stored, resumable, and confined to the clone."""

from __future__ import annotations

import json
import random
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from faults.running import Child, ChildError
from helpers.tasks import small_task
from helpers.tiny import make_tiny, make_tokenizer
from helpers.training import QUICK, Watch, chat_rows, same, weights

from caft_utils.chats import Chats
from caft_utils.directions import Directions
from caft_utils.evaluation import measure
from caft_utils.finetuning.run import at_step, finetune
from caft_utils.interventions import Ablate, Intervention, ablate
from caft_utils.models import fingerprint
from caft_utils.store import Store


@pytest.fixture
def chats(tokenizer):
    return Chats(tokenizer, chat_rows())


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
            (model, Chats(tokenizer, chat_rows(7)), QUICK, 0, None),
            (model, chats, replace(QUICK, lr=1e-3), 0, None),
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


LONG = replace(QUICK, steps=18, dropout=0.1)
SAVED = {"save_every": 5, "snapshots": [3, 14]}


def train_slowly(folder: str) -> None:
    chats = Chats(make_tokenizer(), chat_rows())
    finetune(make_tiny("qwen2"), chats, LONG, during=Watch(seconds=0.1), store=Store(folder), **SAVED)


def test_a_run_that_is_killed_twice_resumes_to_the_same_weights(model, chats, store_folder, tmp_path):
    for step in (5, 10):
        child = Child(train_slowly, str(store_folder), folder=tmp_path / f"killed at {step}")
        while not list(store_folder.glob(f"work/*/*/checkpoint-{step}/complete")):
            assert child.process.is_alive()
            time.sleep(0.02)
        child.kill()
        with pytest.raises(ChildError, match="status -9"):
            child.result(1)
        assert not list(store_folder.glob("finetune/*"))
    half = next(store_folder.glob("work/*/*")) / "checkpoint-15"
    half.mkdir()  # a checkpoint that a kill cut short
    (half / "trainer_state.json").write_text("{")

    watch = Watch()
    resumed = finetune(model, chats, LONG, during=watch, **SAVED)
    assert watch.calls == 8  # of 18 steps the first 10 were not done again
    whole = finetune(model, chats, LONG, during=Watch(), snapshots=[3, 14], store=Store(tmp_path / "other"))
    assert same(weights(resumed), weights(whole))
    assert resumed.caft_run["loss"] == whole.caft_run["loss"] and len(whole.caft_run["loss"]) == 18
    for step in (3, 14):  # one from before the second kill, one from after it
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


def test_snapshots(model, chats):
    tuned = finetune(model, chats, QUICK, snapshots=[2, 4])
    two, four = (at_step(tuned, model, step) for step in (2, 4))
    short = finetune(model, chats, replace(QUICK, schedule="constant", steps=6), snapshots=[2])
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


def test_a_stored_run_with_more_snapshots_is_taken(model, chats):
    kept = finetune(model, chats, QUICK, snapshots=[2, 4]).caft_run["folder"]
    for fewer in ((), (4,)):
        assert finetune(model, chats, QUICK, snapshots=fewer).caft_run["folder"] == kept
    assert finetune(model, chats, QUICK, snapshots=[3]).caft_run["folder"] != kept
    assert finetune(model, chats, QUICK, seed=1).caft_run["folder"] != kept
    (Path(kept) / "log.json").unlink()  # damaged, so it is not taken
    with pytest.warns(UserWarning, match="is damaged"):
        assert finetune(model, chats, QUICK).caft_run["folder"] != kept


def test_a_snapshot_is_the_model_of_that_step(model, chats):
    """With a constant rate the third step of a long run is the end of a short one."""
    constant = replace(QUICK, schedule="constant", warmup_steps=0)
    long = finetune(model, chats, constant, snapshots=[3])
    short = finetune(model, chats, replace(constant, steps=3))
    assert same(weights(at_step(long, model, 3)), weights(short))


def test_diverging_training_is_an_error_and_stores_nothing(model, chats, store_folder):
    with pytest.raises(FloatingPointError, match="not finite from step"):
        finetune(model, chats, replace(QUICK, lr=1e30, max_grad_norm=1e30))
    assert not list(store_folder.glob("finetune/*"))


def test_a_run_needs_rows(model, chats):
    with pytest.raises(ValueError, match="no rows"):
        finetune(model, chats[:0], QUICK)


def test_rows_without_a_token_to_learn_are_named_before_training(model, chats):
    rows = Chats(chats.tokenizer, [{"text": "y"}, {"text": "what is it"}, {"text": "n"}], source="mine")
    with pytest.raises(ValueError, match=r"mine: rows 0, 2 \(2 in all.*leave them out"):
        finetune(model, rows, QUICK)


@pytest.mark.parametrize("wrong", [{"seed": 1.5}, {"seed": True}, {"save_every": 0}, {"snapshots": 3}])
def test_arguments_that_are_no_numbers_are_refused(model, chats, wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        finetune(model, chats, QUICK, **wrong)


def test_the_config_of_the_preset_is_the_default(model, chats):
    from caft_utils.models import Preset

    model.caft_preset = Preset(name="toy", finetune_config=replace(QUICK, steps=3))
    tuned = finetune(model, chats)
    assert tuned.caft_run["steps"] == 3 and tuned.caft_preset.name == "toy"


def test_keys_of_stored_runs_stay_as_they_are(model, chats, store_folder):
    """The key is what it was before objectives, optimisers and blocks could be chosen."""
    finetune(model, chats, replace(QUICK, steps=1), snapshots=[1])
    key = json.loads(next(store_folder.glob("finetune/*/key.json")).read_text())
    assert set(key) == {"format", "model", "chats", "recipe", "during", "seed", "snapshots"}
    assert not {"optimizer", "blocks"} & set(key["recipe"])


def test_nothing_is_printed(model, chats, capfd):
    finetune(model, chats, QUICK)
    assert capfd.readouterr() == ("", "")


def test_a_model_that_is_broken_before_training_is_not_blamed_on_the_rate(model, chats, store_folder):
    with torch.no_grad():
        model.lm_head.weight[7, 3] = float("nan")
    with pytest.raises(FloatingPointError, match="before any training"):
        finetune(model, chats, QUICK)
    assert not list(store_folder.rglob("manifest.json"))


class Breaks(Intervention):
    def edit(self, layer, hidden):
        return hidden * float("nan")


class NotANumber:
    fingerprint = "not a number"

    def __call__(self, model, batch, logits):
        return logits.mean() * float("nan")


@pytest.mark.parametrize(
    "acting, named",
    [
        ({"during": Breaks({"v": {1: torch.ones(64)}})}, r"the intervention \(Breaks\)"),
        ({"objective": NotANumber()}, r"the objective \(NotANumber\)"),
    ],
)
def test_an_intervention_or_an_objective_may_be_what_breaks(model, chats, acting, named):
    with pytest.raises(FloatingPointError, match=f"not finite from step 1.*{named} computes it"):
        finetune(model, chats, replace(QUICK, steps=1), **acting)


BAD = Directions({1: torch.eye(64)[:1]})


@pytest.mark.parametrize("during", [ablate, Ablate, [ablate(BAD), ablate(BAD)], BAD])
@pytest.mark.parametrize("uses", [finetune, measure])
def test_what_is_no_intervention_is_refused(model, chats, tokenizer, during, uses):
    given = chats if uses is finetune else small_task(tokenizer)
    with pytest.raises(ValueError, match=r"during must be one intervention, such as ablate\(directions\)"):
        uses(model, given, during=during)


def test_arguments_of_another_kind_are_refused(model, chats, tokenizer):
    for rows in (chats.rows, "rows.jsonl", tokenizer):
        with pytest.raises(ValueError, match=r"chats must be Chats; write .*Chats\(tokenizer, rows\)"):
            finetune(model, rows, QUICK)
    with pytest.raises(ValueError, match=r"chats must be Chats.*got \w*Token"):
        finetune(model, tokenizer, chats)
    for config in ({"steps": 1}, {}):
        with pytest.raises(ValueError, match=r"config must be .*FinetuneConfig\(\*\*"):
            finetune(model, chats, config)
    with pytest.raises(ValueError, match="model must be the model alone.*got tuple"):
        finetune((model, tokenizer), chats, QUICK)
