"""The frozen prefix of a run: decoder blocks whose outputs are computed once and reused in every step.

Blocks below the first one that is trained or edited compute the same in all steps, for all conditions and
seeds. With h_n the hidden states after n blocks, a step needs only

    logits = head(block_L(... block_{n+1}(h_n))),      h_n from the store, one vector for each token of a row.

The model's own forward pass stays in charge of embeddings, masks and rotary embeddings. While a batch is
computed, the first n blocks pass on what they get, and the last of them returns h_n.

The run equals the ordinary path up to float32 rounding: a row's states are computed in other batches than in
training, and matrix products of another shape may round differently. Like batch sizes and devices elsewhere
(stored_results.py), this does not enter a key. A run without `config.blocks` has no prefix, so it is
bit-identical to the ordinary run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from caft_utils.finetuning import processes
from caft_utils.interventions.base import Intervention
from caft_utils.residual import decoder, decoder_blocks, has_hooks, stream_activations, width
from caft_utils.store import Store

if TYPE_CHECKING:
    from caft_utils.chats import Chats
    from caft_utils.finetune_config import FinetuneConfig

FORMAT = 1  # increase it when the same key would give other states
KIND = "prefix"
FILE = "hidden.safetensors"
LARGEST = 2 << 30  # bytes; larger prefixes are computed anew in every step

# Decoders that hand hidden states from block to block and nothing else. A test enters each of them.
ARCHITECTURES = ("LlamaModel", "MistralModel", "Qwen2Model", "Qwen3Model", "Gemma2Model", "Gemma3TextModel")


@dataclass(frozen=True)
class FrozenPrefix:
    """The hidden states of all rows after the first `blocks` decoder blocks.

    `hidden` holds the tokens of row 0, then those of row 1, and so on; `starts` is where each row begins.
    """

    blocks: int
    hidden: Float[Tensor, "tokens d"]
    starts: Sequence[int]

    def batch(self, rows: Sequence[int]) -> Float[Tensor, "batch time d"]:
        """Return the states of some rows, padded on the right with the state of each row's last token.

        No token of a row attends to the padding, so its states only need to be of a usual size.
        """
        states = [self.hidden[self.starts[row] : self.starts[row + 1]] for row in rows]
        time = max(map(len, states))
        return torch.stack([torch.cat([h, h[-1:].expand(time - len(h), -1)]) for h in states])

    @contextmanager
    def entered(self, model: nn.Module, hidden: Float[Tensor, "batch time d"]) -> Iterator[None]:
        """Skip the blocks of the prefix in forward passes on the batch that `hidden` belongs to."""
        *skipped, last = decoder_blocks(model)[: self.blocks]
        try:
            for block in skipped:
                block.forward = lambda given, *_, **__: given
            last.forward = lambda given, *_, **__: hidden.to(given.device, given.dtype)
            yield
        finally:
            for block in (*skipped, last):
                vars(block).pop("forward", None)


def frozen_prefix(
    model: nn.Module,
    chats: Chats,
    config: FinetuneConfig,
    *,
    during: Intervention | None,
    name: Mapping[str, Any],
    store: Store,
) -> FrozenPrefix | None:
    """Return the prefix of a run from the store, computed if it is missing, or None if there is none.

    Args:
        model: the model to train, in the state in which training begins.
        name: what the frozen weights are, for the key of the stored states.
    """
    blocks = reusable_blocks(model, config, during)
    tokens, seen = sum(chats.lengths), config.total_steps(len(chats)) * config.batch_size * config.accumulate
    # A run that does not see every row would compute states that it never uses.
    if not blocks or seen < len(chats) or 4 * tokens * width(model) > LARGEST:
        return None

    starts = [0]
    for length in chats.lengths:
        starts.append(starts[-1] + length)

    def write(folder: Path) -> None:
        from safetensors.torch import save_file

        hidden = torch.empty(tokens, width(model))
        for batch in stream_activations(model, chats, [blocks - 1]):
            places = torch.tensor(starts)[batch.row] + batch.position
            hidden[places] = batch.hidden[blocks - 1].cpu()
        save_file({"hidden": hidden}, folder / FILE)

    from safetensors import safe_open

    key = {"format": FORMAT, **name, "chats": chats.fingerprint, "layer": blocks - 1}
    with safe_open(store.fetch(KIND, key, write) / FILE, framework="pt") as file:
        return FrozenPrefix(blocks, file.get_tensor("hidden"), starts)  # mapped, so read page by page


def reusable_blocks(model: nn.Module, config: FinetuneConfig, during: Intervention | None) -> int:
    """Return how many blocks below the first trained or edited one compute the same in every step.

    It is 0 where this is not certain: in an architecture that is not in ARCHITECTURES, with dropout in the
    model, trained embeddings, activation checkpointing, autocast, hooks, weights that accelerate moves, an
    intervention with an `on` of its own, or several processes.
    """
    if type(decoder(model)).__name__ not in ARCHITECTURES or not processes.is_alone():
        return 0
    if config.gradient_checkpointing or config.bf16 or has_hooks(model) or _has_dropout(decoder(model)):
        return 0
    if any("_hf_hook" in vars(m) or "_orig_mod" in m._modules for m in model.modules()):
        return 0
    if any(value.requires_grad for value in model.get_input_embeddings().parameters()):
        return 0
    if during is not None and getattr(type(during), "on", None) is not Intervention.on:
        return 0
    blocks = decoder_blocks(model)
    trained = [i for i, block in enumerate(blocks) if any(p.requires_grad for p in block.parameters())]
    return max(0, min([*trained, *(during.layers if during is not None else ())], default=0))


def _has_dropout(decoder: nn.Module) -> bool:
    settings = vars(decoder.config).items()
    return any(value for name, value in settings if "dropout" in name or "pdrop" in name)
