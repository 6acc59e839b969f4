"""Sample the strongest, random activating and random non-activating windows of some rows in one pass.

Memory does not grow with the text: each kind of window is a running top-k (running_topk.py) by its own score.
For a random sample the score is a random key of the row and feature. Which rows are candidates depends on the
largest activation, but only its running maximum is known during the pass. The maximum never decreases, so no
window that ends up active is rejected early; windows that fall below the final threshold are filtered out by
selection.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from caft_utils.features import Side, sides
from caft_utils.interpret.examples.running_topk import RunningTopK, scores_where
from caft_utils.interpret.examples.streaming import Spans, shared_prefix_lengths, stream_row_blocks
from caft_utils.interpret.examples.text_window import WindowRef
from caft_utils.sinks import Sinks

if TYPE_CHECKING:
    from caft_utils.chats import Chats
    from caft_utils.features import Features
    from caft_utils.interpret.examples.hard_negatives import WordSimilarity

ACTIVE_SHARE = 0.3  # share of the largest activation above which a token counts as activating
# share of the largest activation below which a component counts as non-activating; a latent must be at 0
NON_ACTIVATING_SHARE = 0.1
OVERSAMPLING = 5  # random activating windows drawn per window needed, so that their quantiles can be computed
OVERSAMPLING_HARD = 3  # hard negatives drawn per window needed: several may share a row or a text
SIGNS: Mapping[Side, int] = {"+": 1, "-": -1}

LayerSide = tuple[int, Side]


class EndSample:
    """Windows of one end of all k features of a layer.

    max_activation: the largest activation of each feature so far.
    top: the strongest window of each of the strongest rows. active: random activating windows.
        non_activating: random windows without an activating token. hard: the non-activating windows that are
        most similar to the given ones.
    """

    def __init__(self, max_activation: Float[Tensor, " k"], n: int, width: int, sign: int):
        self.max_activation, self.sign, k = max_activation, sign, len(max_activation)
        self.top = RunningTopK(k, n, width, sign)
        self.active = RunningTopK(k, OVERSAMPLING * n, width, sign)
        self.non_activating = RunningTopK(k, n, width, sign)
        self.hard = RunningTopK(k, OVERSAMPLING_HARD * n, width, sign)

    def windows(self, best: RunningTopK, column: int) -> list[WindowRef]:
        """Return windows of a feature, with activations signed so that active means positive."""
        return [
            ref._replace(activations=[self.sign * value for value in ref.activations])
            for ref in best.windows(column)
        ]


@dataclass(frozen=True)
class HardNegativeTargets:
    """The targets of hard negatives: for each end, the mean word vectors of its features."""

    similarity: WordSimilarity
    means: Mapping[LayerSide, Float[Tensor, "terms k"]]


class WindowSampler:
    """Samples windows of any rows of `chats`. A seed gives the same sample whatever the batch size."""

    def __init__(
        self,
        model: nn.Module,
        chats: Chats,
        features: Features,
        *,
        n: int,
        width: int,
        seed: int,
        batch_size: int,
        progress: bool,
        sinks: Sinks = "spare",
    ):
        self.model, self.chats, self.features = model, chats, features
        self.n, self.width, self.batch_size, self.progress = n, width, batch_size, progress
        self.sinks: Sinks = sinks
        self._shared_prefix = shared_prefix_lengths(chats)
        self._keys = _RandomKeys(len(chats), features, seed)

    def sample(
        self,
        rows: Int[Tensor, " rows"],
        max_activations: Mapping[LayerSide, Float[Tensor, " k"]] | None = None,
        targets: HardNegativeTargets | None = None,
    ) -> dict[LayerSide, EndSample]:
        """Read `rows` once and return a sample of windows for each end.

        Args:
            max_activations: the largest activations of an earlier pass, as starting values.
            targets: default: no hard negatives are sampled.
        """
        samples = self._empty(max_activations)
        how = {"sinks": self.sinks, "batch_size": self.batch_size, "progress": self.progress}
        for block in stream_row_blocks(self.model, self.chats, self.features, rows=rows, **how):
            spans = block.spans(self._shared_prefix, with_first=False)
            if not len(spans):
                continue
            somewhere, tiles = self._random_windows(spans), self._tiles(spans) if targets else None
            if targets:
                vectors, terms = targets.similarity.vectors(self._ids(tiles))
            for columns, values in block.values(self.features):
                for side in sides(self.features):
                    end = block.layer, side
                    keys = self._keys.of_rows(end, spans.row, columns).to(values.device)
                    self._offer(samples[end], columns, values, spans, somewhere, keys)
                    if targets:
                        cosines = (vectors @ targets.means[end][:, columns][terms]).to(values)
                        self._offer_hard(samples[end], columns, values, tiles, cosines)
        return samples

    def _empty(self, max_activations: Mapping[LayerSide, Tensor] | None) -> dict[LayerSide, EndSample]:
        samples = {}
        for layer in self.features.layers:
            for side in sides(self.features):
                zeros = torch.zeros(len(self.features.indices(layer)))
                start = max_activations[layer, side].clone() if max_activations else zeros
                samples[layer, side] = EndSample(start, self.n, self.width, SIGNS[side])
        return samples

    def _offer(
        self,
        sample: EndSample,
        columns: slice,
        values: Float[Tensor, "t c"],
        spans: Spans,
        somewhere: Spans,
        keys: Float[Tensor, "2 m c"],
    ) -> None:
        high = spans.maxima(values, sample.sign)
        sample.max_activation = sample.max_activation.to(values.device)
        largest = torch.maximum(sample.max_activation[columns], high.amax(0))
        sample.max_activation[columns] = largest
        sample.top.offer(columns, values, scores_where(high > 0, high), spans)
        sample.active.offer(columns, values, scores_where(high > ACTIVE_SHARE * largest, keys[0]), spans)
        candidate, inactive, share = self._inactive(somewhere.maxima(values, sample.sign), largest)
        score = torch.where(inactive, keys[1], -share)
        sample.non_activating.offer(columns, values, scores_where(candidate, score), somewhere)

    def _offer_hard(
        self,
        sample: EndSample,
        columns: slice,
        values: Float[Tensor, "t c"],
        tiles: Spans,
        cosines: Float[Tensor, "m c"],
    ) -> None:
        high = tiles.maxima(values, sample.sign)
        candidate, inactive, _ = self._inactive(high, sample.max_activation[columns])
        score = torch.where(inactive, cosines, cosines - 1)
        sample.hard.offer(columns, values, scores_where(candidate & (cosines > 0), score), tiles)

    def _inactive(
        self, high: Float[Tensor, "m c"], largest: Float[Tensor, " c"]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return two masks, may be a negative and is non-activating, and the activations over `largest`.

        A latent is non-activating where it is zero. Projections are hardly ever zero over a whole window, so
        the least active windows are used where too few are non-activating.
        """
        if not self.features.two_sided:
            return high <= 0, high <= 0, high
        share = high / largest.clamp(min=1e-30)
        return high <= ACTIVE_SHARE * largest, high <= NON_ACTIVATING_SHARE * largest, share

    def _random_windows(self, spans: Spans) -> Spans:
        """Return one window at a random place of each span, without the first token of its row."""
        low = torch.maximum(spans.row_start + 1, spans.peak[:, 0] - self.width + 1)
        places = (spans.peak[:, 1] - self.width - low + 1).clamp(min=1)
        first = low + (self._keys.place(spans.row) * places).long().clamp(max=places - 1)
        window = torch.stack([first, torch.minimum(first + self.width, spans.peak[:, 1])], 1)
        return Spans(spans.row, spans.row_start, window, window)

    def _tiles(self, spans: Spans) -> Spans:
        """Cover each span with adjacent windows. The last one may overlap the one before it."""
        found = []
        for row, start, new, stop in zip(spans.row, spans.row_start, *spans.peak.T):
            for first in range(int(start) + 1, int(stop), self.width):
                first = max(int(start) + 1, min(first, int(stop) - self.width))
                if (last := min(first + self.width, int(stop))) > new:
                    found.append((int(row), int(start), first, last))
        row, start, first, last = torch.tensor(found).T
        window = torch.stack([first, last], 1)
        return Spans(row, start, window, window)

    def _ids(self, windows: Spans) -> list[list[int]]:
        places = (windows.window - windows.row_start[:, None]).tolist()
        return [
            self.chats[row].input_ids[first:stop] for row, (first, stop) in zip(windows.row.tolist(), places)
        ]


class _RandomKeys:
    """Random keys from 0 to 1. The rows with the highest keys are a random sample, whatever their order."""

    def __init__(self, rows: int, features: Features, seed: int):
        generator = torch.Generator().manual_seed(seed)
        self._of_row = torch.rand(rows, 3, generator=generator)
        # Two keys for each row and feature: the keys of the row plus the keys of the feature, modulo 1.
        self._of_feature = {
            (layer, side): torch.rand(2, len(features.indices(layer)), generator=generator)
            for layer in features.layers
            for side in sides(features)
        }

    def of_rows(self, end: LayerSide, rows: Int[Tensor, " m"], columns: slice) -> Float[Tensor, "2 m c"]:
        """Return a key for the activating and one for the non-activating window of each row and feature."""
        return (self._of_row[rows, :2].T[..., None] + self._of_feature[end][:, None, columns]) % 1

    def place(self, rows: Int[Tensor, " m"]) -> Float[Tensor, " m"]:
        """Return the random position of each row's window, as a share of all possible positions."""
        return self._of_row[rows, 2]
