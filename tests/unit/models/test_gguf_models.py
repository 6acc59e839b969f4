"""Models from GGUF files compute what the original computes, whatever llama.cpp stores otherwise."""

from __future__ import annotations

import json

import pytest
import torch
import transformers
from helpers.gguf import (
    architecture_fields,
    f16,
    f32,
    q4_0,
    q4_1,
    q8_0,
    randomised,
    save_as_gguf,
    tokenizer_fields,
    write_gguf,
)
from helpers.tiny import VOCABULARY

from caft_utils.models import fingerprint, load
from caft_utils.models.gguf_architectures import config_of
from caft_utils.models.gguf_files import GGUFFile
from caft_utils.models.gguf_tokenizers import tokenizer_of

SHAPE = dict(
    vocab_size=VOCABULARY,
    hidden_size=64,
    intermediate_size=96,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=16,
    max_position_embeddings=256,
    rms_norm_eps=1e-3,
    rope_parameters={"rope_type": "default", "rope_theta": 500.0},
    bos_token_id=1,
    eos_token_id=2,
    pad_token_id=0,
)
LINEAR = {"rope_type": "linear", "rope_theta": 500.0, "factor": 4.0}
GEMMA3_ROPE = {
    "full_attention": LINEAR,
    "sliding_attention": {"rope_type": "default", "rope_theta": 10_000.0},
}
SOFT = dict(attn_logit_softcapping=5.0, final_logit_softcapping=3.0)
CASES = {
    "llama": ("Llama", {}),
    "llama tied": ("Llama", dict(tie_word_embeddings=True)),
    "llama biased": ("Llama", dict(attention_bias=True)),
    "llama linear": ("Llama", dict(rope_parameters=LINEAR)),
    "qwen2": ("Qwen2", dict(head_dim=None)),
    "qwen3": ("Qwen3", dict(head_dim=32)),
    "gemma": ("Gemma", dict(head_dim=32)),
    "gemma2": ("Gemma2", dict(sliding_window=4, query_pre_attn_scalar=16, **SOFT)),
    "gemma3": (
        "Gemma3",
        dict(num_hidden_layers=7, sliding_window=4, query_pre_attn_scalar=16, rope_parameters=GEMMA3_ROPE),
    ),
}
IDS = torch.tensor([[5, 6, 7, 8, 9, 10, 200, 12, 13, 14, 15, 16]])


def build(case: str, **changes):
    """Return a random model of a case."""
    name, own = CASES[case]
    values = SHAPE | own | changes
    if values["head_dim"] is None:
        del values["head_dim"]
    config_name = "Gemma3TextConfig" if name == "Gemma3" else f"{name}Config"
    config = getattr(transformers, config_name)(**values)
    return randomised(getattr(transformers, f"{name}ForCausalLM")(config).eval())


@pytest.mark.parametrize("case", CASES)
def test_logits_are_those_of_the_original(case, tokenizer, tmp_path):
    model = build(case)
    pack = {"llama": q4_1, "llama tied": q4_0, "qwen2": f16}.get(case, q8_0)
    path = save_as_gguf(model, tmp_path / "m.gguf", tokenizer_fields(tokenizer, "gpt-2"), pack)
    loaded, its_tokenizer = load(path, device="cpu")
    assert type(loaded) is type(model) and loaded.dtype == torch.float32 and not loaded.training
    with torch.no_grad():
        found, expected = loaded(IDS).logits, model(IDS).logits
    assert expected.std() > 0.1
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    assert its_tokenizer.chat_template == tokenizer.chat_template


def test_the_layout_matters(tokenizer, tmp_path):
    """Neither a rotary embedding nor a norm that is read otherwise would go unnoticed here."""
    model = build("llama")
    path = save_as_gguf(model, tmp_path / "m.gguf", tokenizer_fields(tokenizer, "gpt-2"))
    loaded, _ = load(path, device="cpu")
    with torch.no_grad():
        expected = model(IDS).logits
        for block in loaded.model.layers:
            rows = block.self_attn.q_proj.weight
            rows.copy_(rows.reshape(4, 2, 8, 64).transpose(1, 2).reshape(64, 64))
        assert (loaded(IDS).logits - expected).abs().max() > 0.01


def test_names_are_those_of_the_gguf_package(tmp_path):
    gguf = pytest.importorskip("gguf", reason="the gguf package is not installed (requirements-test.txt)")
    from caft_utils.models.gguf_architectures import ARCHITECTURES
    from caft_utils.models.gguf_weights import gguf_name

    kinds = {name: kind for kind, name in gguf.MODEL_ARCH_NAMES.items()}
    cases = {case: build(case) for case in CASES if case in ARCHITECTURES}
    assert set(cases) == set(ARCHITECTURES)
    for case, model in cases.items():
        names = gguf.get_tensor_name_map(kinds[case], model.config.num_hidden_layers)
        for name, _ in model.named_parameters():
            assert gguf_name(case, name) == names.get_name(name, (".weight", ".bias")), (case, name)


def test_a_file_is_converted_once_into_a_folder_that_others_read(tokenizer, tmp_path, store_folder):
    model = build("llama")
    path = save_as_gguf(model, tmp_path / "m.gguf", tokenizer_fields(tokenizer, "gpt-2"))
    loaded, _ = load(path, device="cpu")
    assert loaded.caft_id.startswith("gguf-") and fingerprint(loaded) == loaded.caft_id
    (folder,) = (store_folder / "gguf").iterdir()
    about = json.loads((folder / "source.json").read_text())
    assert about["file"] == "m.gguf" and about["licence"] == "apache-2.0"
    other = transformers.AutoModelForCausalLM.from_pretrained(folder)
    assert torch.equal(other(IDS).logits, loaded(IDS).logits)
    assert other.generation_config.eos_token_id == 2
    assert transformers.AutoTokenizer.from_pretrained(folder)("you are")["input_ids"]
    written = (folder / "model.safetensors").stat().st_mtime_ns
    assert load(path, device="cpu")[0].caft_id == loaded.caft_id
    assert (folder / "model.safetensors").stat().st_mtime_ns == written
    moved = path.rename(tmp_path / "moved.GGUF")
    assert load(moved, device="cpu")[0].caft_id == loaded.caft_id


REFUSED = {
    "another architecture": ({"general.architecture": "falcon"}, "falcon"),
    "one of several parts": ({"split.count": 2}, "one of 2 parts"),
    "experts": ({"llama.expert_count": 8}, "mixture of experts"),
    "yarn": ({"llama.rope.scaling.type": "yarn"}, "yarn"),
    "partial rotation": ({"llama.rope.dimension_count": 8}, "rope.dimension_count"),
    "an unknown field": ({"llama.attention.scale": 0.5}, "attention.scale is not known"),
    "a narrower value": ({"llama.attention.value_length": 8}, "value_length is not the width"),
    "many blocks": ({"llama.block_count": 2**31 - 1}, "announces 2147483647 blocks"),
    "more blocks": ({"llama.block_count": 3}, "lacks the tensor blk.2"),
    "fewer blocks": ({"llama.block_count": 1}, "no place in the model.*blk.1"),
    "no heads": ({"llama.attention.head_count": 0}, "head_count is 0"),
    "another width": ({"llama.embedding_length": 128}, "do not fit together"),
    "wide": ({"llama.feed_forward_length": 2**31 - 1}, "shape"),
    "heads that differ": ({"llama.attention.head_count_kv": [1, 2]}, "differs between blocks"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_read_is_refused_by_name(case, tokenizer, tmp_path, store_folder):
    changes, message = REFUSED[case]
    path = save_as_gguf(build("llama"), tmp_path / "m.gguf", tokenizer_fields(tokenizer, "gpt-2") | changes)
    with pytest.raises(ValueError, match=message):
        load(path)
    assert not list((store_folder / "gguf").iterdir())


def test_missing_tensors_and_scaled_frequencies_are_named(tokenizer, tmp_path):
    model = build("llama")
    fields = architecture_fields(model.config, "llama") | tokenizer_fields(tokenizer, "gpt-2")
    fields["llama.block_count"] = 1
    values = torch.ones(VOCABULARY, 64).numpy()
    kind, data, _ = f32(values)
    embedding = {"token_embd.weight": (values.shape, kind, data)}
    factors = {"rope_freqs.weight": ((8,), 0, b"\0\0\x80\x3f" * 8)}
    with pytest.raises(ValueError, match="rope_freqs.weight"):
        load(write_gguf(tmp_path / "b.gguf", fields, embedding | factors))
    with pytest.raises(ValueError, match="token_embd.weight"):
        load(write_gguf(tmp_path / "c.gguf", fields, factors))


ODD = [0, 2**32 - 1, 0.5, float("nan"), "odd", ["a", "b"], [-1, 2**20], [1] * VOCABULARY]


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_a_field_of_another_kind_is_no_other_error(kind, tokenizer, tmp_path):
    model = build("llama", num_hidden_layers=1)
    fields = architecture_fields(model.config, "llama") | tokenizer_fields(tokenizer, "gpt-2")
    fields |= {"tokenizer.ggml.model": kind, "tokenizer.ggml.add_eos_token": True}
    if kind == "llama":
        fields["tokenizer.ggml.scores"] = [-float(i) for i in range(len(tokenizer))]
        fields["tokenizer.ggml.bos_token_id"] = 1
    embedding = {"token_embd.weight": ((VOCABULARY, 64), 0, bytes(4 * 64 * VOCABULARY))}
    for name in fields:
        for value in ODD:
            with GGUFFile(write_gguf(tmp_path / "m.gguf", fields | {name: value}, embedding)) as file:
                for read in (config_of, tokenizer_of):
                    try:
                        read(file)
                    except ValueError as error:
                        assert "m.gguf" in str(error), (name, value)


def test_a_path_that_leads_nowhere(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no file .*none.gguf"):
        load(tmp_path / "none.gguf")
