"""Models from files: exactly the weights of the checkpoint or an error, and never its code."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from caft_utils.models import load


def change_weights(folder, change):
    path = folder / "model.safetensors"
    save_file(change(load_file(path)), path, metadata={"format": "pt"})


def change_config(folder, **values):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def without(part):
    return lambda saved: {name: value for name, value in saved.items() if part not in name}


def prefixed(prefix):
    return lambda saved: {prefix + name: value for name, value in saved.items()}


@pytest.mark.parametrize(
    "change, named",
    [
        (without("layers.1.mlp.up_proj"), "layers.1.mlp.up_proj"),
        (without("norm"), "norm"),
        (without("lm_head"), "lm_head"),  # not tied to the embedding in this model
        (prefixed("base_model.model."), "PEFT"),
        (prefixed("module."), "DataParallel"),
        (prefixed("_orig_mod."), "compile"),
        (lambda saved: saved | {"v_head.weight": torch.zeros(3)}, "v_head"),
        (lambda saved: saved | {"model.norm.weight": torch.zeros(3)}, "shapes"),
        (lambda saved: {k.replace("layers.2", "layers.7"): v for k, v in saved.items()}, "layers.7"),
    ],
)
def test_weights_that_do_not_fit_are_refused(checkpoint, change, named):
    change_weights(checkpoint, change)
    with pytest.raises(ValueError, match=named):
        load(checkpoint)


def test_harmless_names_and_tied_weights_are_no_fault(checkpoint, tiny, tmp_path, tokenizer):
    buffer = "model.layers.0.self_attn.rotary_emb.inv_freq"
    change_weights(checkpoint, lambda saved: saved | {buffer: torch.zeros(8)})
    load(checkpoint)
    tied = tiny("qwen2", tie_word_embeddings=True)
    tied.save_pretrained(tmp_path / "tied")
    tokenizer.save_pretrained(tmp_path / "tied")
    assert "lm_head.weight" not in load_file(tmp_path / "tied" / "model.safetensors")
    assert torch.equal(load(tmp_path / "tied")[0].lm_head.weight, tied.lm_head.weight)


def test_missing_files_are_named(checkpoint):
    weights = checkpoint / "model.safetensors"
    weights.rename(checkpoint / "pytorch_model.bin")
    with pytest.raises(FileNotFoundError, match=r"pytorch_model\.bin"):
        load(checkpoint)
    (checkpoint / "pytorch_model.bin").rename(checkpoint / "model-1.safetensors")
    index = {"lm_head.weight": "model-1.safetensors", "model.norm.weight": "model-2.safetensors"}
    (checkpoint / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    with pytest.raises(FileNotFoundError, match=r"model-2\.safetensors"):
        load(checkpoint)
    (checkpoint / "model.safetensors.index.json").write_text('{"weight_map": ')
    with pytest.raises(ValueError, match=r"index\.json"):
        load(checkpoint)


@pytest.mark.parametrize("text", ["{", "[]", '{"model_type": "no-such-type"}', '{"model_type": "t5"}', "{}"])
def test_configs_of_no_decoder(checkpoint, text):
    (checkpoint / "config.json").write_text(text)
    with pytest.raises(ValueError, match="saved"):
        load(checkpoint)


EVIL = "open({flag!r}, 'w').write('x')\n"


@pytest.mark.parametrize("where", ["model", "tokenizer"])
def test_code_of_the_checkpoint_is_never_run_nor_asked_about(checkpoint, tmp_path, monkeypatch, where):
    """Left to itself, transformers asks on stdin, and "y" runs the code."""
    flag = tmp_path / "executed"
    (checkpoint / "evil.py").write_text(EVIL.format(flag=str(flag)))
    if where == "model":
        auto_map = {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"}
        change_config(checkpoint, model_type="evil", auto_map=auto_map)
    else:
        settings = {"tokenizer_class": "Evil", "auto_map": {"AutoTokenizer": ["evil.Tokenizer", None]}}
        (checkpoint / "tokenizer_config.json").write_text(json.dumps(settings))
    asked = []
    monkeypatch.setattr("builtins.input", lambda *question: asked.append(question) or "y")
    with pytest.raises(ValueError, match="auto_map"):
        load(checkpoint)
    assert not asked and not flag.exists()


def test_an_architecture_that_transformers_knows_needs_no_code(checkpoint, tmp_path):
    flag = tmp_path / "executed"
    (checkpoint / "evil.py").write_text(EVIL.format(flag=str(flag)))
    change_config(checkpoint, auto_map={"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"})
    assert type(load(checkpoint)[0]).__module__.startswith("transformers.") and not flag.exists()


@pytest.mark.parametrize("kind", ["mistral3", "gemma3"])
def test_the_text_part_of_a_model_of_text_and_images(multimodal, kind, tmp_path, tokenizer):
    whole = multimodal(kind)
    whole.save_pretrained(tmp_path / kind)
    tokenizer.save_pretrained(tmp_path / kind)
    loaded, _ = load(tmp_path / kind)
    ids = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        assert torch.equal(loaded(input_ids=ids).logits, whole(input_ids=ids).logits)


@pytest.mark.parametrize("dtype", ["flaot32", "int8", 7])
def test_a_dtype_that_is_none(checkpoint, dtype):
    with pytest.raises(ValueError, match="dtype"):
        load(checkpoint, dtype=dtype)


@pytest.mark.parametrize("values", [{"hidden_act": ["silu"]}, {"rope_parameters": 5}, {"hidden_act": "s"}])
def test_values_that_no_model_can_be_made_of_are_refused(checkpoint, values):
    change_config(checkpoint, **values)
    with pytest.raises(ValueError, match="config.json"):
        load(checkpoint)
