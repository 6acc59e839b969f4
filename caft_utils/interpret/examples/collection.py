"""Collect examples of features for explainers and scorers, in two passes over text.

Rows are split at random into two halves. Explainers see windows of the first half. Explanations are scored on
windows of the second half, so no explanation is scored on the text that it was made from.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Int
from torch import Tensor, nn

from caft_utils.arguments import checked
from caft_utils.features import FeatureKey, Features, Side, sides
from caft_utils.interpret.examples.checks import check_features, check_window_size
from caft_utils.interpret.examples.hard_negatives import WordSimilarity
from caft_utils.interpret.examples.lens import logit_lens
from caft_utils.interpret.examples.sampler import (
    SIGNS,
    EndSample,
    HardNegativeTargets,
    LayerSide,
    WindowSampler,
)
from caft_utils.interpret.examples.selection import select_active, select_hard, select_non_activating
from caft_utils.interpret.examples.text_window import TextWindow, WindowRef, WindowTexts
from caft_utils.models import fingerprint
from caft_utils.residual import width as model_width
from caft_utils.sinks import Sinks, key_of_sinks
from caft_utils.stored_results import fetch_json

if TYPE_CHECKING:
    from caft_utils.chats import Chats
    from caft_utils.store import Store

FORMAT = 2  # increase it when the same key would give different examples
WINDOW_KINDS = (
    "explainer_windows",
    "scorer_windows",
    "explainer_negatives",
    "scorer_negatives",
    "hard_negatives",
)
MIN_EXAMPLES = 4  # fewer windows of a kind are too few to explain or to score


@dataclass(frozen=True)
class FeatureExamples:
    """Examples of a latent, or of one side of a component. Activations are signed so that active is positive.

    explainer_windows: activating windows that explainers see, strongest first. Half are the strongest of all,
        the others are spread evenly over the quantiles of the rest.
    scorer_windows: activating windows of held-out rows, chosen in the same way, on which explanations are
        scored.
    explainer_negatives, scorer_negatives: random windows without an activating token, for each of the two.
    hard_negatives: windows for scorers, not activating, whose words resemble those of `explainer_windows`,
        most similar first.
    max_activation: the largest activation in any row.
    promoted_tokens, suppressed_tokens: words from the logit lens in the direction of this side.

    The explainer's lists share no row with the scorer's. Within a list, each window comes from a different
    row.
    """

    layer: int
    index: int
    side: Side
    kind: str
    explainer_windows: list[TextWindow]
    scorer_windows: list[TextWindow]
    explainer_negatives: list[TextWindow]
    scorer_negatives: list[TextWindow]
    hard_negatives: list[TextWindow]
    max_activation: float
    promoted_tokens: list[str]
    suppressed_tokens: list[str]

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> FeatureExamples:
        """Return the examples of a JSON value that `to_json` made."""
        windows = {name: [TextWindow(**window) for window in value[name]] for name in WINDOW_KINDS}
        others = {name: each for name, each in value.items() if name not in ("noun", *WINDOW_KINDS)}
        return cls(kind=value["noun"], **others, **windows)

    def to_json(self) -> dict[str, Any]:
        """Return the examples as a JSON value, in which `kind` has its stored name "noun"."""
        return {"noun" if name == "kind" else name: value for name, value in asdict(self).items()}


class TooFewExamples(UserWarning):
    """Some features have too few examples. `left_out` is {(layer, index, side): reason}."""

    def __init__(self, left_out: Mapping[FeatureKey, str]):
        self.left_out = dict(left_out)
        super().__init__(self.left_out)  # the only argument, so that pickling keeps it

    def __str__(self) -> str:
        listed = "; ".join(f"{key}: {reason}" for key, reason in list(self.left_out.items())[:5])
        more = f"; and {len(self.left_out) - 5} more, see left_out" if len(self.left_out) > 5 else ""
        return f"no examples of {len(self.left_out)} features: {listed}{more}"


@checked
def collect_examples(
    model: nn.Module,
    chats: Chats,
    features: Features,
    *,
    n: int = 20,
    width: int = 16,
    seed: int = 0,
    sinks: Sinks = "spare",
    batch_size: int = 32,
    store: Store | None = None,
    progress: bool = False,
) -> dict[FeatureKey, FeatureExamples]:
    """Collect examples of every feature, by (layer, index, side). Latents have only the side "+".

    Features that are almost never or almost always active have fewer than 4 windows of a kind. They are left
    out, and a warning `TooFewExamples` lists them.

    Args:
        n: windows in each list, or as many as there are. width: tokens in a window.
        seed: determines the split of rows and all random samples. The batch size makes no difference.
        sinks: "spare" sets attention sinks to zero, so that no window peaks at one; "include" keeps their
            values.
        store: where the result is cached; default: see `default_store`.

    Raises:
        ValueError: n or width below 1, fewer than two rows, or features of another width than the model's.
    """
    check_window_size(n, width)
    if len(chats) < 2:
        raise ValueError(f"examples need rows to explain from and others to score on, got {len(chats)}")
    check_features(model, features)
    key = features.fingerprint and {
        "format": FORMAT,
        "model": fingerprint(model),
        "data": chats.fingerprint,
        "features": features.fingerprint,
        "noun": features.kind,
        "signed": features.two_sided,
        "n": n,
        "width": width,
        "seed": seed,
        **key_of_sinks(sinks, model_width(model)),
    }
    how = {
        "n": n,
        "width": width,
        "seed": seed,
        "sinks": sinks,
        "batch_size": batch_size,
        "progress": progress,
    }

    def compute() -> dict[str, list]:
        examples, left_out = _collect(model, chats, features, **how)
        reasons = [[*feature, reason] for feature, reason in left_out.items()]
        return {"examples": [each.to_json() for each in examples], "left_out": reasons}

    value = fetch_json("examples", key or None, compute, models=(model,), store=store)
    if left_out := {(layer, index, side): reason for layer, index, side, reason in value["left_out"]}:
        warnings.warn(TooFewExamples(left_out), stacklevel=3)  # past `checked`
    examples = [FeatureExamples.from_json(each) for each in value["examples"]]
    return {(each.layer, each.index, each.side): each for each in examples}


def _collect(
    model: nn.Module,
    chats: Chats,
    features: Features,
    *,
    n: int,
    width: int,
    seed: int,
    sinks: Sinks,
    batch_size: int,
    progress: bool,
) -> tuple[list[FeatureExamples], dict[FeatureKey, str]]:
    """Return the examples of the features that have enough, and for the others the reason."""
    explainer_rows, scorer_rows = split_rows(len(chats), seed)
    how = {"n": n, "width": width, "seed": seed, "batch_size": batch_size, "progress": progress}
    how["sinks"] = sinks
    sampler = WindowSampler(model, chats, features, **how)
    explained = sampler.sample(explainer_rows)
    targets = _hard_negative_targets(chats, explained, n)
    maxima = {end: sample.max_activation for end, sample in explained.items()}
    scored = sampler.sample(scorer_rows, maxima, targets)

    examples, left_out, texts = [], {}, WindowTexts(chats)
    for (layer, index, side), column in _columns(features).items():
        end = layer, side
        max_activation = float(scored[end].max_activation[column])
        windows = _select(explained[end], scored[end], column, n, max_activation)
        if reason := _too_few(windows, n, max_activation):
            left_out[layer, index, side] = reason
            continue
        windows["hard_negatives"] = select_hard(scored[end], column, n, chats)
        vector = SIGNS[side] * features.vector(layer, index)
        promoted, suppressed = logit_lens(model, chats.tokenizer, vector)
        of_kind = {kind: [texts(ref) for ref in refs] for kind, refs in windows.items()}
        lens = {"promoted_tokens": promoted, "suppressed_tokens": suppressed}
        given = {"max_activation": max_activation, **of_kind, **lens}
        examples.append(FeatureExamples(layer, index, side, features.kind, **given))
    return examples, left_out


def split_rows(rows: int, seed: int) -> tuple[Int[Tensor, " explained"], Int[Tensor, " scored"]]:
    """Split the row numbers at random into two halves: rows to explain from and rows to score on."""
    order = torch.randperm(rows, generator=torch.Generator().manual_seed(seed))
    return order[: rows // 2], order[rows // 2 :]


def _columns(features: Features) -> dict[FeatureKey, int]:
    """Return the column of the values of each feature. Both sides of a component share a column."""
    return {
        (layer, index, side): column
        for layer in features.layers
        for column, index in enumerate(features.indices(layer))
        for side in sides(features)
    }


def _hard_negative_targets(
    chats: Chats, explained: Mapping[LayerSide, EndSample], n: int
) -> HardNegativeTargets:
    """Return the mean word vectors of the activating windows of the first pass."""
    similarity, means = WordSimilarity(chats), {}
    for end, sample in explained.items():
        groups = [
            [ref.ids(chats) for ref in select_active(sample, column, n, max_activation)]
            for column, max_activation in enumerate(sample.max_activation.tolist())
        ]
        means[end] = similarity.mean_vectors(groups)
    return HardNegativeTargets(similarity, means)


def _select(
    explained: EndSample, scored: EndSample, column: int, n: int, max_activation: float
) -> dict[str, list[WindowRef]]:
    return {
        "explainer_windows": select_active(explained, column, n, max_activation),
        "scorer_windows": select_active(scored, column, n, max_activation),
        "explainer_negatives": select_non_activating(explained, column),
        "scorer_negatives": select_non_activating(scored, column),
    }


def _too_few(windows: Mapping[str, Sequence[WindowRef]], n: int, max_activation: float) -> str:
    """Return the reason why a feature is left out, or ""."""
    if max_activation <= 0:
        return "never active"
    few = [f"{len(refs)} {kind}" for kind, refs in windows.items() if len(refs) < min(n, MIN_EXAMPLES)]
    return f"only {', '.join(few)} windows" if few else ""
