"""Fuzzing: can a judge tell marks on active tokens from marks on other tokens, given the explanation?

The score is the AUROC of the judge's probabilities. (arXiv 2410.13928, section 3.3.)
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from caft_utils.evaluation.scores import Score, auroc_score
from caft_utils.interpret.examples import FeatureExamples
from caft_utils.interpret.examples.text_window import TextWindow
from caft_utils.interpret.marked_text import active_positions
from caft_utils.interpret.score.scorers import Scorer
from caft_utils.interpret.score.window_judges import WindowJudge
from caft_utils.interpret.words import has_word


@dataclass(frozen=True)
class Fuzzing(Scorer):
    """AUROC of the judge's probability that the marked tokens fit the explanation.

    Wrong marks lie on tokens of non-activating windows, and on tokens without activation in activating ones.
    At most half of a window is marked, the most active tokens first, so that enough tokens are left for wrong
    marks. Wrong marks replace words by words and punctuation by punctuation. Otherwise the marks could be
    told apart without any explanation.

    seed: seed for choosing wrong tokens. The choice also depends on the feature.

    `Score.extra` holds the AUROC against each kind of wrong mark.
    """

    judge: WindowJudge
    seed: int = 0
    name = "fuzzing"

    def score(self, explanation: str, examples: FeatureExamples) -> Score:
        marked = _marked_windows(examples, self.seed)
        windows, positions = [one.window for one in marked], [one.positions for one in marked]
        probabilities = self.judge(explanation, windows, positions) if windows else []

        def against(*wrong: str, **extra: float) -> Score:
            kept = [i for i, one in enumerate(marked) if one.kind in ("active", *wrong)]
            right = [marked[i].kind == "active" for i in kept]
            rows = [windows[i].row for i in kept]
            return auroc_score(self.name, [probabilities[i] for i in kept], right, rows, **extra)

        other, idle = against("other").value, against("idle").value
        return against("other", "idle", in_other_windows=other, in_active_windows=idle)


class _MarkedWindow(NamedTuple):
    """kind: "active" for right marks, "idle" for wrong ones in an activating window, else "other"."""

    kind: Literal["active", "idle", "other"]
    window: TextWindow
    positions: set[int]


def _marked_windows(examples: FeatureExamples, seed: int) -> list[_MarkedWindow]:
    rng = random.Random(f"{seed} {examples.layer} {examples.index} {examples.side}")
    marked: list[_MarkedWindow] = []
    patterns: list[list[str]] = []  # the marked tokens of each activating window
    for window in examples.scorer_windows:
        all_active = active_positions(window, examples.max_activation)
        active = sorted(sorted(all_active), key=window.activations.__getitem__, reverse=True)
        active = active[: max(1, len(window.tokens) // 2)]
        idle = [t for t in range(len(window.tokens)) if t not in all_active]
        if active:
            marked.append(_MarkedWindow("active", window, set(active)))
            patterns.append([window.tokens[t] for t in set(active)])
        if active and len(idle) >= len(active):
            like = [window.tokens[t] for t in active]
            marked.append(_MarkedWindow("idle", window, _choose(rng, idle, window, like)))
    for i, window in enumerate(examples.scorer_negatives if patterns else ()):
        like = patterns[i % len(patterns)]
        marked.append(_MarkedWindow("other", window, _choose(rng, range(len(window.tokens)), window, like)))
    return marked


def _choose(
    rng: random.Random, positions: Sequence[int], window: TextWindow, like: Sequence[str]
) -> set[int]:
    """Return as many random positions as `like` has tokens: words for words, punctuation for punctuation.

    If one kind runs out, the other replaces it. The result can be shorter than `like`.
    """
    words = [t for t in positions if has_word(window.tokens[t])]
    signs = [t for t in positions if not has_word(window.tokens[t])]
    rng.shuffle(words), rng.shuffle(signs)
    n_words = sum(map(has_word, like))
    n_signs = len(like) - n_words
    preferred, others = words[:n_words] + signs[:n_signs], words[n_words:] + signs[n_signs:]
    return set((preferred + others)[: len(like)])
