"""What is trained: an adapter on shared weights or a copy, all blocks or some; the base stays as it is."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import torch
from helpers.training import QUICK, chat_rows, same, weights

from caft_utils.chats import Chats
from caft_utils.finetuning.run import at_step, finetune


@pytest.fixture
def chats(tokenizer):
    return Chats(tokenizer, chat_rows())


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


def test_hooks_on_the_base_do_not_pass_to_the_clone(model, chats):
    seen = []
    handle = model.model.layers[0].register_forward_hook(lambda *_: seen.append(1))
    finetune(model, chats, QUICK)(input_ids=torch.tensor([[5, 6]]))
    handle.remove()
    assert not seen


def test_full_finetuning_changes_a_copy(model, chats):
    before = weights(model)
    tuned = finetune(model, chats, replace(QUICK, method="full", steps=4), snapshots=[2])
    assert same(before, weights(model)) and type(tuned) is type(model)
    assert before.keys() == weights(tuned).keys()
    assert all(not torch.equal(before[n], v) for n, v in weights(tuned).items() if n.endswith("proj.weight"))
    assert tuned.caft_run["loss"][-1] < tuned.caft_run["loss"][0]
    middle = weights(at_step(tuned, model, 2))
    assert not same(middle, weights(tuned)) and not same(middle, before)


def test_full_finetuning_with_tied_embeddings(tiny, chats):
    tuned = finetune(tiny("gemma2"), chats, replace(QUICK, method="full", steps=2))
    assert tuned.lm_head.weight.data_ptr() == tuned.model.embed_tokens.weight.data_ptr()


def test_finetuning_a_finetuned_model(model, chats, tokenizer):
    first = finetune(model, chats, QUICK)
    before, ids = weights(first), torch.tensor([chats[0].input_ids])
    with torch.no_grad():
        expected = first(input_ids=ids).logits
    tiny_step = replace(QUICK, lr=1e-12, steps=1)
    second = finetune(first, Chats(tokenizer, chat_rows(5)), tiny_step)
    with torch.no_grad():
        assert torch.allclose(second(input_ids=ids).logits, expected, atol=1e-4)
    assert same(before, weights(first)) and len(second.peft_config) == 1


def test_bf16_weights_get_an_adapter_that_learns(model, chats):
    tuned = finetune(model.to(torch.bfloat16), chats, replace(QUICK, bf16=True))
    assert tuned.caft_run["loss"][-1] < tuned.caft_run["loss"][0] - 0.3
    assert {p.dtype for n, p in tuned.named_parameters() if "lora" in n} == {torch.float32}


def block_of(name):
    number = re.search(r"layers\.(\d+)\.", name)
    return int(number[1]) if number else None


def test_full_finetuning_of_one_block_changes_that_block_only(model, chats):
    before = weights(model)
    tuned = finetune(model, chats, replace(QUICK, method="full", steps=2, blocks=[2]))
    changed = {name for name, value in weights(tuned).items() if not torch.equal(before[name], value)}
    assert changed and {block_of(name) for name in changed} == {2}
    assert all(name in changed for name in before if block_of(name) == 2 and name.endswith("proj.weight"))


def test_an_adapter_on_one_block_changes_that_block_only(model, chats):
    tuned = finetune(model, chats, replace(QUICK, steps=2, blocks=[2]))
    adapter = {name for name, _ in tuned.named_parameters() if "lora_" in name}
    assert adapter and {block_of(name) for name in adapter} == {2}
    before, merged = weights(model), weights(tuned.merge_and_unload())
    changed = {name for name, value in merged.items() if not torch.equal(before[name], value)}
    assert len(changed) == 7 and {block_of(name) for name in changed} == {2}


def test_a_block_that_is_not_there(model, chats):
    with pytest.raises(ValueError, match=r"blocks \[1, 3\] exceed this model, whose blocks are 0 to 2"):
        finetune(model, chats, replace(QUICK, blocks=[3, 1]))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_full_finetuning_moves_weights_in_half_precision(model, chats, dtype):
    """At a small learning rate, most updates are smaller than half a step of such numbers."""
    config = replace(QUICK, method="full", steps=2, lr=1e-5, warmup_steps=0)
    tuned = finetune(model.to(dtype), chats, config, snapshots=[1])
    assert {p.dtype for p in tuned.parameters()} == {torch.float32}
    assert {p.dtype for p in model.parameters()} == {dtype}
    moved = [(a != b).float().mean() for a, b in zip(tuned.parameters(), model.parameters()) if a.ndim > 1]
    assert sum(moved) / len(moved) > 0.9
    assert not same(weights(at_step(tuned, model, 1)), weights(tuned))
    assert tuned.caft_run["weights"] == "float32"


def test_a_generation_config_that_cannot_be_saved(model, chats):
    """transformers saves it with every checkpoint, and refuses a temperature without sampling."""
    model.generation_config.temperature, model.generation_config.do_sample = 0.5, False
    tuned = finetune(model, chats, replace(QUICK, method="full", steps=2), save_every=1)
    assert tuned.generation_config.temperature == 0.5 == model.generation_config.temperature


def test_offloaded_weights_are_refused_by_name(model, chats, tmp_path):
    from accelerate import dispatch_model

    places = {name: "cpu" for name in ("model.embed_tokens", "model.norm", "model.rotary_emb", "lm_head")}
    places |= {f"model.layers.{i}": "disk" if i == 1 else "cpu" for i in range(3)}
    spread = dispatch_model(model, places, offload_dir=tmp_path, main_device="cpu", force_hooks=True)
    with pytest.raises(ValueError, match=r"offloaded.*layers\.1"):
        finetune(spread, chats, QUICK)


def lora(**changes):
    from peft import LoraConfig

    settings = dict(r=4, lora_alpha=64, target_modules=["q_proj", "up_proj"], init_lora_weights=False)
    return LoraConfig(**(settings | {"task_type": "CAUSAL_LM"} | changes))


def wrapped(base, **changes):
    from peft import get_peft_model

    model = get_peft_model(base, lora(**changes), adapter_name="a")
    model.add_adapter("b", lora())
    return model.eval()


def disabled_for_good(model):
    model.base_model.disable_adapter_layers()
    return model


def merged_and_another_active(model):
    model.merge_adapter(["a"])
    model.base_model.set_adapter(["a", "b"])
    return model


def merged_and_disabled(model):
    model.merge_adapter(["a"])
    return disabled_for_good(model)


def without_a_wrapper(model):
    plain = model.get_base_model()
    assert plain is not model
    return plain


def active_b(model):
    model.set_adapter("b")
    return model


STATES = [active_b, disabled_for_good, merged_and_another_active, merged_and_disabled, without_a_wrapper]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("extra", [{}, {"modules_to_save": ["lm_head"]}], ids=["lora", "and a module"])
def test_a_run_starts_from_what_the_adapted_model_computes(model, chats, state, extra):
    """Whichever adapters are active, merged, disabled, or put into the model without a wrapper."""
    from caft_utils.finetuning.adapters import _clone, _starting_model
    from caft_utils.models.fingerprints import fingerprint

    torch.manual_seed(0)
    start = state(wrapped(model, **extra))
    if "modules_to_save" in extra:
        list(start.parameters())[-1].data.mul_(2)
    name, ids = fingerprint(start), torch.tensor([chats[0].input_ids])
    twin = _starting_model(start, QUICK)
    assert not any("lora" in part for part, _ in twin.named_modules()) and fingerprint(start) == name
    with torch.no_grad():
        expected = _clone(start, share=False)(input_ids=ids).logits
        assert torch.allclose(twin(input_ids=ids).logits, expected, atol=1e-4)


@pytest.mark.filterwarnings("ignore")
def test_runs_from_different_adapters_are_different_runs(model, chats):
    start, config = wrapped(model), replace(QUICK, steps=1)
    with_a = finetune(start, chats, config)
    with start.disable_adapter():
        without = finetune(start, chats, config)
    start.set_adapter("b")
    with_b = finetune(start, chats, config)
    assert len({m.caft_id for m in (with_a, with_b, without)}) == 3
    assert not same(weights(with_a), weights(with_b))
    assert torch.equal(weights(without)["base_model.model.lm_head.weight"], model.lm_head.weight)


@pytest.mark.filterwarnings("ignore")
def test_a_learnt_prompt_cannot_be_trained_on(model, chats):
    from peft import PromptTuningConfig, get_peft_model

    start = get_peft_model(model, PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2))
    with pytest.raises(ValueError, match="cannot be merged"):
        finetune(start, chats, QUICK)


def test_a_replaced_forward_does_not_pass_to_the_clone(model, chats):
    config = replace(QUICK, steps=2)
    plain = finetune(model, chats, config)
    block, seen = model.model.layers[0], []
    block.forward = lambda *args, **options: seen.append(1) or type(block).forward(block, *args, **options)
    again = finetune(model, chats, replace(config, warmup_steps=0))
    assert again.caft_run["model"] == plain.caft_run["model"] and not seen


def test_a_finetuned_model_that_is_changed_loses_its_name(model, chats):
    from caft_utils.models.fingerprints import fingerprint, name_model

    name_model(model, "base")
    tuned = finetune(model, chats, replace(QUICK, steps=2))
    assert fingerprint(tuned) == tuned.caft_id
    with tuned.disable_adapter():
        assert fingerprint(tuned) == "base"
    assert fingerprint(tuned) == tuned.caft_id
    assert fingerprint(tuned.merge_and_unload()) not in (tuned.caft_id, "base")


@pytest.mark.parametrize("how", ["merge_and_unload", "merge_adapter"])
def test_merging_one_model_leaves_its_base_and_its_siblings_alone(model, chats, how):
    """They share the memory of the frozen weights, into which PEFT would write."""
    ids = torch.tensor([[5, 6, 7]])
    strong = replace(QUICK, lr=1e-1)
    one, other = finetune(model, chats, strong), finetune(model, chats, strong, seed=1)
    before = weights(model)
    with torch.no_grad():
        tuned, sibling = (each(input_ids=ids).logits for each in (one, other))
    merged = getattr(one, how)() or one
    with torch.no_grad():
        torch.testing.assert_close(merged(input_ids=ids).logits, tuned)
    further = finetune(merged, chats, replace(QUICK, steps=1))
    if how == "merge_adapter":
        one.unmerge_adapter()
    with torch.no_grad():
        assert same(before, weights(model)) and torch.equal(other(input_ids=ids).logits, sibling)
    assert further.caft_run["steps"] == 1
