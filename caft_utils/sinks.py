"""Attention sinks: tokens whose hidden state is many times longer than the hidden states of other tokens.

In many pretrained models, attention heads without a relevant target attend to the first token or to a
delimiter. A few entries of that token's hidden state grow to many times the length of a whole other state
("massive activations", Sun et al. 2024, arXiv 2402.17762; Xiao et al. 2023, arXiv 2309.17453, for the name).
Such a state carries no information about the text, but it dominates the variance over tokens and determines
the first principal component. A model whose sink states are damaged no longer produces fluent text.

A token is a sink at a layer if the largest entry of its hidden state

    is more than PEAK times the typical length of a state at this layer, and
    more than half the length of the token's own state.

The typical length is the median over pseudo-random tokens that the model reads once, so it is a property of
the model and the layer. Whether a token is a sink then depends on its own hidden state alone. It makes no
difference which text or batch the token is in, where it is padded, or whether a cache is used. Training can
lengthen all states. The second condition does not change with length, so they do not become sinks by that.

By default sinks are spared: they are not counted in statistics of hidden states, and interventions leave
them as they are. `sinks="include"` treats them as all other tokens.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from math import inf
from typing import TYPE_CHECKING, Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from caft_utils.arguments import checked
from caft_utils.models import fingerprint
from caft_utils.models.positions import position_limit
from caft_utils.residual import capture, decoder, depth, evaluating, stream_activations, without_hooks
from caft_utils.stored_results import fetch_json

if TYPE_CHECKING:
    from caft_utils.chats import Chats
    from caft_utils.store import Store

FORMAT = 1  # increase it when the same key would give other sinks
PEAK = 6.0
OWN_SHARE = 0.5
PROBE_TOKENS = 64
# Results of narrower models are older than this option, and keep their keys. None of them has a sink.
NAMED_FROM_WIDTH = 256

Sinks = Literal["spare", "include"]


def check_choice(sinks: str) -> Sinks:
    """Return `sinks`, or raise a ValueError if it is neither "spare" nor "include"."""
    if sinks not in Sinks.__args__:
        raise ValueError(f"sinks must be 'spare' or 'include', got {sinks!r}")
    return sinks


def key_of_sinks(sinks: Sinks, width: int) -> dict[str, str]:
    """Return what the choice adds to the key of a stored result of a model of this width."""
    return {} if sinks == "spare" and width < NAMED_FROM_WIDTH else {"sinks": check_choice(sinks)}


@checked
def typical_lengths(model: nn.Module, layers: Iterable[int]) -> dict[int, float]:
    """Return the median length of hidden states by layer, over pseudo-random tokens without the first.

    Hooks are taken off meanwhile, so that edits do not change what counts as a sink.

    Raises:
        IndexError: a layer is out of range.
        ValueError: `layers` is empty.
    """
    inner, ids = decoder(model), probe_ids(model)
    with (
        without_hooks(model),
        torch.no_grad(),
        evaluating(model),
        capture(model, layers, stop_early=False) as hidden,
    ):
        # The decoder alone: a model of text and images would look for the image of an image token.
        inner(input_ids=ids.to(inner.get_input_embeddings().weight.device), use_cache=False)
    return {layer: median_length(h) for layer, h in hidden.items()}


def probe_ids(model: nn.Module) -> Int[Tensor, "1 time"]:
    """Return the pseudo-random tokens from which the model's typical lengths are taken, on the CPU."""
    vocabulary = model.config.get_text_config().vocab_size
    count = min(PROBE_TOKENS, position_limit(model) or PROBE_TOKENS)
    return torch.randint(vocabulary, (1, count), generator=torch.Generator().manual_seed(0))


def median_length(hidden: Float[Tensor, "1 time d"]) -> float:
    """Return the median length of the states of a row, without that of its first token."""
    return hidden[0, 1:].float().norm(dim=-1).median().item()


def sink_limits(model: nn.Module, layers: Iterable[int], sinks: Sinks = "spare") -> dict[int, float]:
    """Return by layer the PEAK typical lengths that the largest entry of a sink exceeds.

    With `sinks="include"` every limit is infinite, so no token is a sink.
    """
    layers = list(layers)
    if check_choice(sinks) == "include":
        return dict.fromkeys(layers, inf)
    return {layer: PEAK * length for layer, length in typical_lengths(model, layers).items()}


def is_sink(hidden: Float[Tensor, "*batch d"], limit: float) -> Bool[Tensor, "*batch"]:
    """Return which hidden states have an entry above `limit` and above half of their own length.

    Args:
        limit: that of the layer, see `sink_limits`.
    """
    hidden = hidden.detach()
    largest, length = (torch.linalg.vector_norm(hidden, ord, -1, dtype=_exact(hidden)) for ord in (inf, 2))
    return (largest > limit) & (largest > OWN_SHARE * length)


def _exact(hidden: Tensor) -> torch.dtype:
    """Return the dtype for lengths. In half precision the square of a long state overflows."""
    return torch.float64 if hidden.dtype == torch.float64 else torch.float32


@dataclass(frozen=True)
class Sink:
    """One token that is a sink at one layer.

    text: the token. length: of its hidden state. ratio: its largest entry, in typical lengths of the layer.
    """

    layer: int
    row: int
    position: int
    text: str
    length: float
    ratio: float


@dataclass(frozen=True)
class FoundSinks(Sequence[Sink]):
    """The sinks of a model in some text, a sequence of `Sink`. Printing it shows a table by layer.

    typical: the typical length of a hidden state by layer. lengths: by layer and series ("sinks" and "other
    tokens") the smallest, the median and the largest length of a hidden state in the text.
    """

    sinks: list[Sink]
    tokens: int
    typical: dict[int, float]
    lengths: dict[int, dict[str, tuple[float, float, float]]] = field(repr=False)

    def __len__(self) -> int:
        return len(self.sinks)

    def __getitem__(self, i):
        return self.sinks[i]

    @property
    def by_layer(self) -> dict[int, list[Sink]]:
        """The sinks of each layer that was read, in the order of rows and positions."""
        return {layer: [one for one in self.sinks if one.layer == layer] for layer in self.typical}

    def rows(self) -> list[dict[str, Any]]:
        """Return the rows of a figure: `plots.norms_by_layer(found.rows(), model=...)`."""
        return [
            {"series": name, "layer": layer, "norm": middle, "norm_low": low, "norm_high": high}
            for name in ("sinks", "other tokens")
            for layer, series in self.lengths.items()
            if name in series
            for low, middle, high in [series[name]]
        ]

    def __str__(self) -> str:
        lines = [f"{len(self.sinks)} sinks among {self.tokens} tokens at each of {len(self.typical)} layers"]
        for layer, found in self.by_layer.items():
            line = f"layer {layer:3}: typical length {self.typical[layer]:8.1f}, "
            if found:
                ratios = [one.ratio for one in found]
                first = sum(one.position == 0 for one in found)
                line += (
                    f"{len(found)} sinks ({first} of them first tokens), largest entry "
                    f"{min(ratios):.1f} to {max(ratios):.1f} typical lengths"
                )
            else:
                line += "no sink"
            lines.append(line)
        return "\n".join(lines)

    __repr__ = __str__


@checked
def find_sinks(
    model: nn.Module,
    chats: Chats,
    layers: Sequence[int] | None = None,
    *,
    batch_size: int = 32,
    store: Store | None = None,
    progress: bool = False,
) -> FoundSinks:
    """Return the tokens of `chats` that are sinks at `layers`; default: all decoder blocks.

    Args:
        store: where the result is cached; default: see `default_store`.

    Raises:
        IndexError: a layer is out of range.
        ValueError: there is no row, or a row is longer than the model's positions.
    """
    layers = list(range(depth(model))) if layers is None else sorted(set(layers))
    key = {"format": FORMAT, "model": fingerprint(model), "data": chats.fingerprint, "layers": layers}

    def compute() -> dict[str, Any]:
        found = _read_sinks(model, chats, layers, batch_size, progress)
        by_layer = [[layer, found.typical[layer], found.lengths[layer]] for layer in layers]
        return {"sinks": [asdict(one) for one in found.sinks], "tokens": found.tokens, "by layer": by_layer}

    value = fetch_json("sinks", key, compute, models=(model,), store=store)
    lengths = {
        layer: {name: tuple(ends) for name, ends in series.items()} for layer, _, series in value["by layer"]
    }
    typical = {layer: length for layer, length, _ in value["by layer"]}
    return FoundSinks([Sink(**one) for one in value["sinks"]], value["tokens"], typical, lengths)


def _read_sinks(
    model: nn.Module, chats: Chats, layers: Sequence[int], batch_size: int, progress: bool
) -> FoundSinks:
    typical = typical_lengths(model, layers)
    sinks, count, lengths = [], 0, {layer: {"sinks": [], "other tokens": []} for layer in layers}
    for batch in stream_activations(model, chats, layers, batch_size=batch_size, progress=progress):
        count += len(batch.row)
        for layer in layers:
            hidden = batch.hidden[layer]
            length = hidden.norm(dim=-1).cpu()
            ratio = torch.linalg.vector_norm(hidden, ord=inf, dim=-1).cpu() / typical[layer]
            found = is_sink(hidden, PEAK * typical[layer]).cpu()
            lengths[layer]["sinks"].append(length[found])
            lengths[layer]["other tokens"].append(length[~found])
            for i in found.nonzero().flatten().tolist():
                row, position = int(batch.row[i]), int(batch.position[i])
                text = chats.tokenizer.decode([chats[row].input_ids[position]])
                sinks.append(Sink(layer, row, position, text, length[i].item(), ratio[i].item()))
    sinks.sort(key=lambda one: (one.layer, one.row, one.position))
    return FoundSinks(sinks, count, typical, {layer: _ranges(lengths[layer]) for layer in layers})


def _ranges(series: Mapping[str, list[Tensor]]) -> dict[str, tuple[float, float, float]]:
    joined = {name: torch.cat(parts) for name, parts in series.items()}
    return {
        name: (values.min().item(), values.median().item(), values.max().item())
        for name, values in joined.items()
        if len(values)
    }
