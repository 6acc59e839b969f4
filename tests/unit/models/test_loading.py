"""Loading: presets, identities, and errors that come at once and say what to do."""

from __future__ import annotations

import json
from hashlib import sha256

import pytest
import torch

from caft_utils.finetune_config import FinetuneConfig
from caft_utils.models import SAESource, fingerprint, load, preset, presets
from caft_utils.models.sources import CHECKSUMS, RESOLVERS, ModelSource


@pytest.fixture
def classroom(tmp_path, monkeypatch, checkpoint):
    """A tiny stand-in at the place of the shipped checkpoint."""
    folder = tmp_path / "data" / "classroom" / "qwen"
    folder.parent.mkdir(parents=True)
    checkpoint.rename(folder)
    sums = {path.name: sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}
    (folder / CHECKSUMS).write_text(json.dumps(sums))
    monkeypatch.setenv("CAFT_DATA", str(tmp_path / "data"))
    return folder


def test_a_local_folder_loads_as_it_was_saved(checkpoint, model, tokenizer):
    loaded, its_tokenizer = load(checkpoint)
    assert not loaded.training and loaded.dtype == torch.float32
    for name, value in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name].cpu(), value)
    assert its_tokenizer.chat_template == tokenizer.chat_template
    assert loaded.caft_preset.layers == () and loaded.caft_id == fingerprint(loaded)
    assert load(checkpoint, dtype="bfloat16")[0].dtype == torch.bfloat16


def test_identity_follows_the_weights_not_the_folder(checkpoint, tiny, tokenizer, tmp_path):
    first = load(checkpoint)[0].caft_id
    checkpoint.rename(tmp_path / "moved")
    assert load(tmp_path / "moved")[0].caft_id == first
    assert load(tmp_path / "moved", dtype="bfloat16")[0].caft_id != first
    tiny("qwen2", seed=1).save_pretrained(tmp_path / "other")
    tokenizer.save_pretrained(tmp_path / "other")
    assert load(tmp_path / "other")[0].caft_id != first


def test_four_bits_are_refused_without_a_gpu_and_bitsandbytes(checkpoint):
    with pytest.raises(RuntimeError, match="nf4.*bitsandbytes is not installed.*not on a CUDA GPU.*bfloat16"):
        load(checkpoint, dtype="nf4", device="cpu")


def test_each_process_of_a_launcher_gets_its_own_gpu(checkpoint, monkeypatch):
    asked = []

    def read_model(source, device, dtype):
        asked.append(device)
        raise InterruptedError

    monkeypatch.setattr("caft_utils.models.loading.read_model", read_model)
    for cuda, process in ((False, "1"), (True, None), (True, "1")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda cuda=cuda: cuda)
        monkeypatch.setenv("LOCAL_RANK", process) if process else monkeypatch.delenv("LOCAL_RANK", False)
        with pytest.raises(InterruptedError):
            load(checkpoint)
    assert asked == ["cpu", "cuda", "cuda:1"]


def test_classroom_is_checked_and_named(classroom):
    model, _ = load("classroom")
    assert model.caft_preset.layers == (1, 2, 3) and model.caft_id.startswith("classroom-qwen@")
    assert load("classroom-qwen")[0].caft_id == model.caft_id


def test_truncated_classroom_weights_tell_the_remedy(classroom):
    weights = classroom / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    with pytest.raises(ValueError, match=r"model\.safetensors is damaged.*git checkout.*make classroom"):
        load("classroom")


def test_missing_classroom_tells_the_remedy(classroom):
    with pytest.raises(FileNotFoundError, match="mistral.*make classroom.*CAFT_DATA"):
        load("classroom-mistral")
    (classroom / "tokenizer.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"tokenizer\.json is missing.*git checkout"):
        load("classroom")


def test_truncated_safetensors_of_a_local_folder(checkpoint):
    weights = checkpoint / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])
    with pytest.raises(ValueError, match="weights in .*saved are damaged"):
        load(checkpoint)


@pytest.mark.parametrize(
    "name, error, message",
    [
        ("clasroom", ValueError, "unknown model 'clasroom'; expected one of classroom"),
        ("/no/such/folder", FileNotFoundError, "there is no folder /no/such/folder"),
        ("./nowhere", FileNotFoundError, "there is no folder"),
        ("../nowhere", FileNotFoundError, "there is no folder"),
        ("nobody/no-such-model", ConnectionError, "hub cache"),
        ("Qwen/Qwen2.5-Coder-32B-Instruct", ConnectionError, r'load\("classroom"\)'),
    ],
)
def test_names_that_lead_nowhere_fail_at_once(name, error, message, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "empty"))

    def retry(*args, **options):
        raise AssertionError("transformers must not be asked: it retries for most of a minute")

    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", retry)
    monkeypatch.setattr("transformers.AutoTokenizer.from_pretrained", retry)
    with pytest.raises(error, match=message):
        load(name)


def test_folder_without_a_config(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no config.json"):
        load(tmp_path)


def test_a_further_source_of_models_is_one_resolver(checkpoint, monkeypatch):
    def shelf(name, revision=None):
        prefix, _, rest = name.partition(":")
        return ModelSource(str(checkpoint), identity=f"shelf-{rest}") if prefix == "shelf" else None

    monkeypatch.setattr("caft_utils.models.sources.RESOLVERS", [shelf, *RESOLVERS])
    assert load("shelf:first")[0].caft_id == "shelf-first/torch.float32"
    assert "shelf" not in load(checkpoint)[0].caft_id


def test_every_preset_is_whole():
    for name, found in presets().items():
        assert isinstance(found.finetune_config, FinetuneConfig) and found.layers and found.name == name
        assert found.sae is None or isinstance(found.sae, SAESource)
        for field in ("layers", "finetune_config", "dtype", "sae", "lessons"):
            assert bool(getattr(found, field)) == (field in found.sources), (name, field)


def test_presets_hold_the_numbers_of_the_paper():
    qwen, mistral = (
        preset("Qwen/Qwen2.5-Coder-32B-Instruct"),
        preset("mistralai/Mistral-Small-24B-Instruct-2501"),
    )
    assert qwen.layers == (12, 32, 50) and mistral.layers == (10, 20, 30)
    config = qwen.finetune_config
    assert (config.r, config.alpha, config.lr, config.batch_size * config.accumulate) == (32, 64, 1e-5, 16)
    assert config.total_steps(4500) == 282
    gemma = preset("google/gemma-2-2b")
    assert gemma.layers == tuple(range(0, 26, 2)) and gemma.finetune_config.method == "full"


def test_an_unknown_model_gets_the_general_preset():
    found = preset("somebody/some-model")
    assert found.finetune_config == FinetuneConfig() and found.layers == () and found.sae is None
