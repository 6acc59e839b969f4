"""Evidence about a direction: the text where a model goes furthest along it, and the words it pushes towards.

The projection v . h of every token's hidden state, or a latent's activation, is read in one streaming pass
(streaming.py); of each row the highest and the lowest token are candidates, and the n most extreme are kept
with the tokens around them. A principal component's sign is a convention, so both ends are kept. Two kinds
of token are never a peak: the first of a row, an attention sink whose hidden state is unlike any other, and
one whose whole past stood in another row already (the header of a chat template): it has the same hidden
state, and would fill all n places with one text. (arXiv 2507.16795, section 3: windows around the maximum and
the minimum of a sequence.)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from caft_utils.features import Features
from caft_utils.interpret.examples.running_topk import (
    RunningTopK,
    Spans,
    StreamingHistogram,
    first_new,
    only,
    parts,
)
from caft_utils.residual import decoder, width

if TYPE_CHECKING:
    from caft_utils.chats import Chats


@dataclass(frozen=True)
class TextWindow:
    """Tokens around an extreme one: `activations` are their projections, `peak` the extreme one's place among
    them.

    row, position: the extreme token in the chats that it comes from.
    """

    tokens: list[str]
    activations: list[float]
    peak: int
    row: int
    position: int

    @property
    def peak_activation(self) -> float:
        return self.activations[self.peak]


@dataclass(frozen=True)
class Histogram:
    """Counts of all values in equal bins from -edge to edge, first tokens left out."""

    edge: float
    counts: list[int]


@dataclass(frozen=True)
class Extremes:
    """Both ends of one direction, most extreme window first. `bottom` is empty where only one can be read."""

    top: list[TextWindow]
    bottom: list[TextWindow]
    histogram: Histogram


def extreme_windows(
    model: nn.Module,
    chats: Chats,
    features: Features,
    *,
    n: int = 10,
    width: int = 12,
    batch_size: int = 32,
    progress: bool = False,
) -> ExtremeWindows:
    """The n windows of `width` tokens at either end of every direction, at most one from each row.

    One pass; memory grows with the number of directions and with the longest row, not with the number of
    rows. Latents have one end, and a window only where they fire; so there may be fewer than n.

    Returns:
        {(layer, i): Ends} for each i in `readable.indices(layer)`, made when they are looked up.

    Raises:
        ValueError: n or width below 1, directions of another width than the model's, or no row of two tokens.
        IndexError: the model lacks a layer of `readable`.
    """
    if n < 1 or width < 1:
        raise ValueError(f"n and width must be at least 1, got n={n} and width={width}")
    check_width(model, features)
    kept: dict[int, _Kept] = {}
    new = first_new(chats)
    for part in parts(model, chats, features, batch_size=batch_size, progress=progress):
        if int((part.stop - part.start).max()) < 2:
            continue
        if part.layer not in kept:
            k, device = len(features.indices(part.layer)), part.hidden.device
            ends = [RunningTopK(k, n, width, sign, device) for sign in ((1, -1) if features.signed else (1,))]
            kept[part.layer] = _Kept(ends, StreamingHistogram(k, device))
        best, bins = kept[part.layer]
        look = torch.stack([part.start + new[part.row].clamp(min=1), part.stop], 1)
        places = Spans(part.row, part.start, look, torch.stack([part.start, part.stop], 1))
        places = places.where(look[:, 0] < look[:, 1])
        starts, seen_before = part.start.to(part.hidden.device), places.elsewhere(part)
        for columns, values in part.blocks(features):
            scores = [places.highest(values, end.sign) for end in best]
            reach = torch.cat([*scores, values.index_select(0, seen_before).abs_()]).amax(0)
            bins.add(values, columns, reach, without=starts)
            for end, score in zip(best, scores):
                end.offer(columns, values, score if features.signed else only(score > 0, score), places)
    if not kept:
        raise ValueError("no row of `chats` has two tokens or more, and the first token is not looked at")
    return ExtremeWindows(chats, {layer: list(features.indices(layer)) for layer in features.layers}, kept)


class _Kept(NamedTuple):
    best: list[RunningTopK]
    bins: StreamingHistogram


class ExtremeWindows(Mapping[tuple[int, int], Extremes]):
    """What `extreme_windows` returns: {(layer, i): Ends}. Of thousands of directions few are ever looked at,
    so windows are kept as tensors and become text at each look-up."""

    def __init__(self, chats: Chats, indices: Mapping[int, Sequence[int]], kept: Mapping[int, _Kept]):
        self._chats, self._kept = chats, kept
        self._column = {(layer, i): c for layer, all_ in indices.items() for c, i in enumerate(all_)}

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter(self._column)

    def __len__(self) -> int:
        return len(self._column)

    def __getitem__(self, key: tuple[int, int]) -> Extremes:
        if key not in self._column:
            raise KeyError(f"no direction {key}; expected (layer, i), for example {next(iter(self))}")
        column, (best, bins) = self._column[key], self._kept[key[0]]
        ends = [[window(self._chats, *entry) for entry in end.entries(column)] for end in best]
        top, bottom = ends if len(ends) == 2 else (ends[0], [])
        return Extremes(top, bottom, Histogram(float(bins.edge[column]), bins.counts[column].tolist()))


def window(chats: Chats, row: int, position: int, start: int, values: list[float]) -> TextWindow:
    """The window of `values` that begins with token `start` of a row."""
    tokens = pieces(chats.tokenizer, chats[row].input_ids, start, start + len(values))
    return TextWindow(tokens, values, position - start, row, position)


def pieces(tokenizer, ids: Sequence[int], start: int, stop: int) -> list[str]:
    """The text that each of the tokens start..stop adds, so that joined they read as the decoded row does.

    Decoding tokens one by one would lose the spaces of SentencePiece tokenizers. Of a character made of
    several byte tokens, the last one shows the whole character and the others show nothing.
    """

    def text(end: int) -> str:
        return tokenizer.decode(ids[anchor:end], clean_up_tokenization_spaces=False)

    anchor = max(0, start - 4)  # a few tokens of context are enough to find spaces and whole characters
    alone = [_alone(tokenizer, token) for token in ids[start:stop]]
    if text(start) + "".join(alone) == text(stop) and not any("\ufffd" in part for part in alone):
        return alone  # as with most tokenizers and texts; many times faster
    parts, before = [], text(start).rstrip("\ufffd")
    for end in range(start + 1, stop + 1):
        now = text(end)
        whole = now.rstrip("\ufffd") if end < stop else now
        parts.append(whole[len(before) :])
        before = whole if len(whole) > len(before) else before
    return parts


@lru_cache(maxsize=2**16)
def _alone(tokenizer, token: int) -> str:
    return tokenizer.decode([token], clean_up_tokenization_spaces=False)


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


def check_width(model: nn.Module, features: Features) -> None:
    """Raises ValueError where the directions are of another width than the model's residual stream."""
    for layer in features.layers:
        _check_width(model, len(features.vector(layer, features.indices(layer)[0])))


def _check_width(model: nn.Module, got: int) -> None:
    if got != width(model):
        raise ValueError(
            f"the directions have width {got}, but the residual stream of {type(model).__name__} has "
            f"{width(model)}; were they found in another model?"
        )
