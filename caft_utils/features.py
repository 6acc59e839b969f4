"""Features that can be read and selected: directions in the residual stream and SAE latents, one protocol.

A feature is identified by (layer, index). A `Selection` lists some features in order of importance.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from caft_utils.arguments import key_number

Side = Literal["+", "-"]
FeatureKey = tuple[int, int, Side]
"""(layer, index, side): one end of a component, or a latent (side "+")."""


class Selection(Mapping[int, list[int]]):
    """A choice of features, {layer: [index, ...]}, in order of importance, with optional names.

    A selection is a mapping, and it equals the plain {layer: [index, ...]} with the same content. Every
    function that takes a selection also takes such a plain mapping.

    Args:
        selection: {layer: indices}, or (layer, index) pairs, most important first. A mapping is ordered by
            layer. Layers without an index are left out.
        names: {(layer, index): name} for selected features only. Default: the names of `selection` where
            that is a `Selection`, else none.

    Raises:
        ValueError: a feature is selected twice, a named feature is not selected, or a layer or an index is
            not a whole number, or it is neither a mapping to lists nor pairs.
    """

    def __init__(
        self,
        selection: Mapping[int, Sequence[int]] | Iterable[tuple[int, int]] = (),
        names: Mapping[tuple[int, int], str] | None = None,
    ):
        if isinstance(selection, Selection):
            names = selection.names if names is None else names
            pairs: Iterable[tuple[int, int]] = selection.order
        else:
            try:
                if isinstance(selection, Mapping):
                    selection = [(layer, index) for layer in sorted(selection) for index in selection[layer]]
                pairs = [(layer, index) for layer, index in selection]
            except (TypeError, ValueError) as error:
                raise ValueError(
                    "a selection must be {layer: [index, ...]} or a list of pairs (layer, index), "
                    f"got {selection!r:.80}"
                ) from error
        self.order: list[tuple[int, int]] = [_pair(layer, index) for layer, index in pairs]
        self.names: dict[tuple[int, int], str] = {_pair(*pair): name for pair, name in (names or {}).items()}
        if duplicates := [pair for pair, count in Counter(self.order).items() if count > 1]:
            raise ValueError(f"features selected twice: {sorted(duplicates)[:5]} (layer, index)")
        if unselected := sorted(set(self.names) - set(self.order)):
            raise ValueError(f"names of features that are not selected: {unselected[:5]} (layer, index)")
        self._by_layer: dict[int, list[int]] = {}
        for layer, index in self.order:
            self._by_layer.setdefault(layer, []).append(index)

    def __getitem__(self, layer: int) -> list[int]:
        return list(self._by_layer[layer])

    def __iter__(self) -> Iterator[int]:
        return iter(sorted(self._by_layer))

    def __len__(self) -> int:
        """Return the number of layers. `len(selection.order)` is the number of features."""
        return len(self._by_layer)

    def __repr__(self) -> str:
        return f"Selection({dict(self)})"

    def first(self, n: int) -> Selection:
        """Return the n most important features."""
        return self._subset(self.order[:n])

    def at(self, layers: Iterable[int]) -> Selection:
        """Return the features at these layers, in the same order."""
        layers = set(layers)
        return self._subset([pair for pair in self.order if pair[0] in layers])

    def to_json(self) -> dict[str, Any]:
        """Return a JSON value that `from_json` reads."""
        names = [[layer, index, name] for (layer, index), name in self.names.items()]
        return {"order": [list(pair) for pair in self.order], "names": names}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Selection:
        """Return the selection that `to_json` wrote.

        Raises:
            ValueError: the value is not a selection.
        """
        try:
            names = {(layer, index): str(name) for layer, index, name in value["names"]}
            pairs = [(layer, index) for layer, index in value["order"]]
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"not a selection: expected 'order' and 'names', got {value!r}") from error
        return cls(pairs, names)

    def _subset(self, order: list[tuple[int, int]]) -> Selection:
        return Selection(order, {pair: self.names[pair] for pair in order if pair in self.names})


def _pair(layer: Any, index: Any) -> tuple[int, int]:
    return key_number("a selected layer", layer), key_number("a selected feature", index)


@runtime_checkable
class Features(Protocol):
    """Features that can be inspected and selected, such as `Directions` and the `Latents` of SAEs.

    kind: name of one such feature in texts, "component" or "latent".
    two_sided: whether both ends have a meaning (a component) or only values above zero (a latent).
    """

    @property
    def kind(self) -> str: ...

    @property
    def two_sided(self) -> bool: ...

    @property
    def layers(self) -> list[int]: ...

    @property
    def fingerprint(self) -> str | None:
        """A text that changes with the layers, indices or values; None: results are not to be stored."""

    def indices(self, layer: int) -> list[int]:
        """Return the indices of the features of `layer`.

        Raises:
            KeyError: there are no features at this layer.
        """

    def values(self, layer: int, hidden: Float[Tensor, "n d"]) -> Float[Tensor, "n k"]:
        """Return projections or activations of n hidden states, columns in the order of `indices(layer)`."""

    def vector(self, layer: int, i: int) -> Float[Tensor, " d"]:
        """Return the unit vector in the residual stream that belongs to feature i.

        Raises:
            IndexError: there is no such feature at this layer.
        """

    def projection_rows(self, layer: int) -> Float[Tensor, "k d"] | None:
        """Return the rows whose projections are `values`, or None where `values` is not a projection."""

    def select(
        self, selection: Mapping[int, Sequence[int]], names: Mapping[tuple[int, int], str] | None = None
    ) -> Any:
        """Return the selected features as orthonormal `Directions`, ready to be ablated."""


def sides(features: Features) -> tuple[Side, ...]:
    """Return the ends at which these features can be read."""
    return ("+", "-") if features.two_sided else ("+",)
