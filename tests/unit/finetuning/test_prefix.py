"""The frozen prefix: the same run without the blocks that stay as they are, and none where that is unsure."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
import transformers
from helpers.training import QUICK, Watch, chat_rows, same, weights

from caft_utils.chats import Chats
from caft_utils.directions import Directions
from caft_utils.finetuning import prefix
from caft_utils.finetuning.adapters import trainable_copy
from caft_utils.finetuning.prefix import ARCHITECTURES, frozen_prefix, reusable_blocks
from caft_utils.finetuning.run import finetune
from caft_utils.interventions import ablate, steer
from caft_utils.residual import capture, decoder, decoder_blocks, has_hooks
from caft_utils.store import Store

UPPER = replace(QUICK, batch_size=3, accumulate=2, lr=1e-3, blocks=[2, 3])
MODELS = {
    "LlamaModel": ("LlamaConfig", "LlamaForCausalLM"),
    "MistralModel": ("MistralConfig", "MistralForCausalLM"),
    "Qwen2Model": ("Qwen2Config", "Qwen2ForCausalLM"),
    "Qwen3Model": ("Qwen3Config", "Qwen3ForCausalLM"),
    "Gemma2Model": ("Gemma2Config", "Gemma2ForCausalLM"),
    "Gemma3TextModel": ("Gemma3TextConfig", "Gemma3ForCausalLM"),
}


def make(architecture, **changes):
    """A random model of 4 blocks; its windows, where it has some, are shorter than the rows."""
    config, kind = (getattr(transformers, name) for name in MODELS[architecture])
    shape = dict(vocab_size=384, hidden_size=32, intermediate_size=48, num_hidden_layers=4, head_dim=16)
    shape |= dict(num_attention_heads=4, num_key_value_heads=2, pad_token_id=0, eos_token_id=2)
    if architecture not in ("LlamaModel", "Qwen2Model", "Qwen3Model"):
        shape |= dict(sliding_window=8)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return kind(config(**shape | {"bos_token_id": None} | changes)).eval()


def bad(layer=3, size=32):
    return ablate(Directions({layer: torch.randn(2, size, generator=torch.Generator().manual_seed(1))}))


@pytest.fixture
def chats(tokenizer):
    return Chats(tokenizer, chat_rows())


@pytest.fixture
def other(tmp_path):
    return Store(tmp_path / "other")


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_run_with_the_prefix_is_the_ordinary_one(chats, other, architecture):
    model = make(architecture)
    assert type(decoder(model)).__name__ == architecture
    plain = finetune(model, chats, UPPER, during=bad(), reuse_prefix=False)
    quick = finetune(model, chats, UPPER, during=bad(), store=other)
    assert quick.caft_run["reused_blocks"] == 2 and "reused_blocks" not in plain.caft_run
    assert quick.caft_id == plain.caft_id
    assert quick.caft_run["loss"] == pytest.approx(plain.caft_run["loss"], rel=1e-5)
    for name, value in weights(plain).items():
        assert torch.allclose(value, weights(quick)[name], atol=1e-4), name
    moved = sum((value**2).sum() for name, value in weights(plain).items() if "lora_B" in name)
    assert moved > 0.01


def test_full_training_in_float32_of_a_model_in_half_precision(chats, other):
    """The states come from the float32 weights that are trained, not from those of the base."""
    model = make("LlamaModel").bfloat16()
    config = replace(UPPER, method="full")
    plain = finetune(model, chats, config, reuse_prefix=False)
    quick = finetune(model, chats, config, store=other)
    assert quick.caft_run["reused_blocks"] == 2
    assert quick.caft_run["loss"] == pytest.approx(plain.caft_run["loss"], rel=1e-5)


def test_an_adapter_on_a_model_in_half_precision(chats, other):
    model = make("LlamaModel").bfloat16()
    plain = finetune(model, chats, UPPER, reuse_prefix=False)
    quick = finetune(model, chats, UPPER, store=other)
    assert quick.caft_run["reused_blocks"] == 2
    assert quick.caft_run["loss"] == pytest.approx(plain.caft_run["loss"], rel=2e-2)


def test_the_frozen_blocks_run_once_for_all_steps_conditions_and_seeds(chats, store_folder, monkeypatch):
    model, calls = make("LlamaModel"), []
    forward = transformers.models.llama.modeling_llama.LlamaDecoderLayer.forward
    kind = type(decoder_blocks(model)[0])

    def counted(block, *args, **kwargs):
        calls.append(block.self_attn.layer_idx)
        return forward(block, *args, **kwargs)

    monkeypatch.setattr(kind, "forward", counted)
    finetune(model, chats, UPPER)
    steps = UPPER.steps * UPPER.accumulate
    assert [calls.count(layer) for layer in range(4)] == [1, 1, steps, steps]
    finetune(model, chats, UPPER, seed=1, during=bad())
    probe = 1  # the ablation reads the whole model once to find what a sink is
    expected = [1 + probe, 1 + probe, 2 * steps + probe, 2 * steps + probe]
    assert [calls.count(layer) for layer in range(4)] == expected
    assert len(list(store_folder.glob("prefix/*"))) == 1


def test_the_states_of_a_row_do_not_depend_on_the_padding(chats):
    model = make("Gemma2Model")
    tuned = trainable_copy(model, UPPER, 0)
    found = frozen_prefix(tuned, chats, UPPER, during=None, name={"model": "m"}, store=Store())
    rows = [2, 0, 7]
    batch = found.batch(rows)
    assert len({len(chats[row].input_ids) for row in rows}) > 1
    for states, row in zip(batch, rows):
        ids = torch.tensor([chats[row].input_ids])
        with capture(model, [1]) as hidden, torch.no_grad():
            model(ids, use_cache=False)
        assert torch.allclose(states[: ids.shape[1]], hidden[1][0], atol=1e-5)
        assert states.abs().amax(-1).min() > 0  # padding is no vector of length zero


def test_a_resumed_run_ends_with_the_same_weights(chats, other):
    class Breaks:
        """An objective of nothing, which breaks once."""

        def __init__(self, at):
            self.fingerprint, self.calls, self.at = "breaks", 0, at

        def __call__(self, model, batch, logits):
            self.calls += 1
            if self.calls == self.at:
                raise RuntimeError("broken on purpose")
            return model(batch.input_ids[:, :3]).logits.sum() * 0  # another batch, so without the prefix

    model = make("Qwen2Model")
    whole = finetune(model, chats, UPPER, objective=Breaks(0), store=other)
    with pytest.raises(RuntimeError, match="on purpose"):
        finetune(model, chats, UPPER, objective=Breaks(8), save_every=2)
    assert not has_hooks(model)
    resumed = finetune(model, chats, UPPER, objective=Breaks(0), save_every=2)
    assert same(weights(whole), weights(resumed)) and resumed.caft_run["reused_blocks"] == 2


def test_the_prefix_ends_below_the_first_edited_block():
    model = trainable_copy(make("LlamaModel"), UPPER, 0)
    assert reusable_blocks(model, UPPER, None) == 2
    assert [reusable_blocks(model, UPPER, bad(layer)) for layer in range(4)] == [0, 1, 2, 2]
    assert reusable_blocks(model, UPPER, steer({-1: torch.ones(32)})) == 0


class Own(type(bad())):
    """An ablation that acts elsewhere than its layers say."""

    @contextmanager
    def on(self, model):
        yield model


def test_unsure_cases_have_no_prefix(monkeypatch):
    model = trainable_copy(make("LlamaModel"), UPPER, 0)
    for changes in ({"gradient_checkpointing": True}, {"bf16": True}):
        assert reusable_blocks(model, replace(UPPER, **changes), None) == 0
    for during in (Watch(), Own(Directions({3: torch.ones(1, 32)}))):
        assert reusable_blocks(model, UPPER, during) == 0
    for blocks in (None, [0, 3]):
        config = replace(UPPER, blocks=blocks)
        assert reusable_blocks(trainable_copy(make("LlamaModel"), config, 0), config, None) == 0
    with_dropout = trainable_copy(make("LlamaModel", attention_dropout=0.1), UPPER, 0)
    assert reusable_blocks(with_dropout, UPPER, None) == 0
    assert reusable_blocks(torch.compile(model, backend="eager"), UPPER, None) == 0
    with capture(model, [3]):
        assert reusable_blocks(model, UPPER, None) == 0
    model.get_input_embeddings().requires_grad_(True)
    assert reusable_blocks(model, UPPER, None) == 0
    model.get_input_embeddings().requires_grad_(False)
    assert reusable_blocks(model, UPPER, None) == 2
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert reusable_blocks(model, UPPER, None) == 0


def test_an_architecture_that_was_not_tried_has_no_prefix(monkeypatch):
    monkeypatch.setattr(prefix, "ARCHITECTURES", ("MistralModel",))
    assert reusable_blocks(trainable_copy(make("LlamaModel"), UPPER, 0), UPPER, None) == 0


def test_states_are_not_computed_in_vain(chats, store_folder, monkeypatch):
    model = make("LlamaModel")
    few = finetune(model, chats, replace(UPPER, steps=1))  # 6 of 8 rows
    monkeypatch.setattr(prefix, "LARGEST", 4 * 32 * sum(chats.lengths) - 1)
    large = finetune(model, chats, UPPER)
    assert "reused_blocks" not in few.caft_run and "reused_blocks" not in large.caft_run
    assert not list(store_folder.glob("prefix/*"))
