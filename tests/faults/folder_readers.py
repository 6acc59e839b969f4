"""Folders of tensors and JSON: directions, SAEs (our own and published ones), models with their tokenizers.

Our own folders hold checksums, so whatever is accepted must be equal to what was saved. Folders of other
libraries have none. What is accepted must hold the tensors of the file: nothing may be made up.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from helpers.saes import random_sae
from helpers.tiny import make_tiny, make_tokenizer
from helpers.training import same, weights

from caft_utils.directions import Directions
from caft_utils.models import load
from caft_utils.saes import SAEs, published_saes
from faults.mutate import changed_bytes, changed_json, flipped
from faults.outcomes import Outcome, reading
from faults.running import Attempt

SMALL = dict(
    hidden_size=16, intermediate_size=32, num_attention_heads=2, num_key_value_heads=1, num_hidden_layers=2
)


def directions(home: Path) -> Attempt:
    """Folders of `Directions.save`."""
    saved = Directions(
        {1: torch.eye(8)[:2], 2: torch.eye(8)[3:4]}, {"method": "test", "names": {"1": ["a", "b"]}}
    )
    return _saved(home, saved)


def saes(home: Path) -> Attempt:
    """Folders of `SAEs.save`."""
    saved = SAEs({1: random_sae(8, 6, 1), 2: random_sae(8, 6, 2)}, {1: {"l0": 3.5}, 2: {"l0": 2.0}})
    return _saved(home, saved)


def foreign_saes(home: Path) -> Attempt:
    """SAEs as dictionary_learning and Gemma Scope publish them."""
    d, n = 6, 8
    torch.manual_seed(0)
    trainer = {"dict_class": "BatchTopKSAE", "layer": 1, "activation_dim": d, "dict_size": n, "k": 2}
    state = {
        "encoder.weight": torch.randn(n, d), "encoder.bias": torch.randn(n),
        "decoder.weight": torch.randn(d, n),
        "b_dec": torch.randn(d), "threshold": torch.tensor(0.1),
    }  # fmt: skip
    one, two = home / "learned" / "layer_1", home / "scope" / "layer_1"
    one.mkdir(parents=True)
    two.mkdir(parents=True)
    (one / "config.json").write_text(
        json.dumps({"trainer": trainer, "buffer": {"d_submodule": d, "ctx_len": 64}})
    )
    torch.save(state, one / "ae.pt")
    shapes = {"W_enc": (d, n), "W_dec": (n, d), "b_enc": (n,), "b_dec": (d,), "threshold": (n,)}
    np.savez(
        two / "params.npz",
        **{k: np.abs(np.random.default_rng(0).normal(size=s)).astype("f4") for k, s in shapes.items()},
    )

    def agrees(found: SAEs) -> str | None:
        return None if found.layers == [1] and found.width == d else f"{found!r} was read"

    def read(folder: Path) -> SAEs:
        return published_saes(folder, [1], folder="layer_{layer}")

    parts = [_folder(home / name, read, agrees) for name in ("learned", "scope")]
    return lambda rng, folder: rng.choice(parts)(rng, folder)


def models(home: Path) -> Attempt:
    """Folders of `save_pretrained` with a tokenizer."""
    model = make_tiny("qwen2", **SMALL)
    model.save_pretrained(home / "good")
    make_tokenizer().save_pretrained(home / "good")
    expected = weights(model)

    def read(folder: Path) -> Any:
        return (*load(folder, device="cpu"), folder)

    def agrees(found: Any) -> str | None:
        loaded, tokenizer, folder = found
        got = weights(loaded)
        if not same(got, expected) and not _holds(folder, got):
            return "weights were loaded that are not in the file"
        if len(tokenizer) < 300:
            return f"a tokenizer of {len(tokenizer)} tokens was made up"
        return None

    return _folder(home / "good", read, agrees)


def _holds(folder: Path, got: dict[str, torch.Tensor]) -> bool:
    """Return whether every loaded tensor is one of the file: a bit may have been flipped in its values."""
    from safetensors.torch import load_file

    there = load_file(folder / "model.safetensors")
    return all(
        name in there and (there[name].shape == value.shape) and _equal(there[name].to(value.dtype), value)
        for name, value in got.items()
        if name in there or name != "lm_head.weight"  # tied to the embedding
    )


def _equal(one: torch.Tensor, other: torch.Tensor) -> bool:
    return torch.equal(one.nan_to_num(), other.nan_to_num())


def _saved(home: Path, saved: Directions | SAEs) -> Attempt:
    """Return an attempt on a folder that `saved` wrote."""
    saved.save(home / "good")

    def agrees(found: Directions | SAEs) -> str | None:
        right = found.fingerprint == saved.fingerprint and found.about == saved.about
        return None if right else f"{found!r} with {found.about} was read"

    return _folder(home / "good", type(saved).load, agrees)


def _folder(good: Path, read: Callable[[Path], Any], agrees: Callable[[Any], str | None]) -> Attempt:
    """Return an attempt that damages, removes or replaces one file of a copy of `good`."""

    def attempt(rng: Random, folder: Path) -> Outcome:
        there = folder / "there"
        shutil.copytree(good, there)
        files = sorted(path for path in there.rglob("*") if path.is_file())
        path = rng.choice(files)
        damage(path, rng, files)
        return reading(lambda: read(there), about=[str(there), path.name], agrees=agrees)

    return attempt


def damage(path: Path, rng: Random, others: list[Path]) -> None:
    """Damage a file, most often its content; JSON also as a value."""
    data = path.read_bytes()
    action = rng.random()
    if path.suffix == ".json" and action < 0.6:
        path.write_bytes(changed_json(json.loads(data), rng))
    elif action < 0.3:
        path.write_bytes(flipped(data, rng))
    elif action < 0.85:
        path.write_bytes(changed_bytes(data, rng))
    else:
        path.unlink()
        match rng.randrange(4):
            case 0:
                path.mkdir()
            case 1:
                path.symlink_to(path.parent / "nowhere")
            case 2:
                shutil.copy(rng.choice([other for other in others if other != path] or [__file__]), path)
