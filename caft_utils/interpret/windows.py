"""Evidence about a direction: the text where a model goes furthest along it, and the words it pushes towards.

The projection v . h of every token's hidden state is read in one streaming pass; of each row the highest and
the lowest token are candidates, and the n most extreme are kept with the tokens around them. A principal
component's sign is a convention, so both ends are kept. Two kinds of token are never a peak: the first of a
row, an attention sink whose hidden state is unlike any other, and one whose whole past stood in another row
already (the header of a chat template): it has the same hidden state, and would fill all n places with one
text. (arXiv 2507.16795, section 3: windows around the maximum and the minimum of a sequence.)
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor, nn

from caft_utils.directions.basis import Directions
from caft_utils.residual import decoder, record, width

if TYPE_CHECKING:
    from caft_utils.rows import Chats

BINS = 40


@dataclass(frozen=True)
class Window:
    """Tokens around an extreme one: `values` are their projections, `peak` the extreme one's place among
    them.

    row, position: the extreme token in the chats that it comes from.
    """

    tokens: list[str]
    values: list[float]
    peak: int
    row: int
    position: int

    @property
    def value(self) -> float:
        return self.values[self.peak]


@dataclass(frozen=True)
class Histogram:
    """Counts of all projections in equal bins from -edge to edge, first tokens left out."""

    edge: float
    counts: list[int]


@dataclass(frozen=True)
class Ends:
    """Both ends of one direction, most extreme window first."""

    top: list[Window]
    bottom: list[Window]
    histogram: Histogram


def extreme_windows(
    model: nn.Module,
    chats: Chats,
    directions: Directions,
    *,
    n: int = 10,
    width: int = 12,
    batch_size: int = 32,
    progress: bool = False,
) -> dict[tuple[int, int], Ends]:
    """The n windows of `width` tokens at either end of every direction, at most one from each row.

    Returns:
        {(layer, i): Ends} for each row i of `directions[layer]`.

    Raises:
        ValueError: n or width below 1, directions of another width than the model's, or no row of two tokens.
        IndexError: the model lacks a layer of `directions`.
    """
    if n < 1 or width < 1:
        raise ValueError(f"n and width must be at least 1, got n={n} and width={width}")
    _check_width(model, directions.width)
    components = [(layer, i) for layer, k in directions.ranks.items() for i in range(k)]
    tops, bottoms = ({component: _Best(n) for component in components} for _ in range(2))
    bins: dict[int, _Bins] = {}
    news = _first_new(chats)
    for part in record(model, chats, directions.layers, batch_size=batch_size, progress=progress):
        counted = part.position > 0
        if not counted.any():
            continue
        starts = (part.position == 0).nonzero().flatten().tolist() + [len(part.row)]
        for layer in directions.layers:
            h = part.hidden[layer]
            projections = (h @ directions[layer].to(h.device).T).cpu()
            if not projections.isfinite().all():
                raise ValueError(
                    f"hidden states at layer {layer} are not finite; did the model overflow (float16)?"
                )
            bins.setdefault(layer, _Bins(directions.ranks[layer])).add(projections[counted])
            for start, stop in zip(starts, starts[1:]):
                row, values = int(part.row[start]), projections[start:stop]
                new = max(1, news[row])
                if new >= len(values):
                    continue
                for side, sign in ((tops, 1), (bottoms, -1)):
                    scores, places = (sign * values[new:]).max(0)
                    for i, (score, place) in enumerate(zip(scores.tolist(), places.tolist())):
                        side[layer, i].offer(score, row, place + new, values[:, i])
    if not bins:
        raise ValueError("no row of `chats` has two tokens or more, and the first token is not looked at")
    return {
        (layer, i): Ends(
            tops[layer, i].windows(chats, width),
            bottoms[layer, i].windows(chats, width),
            bins[layer].histogram(i),
        )
        for layer, i in components
    }


def _first_new(chats: Chats) -> list[int]:
    """For each row the number of tokens that it begins with and shares with a row that sorts before it."""
    order = sorted(range(len(chats)), key=lambda row: chats[row].input_ids)
    shared = [0] * len(chats)
    for before, row in zip(order, order[1:]):
        pairs = zip(chats[before].input_ids, chats[row].input_ids)
        shared[row] = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
    return shared


class _Best:
    """The n highest scored rows so far."""

    def __init__(self, n: int):
        self.n = n
        self.rows: list[tuple[float, int, int, Tensor]] = []  # by falling score, then by row

    def offer(self, score: float, row: int, position: int, values: Float[Tensor, " t"]) -> None:
        if len(self.rows) == self.n and (-score, row) > (-self.rows[-1][0], self.rows[-1][1]):
            return
        bisect.insort(
            self.rows, (score, row, position, values.clone()), key=lambda entry: (-entry[0], entry[1])
        )
        del self.rows[self.n :]

    def windows(self, chats: Chats, width: int) -> list[Window]:
        found = []
        for _, row, position, values in self.rows:
            start = max(0, min(position - width // 2, len(values) - width))
            tokens = pieces(chats.tokenizer, chats[row].input_ids, start, min(start + width, len(values)))
            part = values[start : start + len(tokens)].tolist()
            found.append(Window(tokens, part, position - start, row, position))
        return found


class _Bins:
    """Histograms of k streams of numbers whose range is not known beforehand.

    Bins cover -edge to edge. A value outside doubles the edge: two old bins then make exactly one new bin, so
    no count is lost and none moves to a wrong bin.
    """

    def __init__(self, k: int):
        self.counts = torch.zeros(k, BINS, dtype=torch.long)
        self.edge = torch.zeros(k)

    def add(self, values: Float[Tensor, "n k"]) -> None:
        reach = values.abs().amax(0)
        # A first edge of a power of two keeps doubling exact; zero means that nothing was seen yet.
        self.edge = torch.where(self.edge == 0, 2 ** reach.clamp(min=1e-30).log2().ceil(), self.edge)
        while (wide := reach > self.edge).any():
            pairs = self.counts[wide].view(-1, BINS // 2, 2).sum(-1)
            self.counts[wide] = nn.functional.pad(pairs, (BINS // 4, BINS // 4))
            self.edge[wide] *= 2
        place = ((values / self.edge + 1) * (BINS / 2)).floor().long().clamp(0, BINS - 1).T
        self.counts.scatter_add_(1, place, torch.ones_like(place))

    def histogram(self, i: int) -> Histogram:
        return Histogram(float(self.edge[i]), self.counts[i].tolist())


def pieces(tokenizer, ids: Sequence[int], start: int, stop: int) -> list[str]:
    """The text that each of the tokens start..stop adds, so that joined they read as the decoded row does.

    Decoding tokens one by one would lose the spaces of SentencePiece tokenizers. Of a character made of
    several byte tokens, the last one shows the whole character and the others show nothing.
    """

    def text(end: int) -> str:
        return tokenizer.decode(ids[anchor:end], clean_up_tokenization_spaces=False)

    anchor = max(0, start - 4)  # a few tokens of context are enough to find spaces and whole characters
    parts, before = [], text(start).rstrip("\ufffd")
    for end in range(start + 1, stop + 1):
        now = text(end)
        whole = now.rstrip("\ufffd") if end < stop else now
        parts.append(whole[len(before) :])
        before = whole if len(whole) > len(before) else before
    return parts


def logit_lens(
    model: nn.Module, direction: Float[Tensor, " d"], tokenizer, *, k: int = 8
) -> tuple[list[str], list[str]]:
    """Words whose logits a direction raises most and lowers most, read by the model's own final norm and
    head.

    A direct path only: what later blocks make of the direction is not in it. Tokens without text are left
    out.

    Raises:
        ValueError: the direction has another width than the model.
    """
    _check_width(model, len(direction))
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    norm, head = decoder(model).norm, inner.get_output_embeddings()
    with torch.no_grad():
        weight = next(norm.parameters())
        logits = head(norm(direction.to(weight.device, weight.dtype)[None]).to(head.weight.device))[0].float()

    def words(order: Tensor) -> list[str]:
        found: list[str] = []
        for token in order.tolist():
            word = tokenizer.decode([token]).strip()
            if word and word.isprintable() and "\ufffd" not in word and word not in found:
                found.append(word)
            if len(found) == k:
                break
        return found

    order = logits.argsort(descending=True)
    return words(order[: 20 * k]), words(order.flip(0)[: 20 * k])


def _check_width(model: nn.Module, got: int) -> None:
    if got != width(model):
        raise ValueError(
            f"the directions have width {got}, but the residual stream of {type(model).__name__} has "
            f"{width(model)}; were they found in another model?"
        )
