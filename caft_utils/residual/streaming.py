"""Stream the hidden states of a model over a text, one batch at a time.

Memory does not grow with the length of a text, because no batch is kept. The forward pass stops after the
last requested site, because later blocks cannot change it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from caft_utils.arguments import checked
from caft_utils.chats.reading import Tokens, read_mask, where_to_read
from caft_utils.finite import check_finite
from caft_utils.models.positions import check_ids, check_positions
from caft_utils.residual.modes import evaluating
from caft_utils.residual.sites import capture, inner_model

if TYPE_CHECKING:
    from caft_utils.chats import Chats


@dataclass(frozen=True)
class ActivationBatch:
    """Hidden states of one batch without padding. Entry i is token `position[i]` of row `row[i]`.

    The tokens of a row stand together and in order. `hidden` is float32 on the model's device; `row` and
    `position` are on the CPU.
    """

    hidden: dict[int, Float[Tensor, "n d"]]
    row: Int[Tensor, " n"]
    position: Int[Tensor, " n"]


@checked
def stream_activations(
    model: nn.Module,
    chats: Chats,
    layers: Sequence[int],
    *,
    tokens: Tokens = "all",
    batch_size: int = 32,
    progress: bool = False,
) -> Iterator[ActivationBatch]:
    """Yield the residual stream of `model` at `layers` over `chats`, one batch at a time, without gradients.

    Args:
        tokens: which tokens to read, see `Tokens`.
        progress: show a progress bar.

    Raises:
        IndexError: a layer is out of range.
        ValueError: no layer, no row, a row with more tokens than the model has positions, or `tokens` is
            unknown or does not fit the rows.
        NotFiniteError: the hidden state of a token is NaN or infinite.
    """
    tokens = where_to_read(tokens, chats)
    if not len(chats):
        raise ValueError("chats has no rows, so there is nothing to read")
    check_positions(model, chats.lengths, chats.source)
    check_ids(model, (example.input_ids for example in chats), chats.source)
    batches, device = chats.batches(batch_size), inner_model(model).device
    if progress:
        from tqdm.auto import tqdm

        batches = tqdm(
            batches, total=-(-len(chats) // batch_size), desc="reading hidden states", unit="batch"
        )
    batches = iter(batches)
    batch = next(batches)
    while batch is not None:
        # The hooks are removed before each yield, so the caller can use the model between two batches.
        with torch.no_grad(), evaluating(model), capture(model, layers) as hidden:
            ids, mask = batch.input_ids.to(device), batch.attention_mask.to(device)
            model(input_ids=ids, attention_mask=mask, use_cache=False)
        # A GPU is still computing here. What follows is prepared on the CPU, up to the first question about
        # a result, which waits for the GPU.
        following = next(batches, None)
        keep = read_mask(batch, tokens)
        line, position = keep.nonzero(as_tuple=True)
        row = torch.tensor(batch.index)[line]
        places = None if keep.all() else line * keep.shape[1] + position
        states = {layer: _read(h, places) for layer, h in hidden.items()}
        finite = {layer: h.isfinite().all() for layer, h in states.items()}
        for layer, fine in finite.items():
            if not fine:
                name = type(inner_model(model)).__name__
                check_finite(states[layer], f"hidden states of {name} at layer {layer}", row)
        yield ActivationBatch(states, row, position)
        batch = following


def _read(hidden: Float[Tensor, "batch time d"], places: Int[Tensor, " n"] | None) -> Float[Tensor, "n d"]:
    """Return the states at `places`, counted through all rows, as float32; None: all."""
    states = hidden.flatten(0, 1)
    return (states if places is None else states[places.to(states.device)]).float()
