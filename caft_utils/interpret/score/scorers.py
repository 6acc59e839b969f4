"""Is an explanation true? Five scores, each of which predicts a direction's activity on unseen text.

    detection     which windows are active?                      AUROC of the judge's probability
    fuzzing       are the marked tokens the active ones?         AUROC: marks on active or on wrong tokens
    surprisal     which windows does the explanation ease?       AUROC of the drop of a model's loss
    embedding     which windows are near the explanation?        AUROC of a cosine
    intervention  does steering make the model write of it?      gain of log-odds, in nats

and `simulation`, the older reference: the correlation of the activation that is predicted for each token
with the true one. Scorers see other rows of text than the explainer saw; this is checked, not trusted:
sampled from one list, half of the test windows may be windows that the explainer was shown.
(arXiv 2410.13928, section 3.3; simulation: Bills et al. 2023.)
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float
from torch import Tensor

from caft_utils.evaluation.scores import Score, correlated, ranked
from caft_utils.interpret.examples import ACTIVE_SHARE, FeatureExamples
from caft_utils.interpret.examples.max_activating import TextWindow
from caft_utils.interpret.score.encoders import Encoder, TfIdf
from caft_utils.interpret.score.steering_score import Prompt, Steering, intervention
from caft_utils.interpret.score.surprisal_score import loss_drops
from caft_utils.interpret.score.window_judges import WindowJudge
from caft_utils.interpret.score.word_overlap import MARKUP

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from caft_utils.interpret.explain import Explanation


def check_disjoint(evidence: FeatureExamples) -> None:
    """Raises ValueError where a row that the explainer saw is among those for scoring."""
    seen = {w.row for w in evidence.train + evidence.train_negatives}
    shared = seen & {w.row for w in evidence.test + evidence.test_negatives + evidence.hard_negatives}
    if shared:
        raise ValueError(
            f"layer {evidence.layer}, {evidence.noun} {evidence.index}: rows {sorted(shared)[:5]} were shown "
            "to the explainer (train, train_negatives) and are the scorer's too (test, test_negatives, "
            "hard_negatives): a score would measure memory; split the rows, as collect_evidence does"
        )


def detection(
    explanation: str, evidence: FeatureExamples, judge: WindowJudge, *, hard: bool = False
) -> Score:
    """Does the judge tell the windows in which the direction is active from those in which it is not?

    Args:
        hard: compare with windows whose words are like those of active ones, instead of any.

    `extra` has the balanced accuracy at a probability of one half.
    """
    check_disjoint(evidence)
    windows, active = _compared(evidence, hard)
    values = judge(explanation, windows)
    return ranked("detection", values, active, [w.row for w in windows], **_accuracy(values, active))


def fuzzing(explanation: str, evidence: FeatureExamples, judge: WindowJudge, *, seed: int = 0) -> Score:
    """Does the judge tell marks on active tokens from marks on as many wrong ones?

    Wrong ones are tokens of windows that are not active, and tokens without activation in active windows.
    Of a window at most half is marked, the most active tokens first, so that as many others are left to
    be marked wrongly; words are replaced by words and signs by signs, which could else be told apart
    without any explanation. `extra` has the AUROC for either kind of wrong marks.

    Args:
        seed: of the choice of wrong tokens, which differs from direction to direction.
    """
    check_disjoint(evidence)
    rng = random.Random(f"{seed} {evidence.layer} {evidence.index} {evidence.side}")
    shown: list[tuple[str, TextWindow, set[int]]] = []
    for window in evidence.test:
        bound = ACTIVE_SHARE * evidence.max_activation
        active = [t for t, value in enumerate(window.activations) if value > bound]
        idle = [t for t in range(len(window.tokens)) if t not in active]
        active.sort(key=window.activations.__getitem__, reverse=True)
        del active[max(1, len(window.tokens) // 2) :]
        if active:
            shown.append(("active", window, set(active)))
        if active and len(idle) >= len(active):
            shown.append(("idle", window, _marks(rng, idle, window, [window.tokens[t] for t in active])))
    patterns = [[w.tokens[t] for t in marks] for kind, w, marks in shown if kind == "active"]
    for place, window in enumerate(evidence.test_negatives if patterns else ()):
        like = patterns[place % len(patterns)]
        shown.append(("other", window, _marks(rng, range(len(window.tokens)), window, like)))
    kinds, windows, marked = (list(part) for part in zip(*shown)) if shown else ([], [], [])
    values = judge(explanation, windows, marked) if windows else []
    rows = [w.row for w in windows]

    def against(*wrong: str, **extra: float) -> Score:
        kept = [i for i, kind in enumerate(kinds) if kind in ("active", *wrong)]
        right = [kinds[i] == "active" for i in kept]
        return ranked("fuzzing", [values[i] for i in kept], right, [rows[i] for i in kept], **extra)

    other, idle = against("other").value, against("idle").value
    return against("other", "idle", in_other_windows=other, in_active_windows=idle)


def surprisal(
    explanation: str,
    evidence: FeatureExamples,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    hard: bool = False,
    batch_size: int = 32,
    **texts: str,
) -> Score:
    """Does the explanation lower the model's loss more on active windows? `texts`: those of `loss_drops`."""
    check_disjoint(evidence)
    windows, active = _compared(evidence, hard)
    drops = loss_drops(explanation, windows, model, tokenizer, batch_size=batch_size, **texts)
    return ranked("surprisal", drops.tolist(), active, [w.row for w in windows])


def embedding(
    explanation: str, evidence: FeatureExamples, encoder: Encoder | None = None, *, hard: bool = False
) -> Score:
    """Are active windows nearer to the explanation? `encoder`: default TF-IDF fitted on these windows."""
    check_disjoint(evidence)
    windows, active = _compared(evidence, hard)
    texts = [MARKUP.sub(" ", "".join(window.tokens)) for window in windows]
    if not texts:
        return ranked("embedding", [], [], [])
    vectors = np.asarray((encoder or TfIdf(texts))([explanation, *texts]), dtype=float)
    if vectors.ndim != 2 or len(vectors) != len(texts) + 1:
        raise ValueError(
            f"the encoder must give [{len(texts) + 1}, d] for as many texts, got {vectors.shape}"
        )
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return ranked("embedding", (vectors[1:] @ vectors[0]).tolist(), active, [w.row for w in windows])


def simulation(explanation: str, evidence: FeatureExamples, judge: WindowJudge) -> Score:
    """Pearson's r between the judge's probability that a token fits and its activation (0 below zero).

    Each token is asked about by itself, as a window with this one mark: n tokens a window, n questions.
    """
    check_disjoint(evidence)
    windows, _ = _compared(evidence, hard=False)
    places = [(w, t) for w, window in enumerate(windows) for t in range(len(window.tokens))]
    if not places:
        return correlated("simulation", [], [], [])
    replies = judge(explanation, [windows[w] for w, _ in places], [{t} for _, t in places])
    predicted: list[list[float | None]] = [[] for _ in windows]
    for (w, _), reply in zip(places, replies):
        predicted[w].append(reply)
    true = [[max(0.0, value) for value in window.activations] for window in windows]
    return correlated("simulation", predicted, true, [window.row for window in windows])


def scores(
    explanation: str | Explanation,
    evidence: FeatureExamples,
    *,
    judge: WindowJudge,
    model: PreTrainedModel | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
    encoder: Encoder | None = None,
    prompts: Sequence[Prompt] | None = None,
    vector: Float[Tensor, " d"] | None = None,
    steering: Steering | None = None,
    texts: Mapping[str, str] | None = None,
    simulate: bool = False,
    seed: int = 0,
) -> dict[str, Score]:
    """All scores that can be computed from what is given, by name.

    Args:
        judge: for detection, fuzzing and intervention.
        model, tokenizer: the model whose direction it is, for surprisal and intervention.
        vector: the direction, as `readable.vector(layer, index)` gives it; without it, no intervention.
        prompts: texts or conversations to be continued under steering; default: the windows in which the
            direction is not active. To score many directions, give `steering`, made once of common prompts:
            it keeps what it wrote.
        texts: `prefix` and `dummy` of the surprisal score, in a form that the model was trained on.
        simulate: also the simulation score, a question for every token: with a language model as judge it
            costs many times what the others cost together.

    Raises:
        ValueError: the explainer's windows and the scorer's share a row.
    """
    text = explanation if isinstance(explanation, str) else explanation.text
    found = {
        "detection": detection(text, evidence, judge),
        "fuzzing": fuzzing(text, evidence, judge, seed=seed),
    }
    if model is not None and tokenizer is not None:
        found["surprisal"] = surprisal(text, evidence, model, tokenizer, **(texts or {}))
        if steering is None and vector is not None:
            given = prompts or ["".join(window.tokens) for window in evidence.test_negatives]
            steering = Steering(model, tokenizer, given, seed=seed) if given else None
    found["embedding"] = embedding(text, evidence, encoder)
    if steering is not None and vector is not None:
        found["intervention"] = intervention(text, evidence, judge, steering, vector)
    if simulate:
        found["simulation"] = simulation(text, evidence, judge)
    return found


def _compared(evidence: FeatureExamples, hard: bool) -> tuple[list[TextWindow], list[bool]]:
    """Windows that are active and windows that are not, and which is which."""
    others = evidence.hard_negatives if hard else evidence.test_negatives
    return [*evidence.test, *others], [True] * len(evidence.test) + [False] * len(others)


def _accuracy(values: Sequence[float | None], active: Sequence[bool]) -> dict[str, float]:
    given = [(v >= 0.5, a) for v, a in zip(values, active) if v is not None]
    sides = [[guess == side for guess, a in given if a == side] for side in (True, False)]
    return {"balanced_accuracy": sum(sum(s) / len(s) for s in sides) / 2} if all(sides) else {}


def _marks(rng: random.Random, places: Sequence[int], window: TextWindow, like: Sequence[str]) -> set[int]:
    """As many random places as `like` has tokens (or there are), words for words as far as there are some."""
    words = [t for t in places if _is_word(window.tokens[t])]
    signs = [t for t in places if not _is_word(window.tokens[t])]
    rng.shuffle(words), rng.shuffle(signs)
    wanted = sum(map(_is_word, like))
    first, rest = words[:wanted] + signs[: len(like) - wanted], words[wanted:] + signs[len(like) - wanted :]
    return set((first + rest)[: len(like)])


def _is_word(token: str) -> bool:
    return any(sign.isalnum() for sign in MARKUP.sub("", token))
