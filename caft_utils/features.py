"""What can be read and selected: directions in the residual stream and SAE latents, behind one protocol.

A feature is known by (layer, index). `Selection` names some of them, in order of importance.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

if TYPE_CHECKING:
    from caft_utils.directions.subspace import Directions

Side = Literal["+", "-"]
FeatureKey = tuple[int, int, Side]
"""(layer, index, side): one end of a component, or a latent (side "+")."""


class Selection(Mapping[int, list[int]]):
    """Some features, {layer: [index, ...]}, in order of importance and with the names that a reader gave.

    A selection is a mapping, so every function that takes one takes a plain {layer: [index, ...]} as well.

    Args:
        chosen: {layer: indices}, or (layer, index) pairs with the most important first. Layers without an
            index are left out.
        names: {(layer, index): name}, of selected features only.

    Raises:
        ValueError: a feature is selected twice, or a name is of a feature that is not selected.
    """

    def __init__(
        self,
        chosen: Mapping[int, Sequence[int]] | Iterable[tuple[int, int]] = (),
        names: Mapping[tuple[int, int], str] | None = None,
    ):
        if isinstance(chosen, Selection):
            names = chosen.names if names is None else names
            pairs: Iterable[tuple[int, int]] = chosen.order
        elif isinstance(chosen, Mapping):
            pairs = [(layer, index) for layer in sorted(chosen) for index in chosen[layer]]
        else:
            pairs = chosen
        self.order: list[tuple[int, int]] = [(int(layer), int(index)) for layer, index in pairs]
        if len(set(self.order)) < len(self.order):
            twice = sorted({pair for pair in self.order if self.order.count(pair) > 1})
            raise ValueError(f"features selected twice: {twice[:5]} (layer, index)")
        self.names: dict[tuple[int, int], str] = {(int(l), int(i)): n for (l, i), n in (names or {}).items()}
        if strangers := sorted(set(self.names) - set(self.order)):
            raise ValueError(f"names of features that are not selected: {strangers[:5]} (layer, index)")
        self._by_layer: dict[int, list[int]] = {}
        for layer, index in self.order:
            self._by_layer.setdefault(layer, []).append(index)

    def __getitem__(self, layer: int) -> list[int]:
        return list(self._by_layer[layer])

    def __iter__(self) -> Iterator[int]:
        return iter(sorted(self._by_layer))

    def __len__(self) -> int:
        """Number of layers; `len(selection.order)` counts features."""
        return len(self._by_layer)

    def __repr__(self) -> str:
        return f"Selection({dict(self)})"

    def first(self, n: int) -> Selection:
        """Return the n most important features."""
        return self._only(self.order[:n])

    def at(self, layers: Iterable[int]) -> Selection:
        """Return the features at some layers, in the same order."""
        layers = set(layers)
        return self._only([pair for pair in self.order if pair[0] in layers])

    def to_json(self) -> dict[str, Any]:
        """Return a JSON value that `from_json` reads."""
        names = [[layer, index, name] for (layer, index), name in self.names.items()]
        return {"order": [list(pair) for pair in self.order], "names": names}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Selection:
        """Read what `to_json` wrote. ValueError: the value is no selection."""
        try:
            names = {(layer, index): str(name) for layer, index, name in value["names"]}
            return cls([(layer, index) for layer, index in value["order"]], names)
        except (KeyError, TypeError) as error:
            raise ValueError(f"not a selection: expected 'order' and 'names', got {value!r}") from error

    def _only(self, order: list[tuple[int, int]]) -> Selection:
        return Selection(order, {pair: self.names[pair] for pair in order if pair in self.names})


@runtime_checkable
class Features(Protocol):
    """Features that a reader looks at and selects: `Directions` and an SAE's `Latents`.

    noun: what one of them is called, "component" or "latent".
    signed: whether both ends can be read (a component) or only values above zero (a latent).
    """

    @property
    def noun(self) -> str: ...

    @property
    def signed(self) -> bool: ...

    @property
    def layers(self) -> list[int]: ...

    def indices(self, layer: int) -> list[int]:
        """Return the numbers by which the features of `layer` are known."""

    def values(self, layer: int, hidden: Float[Tensor, "n d"]) -> Float[Tensor, "n k"]:
        """Return projections or activations of n hidden states, columns in the order of `indices(layer)`."""

    def vector(self, layer: int, i: int) -> Float[Tensor, " d"]:
        """Return the unit vector that feature i stands for in the residual stream."""

    def projection_rows(self, layer: int) -> Float[Tensor, "k d"] | None:
        """Return the rows whose projections are `values`, or None where `values` is no projection."""

    def select(
        self, selection: Mapping[int, Sequence[int]], names: Mapping[tuple[int, int], str] | None = None
    ) -> Directions:
        """Return the selected features as orthonormal directions, to ablate them."""


def sides(features: Features) -> tuple[Side, ...]:
    """Return the ends at which these features can be read."""
    return ("+", "-") if features.signed else ("+",)
