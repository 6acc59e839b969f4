"""Names of what models compute: the same content has the same name, anything else has another one."""

from __future__ import annotations

import copy
import json
import sys

import pytest
import torch
from helpers.models import with_lora

from caft_utils.models.fingerprints import fingerprint, name_model
from caft_utils.store import digest

pytestmark = pytest.mark.filterwarnings("ignore")  # PEFT uses deprecated names, and warns of adapters


def lora(**changes):
    from peft import LoraConfig

    settings = dict(r=4, lora_alpha=16, target_modules=["q_proj", "up_proj"], init_lora_weights=False)
    return LoraConfig(**(settings | {"task_type": "CAUSAL_LM"} | changes))


def adapted(model, seed=1, adapter_name="default", **changes):
    from peft import get_peft_model

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return get_peft_model(model, lora(**changes), adapter_name=adapter_name)


@pytest.fixture
def named(model):
    name_model(model, "base")
    return model


@pytest.fixture
def two(named):
    """A model with adapters "a" (active) and "b"."""
    wrapped = adapted(named, adapter_name="a")
    wrapped.add_adapter("b", lora())
    return wrapped


def same_logits(one, other):
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        return torch.equal(one(ids).logits, other(ids).logits)


def test_the_name_of_a_model_without_a_name_is_a_hash_of_its_config_and_weights(model, tiny):
    from hashlib import sha256

    config = model.config.to_dict()
    for unused in ("_name_or_path", "transformers_version", "dtype", "use_cache"):
        config.pop(unused, None)
    expected = sha256(digest(json.loads(json.dumps(config, default=str))).encode())
    for name, value in sorted(model.state_dict().items()):
        expected.update(f"{name} {value.dtype} {tuple(value.shape)}".encode() + value.numpy().tobytes())
    assert fingerprint(model) == fingerprint(tiny("qwen2")) == expected.hexdigest()


def change_one_weight(model):
    with torch.no_grad():
        model.model.layers[2].mlp.up_proj.weight[3, 4] += 1e-3


def flip_two_signs(model):
    with torch.no_grad():
        model.model.layers[0].mlp.up_proj.weight[0, [1, 3]] *= -1


def swap_two_rows(model):
    weight = model.model.layers[0].mlp.up_proj.weight
    weight.data = weight.data[[1, 0, *range(2, len(weight))]]


def swap_two_blocks(model):
    blocks = model.model.layers
    blocks[0], blocks[1] = blocks[1], blocks[0]


def edit_the_data(model):
    model.model.norm.weight.data.mul_(1.5)  # leaves no trace in `_version`


def replace_a_parameter(model):
    model.model.norm.weight = torch.nn.Parameter(model.model.norm.weight.detach() * 2)


CHANGES = {
    "one weight": change_one_weight,
    "two signs": flip_two_signs,
    "rows": swap_two_rows,
    "blocks": swap_two_blocks,
    "data": edit_the_data,
    "a parameter": replace_a_parameter,
    "half": lambda model: model.half(),
    "double": lambda model: model.double(),
    "config": lambda model: setattr(model.config, "sliding_window", 3),
    "frequencies": lambda model: model.model.rotary_emb.inv_freq.mul_(0.5),
    "fewer blocks": lambda model: setattr(model.model, "layers", model.model.layers[:2]),
    "an added buffer": lambda model: model.register_buffer("further", torch.ones(2)),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_change_ends_a_name_and_undoing_it_restores_it(tiny, change):
    models = tiny("qwen2"), tiny("qwen2")
    name_model(models[0], "base")
    copied = copy.deepcopy(models[0])
    for model in models:
        change(model)
    assert fingerprint(models[0]) == fingerprint(models[1])  # the history of an object does not matter
    assert len({"base", fingerprint(tiny("qwen2")), fingerprint(models[0])}) == 3
    assert fingerprint(copied) == "base"  # a copy keeps the name, because it keeps the weights
    change(copied)
    assert fingerprint(copied) == fingerprint(models[0])


def test_a_name_returns_with_its_weights(named):
    weight = named.model.norm.weight
    with torch.no_grad():
        weight += 1
        assert fingerprint(named) != "base"
        weight -= 1
    assert fingerprint(named) == "base"
    named.caft_id = "somebody else's"
    assert fingerprint(named) == "base"


def test_settings_that_compute_nothing_do_not_end_a_name(named):
    named.config.use_cache, named.config.pad_token_id = False, 2
    named.train().requires_grad_(False)
    assert fingerprint(named) == "base"
    compiled = torch.nn.Module()
    compiled._orig_mod = named  # what torch.compile returns
    assert fingerprint(compiled) == "base"


def test_rounded_weights_are_not_rounded_frequencies(tiny, tmp_path):
    """Loading in bfloat16 leaves the frequencies of the rotary embedding exact, `model.to` does not."""
    from transformers import AutoModelForCausalLM

    tiny("qwen2").save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.bfloat16)
    again = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.bfloat16)
    cast = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).to(torch.bfloat16)
    assert fingerprint(loaded) == fingerprint(again) != fingerprint(cast)


def test_an_adapter_names_the_model_only_while_it_acts(two, named):
    names = {"a": fingerprint(two)}
    assert fingerprint(named) == names["a"]  # PEFT changes the wrapped model itself
    with two.disable_adapter():
        assert fingerprint(two) == fingerprint(named) == "base"
    two.set_adapter("b")
    names["b"] = fingerprint(two)
    two.base_model.set_adapter(["a", "b"])
    names["both"] = fingerprint(two)
    two.base_model.set_adapter(["b", "a"])
    assert fingerprint(two) == names["both"]
    two.set_adapter("a")
    assert fingerprint(two) == names["a"] and len({"base", *names.values()}) == 4
    two.delete_adapter("b")
    assert fingerprint(two) == names["a"]
    two.add_adapter("c", lora())
    assert fingerprint(two) == names["a"]


def test_the_name_of_an_adapter_does_not_matter_nor_where_it_was_read_from(tiny, tmp_path):
    from peft import PeftModel

    first = adapted(tiny("qwen2"), adapter_name="mine")
    first.save_pretrained(tmp_path)
    second = PeftModel.from_pretrained(tiny("qwen2"), tmp_path / "mine", adapter_name="yours")
    third = tiny("qwen2")
    third.load_adapter(str(tmp_path / "mine"))  # without a wrapper
    assert same_logits(first.eval(), second) and fingerprint(first) == fingerprint(second)
    assert same_logits(second, third.eval()) and fingerprint(third) == fingerprint(second)
    third.disable_adapters()
    assert fingerprint(third) == fingerprint(tiny("qwen2"))


def scale(wrapped, by=0.5):
    for module in wrapped.modules():
        if hasattr(module, "scale_layer"):
            module.scale_layer(by)


def edit_adapter(wrapped):
    next(p for n, p in wrapped.named_parameters() if "lora_B" in n).data.mul_(2)


def add_weighted(wrapped):
    wrapped.add_adapter("b", lora())
    wrapped.add_weighted_adapter(["default", "b"], [0.5, 0.5], "mix", combination_type="linear")
    wrapped.set_adapter("mix")


@pytest.mark.parametrize("change", [scale, edit_adapter, add_weighted, lambda m: m.merge_adapter()])
def test_what_changes_an_adapter_changes_the_name(named, change):
    wrapped = adapted(named)
    name_model(wrapped, "tuned")
    change(wrapped)
    assert fingerprint(wrapped) not in ("tuned", "base")


@pytest.mark.parametrize(
    "changes",
    [{"lora_alpha": 8}, {"use_rslora": True}, {"use_dora": True}, {"target_modules": ["v_proj", "up_proj"]}],
)
def test_adapters_of_other_kinds_have_other_names(tiny, changes):
    assert fingerprint(adapted(tiny("qwen2"), **changes)) != fingerprint(adapted(tiny("qwen2")))


def test_merged_adapters_are_weights(two, named):
    acting = fingerprint(two)
    two.merge_adapter(["a"])
    merged = fingerprint(two)
    with two.disable_adapter():  # the next forward pass takes the adapter out of the weights
        assert fingerprint(two) not in (merged, acting)
    plain = two.merge_and_unload()
    assert plain is named and fingerprint(plain) == merged


def other_kinds():
    import peft

    task = {"task_type": "CAUSAL_LM"}
    return {
        "ia3": peft.IA3Config(**task, target_modules=["k_proj", "up_proj"], feedforward_modules=["up_proj"]),
        "loha": peft.LoHaConfig(**task, target_modules=["q_proj"]),
        "vera": peft.VeraConfig(**task, target_modules=["q_proj"], r=4),
        "prompt": peft.PromptTuningConfig(**task, num_virtual_tokens=3),
        "prefix": peft.PrefixTuningConfig(**task, num_virtual_tokens=3),
        "tokens": peft.TrainableTokensConfig(**task, token_indices=[5, 6]),
        "modules_to_save": lora(modules_to_save=["lm_head"]),
        "lora and tokens": lora(trainable_token_indices=[5, 6]),
    }


KINDS = ["ia3", "loha", "vera", "prompt", "prefix", "tokens", "modules_to_save", "lora and tokens"]


@pytest.mark.parametrize("kind", KINDS)
def test_adapters_of_every_kind(tiny, kind):
    from peft import get_peft_model

    base = tiny("qwen2")
    name_model(base, "base")
    torch.manual_seed(0)
    wrapped = get_peft_model(base, other_kinds()[kind])
    first = fingerprint(wrapped)
    assert first != "base" and fingerprint(copy.deepcopy(wrapped)) == first
    with wrapped.disable_adapter():
        assert fingerprint(wrapped) == "base"
    assert fingerprint(wrapped) == first
    names = [first]
    for parameter in [p for p in wrapped.parameters() if p.requires_grad]:
        parameter.data.add_(0.5)
        names.append(fingerprint(wrapped))
    assert len(names) > 1 and len(set(names)) == len(names)


def test_offloaded_weights_are_read_where_they_are(tiny, tmp_path):
    from accelerate import cpu_offload, disk_offload

    expected = fingerprint(tiny("qwen2"))
    assert fingerprint(cpu_offload(tiny("qwen2"), "cpu")) == expected
    assert fingerprint(disk_offload(tiny("qwen2"), str(tmp_path), "cpu")) == expected


def test_weights_that_cannot_be_read_have_no_name(named):
    with pytest.raises(ValueError, match="meta device"):
        fingerprint(named.to("meta"))


def test_a_name_does_not_import_peft(model, monkeypatch):
    for name in [name for name in sys.modules if name == "peft" or name.startswith("peft.")]:
        monkeypatch.delitem(sys.modules, name)
    assert fingerprint(model) and "peft" not in sys.modules


def test_a_fresh_wrapper_keeps_its_own_name(named):
    wrapped = with_lora(named)
    name_model(wrapped, "wrapped")
    assert fingerprint(wrapped) == "wrapped"
    with wrapped.disable_adapter():
        assert fingerprint(wrapped) == "base"


def test_packed_weights_of_quantised_layers_count(tiny):
    def quantised(factor):
        model = tiny("qwen2")
        model.model.layers[1].mlp.up_proj.weight.data[0] *= factor
        return torch.ao.quantization.quantize_dynamic(model, {torch.nn.Linear}, dtype=torch.qint8)

    names = [fingerprint(quantised(factor)) for factor in (1, 1, 3)]
    assert names[0] == names[1] != names[2] and fingerprint(tiny("qwen2")) not in names
