"""What a reader decided: which components or latents to ablate, which to put aside, and what each means.

Every direction is undecided (""), kept for ablation ("ablate") or put aside ("discard"), and may have a name.
`selection` is what `Directions.select` and `SAEs.latents` take; `selected` is CAFT's subspace (arXiv
2507.16795, section 3), and `export` writes it for the next step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from caft_utils.directions.subspace import Directions
from caft_utils.features import Features

STATES = ("ablate", "discard")


class Decisions:
    """Decisions on the directions of `found`, none at first.

    Args:
        ticks, discards: {layer: [i, ...]}; a direction in both is ticked. names: {(layer, i): name}.
        folder: where `export` writes when it is not told.

    Raises:
        IndexError, KeyError: a decision on a direction that `found` has not.
    """

    def __init__(
        self,
        found: Features,
        *,
        ticks: Mapping[int, Sequence[int]] | None = None,
        names: Mapping[tuple[int, int], str] | None = None,
        discards: Mapping[int, Sequence[int]] | None = None,
        folder: str | Path = "selection",
    ):
        self.found, self.folder = found, Path(folder)
        self._states: dict[tuple[int, int], str] = {}
        self._names: dict[tuple[int, int], str] = {}
        for state, rows in (("discard", discards), ("ablate", ticks)):
            for layer, indices in (rows or {}).items():
                for i in indices:
                    self.decide(int(layer), int(i), state)
        for (layer, i), name in (names or {}).items():
            self.name(layer, i, name)

    @property
    def components(self) -> list[tuple[int, int]]:
        """(layer, i) of everything there is to read, in order."""
        return [(layer, i) for layer in self.found.layers for i in self.found.indices(layer)]

    @property
    def selection(self) -> dict[int, list[int]]:
        """{layer: [i, ...]} of what is ticked, as `Directions.select` and `SAEs.latents` take it."""
        return self._by_layer("ablate")

    @property
    def discarded(self) -> dict[int, list[int]]:
        """{layer: [i, ...]} of what was put aside."""
        return self._by_layer("discard")

    @property
    def names(self) -> dict[tuple[int, int], str]:
        """{(layer, i): name} of what has a name."""
        return dict(sorted(self._names.items()))

    @property
    def progress(self) -> str:
        """How far the reader is, in words. What was decided counts as read."""
        states = list(self._states.values())
        text = f"{len(states)} of {len(self.components)} read"
        if states:
            text += f" \u00b7 {states.count('ablate')} to ablate, {states.count('discard')} discarded"
        return text

    def state(self, layer: int, i: int) -> str:
        """What was decided on a direction: "ablate", "discard", or nothing yet ("")."""
        return self._states.get(self._known(layer, i), "")

    def decide(self, layer: int, i: int, state: str) -> None:
        """Keep a direction for ablation ("ablate"), put it aside ("discard"), or leave it open ("").

        Raises:
            ValueError: another state.
        """
        component = self._known(layer, i)
        if state not in ("", *STATES):
            raise ValueError(f'a direction is decided as "ablate", "discard" or "", got {state!r}')
        self._states.pop(component, None)
        if state:
            self._states[component] = state
        self._changed()

    def tick(self, layer: int, i: int, on: bool = True) -> None:
        """Tick a direction for ablation, or take the tick away."""
        if on or self.state(layer, i) == "ablate":
            self.decide(layer, i, "ablate" if on else "")

    def name(self, layer: int, i: int, name: str) -> None:
        """Write down what a direction means; an empty name removes it."""
        component = self._known(layer, i)
        if name.strip():
            self._names[component] = name.strip()
        else:
            self._names.pop(component, None)
        self._changed()

    def selected(self) -> Directions:
        """The ticked directions with their names; the decoder rows of latents are made orthonormal.

        Raises:
            ValueError: nothing is ticked.
        """
        rows, names, noun = self.selection, self.names, self.found.noun
        if not rows:
            raise ValueError(f"nothing is ticked yet: tick a {noun} in the explorer, or call tick(layer, i)")
        if isinstance(self.found, Directions):
            return self.found.select(rows, names=names)
        if hasattr(self.found, "saes"):
            from caft_utils.saes.latents import sae_directions

            return sae_directions(self.found.saes, rows, names=names)
        vectors = {layer: torch.stack([self.found.vector(layer, i) for i in rows[layer]]) for layer in rows}
        called = {layer: [names.get((layer, i), "") for i in rows[layer]] for layer in rows}
        return Directions(vectors, {"method": f"{noun}s", "selected": rows, "names": called})

    def export(self, folder: str | Path | None = None) -> Path:
        """Write `selected()` into a folder, where `Directions.load` finds it; returns its full path.

        Raises:
            ValueError: nothing is ticked.
        """
        return self.selected().save(Path(folder or self.folder).resolve())

    def _by_layer(self, state: str) -> dict[int, list[int]]:
        chosen: dict[int, list[int]] = {}
        for layer, i in self.components:
            if self._states.get((layer, i)) == state:
                chosen.setdefault(layer, []).append(i)
        return chosen

    def _known(self, layer: int, i: int) -> tuple[int, int]:
        noun = self.found.noun
        if layer not in self.found.layers:
            raise KeyError(f"no {noun}s at layer {layer}; there are some at {self.found.layers}")
        if i not in (known := self.found.indices(layer)):
            row = known == list(range(len(known)))
            some = f"0 to {len(known) - 1}" if row else ", ".join(map(str, known[:20]))
            raise IndexError(f"layer {layer} has the {noun}s {some}, got {i}")
        return layer, i

    def _changed(self) -> None:
        """Called after every decision, for those who show it."""
