"""Cache results of reading a model in the artefact store, so that no text is read twice.

A stored result is named by the fingerprints of the model and of the text and by all parameters that change
it. A model whose forward passes are edited computes something else than its fingerprint names, so results
under an active intervention are neither stored nor read. Batch sizes and devices only change the rounding,
and do not enter a key.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from torch import nn

from caft_utils.residual import has_hooks
from caft_utils.store import Store, default_store

if TYPE_CHECKING:
    from torch import Tensor

Result = TypeVar("Result")
JSON_FILE = "value.json"
TENSORS_FILE = "tensors.safetensors"


def fetch_result(
    kind: str,
    key: Mapping[str, Any] | None,
    compute: Callable[[], Result],
    *,
    save: Callable[[Result, Path], object],
    load: Callable[[Path], Result],
    models: Sequence[nn.Module] = (),
    store: Store | None = None,
) -> Result:
    """Return the stored result of `key`, or compute, store and reload it.

    A new result is read back from its file, so the first call and later ones return the same.

    Args:
        kind, key: see `Store`. With a key of None nothing is stored or read.
        save, load: write a result into an empty folder, and read it from there.
        models: those that `compute` runs. While one of them has hooks, nothing is stored or read.
    """
    if key is None or any(has_hooks(model) for model in models):
        return compute()
    return load((store or default_store()).fetch(kind, key, lambda folder: save(compute(), folder)))


def fetch_json(
    kind: str,
    key: Mapping[str, Any] | None,
    compute: Callable[[], Any],
    *,
    models: Sequence[nn.Module] = (),
    store: Store | None = None,
) -> Any:
    """Return the JSON value of `key` like `fetch_result`. Tuples come back as lists, keys as text."""

    def save(value: Any, folder: Path) -> None:
        (folder / JSON_FILE).write_text(json.dumps(value, separators=(",", ":")), encoding="utf-8")

    def load(folder: Path) -> Any:
        return json.loads((folder / JSON_FILE).read_text(encoding="utf-8"))

    return fetch_result(kind, key, compute, save=save, load=load, models=models, store=store)


def fetch_tensors(
    kind: str,
    key: Mapping[str, Any] | None,
    compute: Callable[[], Mapping[str, Tensor]],
    *,
    models: Sequence[nn.Module] = (),
    store: Store | None = None,
) -> Mapping[str, Tensor]:
    """Return the named tensors of `key` like `fetch_result`. Stored tensors come back on the CPU."""
    return fetch_result(kind, key, compute, save=save_tensors, load=load_tensors, models=models, store=store)


def save_tensors(tensors: Mapping[str, Tensor], folder: Path) -> None:
    """Write named tensors into `folder`."""
    from safetensors.torch import save

    # Clones: safetensors refuses tensors that share memory.
    content = save({name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()})
    (folder / TENSORS_FILE).write_bytes(content)


def load_tensors(folder: Path) -> dict[str, Tensor]:
    """Return the tensors that `save_tensors` wrote into `folder`."""
    from safetensors.torch import load

    return load((folder / TENSORS_FILE).read_bytes())
