"""The collection of SAEs: ready for inference, the same bits after a reload, damaged files refused."""

from __future__ import annotations

import json

import pytest
import torch
from helpers.saes import random_sae

from caft_utils.saes import SAEs


def test_decoder_rows_get_length_one_and_nothing_else_changes():
    sae = random_sae()
    h = torch.randn(20, 64)
    latents, output, norms = sae.encode(h), sae(h), sae.W_dec.norm(dim=1)
    saes = SAEs({3: sae})
    torch.testing.assert_close(saes.decoder(3).norm(dim=1), torch.ones(32))
    torch.testing.assert_close(saes.encode(3, h), latents * norms)
    torch.testing.assert_close(saes.reconstruct(3, h), output)
    torch.testing.assert_close(sae.W_dec.norm(dim=1), norms)  # the caller's own SAE is left alone
    assert not saes.encode(3, h).requires_grad and saes.encode(3, h.bfloat16()).dtype == torch.float32


@pytest.fixture
def saved(tmp_path):
    saes = SAEs({-1: random_sae(), 2: random_sae(16, seed=1)}, {2: {"l0": 3.5}})
    return saes, saes.save(tmp_path / "saes")


def test_save_and_load_give_the_same_bits(saved):
    saes, folder = saved
    loaded = SAEs.load(folder)
    assert loaded.layers == [-1, 2] and loaded.about == {-1: {}, 2: {"l0": 3.5}}
    assert loaded.fingerprint == saes.fingerprint and "2: 16" in repr(loaded)
    SAEs({0: random_sae()}).save(folder)
    assert SAEs.load(folder).layers == [0] and not (folder / "layer_2").exists()


@pytest.mark.parametrize("what", ["weights", "config", "missing", "card", "format", "about"])
def test_damaged_files_are_refused(saved, what):
    folder = saved[1]
    if what == "weights":
        path = folder / "layer_2" / "sae_weights.safetensors"
        path.write_bytes(path.read_bytes()[:-4] + b"\0\0\0\1")
    elif what == "config":
        path = folder / "layer_2" / "cfg.json"
        path.write_text(path.read_text().replace("true", "false", 1))
    elif what == "missing":
        (folder / "layer_-1" / "cfg.json").unlink()
    elif what == "card":
        (folder / "saes.json").write_text("{")
    elif what == "about":
        card = json.loads((folder / "saes.json").read_text())
        card["about"]["2"]["l0"] = 99.0
        (folder / "saes.json").write_text(json.dumps(card))
    else:
        card = json.loads((folder / "saes.json").read_text())
        (folder / "saes.json").write_text(json.dumps(card | {"format": 99}))
    with pytest.raises(ValueError, match="damaged; train or save them again"):
        SAEs.load(folder)


def test_a_folder_without_a_card_is_not_saes(saved):
    (saved[1] / "saes.json").unlink()
    with pytest.raises(FileNotFoundError, match="no saes.json"):
        SAEs.load(saved[1])


def test_saving_again_touches_only_what_it_wrote(saved):
    folder = saved[1]
    for mine in ("layer_notes", "layer_2"):
        (folder / mine).mkdir(exist_ok=True)
        (folder / mine / "mine.txt").write_text("kept")
    card = json.loads((folder / "saes.json").read_text())
    card["sha256"] |= {"layer_notes/../mine.txt": "", "../mine.txt": "", "layer_notes": ""}
    (folder / "saes.json").write_text(json.dumps(card))
    SAEs({0: random_sae()}).save(folder)
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    new = {"saes.json", "layer_0/cfg.json", "layer_0/sae_weights.safetensors"}
    assert names == new | {"layer_notes/mine.txt", "layer_2/mine.txt"}
    assert SAEs.load(folder).layers == [0]


def test_a_full_disk_leaves_the_old_one_whole(saved, monkeypatch):
    def full(self, path):
        raise RuntimeError("I/O error: No space left on device (os error 28)")

    other = SAEs({0: random_sae()})
    monkeypatch.setattr(type(other[0]), "save_model", full)
    with pytest.raises(OSError, match="is full; free some space"):
        other.save(saved[1])
    assert SAEs.load(saved[1]).fingerprint == saved[0].fingerprint
    assert {path.name for path in saved[1].iterdir()} == {"layer_-1", "layer_2", "saes.json"}


def test_a_save_that_fails_leaves_a_folder_that_is_not_loaded(saved, monkeypatch):
    from pathlib import Path

    def fail(self, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError):
        saved[0].save(saved[1])
    with pytest.raises(FileNotFoundError):
        SAEs.load(saved[1])


def test_wrong_saes_are_refused():
    from sae_lens import BatchTopKTrainingSAE, BatchTopKTrainingSAEConfig

    with pytest.raises(ValueError, match="no SAE given"):
        SAEs({})
    with pytest.raises(TypeError, match="training SAE, in which the tokens of a batch compete"):
        SAEs({0: BatchTopKTrainingSAE(BatchTopKTrainingSAEConfig(d_in=8, d_sae=16, k=2))})
    with pytest.raises(ValueError, match="one width, got {0: 64, 1: 32}"):
        SAEs({0: random_sae(), 1: random_sae(d=32)})
    spoilt = random_sae()
    spoilt.W_enc.data[0, 0] = float("nan")
    with pytest.raises(ValueError, match="layer 4 has weights that are not finite"):
        SAEs({4: spoilt})
    saes = SAEs({0: random_sae()})
    with pytest.raises(ValueError, match="reads hidden states of width 64, got shape"):
        saes.encode(0, torch.randn(3, 65))
    with pytest.raises(KeyError, match=r"no SAE at layer 1; there are some at \[0\]"):
        saes[1]
    with pytest.raises(ValueError, match=r"names the layers \[3\]"):
        SAEs({0: random_sae()}, {3: {}})


@pytest.mark.parametrize("right", ["blocks.1.hook_resid_post", "blocks.2.hook_resid_pre", "model.layers.1"])
@pytest.mark.parametrize("wrong", ["blocks.1.hook_mlp_out", "blocks.1.hook_resid_pre", "model.layers.3"])
def test_the_site_in_the_metadata_is_that_of_the_layer(right, wrong):
    sae = random_sae()
    sae.cfg.metadata.hook_name = right
    assert SAEs({1: sae}).layers == [1]
    sae.cfg.metadata.hook_name = wrong
    with pytest.raises(ValueError, match="layer 1"):
        SAEs({1: sae})


def test_the_fingerprint_follows_weights_that_are_changed_in_place():
    saes = SAEs({1: random_sae()})
    before = saes.fingerprint
    assert saes.fingerprint == before
    for name, weight in saes[1].state_dict().items():
        weight[..., 0] += 1
        changed = saes.fingerprint
        weight[..., 0] -= 1
        assert changed != before, name


def test_settings_that_change_activations_are_in_the_fingerprint():
    saes = SAEs({1: random_sae()})
    before = saes.fingerprint
    saes[1].cfg.normalize_activations = "layer_norm"
    assert saes.fingerprint != before
