"""A reader's decisions: which components or latents to ablate, which to discard, and what each means.

A direction is undecided (""), selected for ablation ("ablate") or discarded ("discard"), and may have a name.
`directions` returns CAFT's subspace (arXiv 2507.16795, section 3), and `export` writes it for the next step.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from caft_utils.arguments import key_number
from caft_utils.directions.subspace import Directions
from caft_utils.features import Features, Selection

STATES = ("ablate", "discard")


class Decisions:
    """Decisions on the directions of `features`.

    Args:
        selection, discarded: {layer: [index, ...]}; a direction in both is selected. Default: none.
        names: {(layer, index): name}, of any direction; default: the names of `selection`.
        folder: where `export` writes by default.

    Raises:
        IndexError, KeyError: a decision on a direction that `features` does not have.
        ValueError: a layer or an index is not a whole number, or the indices are not a list.
    """

    def __init__(
        self,
        features: Features,
        selection: Mapping[int, Sequence[int]] | None = None,
        *,
        discarded: Mapping[int, Sequence[int]] | None = None,
        names: Mapping[tuple[int, int], str] | None = None,
        folder: str | Path = "selection",
    ):
        self.features, self.folder = features, Path(folder)
        self._states: dict[tuple[int, int], str] = {}
        self._names: dict[tuple[int, int], str] = {}
        for state, indices_by_layer in (("discard", discarded), ("ablate", selection)):
            for layer, indices in (indices_by_layer or {}).items():
                layer = key_number("a layer", layer)
                if isinstance(indices, str) or not isinstance(indices, Iterable):
                    raise ValueError(f"the indices of layer {layer} must be a list, got {indices!r}")
                for index in indices:
                    self.decide(layer, key_number("an index", index), state)
        for (layer, index), name in (Selection(selection or {}).names if names is None else names).items():
            self.name(layer, index, name)

    @property
    def components(self) -> list[tuple[int, int]]:
        """(layer, index) of all directions to read, in order."""
        return [(layer, index) for layer in self.features.layers for index in self.features.indices(layer)]

    @property
    def selection(self) -> Selection:
        """The directions selected for ablation, with their names."""
        return self._in_state("ablate")

    @property
    def discarded(self) -> Selection:
        """The discarded directions, with their names."""
        return self._in_state("discard")

    @property
    def names(self) -> dict[tuple[int, int], str]:
        """{(layer, index): name} of all directions that have a name."""
        return dict(sorted(self._names.items()))

    @property
    def progress(self) -> str:
        """The number of directions that have been read, in words. A decision counts as reading."""
        states = list(self._states.values())
        text = f"{len(states)} of {len(self.components)} read"
        if states:
            text += f" \u00b7 {states.count('ablate')} to ablate, {states.count('discard')} discarded"
        return text

    def state(self, layer: int, index: int) -> str:
        """Return the decision on a direction: "ablate", "discard", or "" for none."""
        return self._states.get(self._checked(layer, index), "")

    def decide(self, layer: int, index: int, state: str) -> None:
        """Select a direction for ablation ("ablate"), discard it ("discard"), or leave it undecided ("").

        Raises:
            ValueError: another state.
        """
        component = self._checked(layer, index)
        if state not in ("", *STATES):
            raise ValueError(f'a direction is decided as "ablate", "discard" or "", got {state!r}')
        self._states.pop(component, None)
        if state:
            self._states[component] = state
        self._changed()

    def select(self, layer: int, index: int, on: bool = True) -> None:
        """Select a direction for ablation, or undo the selection."""
        if on or self.state(layer, index) == "ablate":
            self.decide(layer, index, "ablate" if on else "")

    tick = select  # the name in recorded notebooks

    def name(self, layer: int, index: int, name: str) -> None:
        """Record what a direction means; an empty name removes it."""
        component = self._checked(layer, index)
        if name.strip():
            self._names[component] = name.strip()
        else:
            self._names.pop(component, None)
        self._changed()

    def directions(self) -> Directions:
        """Return the selected directions with their names; decoder rows of latents are made orthonormal.

        Raises:
            ValueError: nothing is selected.
        """
        selection = self.selection
        if not selection:
            raise ValueError(
                f"nothing is selected yet: select a {self.features.kind} in the explorer, or call "
                "select(layer, index)"
            )
        return self.features.select(selection, names=selection.names)

    def export(self, folder: str | Path | None = None) -> Path:
        """Write `directions()` into a folder for `Directions.load`, and return its absolute path.

        Raises:
            ValueError: nothing is selected.
        """
        return self.directions().save(Path(folder or self.folder).resolve())

    def _in_state(self, state: str) -> Selection:
        chosen = [component for component in self.components if self._states.get(component) == state]
        return Selection(chosen, {pair: self._names[pair] for pair in chosen if pair in self._names})

    def _checked(self, layer: int, index: int) -> tuple[int, int]:
        kind = self.features.kind
        if layer not in self.features.layers:
            raise KeyError(f"no {kind}s at layer {layer}; there are some at {self.features.layers}")
        indices = self.features.indices(layer)
        if index not in indices:
            consecutive = list(indices) == list(range(len(indices)))
            listed = f"0 to {len(indices) - 1}" if consecutive else ", ".join(map(str, indices[:20]))
            raise IndexError(f"layer {layer} has the {kind}s {listed}, got {index}")
        return layer, index

    def _changed(self) -> None:
        """React to a decision; a subclass that displays decisions overrides this."""
