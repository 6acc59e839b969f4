"""`Directions`: a few orthonormal vectors of the residual stream for each layer, and their provenance.

CAFT removes the subspace span(Q) at each layer. With rows as directions, Q: [k, d], the map h - (h Q^T) Q is
the projection onto the complement of the span only if the rows are orthonormal. Other rows, such as the
decoder rows of a sparse autoencoder, are therefore orthonormalised. (arXiv 2507.16795, section 3.)
"""

from __future__ import annotations

import json
import re
from collections.abc import ItemsView, Iterator, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from caft_utils.arguments import checked, instance, key_number, whole
from caft_utils.directions.orthonormal import orthonormal_rows
from caft_utils.features import Selection
from caft_utils.store import tensors_sha256, write_atomically

CARD_FILE = "directions.json"
CARD_FORMAT = 1
PER_ROW_ENTRIES = ("explained_variance", "norm", "names", "selected")
"""Entries of `about` with one value for each row, {"layer": [value, ...]}, which `select` keeps in step."""


class Directions:
    """Orthonormal directions by layer: `directions[layer]` is a float32 tensor [k, d] on the CPU.

    Iteration, `len`, `in` and `items` are those of {layer: rows}. `values` projects hidden states.

    Args:
        rows: {layer: [k, d]}. Layer -1 is the embedding output. A single vector [d] counts as one row.
        about: provenance, such as method, models, data and explained variance. It must be JSON.

    Raises:
        ValueError: `rows` is no mapping, there is no layer or no row, a layer is not an integer >= -1, widths
            differ, a value is not finite, rows are linearly dependent, or `about` is not JSON.
    """

    kind = "component"
    two_sided = True  # the sign of a component is a convention, so both ends can be read

    def __init__(self, rows: Mapping[int, Float[Tensor, "k d"]], about: Mapping[str, Any] | None = None):
        instance("directions", rows, Mapping, "given as {layer: tensor [k, d]}, also those of a single layer")
        if not rows:
            raise ValueError("no directions given; expected {layer: tensor [k, d]} with at least one layer")
        layers = {key_number("a layer of directions", layer, -1): layer for layer in rows}
        if len(layers) < len(rows):
            raise ValueError(f"a layer is given twice: {list(rows)}")
        self._rows = {n: orthonormal_rows(rows[layers[n]], f"layer {n}") for n in sorted(layers)}
        widths = {layer: q.shape[1] for layer, q in self._rows.items()}
        if len(set(widths.values())) > 1:
            raise ValueError(f"directions of one model must have one width, got {widths} by layer")
        try:
            # The round trip through JSON makes `about` equal to what `load` returns (keys become text).
            self.about: dict[str, Any] = json.loads(json.dumps(dict(about or {}), allow_nan=False))
        except (TypeError, ValueError) as error:
            raise ValueError(f"`about` must be JSON (text, finite numbers, lists, dicts): {error}") from None

    @property
    def layers(self) -> list[int]:
        return list(self._rows)

    @property
    def ranks(self) -> dict[int, int]:
        """The number of directions at each layer."""
        return {layer: len(q) for layer, q in self._rows.items()}

    @property
    def width(self) -> int:
        return next(iter(self._rows.values())).shape[1]

    @property
    def fingerprint(self) -> str:
        """The sha256 (hex) of layers and vectors, without `about`."""
        return tensors_sha256((f"{layer}:{tuple(q.shape)};", q) for layer, q in self._rows.items())

    def __getitem__(self, layer: int) -> Float[Tensor, "k d"]:
        if layer not in self._rows:
            raise KeyError(f"no directions at layer {layer}; there are some at {self.layers}")
        return self._rows[layer]

    def __iter__(self) -> Iterator[int]:
        return iter(self._rows)

    def __len__(self) -> int:
        """Return the number of layers. `sum(directions.ranks.values())` is the number of directions."""
        return len(self._rows)

    def __contains__(self, layer: Any) -> bool:
        return layer in self._rows

    def items(self) -> ItemsView[int, Float[Tensor, "k d"]]:
        """Return the pairs (layer, rows). `dict(directions.items())` is a plain mapping."""
        return self._rows.items()

    def __repr__(self) -> str:
        ranks = ", ".join(f"{layer}: {k}" for layer, k in self.ranks.items())
        method = f", {self.about['method']}" if "method" in self.about else ""
        return f"Directions({{{ranks}}}, width {self.width}{method})  # layer: how many"

    def indices(self, layer: int) -> list[int]:
        """Return the row numbers of `layer`, 0 to k-1."""
        return list(range(len(self[layer])))

    def values(self, layer: int, hidden: Float[Tensor, "n d"]) -> Float[Tensor, "n k"]:
        """Return the projections of n hidden states on the rows of `layer`, in the dtype of `hidden`."""
        return hidden @ self[layer].to(hidden.device, hidden.dtype).T

    def projection_rows(self, layer: int) -> Float[Tensor, "k d"]:
        """Return the rows whose projections are `values`, for readers that project block by block."""
        return self[layer]

    def vector(self, layer: int, i: int) -> Float[Tensor, " d"]:
        """Return row i of `layer`, a unit vector."""
        i = whole("a row", i)
        if not 0 <= i < len(self[layer]):
            raise IndexError(f"layer {layer} has rows 0 to {len(self[layer]) - 1}, got {i}")
        return self[layer][i]

    def select(
        self, selection: Mapping[int, Sequence[int]], names: Mapping[tuple[int, int], str] | None = None
    ) -> Directions:
        """Return the selected rows, {layer: [row, ...]}, in the given order.

        In the result `about["selected"]` has the original row numbers, also after repeated selection, and
        `about["names"]` the names.

        Args:
            selection: a `Selection` or a plain mapping. Layers with an empty list are left out.
            names: {(layer, row): name}. Default: the names of `selection`.

        Raises:
            ValueError: nothing is selected, or a row is selected twice.
            KeyError: a layer does not exist.
            IndexError: a row does not exist.
        """
        selection = Selection(selection)
        if not selection:
            raise ValueError("nothing selected; expected for example {1: [0, 2]} for rows 0 and 2 of layer 1")
        for layer, indices in selection.items():
            k = len(self[layer])
            if wrong := [i for i in indices if not 0 <= i < k]:
                raise IndexError(f"layer {layer} has rows 0 to {k - 1}, got {wrong}")
        about = dict(self.about)
        about.setdefault("selected", {str(layer): list(range(k)) for layer, k in self.ranks.items()})
        if names := selection.names if names is None else names:
            about["names"] = {
                str(layer): [names.get((layer, i), "") for i in range(k)] for layer, k in self.ranks.items()
            }
        for entry in PER_ROW_ENTRIES:
            if entry in about:
                about[entry] = {
                    str(layer): [about[entry][str(layer)][i] for i in indices]
                    for layer, indices in selection.items()
                }
        return Directions({layer: self[layer][indices] for layer, indices in selection.items()}, about)

    def union(self, other: Directions) -> Directions:
        """Return an orthonormal basis of both spans: these rows, then what `other` adds to them."""
        if self.width != other.width:
            raise ValueError(f"cannot join directions of width {self.width} and {other.width}")
        joined = {}
        for layer in {*self.layers, *other.layers}:
            parts = [d._rows[layer] for d in (self, other) if layer in d._rows]
            joined[layer] = orthonormal_rows(torch.cat(parts), f"layer {layer}", skip_dependent=True)
        return Directions(joined, {"method": "union", "of": [self.about, other.about]})

    @checked
    def random_like(self, seed: int) -> Directions:
        """Return random directions of the same layers, ranks and width, as an equal-rank control.

        The draw depends only on the seed and on each layer's rank and width. It does not depend on the values
        of the vectors, whose last bits differ between machines.
        """
        # Without this, `random_like` of random directions with the same seed would return the same
        # directions.
        seeds = [*self.about.get("seeds", []), seed] if self.about.get("method") == "random" else [seed]
        rows = {}
        for layer, q in self._rows.items():
            k, d = q.shape
            drawn = sha256(f"random directions, layer {layer}, rank {k}, width {d}, {seeds}".encode())
            generator = torch.Generator().manual_seed(int.from_bytes(drawn.digest()[:7]))
            rows[layer] = torch.randn(k, d, generator=generator)
        return Directions(rows, {"method": "random", "seeds": seeds, "like": self.fingerprint})

    def cosine(self, layer: int, vector: Float[Tensor, " d"]) -> Float[Tensor, " k"]:
        """Return the cosine similarity of each row of `layer` with `vector`."""
        vector = torch.as_tensor(vector).detach().float().cpu()
        if vector.shape != (self.width,):
            raise ValueError(f"expected a vector of width {self.width}, got shape {tuple(vector.shape)}")
        if not vector.isfinite().all():
            raise ValueError("the cosine with a vector that is not finite is not defined")
        if not (length := vector.norm()) > 0:
            raise ValueError("the cosine with a zero vector is not defined")
        return self[layer] @ (vector / length)

    def save(self, folder: str | Path) -> Path:
        """Write `directions.json` and the tensor file that it names into `folder`, and return the folder.

        The JSON file is replaced last and atomically, so a reader finds the old pair, the new pair or none.
        The tensor file that the old JSON file named is removed, and no other file.
        """
        from safetensors.torch import save

        folder = Path(folder)
        card = {
            "format": CARD_FORMAT,
            "tensors": f"directions-{self.fingerprint[:16]}.safetensors",
            "about": self.about,
            "sha256": _sha256(self),
        }
        tensors = {str(layer): q.contiguous() for layer, q in self._rows.items()}
        replaced = _tensors_named_in(folder / CARD_FILE)
        write_atomically(folder / card["tensors"], save(tensors))
        write_atomically(folder / CARD_FILE, json.dumps(card, indent=1))
        if replaced not in (None, card["tensors"]):
            (folder / replaced).unlink(missing_ok=True)
        return folder

    @classmethod
    def load(cls, folder: str | Path) -> Directions:
        """Return the directions that `save` wrote into `folder`.

        Raises:
            FileNotFoundError: nothing was saved in this folder.
            ValueError: the files are damaged.
        """
        from safetensors.torch import load

        folder = Path(folder)
        if not (folder / CARD_FILE).is_file():
            raise FileNotFoundError(
                f"no {CARD_FILE} in {folder}; expected a folder written by Directions.save"
            )
        try:
            card = json.loads((folder / CARD_FILE).read_bytes())
            if card["format"] != CARD_FORMAT:
                raise ValueError(f"format {card['format']!r} is not {CARD_FORMAT}, which this version reads")
            rows = load((folder / Path(card["tensors"]).name).read_bytes())
            loaded = cls({int(layer): q for layer, q in rows.items()}, card["about"])
            if _sha256(loaded) != card["sha256"]:
                raise ValueError("the sha256 of its contents does not match the recorded one")
        except Exception as error:  # safetensors, JSON and key errors all mean that the files are damaged
            raise ValueError(
                f"the directions in {folder} are damaged; find or save them again ({error})"
            ) from error
        return loaded


def _tensors_named_in(card: Path) -> str | None:
    """Return the name of the tensor file that an earlier `save` wrote, or None."""
    try:
        name = json.loads(card.read_bytes())["tensors"]
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return None
    ours = isinstance(name, str) and re.fullmatch(r"directions-[0-9a-f]{16}\.safetensors", name)
    return name if ours else None


def _sha256(directions: Directions) -> str:
    about = json.dumps(directions.about, sort_keys=True)
    return sha256((directions.fingerprint + about).encode()).hexdigest()
