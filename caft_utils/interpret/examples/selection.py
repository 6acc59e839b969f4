"""Select windows from a sample for explainers and scorers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from caft_utils.interpret.examples.sampler import ACTIVE_SHARE, EndSample
from caft_utils.interpret.examples.text_window import WindowRef

if TYPE_CHECKING:
    from caft_utils.chats import Chats


def select_active(sample: EndSample, column: int, n: int, max_activation: float) -> list[WindowRef]:
    """Return n activating windows, strongest first.

    Half are the strongest of all. The other half are spread evenly over the ranks of the random sample. If
    that sample is too small, more of the strongest windows fill the list.
    """

    def above_threshold(windows: Sequence[WindowRef]) -> list[WindowRef]:
        return [ref for ref in windows if ref.peak_activation > ACTIVE_SHARE * max_activation]

    strongest = above_threshold(sample.windows(sample.top, column))
    chosen = {ref.row: ref for ref in strongest[: (n + 1) // 2]}
    others = above_threshold(sample.windows(sample.active, column))
    others = sorted((ref for ref in others if ref.row not in chosen), key=_strongest_first)
    missing = min(n - len(chosen), len(others))
    ranks = [(2 * i + 1) * len(others) // (2 * missing) for i in range(missing)]
    chosen |= {others[rank].row: others[rank] for rank in ranks}
    for ref in strongest:
        if len(chosen) < n:
            chosen.setdefault(ref.row, ref)
    return sorted(chosen.values(), key=_strongest_first)


def select_non_activating(sample: EndSample, column: int) -> list[WindowRef]:
    """Return random windows in which the feature is not active."""
    return sample.windows(sample.non_activating, column)


def select_hard(sample: EndSample, column: int, n: int, chats: Chats) -> list[WindowRef]:
    """Return n non-activating windows with similar words, most similar first. No row or text occurs twice."""
    rows, texts, selected = set(), set(), []
    for ref in sample.windows(sample.hard, column):
        ids = tuple(ref.ids(chats))
        if ref.row not in rows and ids not in texts:
            selected.append(ref)
        rows.add(ref.row)
        texts.add(ids)
    return selected[:n]


def _strongest_first(ref: WindowRef) -> tuple[float, int]:
    return -ref.peak_activation, ref.row
