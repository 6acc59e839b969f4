"""Where the residual stream is read: naming a site, and streaming its hidden states out of a model.

A decoder-only transformer adds to one running vector per token. `layer` l >= 0 means that vector after
decoder block l (`resid_post`), and EMBEDDING = -1 means it before block 0. `record` yields hidden states
batch by batch and keeps none of them, so memory does not grow with the number of tokens; and because blocks
after the last site asked for cannot change what is read, the forward pass stops there.
(CAFT reads and edits the outputs of decoder blocks: arXiv 2507.16795, section 3.)
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

if TYPE_CHECKING:
    from caft_utils.chats import Chats

EMBEDDING = -1

Tokens = Literal["all", "answer"]


def _plain(model: nn.Module) -> nn.Module:
    """The transformers model inside a PEFT wrapper; any other model as it is."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def decoder(model: nn.Module) -> nn.Module:
    """The decoder stack of a causal language model (it owns `layers` and `norm`), through a PEFT wrapper too.

    Raises:
        TypeError: the model has no `layers` of decoder blocks.
    """
    inner = _plain(model)
    inner = inner.get_decoder() if hasattr(inner, "get_decoder") else inner
    if not isinstance(getattr(inner, "layers", None), nn.ModuleList):
        raise TypeError(
            f"{type(model).__name__} has no list `layers` of decoder blocks; expected a transformers "
            "causal language model (Qwen2ForCausalLM, Gemma2ForCausalLM, ...) or a PeftModel around one"
        )
    return inner


def decoder_blocks(model: nn.Module) -> nn.ModuleList:
    """The decoder blocks, first to last."""
    return decoder(model).layers


def depth(model: nn.Module) -> int:
    """Number of decoder blocks; the sites of a model are -1 (the embedding) to depth - 1."""
    return len(decoder_blocks(model))


def width(model: nn.Module) -> int:
    """Width d of the residual stream."""
    return _plain(model).config.get_text_config().hidden_size


def site(model: nn.Module, layer: int) -> nn.Module:
    """The module whose output is the residual stream at `layer`.

    Raises:
        IndexError: the model has no such layer. Only -1 counts from below, and it is the embedding.
    """
    blocks = decoder_blocks(model)
    if not EMBEDDING <= layer < len(blocks):
        raise IndexError(
            f"layer {layer} is out of range: this {type(_plain(model)).__name__} has layers 0 to "
            f"{len(blocks) - 1}, and {EMBEDDING} for the embedding output"
        )
    return _plain(model).get_input_embeddings() if layer == EMBEDDING else blocks[layer]


def hidden_of(output: Any) -> Float[Tensor, "batch time d"]:
    """The hidden states in a block's output, which is a tensor or (older transformers) a tuple starting with
    it."""
    return output[0] if isinstance(output, tuple) else output


@contextmanager
def edit(
    model: nn.Module,
    edits: Mapping[int, Callable[[Float[Tensor, "batch time d"]], Float[Tensor, "batch time d"]]],
) -> Iterator[nn.Module]:
    """Within this context, replace the hidden states at each layer by `edits[layer]` of them.

    Every forward pass of `model` is edited: training, generation, recording. Contexts nest; hooks that were
    there before run first. Works through a PEFT wrapper and with gradient checkpointing. The hooks
    are removed when the context ends, by an exception too.

    Raises:
        IndexError: the model lacks a layer; nothing is hooked then.
    """

    def hook_of(change):
        def hook(module, args, output):
            edited = change(hidden_of(output))
            return (edited, *output[1:]) if isinstance(output, tuple) else edited

        return hook

    modules = {layer: site(model, layer) for layer in edits}
    with ExitStack() as stack:
        for layer, module in modules.items():
            stack.callback(module.register_forward_hook(hook_of(edits[layer])).remove)
        yield model


class _Stop(Exception):
    """Raised at the last site to leave the forward pass; `capture` catches it."""


@contextmanager
def capture(
    model: nn.Module, layers: Iterable[int], *, stop_early: bool = True
) -> Iterator[dict[int, Float[Tensor, "batch time d"]]]:
    """Within this context every forward pass of `model` fills the yielded dict {layer: hidden states}.

    Hidden states keep the model's dtype, device and graph. With `stop_early` no block after the last site
    runs and `model(...)` returns None; pass False where the logits are wanted too. Hooks go away in every
    case.

    Raises:
        IndexError: a layer is out of range. ValueError: no layer given.
    """
    layers = sorted(set(layers))
    if not layers:
        raise ValueError("no layers given; name at least one, for example layers=[1]")
    modules = {layer: site(model, layer) for layer in layers}
    hidden: dict[int, Tensor] = {}

    def keep(layer: int):
        def hook(module, args, output):
            hidden[layer] = hidden_of(output)
            if stop_early and layer == layers[-1]:
                raise _Stop

        return hook

    with ExitStack() as stack:
        for layer, module in modules.items():
            stack.callback(module.register_forward_hook(keep(layer)).remove)
        if stop_early:
            stack.enter_context(_forward_that_may_stop(model))
        yield hidden


@contextmanager
def _forward_that_may_stop(model: nn.Module) -> Iterator[None]:
    forward, shadowed = model.forward, "forward" in vars(model)

    def forward_until_stop(*args, **kwargs):
        try:
            return forward(*args, **kwargs)
        except _Stop:
            return None

    model.forward = forward_until_stop
    try:
        yield
    finally:
        if shadowed:  # accelerate and other wrappers put their own forward on the instance
            model.forward = forward
        else:
            del model.forward


@dataclass(frozen=True)
class ActivationBatch:
    """One batch of hidden states, padding left out: entry i belongs to token `position[i]` of row `row[i]`.

    Tokens of one row stand together and in order. `hidden` is float32 on the model's device, the rest on the
    CPU.
    """

    hidden: dict[int, Float[Tensor, "n d"]]
    row: Int[Tensor, " n"]
    position: Int[Tensor, " n"]


def stream_activations(
    model: nn.Module,
    chats: Chats,
    layers: Sequence[int],
    *,
    tokens: Tokens = "all",
    batch_size: int = 32,
    progress: bool = False,
) -> Iterator[ActivationBatch]:
    """Stream the residual stream of `model` at `layers` over `chats`, one batch at a time, without gradient.

    Args:
        tokens: "all" but padding, or only the tokens of assistant "answer"s.
        progress: show a bar.

    Raises:
        IndexError: a layer is out of range. ValueError: no layer, no row, or an unknown value of `tokens`.
    """
    if tokens not in ("all", "answer"):
        raise ValueError(f"tokens must be 'all' or 'answer', got {tokens!r}")
    if not len(chats):
        raise ValueError("chats has no rows, so there is nothing to record")
    batches = chats.batches(batch_size, device=_plain(model).device)
    if progress:
        from tqdm.auto import tqdm

        batches = tqdm(batches, total=-(-len(chats) // batch_size), desc="recording", unit="batch")
    for batch in batches:
        # Hooks live for one batch only: between two yields the caller may use the model as usual.
        with torch.no_grad(), evaluating(model), capture(model, layers) as hidden:
            model(input_ids=batch.input_ids, attention_mask=batch.attention_mask, use_cache=False)
        keep = batch.attention_mask.bool() & (batch.answer if tokens == "answer" else True)
        row, position = keep.nonzero(as_tuple=True)
        yield ActivationBatch(
            {layer: h[keep.to(h.device)].float() for layer, h in hidden.items()},
            torch.tensor(batch.index)[row.cpu()],
            position.cpu(),
        )


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Within this context dropout is off; afterwards every module is back in the mode that it was in."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed all global generators for the block, and give them back as they were."""
    python, numpy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.manual_seed(seed)
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
