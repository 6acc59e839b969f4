"""`Directions`: for each layer a few orthonormal vectors of the residual stream, and where they came from.

What CAFT removes is a subspace span(Q), so rows are kept orthonormal: only then is h - (h Q^T) Q the
projection onto the complement (rows are directions, Q: [k, d]). Rows that are not orthonormal, such as the
decoder rows of a sparse autoencoder, go through a QR factorisation that keeps their order and signs: row i
spans, with the rows before it, what the given rows spanned. (arXiv 2507.16795, section 3.)
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

FORMAT = 1
TOLERANCE = 1e-5  # largest entry of Q Q^T - I with which rows still count as orthonormal
PER_ROW = ("explained_variance", "norm", "names", "selected")
"""Entries of `about` that hold one value for each row, as {"layer": [value, ...]}; `select` keeps them in
step."""


class Directions:
    """Orthonormal directions by layer: `directions[layer]` is a float32 tensor [k, d] on the CPU.

    Args:
        rows: {layer: [k, d]}; layer -1 is the embedding output. A single vector [d] counts as one row.
        about: provenance (method, models, data, explained variance ...); anything that JSON can hold.

    Raises:
        ValueError: no layer or no row, widths that differ, a value that is not finite, rows that are linearly
            dependent, or an `about` that is not JSON.
    """

    noun = "component"
    signed = True  # a component's sign is a convention: both ends can be read

    def __init__(self, rows: Mapping[int, Float[Tensor, "k d"]], about: Mapping[str, Any] | None = None):
        if not rows:
            raise ValueError("no directions given; expected {layer: tensor [k, d]} with at least one layer")
        self._rows = {int(layer): _orthonormal(rows[layer], f"layer {layer}") for layer in sorted(rows)}
        widths = {layer: q.shape[1] for layer, q in self._rows.items()}
        if len(set(widths.values())) > 1:
            raise ValueError(f"directions of one model have one width, got {widths} by layer")
        try:
            # Through JSON and back: what is held equals what a file will give back (keys become text).
            self.about: dict[str, Any] = json.loads(json.dumps(dict(about or {}), allow_nan=False))
        except (TypeError, ValueError) as error:
            raise ValueError(f"`about` must be JSON (text, finite numbers, lists, dicts): {error}") from None

    @property
    def layers(self) -> list[int]:
        return list(self._rows)

    @property
    def ranks(self) -> dict[int, int]:
        """Number of directions by layer."""
        return {layer: len(q) for layer, q in self._rows.items()}

    @property
    def width(self) -> int:
        return next(iter(self._rows.values())).shape[1]

    @property
    def fingerprint(self) -> str:
        """sha256 of layers and vectors; `about` does not count."""
        digest = sha256()
        for layer, q in self._rows.items():
            digest.update(f"{layer}:{tuple(q.shape)};".encode())
            digest.update(q.numpy().tobytes())
        return digest.hexdigest()

    def __getitem__(self, layer: int) -> Float[Tensor, "k d"]:
        if layer not in self._rows:
            raise KeyError(f"no directions at layer {layer}; there are some at {self.layers}")
        return self._rows[layer]

    def indices(self, layer: int) -> list[int]:
        """The numbers by which a reader knows the rows of `layer`: 0 to k-1."""
        return list(range(len(self[layer])))

    def values(self, layer: int, hidden: Float[Tensor, "n d"]) -> Float[Tensor, "n k"]:
        """Projections of n hidden states on the rows of `layer`, on the device of `hidden`, in its dtype."""
        return hidden @ self[layer].to(hidden.device, hidden.dtype).T

    def projection_rows(self, layer: int) -> Float[Tensor, "k d"]:
        """Return the rows whose projections are `values`, so that a reader can take some at a time."""
        return self[layer]

    def vector(self, layer: int, i: int) -> Float[Tensor, " d"]:
        """Row i of `layer`, a unit vector."""
        if not 0 <= i < len(self[layer]):
            raise IndexError(f"layer {layer} has rows 0 to {len(self[layer]) - 1}, got {i}")
        return self[layer][i]

    def __repr__(self) -> str:
        sites = ", ".join(f"{layer}: {k}" for layer, k in self.ranks.items())
        method = f", {self.about['method']}" if "method" in self.about else ""
        return f"Directions({{{sites}}}, width {self.width}{method})  # layer: how many"

    def select(
        self, selection: Mapping[int, Sequence[int]], names: Mapping[tuple[int, int], str] | None = None
    ) -> Directions:
        """The chosen rows, {layer: [row, ...]}, in the order given.

        `about["selected"]` keeps the row numbers that they had when they were found, `about["names"]` what a
        reader called them, from `names` {(layer, row): name} or the names of a `Selection`. Layers
        given an empty list are left out.

        Raises:
            KeyError: no such layer. IndexError: no such row. ValueError: nothing chosen, or a row chosen
                twice.
        """
        chosen = {layer: list(indices) for layer, indices in selection.items() if len(list(indices))}
        if not chosen:
            raise ValueError("nothing selected; expected for example {1: [0, 2]} for rows 0 and 2 of layer 1")
        for layer, indices in chosen.items():
            k = len(self[layer])
            if wrong := [i for i in indices if not 0 <= i < k]:
                raise IndexError(f"layer {layer} has rows 0 to {k - 1}, got {wrong}")
            if len(set(indices)) < len(indices):
                raise ValueError(f"layer {layer}: a row is selected twice in {indices}")
        names = getattr(selection, "names", None) if names is None else names
        about = dict(self.about)
        about.setdefault("selected", {str(layer): list(range(k)) for layer, k in self.ranks.items()})
        if names:
            about["names"] = {
                str(layer): [names.get((layer, i), "") for i in range(k)] for layer, k in self.ranks.items()
            }
        for entry in PER_ROW:
            if entry in about:
                about[entry] = {
                    str(layer): [about[entry][str(layer)][i] for i in chosen[layer]] for layer in chosen
                }
        return Directions({layer: self[layer][indices] for layer, indices in chosen.items()}, about)

    def union(self, other: Directions) -> Directions:
        """An orthonormal basis of both spans together: these rows, then what `other` adds to them."""
        if self.width != other.width:
            raise ValueError(f"cannot join directions of width {self.width} and {other.width}")
        joined = {}
        for layer in {*self.layers, *other.layers}:
            parts = [d._rows[layer] for d in (self, other) if layer in d._rows]
            joined[layer] = _orthonormal(torch.cat(parts), f"layer {layer}", drop_dependent=True)
        return Directions(joined, {"method": "union", "of": [self.about, other.about]})

    def random_like(self, seed: int) -> Directions:
        """Random orthonormal directions with the same layers, ranks and width: the control of equal rank."""
        # Seeded by what is to be matched as well: with `seed` alone, these could be the very directions that
        # somebody else drew with the same seed.
        mixed = sha256(f"{self.fingerprint} {seed}".encode()).digest()[:7]
        generator = torch.Generator().manual_seed(int.from_bytes(mixed))
        rows = {layer: torch.randn(q.shape, generator=generator) for layer, q in self._rows.items()}
        return Directions(rows, {"method": "random", "seed": seed, "like": self.fingerprint})

    def cosine(self, layer: int, vector: Float[Tensor, " d"]) -> Float[Tensor, " k"]:
        """Cosine of each row of `layer` with `vector`."""
        vector = torch.as_tensor(vector).detach().float().cpu()
        if vector.shape != (self.width,):
            raise ValueError(f"expected a vector of width {self.width}, got shape {tuple(vector.shape)}")
        if not (length := vector.norm()) > 0:
            raise ValueError("the cosine with a zero vector is not defined")
        return self[layer] @ (vector / length)

    def save(self, folder: str | Path) -> Path:
        """Write `directions.json` and the tensors it names into `folder`.

        The json file is put in place last and in one step, so a reader finds the old pair, the new pair or
        none.
        """
        from safetensors.torch import save

        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        card = {
            "format": FORMAT,
            "tensors": f"directions-{self.fingerprint[:16]}.safetensors",
            "about": self.about,
        }
        card["sha256"] = _digest(self, card["about"])
        _write(
            folder / card["tensors"], save({str(layer): q.contiguous() for layer, q in self._rows.items()})
        )
        _write(folder / "directions.json", json.dumps(card, indent=1).encode())
        for old in folder.glob("directions-*.safetensors"):
            if old.name != card["tensors"]:
                old.unlink()
        return folder

    @classmethod
    def load(cls, folder: str | Path) -> Directions:
        """Read what `save` wrote.

        Raises:
            FileNotFoundError: nothing was saved in this folder. ValueError: its files are damaged.
        """
        from safetensors.torch import load

        folder = Path(folder)
        if not (folder / "directions.json").is_file():
            raise FileNotFoundError(
                f"no directions.json in {folder}; expected a folder written by Directions.save"
            )
        try:
            card = json.loads((folder / "directions.json").read_bytes())
            if card["format"] != FORMAT:
                raise ValueError(f"format {card['format']!r} is not {FORMAT}, the one this version reads")
            rows = load((folder / Path(card["tensors"]).name).read_bytes())
            loaded = cls({int(layer): q for layer, q in rows.items()}, card["about"])
            if _digest(loaded, loaded.about) != card["sha256"]:
                raise ValueError("the sha256 of its contents is not the one recorded")
        except Exception as error:  # safetensors, json and key errors all mean the same to the reader
            raise ValueError(
                f"the directions in {folder} are damaged; find or save them again ({error})"
            ) from error
        return loaded


def _orthonormal(rows: Tensor, where: str, drop_dependent: bool = False) -> Float[Tensor, "k d"]:
    """`rows` as they are if orthonormal, else by QR in float64 with the diagonal of R made positive."""
    rows = torch.atleast_2d(torch.as_tensor(rows).detach().float().cpu())
    if rows.ndim != 2 or not len(rows):
        raise ValueError(f"{where}: expected a tensor [k, d] with k >= 1, got shape {tuple(rows.shape)}")
    if not rows.isfinite().all():
        bad = (~rows.isfinite()).any(1).nonzero().flatten().tolist()
        raise ValueError(f"{where}: rows {bad} hold values that are not finite")
    if (rows @ rows.T - torch.eye(len(rows))).abs().max() <= TOLERANCE:
        return rows.clone()
    exact = rows.double()
    independent: list[int] = []
    basis = exact.new_zeros(0, rows.shape[1])
    for i, row in enumerate(
        exact
    ):  # Gram-Schmidt, twice: as accurate as QR, and it tells which row is dependent
        rest = row
        for _ in range(2):
            rest = rest - (rest @ basis.T) @ basis
        if rest.norm() > 1e-6 * row.norm():
            basis = torch.cat([basis, (rest / rest.norm())[None]])
            independent.append(i)
        elif not drop_dependent:
            raise ValueError(f"{where}: row {i} is zero or a combination of the rows before it; leave it out")
    return basis.float()


def _digest(directions: Directions, about: dict[str, Any]) -> str:
    return sha256((directions.fingerprint + json.dumps(about, sort_keys=True)).encode()).hexdigest()


def _write(path: Path, data: bytes) -> None:
    """Write and flush a file beside `path`, then move it into place."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
