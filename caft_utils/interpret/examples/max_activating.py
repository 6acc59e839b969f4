"""Find the windows of text in which the activation of a feature is most extreme.

In one pass, the highest and the lowest token of every row are candidates, and the n most extreme are kept
with the tokens around them (arXiv 2507.16795, section 3). Both ends are kept because the sign of a principal
component is a convention. `RowBlock.spans` defines which tokens are never a peak.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from caft_utils.arguments import checked
from caft_utils.features import Features
from caft_utils.interpret.examples.checks import check_features, check_window_size
from caft_utils.interpret.examples.histogram import Histogram, StreamingHistogram
from caft_utils.interpret.examples.running_topk import RunningTopK, scores_where
from caft_utils.interpret.examples.streaming import shared_prefix_lengths, stream_row_blocks
from caft_utils.interpret.examples.text_window import TextWindow, WindowTexts
from caft_utils.models import fingerprint
from caft_utils.residual import width as model_width
from caft_utils.sinks import Sinks, key_of_sinks
from caft_utils.stored_results import fetch_tensors

if TYPE_CHECKING:
    from caft_utils.chats import Chats
    from caft_utils.store import Store

FORMAT = 1  # increase it when the same key would give different windows


@dataclass(frozen=True)
class Extremes:
    """Both ends of one feature, most extreme window first.

    bottom: empty for latents, which have only one end.
    histogram: counts of the values at all tokens except the first of each row.
    """

    top: list[TextWindow]
    bottom: list[TextWindow]
    histogram: Histogram


class LayerExtremes(NamedTuple):
    """Windows (top first, then bottom) and histograms of all features of a layer."""

    ends: list[RunningTopK]
    histogram: StreamingHistogram

    def tensors(self) -> dict[str, Tensor]:
        """Return all data as named tensors, from which `of` restores it."""
        found = {"counts": self.histogram.counts, "edge": self.histogram.edge}
        for i, end in enumerate(self.ends):
            found |= {f"{i}.{name}": tensor for name, tensor in end.tensors.items()}
        return found

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor], layer: int, signs: Sequence[int]) -> LayerExtremes:
        """Restore the extremes of `layer` from the tensors whose names begin with "<layer>."."""
        ends = []
        for i, sign in enumerate(signs):
            prefix = f"{layer}.{i}."
            own = {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
            ends.append(RunningTopK.of(own, sign))
        histogram = StreamingHistogram(0)
        histogram.counts, histogram.edge = tensors[f"{layer}.counts"], tensors[f"{layer}.edge"]
        return cls(ends, histogram)


@checked
def extreme_windows(
    model: nn.Module,
    chats: Chats,
    features: Features,
    *,
    n: int = 10,
    width: int = 12,
    sinks: Sinks = "spare",
    batch_size: int = 32,
    store: Store | None = None,
    progress: bool = False,
) -> ExtremeWindows:
    """Find the n windows of `width` tokens at either end of every feature, at most one from each row.

    The text is read once. Memory grows with the number of features and the longest row, not with the number
    of rows. Latents have one end. They may have fewer than n windows, because they have windows only where
    they are active.

    Args:
        sinks: "spare" sets attention sinks to zero, so that no window peaks at one; "include" keeps their
            values.
        store: where the result is cached; default: see `default_store`.

    Returns:
        {(layer, i): Extremes} for each i in `features.indices(layer)`.

    Raises:
        ValueError: n or width below 1, features of another width than the model's, or no row of two tokens.
        IndexError: the model lacks a layer of `features`.
    """
    check_window_size(n, width)
    check_features(model, features)
    if len(chats) and max(len(example.input_ids) for example in chats) < 2:
        raise ValueError("no row of `chats` has two tokens or more, and the first token is never a peak")
    key = features.fingerprint and {
        "format": FORMAT,
        "model": fingerprint(model),
        "data": chats.fingerprint,
        "features": features.fingerprint,
        "signed": features.two_sided,
        "n": n,
        "width": width,
        **key_of_sinks(sinks, model_width(model)),
    }
    how = {"n": n, "width": width, "sinks": sinks, "batch_size": batch_size, "progress": progress}

    def compute() -> dict[str, Tensor]:
        found = read_extremes(model, chats, features, **how)
        return {
            f"{layer}.{name}": tensor for layer in found for name, tensor in found[layer].tensors().items()
        }

    tensors = fetch_tensors("extreme_windows", key or None, compute, models=(model,), store=store)
    found = {layer: LayerExtremes.of(tensors, layer, _signs(features)) for layer in features.layers}
    return ExtremeWindows(chats, features, found)


def _signs(features: Features) -> tuple[int, ...]:
    return (1, -1) if features.two_sided else (1,)


def read_extremes(
    model: nn.Module,
    chats: Chats,
    features: Features,
    *,
    n: int = 10,
    width: int = 12,
    sinks: Sinks = "spare",
    batch_size: int = 32,
    progress: bool = False,
) -> dict[int, LayerExtremes]:
    """Compute the extremes of each layer for `extreme_windows`, without the store."""
    signs, found = _signs(features), {}
    for layer in features.layers:
        k = len(features.indices(layer))
        found[layer] = LayerExtremes([RunningTopK(k, n, width, s) for s in signs], StreamingHistogram(k))
    shared_prefix = shared_prefix_lengths(chats)
    how = {"sinks": sinks, "batch_size": batch_size, "progress": progress}
    for block in stream_row_blocks(model, chats, features, **how):
        if len(block.hidden) == len(block.row):  # first tokens only
            continue
        ends, histogram = found[block.layer]
        spans = block.spans(shared_prefix, with_first=True)
        first_tokens, outside = block.start.to(block.hidden.device), spans.tokens_outside(block)
        for columns, values in block.values(features):
            scores = [spans.maxima(values, end.sign) for end in ends]
            magnitude = torch.cat([*scores, values.index_select(0, outside).abs_()]).amax(0)
            histogram.add(values, columns, magnitude, skip=first_tokens)
            for end, score in zip(ends, scores):
                end.offer(
                    columns, values, score if features.two_sided else scores_where(score > 0, score), spans
                )
    return found


class ExtremeWindows(Mapping[tuple[int, int], Extremes]):
    """Extremes by (layer, i), created on lookup.

    A reader looks at only a few of thousands of features, so windows stay tensors until they are needed.
    """

    def __init__(self, chats: Chats, features: Features, layers: Mapping[int, LayerExtremes]):
        self.layers, self._texts = layers, WindowTexts(chats)
        self._column = {
            (layer, i): column for layer in layers for column, i in enumerate(features.indices(layer))
        }

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter(self._column)

    def __len__(self) -> int:
        return len(self._column)

    def __getitem__(self, key: tuple[int, int]) -> Extremes:
        if key not in self._column:
            raise KeyError(f"no feature {key}; expected (layer, i), for example {next(iter(self))}")
        column, (ends, histogram) = self._column[key], self.layers[key[0]]
        windows = [[self._texts(ref) for ref in end.windows(column)] for end in ends]
        top, bottom = windows if len(windows) == 2 else (windows[0], [])
        return Extremes(top, bottom, histogram.of(column))
