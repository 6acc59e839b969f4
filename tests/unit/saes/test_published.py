"""Published SAEs: each real layout gives the published arithmetic, and no file can run code."""

from __future__ import annotations

import json
import os
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch

from caft_utils.models import preset
from caft_utils.saes import SAEs, published_saes

D, LATENTS = 16, 40
QWEN, MISTRAL = "Qwen/Qwen2.5-Coder-32B-Instruct", "mistralai/Mistral-Small-24B-Instruct-2501"


def unit_rows(rows):
    return rows / rows.norm(dim=1, keepdim=True)


def dictionary_learning(folder, layer, **changes):
    """Files as dictionary_learning's BatchTopK trainer writes them; returns the tensors."""
    generator = torch.Generator().manual_seed(layer)
    saved = {
        "b_dec": torch.randn(D, generator=generator),
        "k": torch.tensor(5, dtype=torch.int),
        "threshold": torch.tensor(0.7),
        "decoder.weight": unit_rows(torch.randn(LATENTS, D, generator=generator)).T.contiguous(),
        "encoder.weight": torch.randn(LATENTS, D, generator=generator) * 0.4,
        "encoder.bias": torch.randn(LATENTS, generator=generator) * 0.2,
    } | changes
    trainer = {"trainer_class": "BatchTopKTrainer", "dict_class": "BatchTopKSAE", "layer": layer, "k": 5}
    trainer |= {"activation_dim": D, "dict_size": LATENTS, "lm_name": "some/model"}
    folder.mkdir(parents=True)
    torch.save({name: value for name, value in saved.items() if value is not None}, folder / "ae.pt")
    (folder / "config.json").write_text(json.dumps({"trainer": trainer, "buffer": {"ctx_len": 2048}}))
    return saved


def gemma_scope(folder, layer):
    rng = np.random.default_rng(layer)
    rows = rng.standard_normal((LATENTS, D), dtype=np.float32)
    saved = {
        "W_enc": rng.standard_normal((D, LATENTS), dtype=np.float32) * 0.4,
        "W_dec": rows / np.linalg.norm(rows, axis=1, keepdims=True),
        "b_enc": rng.standard_normal(LATENTS, dtype=np.float32) * 0.2,
        "b_dec": rng.standard_normal(D, dtype=np.float32),
        "threshold": rng.random(LATENTS, dtype=np.float32),
    }
    folder.mkdir(parents=True)
    np.savez(folder / "params.npz", **saved)
    return saved


def check_dictionary_learning(saes, layer, saved, h):
    """The published encode and decode, written out."""
    pre = torch.nn.functional.linear(h - saved["b_dec"], saved["encoder.weight"], saved["encoder.bias"])
    latents = torch.relu(pre) * (torch.relu(pre) > saved["threshold"])
    assert 0 < (latents > 0).float().mean() < 1
    torch.testing.assert_close(saes.encode(layer, h), latents)
    output = torch.nn.functional.linear(latents, saved["decoder.weight"]) + saved["b_dec"]
    torch.testing.assert_close(saes.reconstruct(layer, h), output)
    torch.testing.assert_close(saes.decoder(layer), saved["decoder.weight"].T)


@pytest.fixture
def h():
    return torch.randn(64, D, generator=torch.Generator().manual_seed(0)) * 2


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """hub(repository): the folder of its one snapshot in the hub's cache on this machine."""
    from huggingface_hub import constants

    def preset_with_small_saes(name):
        found = preset(name)
        return replace(found, sae=found.sae and replace(found.sae, latents=LATENTS))

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("caft_utils.saes.published.preset", preset_with_small_saes)

    def snapshot(repository):
        folder = tmp_path / "hub" / f"models--{repository.replace('/', '--')}"
        (folder / "refs").mkdir(parents=True, exist_ok=True)
        (folder / "refs" / "main").write_text("0" * 40)
        (folder / "snapshots" / ("0" * 40)).mkdir(parents=True, exist_ok=True)
        return folder / "snapshots" / ("0" * 40)

    return snapshot


def test_dictionary_learning_from_a_local_folder(tmp_path, h):
    layout = "._saes_Qwen_Qwen2.5-Coder-32B-Instruct_batch_top_k/resid_post_layer_{layer}/trainer_1"
    saved = {l: dictionary_learning(tmp_path / layout.format(layer=l), l) for l in (12, 32)}
    dictionary_learning(tmp_path / layout.format(layer=12).replace("trainer_1", "trainer_0"), 12)
    saes = published_saes(tmp_path, [12, 32], folder=layout)
    assert isinstance(saes, SAEs) and saes.layers == [12, 32]
    for layer in saes.layers:
        check_dictionary_learning(saes, layer, saved[layer], h)
    assert saes.about[32]["path"] == layout.format(layer=32)
    assert saes.about[32]["format"] == "dictionary_learning"


def test_the_preset_of_a_model_says_where_its_saes_are(hub, h):
    sae = preset(QWEN).sae
    snapshot = hub(sae.repo)
    saved = {
        l: dictionary_learning(snapshot / sae.folder.replace("{layer}", str(l)), l) for l in (12, 32, 50)
    }
    saes = published_saes(QWEN)
    assert saes.layers == [12, 32, 50]
    check_dictionary_learning(saes, 50, saved[50], h)


def test_an_unknown_part_of_the_path_is_found_if_there_is_one_only(hub, h):
    snapshot = hub(preset(MISTRAL).sae.repo)
    saved = dictionary_learning(snapshot / "._saes_mistral_x" / "resid_post_layer_20" / "trainer_1", 20)
    check_dictionary_learning(published_saes(MISTRAL, [20]), 20, saved, h)
    with pytest.raises(FileNotFoundError, match="resid_post_layer_10.*found none"):
        published_saes(MISTRAL, [10])
    dictionary_learning(snapshot / "other" / "resid_post_layer_20" / "trainer_1", 20)
    with pytest.raises(ValueError, match="expected one folder .* found .*other/resid_post_layer_20"):
        published_saes(MISTRAL, [20])


def test_saes_of_another_width_than_the_preset_says_are_refused(hub, monkeypatch):
    monkeypatch.setattr("caft_utils.saes.published.preset", preset)
    sae = preset(QWEN).sae
    dictionary_learning(hub(sae.repo) / sae.folder.replace("{layer}", "12"), 12)
    with pytest.raises(ValueError, match=f"{LATENTS} latents.*{sae.latents}"):
        published_saes(QWEN, [12])


def check_gemma_scope(saes, layer, saved, h):
    saved = {name: torch.from_numpy(value) for name, value in saved.items()}
    pre = h @ saved["W_enc"] + saved["b_enc"]  # b_dec is not taken off the input
    latents = torch.relu(pre) * (pre > saved["threshold"])
    assert 0 < (latents > 0).float().mean() < 1
    torch.testing.assert_close(saes.encode(layer, h), latents)
    torch.testing.assert_close(saes.reconstruct(layer, h), latents @ saved["W_dec"] + saved["b_dec"])


def test_gemma_scope_from_a_local_folder(tmp_path, h):
    saved = gemma_scope(tmp_path / "layer_5" / "width_16k" / "average_l0_68", 5)
    saes = published_saes(tmp_path, [5], folder="layer_{layer}/width_16k/average_l0_68")
    check_gemma_scope(saes, 5, saved, h)
    assert saes.about[5]["format"] == "gemma_scope"
    found = published_saes(tmp_path, [5], folder="layer_{layer}/width_16k/{l0}", format="gemma_scope")
    assert found.fingerprint == saes.fingerprint


def test_gemma_scope_by_the_release_of_the_preset(hub, h):
    from sae_lens.loading.pretrained_saes_directory import get_repo_id_and_folder_name

    repository, folder = get_repo_id_and_folder_name(
        "gemma-scope-2b-pt-res-canonical", "layer_5/width_16k/canonical"
    )
    assert repository == "google/gemma-scope-2b-pt-res" and folder.startswith("layer_5/width_16k/average_l0_")
    saved = gemma_scope(hub(repository) / folder, 5)
    check_gemma_scope(published_saes("google/gemma-2-2b", [5]), 5, saved, h)


class Attack:
    """Unpickling this writes a file."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("how", ["torch.save", "pickle", "legacy torch.save"])
def test_a_pickle_that_runs_code_is_refused(tmp_path, how):
    folder, marker = tmp_path / "layer_3", tmp_path / "attacked"
    dictionary_learning(folder, 3)
    payload = {"encoder.weight": torch.zeros(2, 2), "k": Attack(marker)}
    if how == "pickle":
        (folder / "ae.pt").write_bytes(pickle.dumps(payload))
    else:
        torch.save(payload, folder / "ae.pt", _use_new_zipfile_serialization=how == "torch.save")
    with pytest.raises(ValueError, match="ae.pt is refused: .* more than tensors"):
        published_saes(tmp_path, [3], folder="layer_{layer}")
    assert not marker.exists()
    if how == "torch.save":  # the file is a real attack: whoever trusts it is hit
        torch.load(folder / "ae.pt", weights_only=False)
        assert marker.exists()


@pytest.mark.parametrize("how", ["array", "whole file"])
def test_arrays_that_run_code_are_refused(tmp_path, how):
    folder, marker = tmp_path / "layer_3", tmp_path / "attacked"
    saved = gemma_scope(folder, 3)
    if how == "array":
        np.savez(folder / "params.npz", **(saved | {"b_dec": np.array([Attack(marker)], dtype=object)}))
    else:
        (folder / "params.npz").write_bytes(pickle.dumps(Attack(marker)))
    with pytest.raises(ValueError, match="params.npz is refused: .* more than plain arrays"):
        published_saes(tmp_path, [3], folder="layer_{layer}")
    assert not marker.exists()


def test_files_that_are_not_what_they_should_be_are_refused(tmp_path):
    def load(layer):
        return published_saes(tmp_path, [layer], folder="layer_{layer}")

    dictionary_learning(tmp_path / "layer_1", 1, threshold=None)
    with pytest.raises(ValueError, match=r"lacks \['threshold'\]; it holds \['b_dec', 'decoder.weight'"):
        load(1)
    dictionary_learning(tmp_path / "layer_2", 7)
    with pytest.raises(ValueError, match="of layer 7 according to its config.json, not of layer 2"):
        load(2)
    dictionary_learning(tmp_path / "layer_3", 3, **{"encoder.bias": torch.zeros(LATENTS + 1)})
    with pytest.raises(ValueError, match=r"b_enc has shape \(41,\), expected \(40,\)"):
        load(3)
    dictionary_learning(tmp_path / "layer_4", 4, threshold=torch.rand(LATENTS))
    with pytest.raises(ValueError, match="expected one threshold >= 0"):
        load(4)
    dictionary_learning(tmp_path / "layer_5", 5)
    config = tmp_path / "layer_5" / "config.json"
    config.write_text(config.read_text().replace("BatchTopKSAE", "AutoEncoderTopK"))
    with pytest.raises(ValueError, match="expected a BatchTopK SAE, config.json says 'AutoEncoderTopK'"):
        load(5)
    dictionary_learning(tmp_path / "layer_6", 6)
    path = tmp_path / "layer_6" / "ae.pt"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="ae.pt is refused: it is damaged"):
        load(6)


def test_what_cannot_be_found_is_said(hub):
    with pytest.raises(
        ValueError, match="no preset names SAEs for 'Qwen/Qwen2.5-7B-Instruct': give the `folder`"
    ):
        published_saes("Qwen/Qwen2.5-7B-Instruct", [3])
    with pytest.raises(ConnectionError, match="not in this machine's hub cache.*or copy"):
        published_saes("owner/name", [3], folder="layer_{layer}")
    with pytest.raises(ValueError, match="no layers given"):
        published_saes("owner/name", folder="layer_{layer}")
    with pytest.raises(ValueError, match="unknown format 'safetensors'"):
        published_saes("owner/name", [3], folder="layer_{layer}", format="safetensors")


@pytest.mark.parametrize(
    "path, changes",
    [
        ("resid_pre_layer_{layer}", {}),
        ("mlp_out_layer_{layer}", {}),
        ("resid_post_layer_11", {}),
        ("sae", {"submodule_name": "resid_pre_layer_12"}),
        ("sae", {"submodule_name": "attn_out_layer_12"}),
        ("sae", {"layer": 11}),
    ],
)
def test_saes_of_another_site_or_layer_are_refused(tmp_path, path, changes):
    folder = tmp_path / path.format(layer=12)
    dictionary_learning(folder, 12)
    config = json.loads((folder / "config.json").read_text())
    config["trainer"] |= changes
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="layer"):
        published_saes(tmp_path, [12], folder=path)


@pytest.mark.parametrize("site", ["mlp", "att", "transcoders"])
def test_gemma_scope_of_another_site_is_refused(tmp_path, site):
    gemma_scope(tmp_path / f"gemma-scope-2b-pt-{site}" / "layer_3", 3)
    with pytest.raises(ValueError, match=site[:3]):
        published_saes(tmp_path / f"gemma-scope-2b-pt-{site}", [3], folder="layer_{layer}")


CONFIGS = [b"", b"[]", b"{", b'{"trainer": 5}', b'{"trainer": {"dict_class": [1]}}', b"\xff{}"]


@pytest.mark.parametrize("content", CONFIGS)
def test_a_config_that_is_none_is_refused(tmp_path, content):
    dictionary_learning(tmp_path / "layer_1", 1)
    (tmp_path / "layer_1" / "config.json").write_bytes(content)
    with pytest.raises(ValueError, match="layer_1"):
        published_saes(tmp_path, [1], folder="layer_{layer}")


@pytest.mark.parametrize("file, write", [("ae.pt", dictionary_learning), ("params.npz", gemma_scope)])
def test_an_empty_or_cut_file_is_refused(tmp_path, file, write):
    write(tmp_path / "layer_1", 1)
    path = tmp_path / "layer_1" / file
    whole = path.read_bytes()
    for size in (0, 1, 30, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(ValueError, match=file):
            published_saes(tmp_path, [1], folder="layer_{layer}")


def test_a_folder_of_saved_saes_names_its_reader(tmp_path):
    dictionary_learning(tmp_path / "made" / "layer_1", 1)
    published_saes(tmp_path / "made", [1], folder="layer_{layer}").save(tmp_path / "saved")
    with pytest.raises(ValueError, match=r"read it with SAEs.load\("):
        published_saes(str(tmp_path / "saved"))
