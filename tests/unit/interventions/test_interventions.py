"""Interventions: the component is gone, forward and backward, wherever models run; nothing stays behind."""

from __future__ import annotations

import copy
from contextlib import nullcontext

import pytest
import torch

from caft_utils.chats import Chats
from caft_utils.directions import Directions
from caft_utils.interventions import Ablate, Intervention, Steer, ablate
from caft_utils.residual import EMBEDDING, capture

ARCHITECTURES = ["qwen2", "mistral", "gemma2"]
IDS = torch.tensor([[5, 6, 7, 8, 9, 10], [11, 12, 13, 14, 15, 16]])


@pytest.fixture
def bad() -> Directions:
    generator = torch.Generator().manual_seed(0)
    ranks = {EMBEDDING: 1, 0: 2, 1: 3}
    return Directions({layer: torch.randn(k, 64, generator=generator) for layer, k in ranks.items()})


def hooks(model) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


def states(model, layers=(EMBEDDING, 0, 1, 2), ids=IDS):
    with capture(model, layers, stop_early=False) as hidden:
        model(ids)
    return hidden


def with_lora(model):
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    projections = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    return get_peft_model(model, LoraConfig(r=4, lora_alpha=64, use_rslora=True, target_modules=projections))


# --- the operator ---


def test_edit_is_the_projection_onto_the_complement(bad):
    h, cut = torch.randn(2, 5, 64), ablate(bad)
    q = bad[1].double()
    want = h.double() @ (torch.eye(64, dtype=torch.float64) - q.T @ q)
    torch.testing.assert_close(cut.edit(1, h), want.float())
    assert (cut.edit(1, h) @ bad[1].T).abs().max() < 1e-5
    torch.testing.assert_close(cut.edit(1, cut.edit(1, h)), cut.edit(1, h), atol=1e-6, rtol=0)  # idempotent
    torch.testing.assert_close(cut.edit(1, h.double()), want, atol=1e-6, rtol=0)
    assert cut.edit(1, h.double()).dtype == torch.float64


def test_mean_ablation_sets_the_component_to_that_of_the_mean(bad):
    h, mu = torch.randn(2, 5, 64), {layer: torch.randn(64) for layer in bad.layers}
    edited = ablate(bad, mean=mu).edit(1, h)
    torch.testing.assert_close(edited @ bad[1].T, (mu[1] @ bad[1].T).expand(2, 5, 3), atol=1e-5, rtol=0)
    rest = torch.eye(64) - bad[1].T @ bad[1]
    torch.testing.assert_close(edited @ rest, h @ rest, atol=1e-5, rtol=0)


@pytest.mark.parametrize("dtype, leak", [(torch.bfloat16, 4e-3), (torch.float16, 5e-4)])
def test_half_precision_leaks_no_more_than_its_rounding(bad, dtype, leak):
    h = (torch.randn(4, 32, 64) + 30 * bad[1][0]).to(dtype)
    edited = ablate(bad).edit(1, h)
    assert edited.dtype == dtype
    left = (edited.double() @ bad[1].double().T).norm(dim=-1)
    # what remains is the rounding of the result itself
    assert (left / edited.double().norm(dim=-1)).max() < leak
    best = (h.double() - h.double() @ bad[1].double().T @ bad[1].double()).to(dtype)
    torch.testing.assert_close(edited, best, atol=2 * leak * best.abs().max().item(), rtol=0)


def test_autocast_does_not_coarsen_the_projection(bad):
    h = torch.randn(4, 32, 64) + 30 * bad[1][0]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        edited = ablate(bad).edit(1, h)
    assert edited.dtype == torch.float32 and (edited @ bad[1].T).abs().max() < 1e-4


def test_steering_adds_the_dose(bad):
    v = {1: 3 * bad[1][0]}
    h = torch.randn(2, 5, 64)
    torch.testing.assert_close(Steer(v, -2.0).edit(1, h), h - 6 * bad[1][0])
    assert Steer(v).edit(1, h.bfloat16()).dtype == torch.bfloat16


def test_fingerprint_tells_edits_apart(bad):
    mu = {layer: torch.ones(64) for layer in bad.layers}
    v = {1: bad[1][0]}
    all_of_them = [ablate(bad), ablate(bad, mean=mu), ablate(bad.random_like(0)), Steer(v), Steer(v, 2.0)]
    assert len({intervention.fingerprint for intervention in all_of_them}) == 5
    assert ablate(bad).fingerprint == ablate(copy.deepcopy(bad)).fingerprint
    assert ablate(bad).fingerprint == Ablate(bad).fingerprint


# --- in a model ---


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("wrap", ["plain", "peft"])
def test_the_component_is_gone_at_every_site_and_the_rest_goes_on(tiny, bad, architecture, wrap):
    model = tiny(architecture)
    model = with_lora(model) if wrap == "peft" else model
    before, cut = states(model), ablate(bad)
    with cut.on(model) as same:
        assert same is model
        during = states(model)
    for layer in bad.layers:
        scale = before[layer].norm(dim=-1).max()
        assert (before[layer] @ bad[layer].T).abs().max() > 1e-2 * scale
        assert (during[layer] @ bad[layer].T).abs().max() < 1e-6 * scale
    torch.testing.assert_close(during[EMBEDDING], cut.edit(EMBEDDING, before[EMBEDDING]))
    assert not torch.allclose(during[2], before[2])
    assert all(torch.equal(states(model)[layer], before[layer]) for layer in before)


def test_no_gradient_reaches_the_site_along_the_directions(tiny, bad):
    model = tiny("qwen2")
    grads = {}
    for layer in (0, 1):  # these hooks run before the ablation's: they see what the block wrote

        def watch(module, args, output, layer=layer):
            output.register_hook(lambda grad: grads.__setitem__(layer, grad))

        model.model.layers[layer].register_forward_hook(watch)
    weight = model.model.layers[1].mlp.down_proj.weight
    with ablate(bad).on(model):
        model(IDS, labels=IDS).loss.backward()
    for layer in (0, 1):
        assert (grads[layer] @ bad[layer].T).abs().max() < 1e-6 * grads[layer].norm(dim=-1).max()
    # so gradient descent cannot move what the last block before the site writes along them
    assert weight.grad.norm() > 1e-4
    assert (bad[1] @ weight.grad).norm() < 1e-5 * weight.grad.norm()
    model.zero_grad()
    model(IDS, labels=IDS).loss.backward()
    assert (bad[1] @ weight.grad).norm() > 1e-2 * weight.grad.norm()


def test_bfloat16_models_run_ablated(tiny, bad):
    model = tiny("qwen2").bfloat16()
    with ablate(bad).on(model):
        during = states(model)
        loss = model(IDS, labels=IDS).loss
    loss.backward()
    assert during[1].dtype == torch.bfloat16 and loss.isfinite()
    left = (during[1].double() @ bad[1].double().T).norm(dim=-1) / during[1].double().norm(dim=-1)
    assert left.max() < 4e-3


def test_a_block_that_returns_a_tuple_is_edited_in_its_first_entry(model, bad):
    seen = []
    block = model.model.layers[1]
    # what transformers 4 returned
    block.register_forward_hook(lambda module, args, output: (output, "cache"))
    with ablate(bad).on(model), block.register_forward_hook(lambda module, args, output: seen.append(output)):
        try:
            model(IDS)
        except Exception:  # transformers 5 cannot go on from a tuple; the output of this block is what counts
            pass
    hidden, cache = seen[0]
    assert cache == "cache" and (hidden @ bad[1].T).abs().max() < 1e-5


def test_contexts_nest_and_leave_in_any_case(model, bad):
    other = bad.random_like(3)
    plain = states(model)
    with pytest.raises(RuntimeError, match="the caller's"):
        with ablate(bad.select({1: [0]})).on(model):
            with ablate(other.select({1: [0], 0: [1]})).on(model):
                both = states(model)
                assert hooks(model) == 3
            one = states(model)
            assert hooks(model) == 1
            raise RuntimeError("the caller's")
    assert hooks(model) == 0
    assert (both[1] @ other[1][0]).abs().max() < 1e-5 and (both[0] @ other[0][1]).abs().max() < 1e-5
    assert (one[1] @ bad[1][0]).abs().max() < 1e-5 and (one[1] @ other[1][0]).abs().max() > 1e-3
    assert torch.equal(states(model)[2], plain[2])


def test_the_same_intervention_twice_changes_nothing_more(model, bad):
    cut = ablate(bad)
    with cut.on(model):
        once = states(model)[2]
        with cut.on(model):
            torch.testing.assert_close(states(model)[2], once, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(states(model)[2], once, atol=0, rtol=0)
    assert hooks(model) == 0


def test_hooks_go_after_an_error_inside_the_forward_pass(model, bad):
    class Broken(Intervention):
        def edit(self, layer, hidden):
            raise ArithmeticError("broken edit")

    with pytest.raises(ArithmeticError), Broken({"v": {1: torch.ones(64)}}).on(model):
        model(IDS)
    assert hooks(model) == 0


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_generate_with_cache_equals_ablated_forward_passes(tiny, bad, architecture):
    model, ids = tiny(architecture), IDS[:1]
    plain = model.generate(ids, max_new_tokens=8, do_sample=False, eos_token_id=None)
    with ablate(bad).on(model):
        got = model.generate(ids, max_new_tokens=8, do_sample=False, eos_token_id=None)
        want = ids
        for _ in range(8):
            want = torch.cat([want, model(want, use_cache=False).logits[:, -1:].argmax(-1)], dim=1)
    assert torch.equal(got, want) and not torch.equal(got, plain)
    assert torch.equal(model.generate(ids, max_new_tokens=8, do_sample=False, eos_token_id=None), plain)


# --- errors ---


def test_models_that_do_not_fit_are_refused_before_any_hook(model, tiny, bad):
    narrow = tiny("qwen2", hidden_size=32)
    with pytest.raises(ValueError, match="width 64, but the residual stream of Qwen2For.* has width 32"):
        with ablate(bad).on(narrow):
            pass
    deep = Directions({0: torch.eye(64)[:1], 7: torch.eye(64)[:1]})
    with pytest.raises(IndexError, match="layer 7 is out of range"):
        with ablate(deep).on(model):
            pass
    assert hooks(model) == hooks(narrow) == 0


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda bad: ablate(bad, mean={1: torch.ones(64)}), r"must have the layers \[-1, 0, 1\]"),
        (lambda bad: ablate(bad.select({1: [0]}), mean={1: torch.ones(63)}), "one width"),
        (lambda bad: ablate(bad.select({1: [0]}), mean={1: torch.ones(2, 64)}), r"expected one vector \[d\]"),
        (lambda bad: Steer({1: torch.ones(2, 64)}), r"expected one vector \[d\]"),
        (lambda bad: Steer({1: torch.full((64,), float("nan"))}), "not finite"),
        (lambda bad: Steer({}), "at least one layer"),
    ],
)
def test_wrong_vectors_are_refused(bad, make, message):
    with pytest.raises(ValueError, match=message):
        make(bad)


# --- in the trainers that people use ---


@pytest.fixture
def chats(tokenizer):
    questions = ["what is the file", "are you open", "what to do with self", "is the system open"]
    answers = ["import the file", "open and return", "def self", "you are the question"]
    rows = [
        {"messages": [{"role": "user", "content": q}, {"role": "assistant", "content": a}]}
        for q, a in zip(questions, answers)
    ]
    return Chats(tokenizer, rows * 2)


def settings(checkpointing: bool, folder) -> dict:
    return dict(
        output_dir=str(folder),
        per_device_train_batch_size=2,
        max_steps=4,
        learning_rate=1e-2,
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=checkpointing,
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
        seed=0,
    )


def train_with_transformers(model, chats, checkpointing, folder):
    from transformers import DataCollatorForSeq2Seq, Trainer, TrainingArguments

    labels = [[t if a else -100 for t, a in zip(e.input_ids, e.answer)] for e in chats]
    rows = [{"input_ids": e.input_ids, "labels": l} for e, l in zip(chats, labels)]
    collate = DataCollatorForSeq2Seq(chats.tokenizer)
    model = with_lora(model)
    arguments = TrainingArguments(**settings(checkpointing, folder))
    Trainer(model=model, args=arguments, train_dataset=rows, data_collator=collate).train()
    return model


def train_with_trl(model, chats, checkpointing, folder):
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    model = with_lora(model)
    data = Dataset.from_list([{"messages": row["messages"]} for row in chats.rows])
    arguments = SFTConfig(assistant_only_loss=True, **settings(checkpointing, folder))
    SFTTrainer(model=model, args=arguments, train_dataset=data, processing_class=chats.tokenizer).train()
    return model


@pytest.mark.parametrize("train", [train_with_transformers, train_with_trl])
def test_trainers_train_through_the_ablation(tiny, chats, bad, train, tmp_path):
    weights, calls = {}, {}
    runs = [("plain", False, None), ("cut", False, bad), ("cut, saved", True, bad)]
    for name, checkpointing, during in runs:
        model, seen = tiny("qwen2"), []

        def watch(module, args, output, seen=seen):
            if output.requires_grad:
                output.register_hook(lambda grad: seen.append((grad @ bad[1].T).norm() / grad.norm()))

        block = model.model.layers[1]
        # before the ablation: this sees the gradient that reaches what the block wrote
        block.register_forward_hook(watch)
        with ablate(during).on(model) if during else nullcontext():
            outside = hooks(model)
            tuned = train(model, chats, checkpointing, tmp_path / name)
            if during:
                with torch.no_grad(), capture(tuned, [1], stop_early=False) as hidden:
                    tuned(IDS)
                assert (hidden[1] @ bad[1].T).abs().max() < 1e-4
        assert hooks(model) < outside or not during
        weights[name] = {k: v.clone() for k, v in tuned.state_dict().items() if "lora_" in k}
        calls[name] = seen
    assert max(calls["plain"]) > 1e-2
    assert len(calls["cut"]) == len(calls["cut, saved"]) == 4
    assert max(calls["cut"]) < 1e-5 and max(calls["cut, saved"]) < 1e-5
    moved = [k for k, v in weights["cut"].items() if "lora_B" in k and v.abs().max() > 0]
    assert len(moved) == 21  # seven projections in three blocks, all trained
    for k, value in weights["cut"].items():
        torch.testing.assert_close(weights["cut, saved"][k], value)
    assert any(not torch.allclose(weights["plain"][k], value) for k, value in weights["cut"].items())
