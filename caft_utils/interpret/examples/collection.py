"""What explainers and scorers are given: windows in which a direction is active, and windows in which not.

Rows are divided at random into two halves before anything else: of one come the windows that an explainer
sees, of the other those on which its explanation is tried, so that none can be scored on what it was made
from. First the one half is read, then the other: one pass over the text, in memory that does not grow with it
(sampling.py). In the second half, windows in which nothing activates are compared with the active ones of the
first: the hard negatives are those of the most similar words (likeness.py).
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import nn

from caft_utils.features import Features
from caft_utils.interpret.examples.hard_negatives import WordSimilarity
from caft_utils.interpret.examples.max_activating import TextWindow, check_width, logit_lens, pieces
from caft_utils.interpret.examples.sampler import (
    ACTIVE_SHARE,
    SIGNS,
    ExampleSample,
    ExampleSampler,
    WindowRef,
)

if TYPE_CHECKING:
    from caft_utils.chats import Chats

MIN_EXAMPLES = 4  # with fewer windows of a kind there is nothing to explain or to score

Key = tuple[int, int, str]  # layer, index, side


@dataclass(frozen=True)
class FeatureExamples:
    """Of one side of a component, or of one latent. Values are turned so that active means positive.

    train, test: activating windows, strongest first, half of them the strongest of all and half spread
        evenly over the quantiles of the others.
    train_negatives, test_negatives: windows in which nothing activates, at random.
    hard_negatives: those whose words are nearest to the ones of `train`, nearest first.
        At most one window of a row stands in one list.
    max_activation: the largest value seen anywhere.
    promoted_tokens, suppressed_tokens: words by the logit lens, towards this side.

    `train` and `train_negatives` have no row in common with the others.
    """

    layer: int
    index: int
    side: Literal["+", "-"]
    noun: str
    train: list[TextWindow]
    test: list[TextWindow]
    train_negatives: list[TextWindow]
    test_negatives: list[TextWindow]
    hard_negatives: list[TextWindow]
    max_activation: float
    promoted_tokens: list[str]
    suppressed_tokens: list[str]


class TooFewExamples(UserWarning):
    """Some directions have no evidence: `left_out` {(layer, index, side): why}."""

    def __init__(self, left_out: Mapping[Key, str]):
        self.left_out = dict(left_out)
        listed = "; ".join(f"{key}: {why}" for key, why in list(self.left_out.items())[:5])
        more = f"; and {len(self.left_out) - 5} more, see left_out" if len(self.left_out) > 5 else ""
        super().__init__(f"no evidence for {len(self.left_out)} directions: {listed}{more}")


def collect_examples(
    model: nn.Module,
    chats: Chats,
    features: Features,
    *,
    n: int = 20,
    width: int = 16,
    seed: int = 0,
    batch_size: int = 32,
    progress: bool = False,
) -> dict[tuple[int, int, str], FeatureExamples]:
    """Evidence on every direction, by (layer, index, side); a latent has only the side "+".

    Directions with fewer than 4 windows of a kind (they never fire, or always) are left out, with a warning
    `TooFewWindows` that lists them.

    Args:
        n: windows in each list, or as many as there are. width: tokens in a window.
        seed: of the division of rows and of what is drawn at random. Batches make no difference.

    Raises:
        ValueError: n or width below 1, fewer than two rows, or directions of another width than the model's.
    """
    if n < 1 or width < 1:
        raise ValueError(f"n and width must be at least 1, got n={n} and width={width}")
    if len(chats) < 2:
        raise ValueError(f"evidence needs rows to explain from and others to score on, got {len(chats)}")
    check_width(model, features)
    how = {"n": n, "width": width, "seed": seed, "batch_size": batch_size, "progress": progress}
    sampler, likeness = ExampleSampler(model, chats, features, **how), WordSimilarity(chats)
    order = torch.randperm(len(chats), generator=torch.Generator().manual_seed(seed))
    train = sampler.read(order[: len(chats) // 2])
    towards = {}
    for key, strongest in sampler.strongest.items():
        active = [_active(train[key], column, n, most) for column, most in enumerate(strongest.tolist())]
        towards[key] = likeness.towards([[_ids(chats, one) for one in found] for found in active])
    test = sampler.read(order[len(chats) // 2 :], likeness, towards)

    texts, evidence, left_out = _Texts(chats), {}, {}
    for (layer, index, side), column in _columns(features).items():
        first, second = train[layer, side], test[layer, side]
        strongest = float(sampler.strongest[layer, side][column])
        lists = {
            "train": _active(first, column, n, strongest),
            "test": _active(second, column, n, strongest),
            "train_negatives": first.found("quiet", column),
            "test_negatives": second.found("quiet", column),
        }
        if few := [
            f"{len(found)} {kind}" for kind, found in lists.items() if len(found) < min(n, MIN_EXAMPLES)
        ]:
            why = f"only {', '.join(few)} windows" if strongest > 0 else "never active"
            left_out[layer, index, side] = why
            continue
        lists["hard_negatives"] = _different(chats, second.found("hard", column))[:n]
        windows = {kind: [texts.window(one) for one in found] for kind, found in lists.items()}
        promoted, suppressed = logit_lens(model, SIGNS[side] * features.vector(layer, index), chats.tokenizer)
        more = {"max_activation": strongest, "promoted_tokens": promoted, "suppressed_tokens": suppressed}
        evidence[layer, index, side] = FeatureExamples(layer, index, side, features.noun, **windows, **more)
    if left_out:
        warnings.warn(TooFewExamples(left_out), stacklevel=2)
    return evidence


def _columns(features: Features) -> dict[Key, int]:
    """Which column of the values belongs to which direction; both of its sides share it."""
    sides = ("+", "-") if features.signed else ("+",)
    return {
        (layer, index, side): column
        for layer in features.layers
        for column, index in enumerate(features.indices(layer))
        for side in sides
    }


def _active(sample: ExampleSample, column: int, n: int, strongest: float) -> list[WindowRef]:
    """n activating windows, strongest first: half the strongest, half evenly over the ranks of the others."""
    top, others = (
        [found for found in sample.found(kind, column) if found.value > ACTIVE_SHARE * strongest]
        for kind in ("top", "active")
    )
    chosen = {found.row: found for found in top[: (n + 1) // 2]}
    others = sorted((o for o in others if o.row not in chosen), key=_strength)
    missing = min(n - len(chosen), len(others))
    ranks = [(2 * i + 1) * len(others) // (2 * missing) for i in range(missing)]
    chosen |= {others[rank].row: others[rank] for rank in ranks}
    for found in top:  # where the sample was too small
        if len(chosen) < n:
            chosen.setdefault(found.row, found)
    return sorted(chosen.values(), key=_strength)


def _strength(found: WindowRef) -> tuple[float, int]:
    return -found.value, found.row


def _ids(chats: Chats, found: WindowRef) -> list[int]:
    return chats[found.row].input_ids[found.first : found.first + len(found.values)]


def _different(chats: Chats, found: Sequence[WindowRef]) -> list[WindowRef]:
    """Those whose row and whose text did not come before."""
    rows, texts, kept = set(), set(), []
    for one in found:
        ids = tuple(_ids(chats, one))
        if one.row not in rows and ids not in texts:
            kept.append(one)
        rows.add(one.row)
        texts.add(ids)
    return kept


class _Texts:
    """Makes windows, and a window's text once however many directions it is evidence on."""

    def __init__(self, chats: Chats):
        self.chats, self.known = chats, {}

    def window(self, found: WindowRef) -> TextWindow:
        span = (found.row, found.first, found.first + len(found.values))
        if span not in self.known:
            self.known[span] = pieces(self.chats.tokenizer, self.chats[found.row].input_ids, *span[1:])
        peak = found.position - found.first
        return TextWindow(list(self.known[span]), found.values, peak, found.row, found.position)
