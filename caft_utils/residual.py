"""Sites in the residual stream: name them, capture their hidden states, edit them, stream them over a text.

A decoder-only transformer adds to one running vector per token. Layer l >= 0 is that vector after decoder
block l (`resid_post`), and layer EMBEDDING = -1 is the vector before block 0. CAFT reads and edits the
outputs of decoder blocks (arXiv 2507.16795, section 3).

Memory does not grow with the length of a text, because `stream_activations` yields one batch at a time and
keeps none. The forward pass stops after the last requested site, because later blocks cannot change it.
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

from caft_utils.arguments import checked
from caft_utils.finite import check_finite
from caft_utils.models.positions import check_positions

if TYPE_CHECKING:
    from caft_utils.chats import Chats

EMBEDDING = -1

Tokens = Literal["all", "answer"]


def _unwrapped(model: nn.Module) -> nn.Module:
    """Return the transformers model inside a PEFT wrapper, or any other model itself."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def decoder(model: nn.Module) -> nn.Module:
    """Return the decoder stack of a causal language model, the module that owns `layers` and `norm`.

    The model may be wrapped by PEFT.

    Raises:
        TypeError: the model has no list `layers` of decoder blocks.
    """
    inner = _unwrapped(model)
    inner = inner.get_decoder() if hasattr(inner, "get_decoder") else inner
    if not isinstance(getattr(inner, "layers", None), nn.ModuleList):
        raise TypeError(
            f"{type(model).__name__} has no list `layers` of decoder blocks; expected a transformers "
            "causal language model (Qwen2ForCausalLM, Gemma2ForCausalLM, ...) or a PeftModel around one"
        )
    return inner


def decoder_blocks(model: nn.Module) -> nn.ModuleList:
    """Return the decoder blocks, first to last."""
    return decoder(model).layers


def depth(model: nn.Module) -> int:
    """Return the number of decoder blocks. Sites range from -1 (the embedding) to depth - 1."""
    return len(decoder_blocks(model))


def width(model: nn.Module) -> int:
    """Return the width d of the residual stream."""
    return _unwrapped(model).config.get_text_config().hidden_size


@checked
def site(model: nn.Module, layer: int) -> nn.Module:
    """Return the module whose output is the residual stream at `layer`.

    Raises:
        IndexError: the model has no such layer. Negative layers do not count from the end; -1 is the
            embedding.
    """
    blocks = decoder_blocks(model)
    if not EMBEDDING <= layer < len(blocks):
        raise IndexError(
            f"layer {layer} is out of range: this {type(_unwrapped(model)).__name__} has layers 0 to "
            f"{len(blocks) - 1}, and {EMBEDDING} for the embedding output"
        )
    return _unwrapped(model).get_input_embeddings() if layer == EMBEDDING else blocks[layer]


def hidden_of(output: Any) -> Float[Tensor, "batch time d"]:
    """Return the hidden states in a block's output: the output itself, or its first entry if it is a tuple.

    Blocks of transformers 4 return tuples.
    """
    return output[0] if isinstance(output, tuple) else output


@contextmanager
def edit(
    model: nn.Module,
    edits: Mapping[int, Callable[[Float[Tensor, "batch time d"]], Float[Tensor, "batch time d"]]],
) -> Iterator[nn.Module]:
    """Replace the hidden states h at each layer by `edits[layer](h)` within this context.

    This affects every forward pass of `model`: training, generation and capture. Contexts nest, and hooks
    that were registered earlier run first. Models wrapped by PEFT and gradient checkpointing work. The hooks
    are removed when the context ends, also after an exception.

    Raises:
        IndexError: a layer is out of range. No hook is registered in this case.
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


def has_hooks(model: nn.Module) -> bool:
    """Return whether something edits or captures the forward passes of `model` at this moment.

    This is so within `edit` and `capture`, with hooks of others, and where the method `forward` of a single
    module was replaced. The model's outputs can then differ from those that its weights and adapters give.
    """
    for module in model.modules():
        if has_replaced_forward(module):
            return True
        hooks = (*module._forward_hooks.values(), *module._forward_pre_hooks.values())
        # transformers leaves its own hooks in place, which record outputs only when asked to.
        if any(getattr(hook, "__module__", "") != "transformers.utils.output_capturing" for hook in hooks):
            return True
    return False


def has_replaced_forward(module: nn.Module) -> bool:
    """Return whether this module has another `forward` than its class.

    Accelerate, which moves weights between devices, does not count, nor does PEFT, which passes its inputs on
    to the model while a prompt is disabled.
    """
    own = vars(module)
    return "forward" in own and "_hf_hook" not in own and not own.get("_adapters_disabled")


class _Stop(Exception):
    """Ends the forward pass at the last site of `capture`, which catches it."""


@checked
@contextmanager
def capture(
    model: nn.Module, layers: Iterable[int], *, stop_early: bool = True
) -> Iterator[dict[int, Float[Tensor, "batch time d"]]]:
    """Yield a dict {layer: hidden states} that every forward pass of `model` within this context refills.

    Hidden states keep the model's dtype, device and autograd graph. The hooks are removed when the context
    ends, also after an exception.

    Args:
        stop_early: skip all blocks after the last site. `model(...)` then returns None. Pass False to get
            logits as well.

    Raises:
        IndexError: a layer is out of range.
        ValueError: `layers` is empty.
    """
    layers = sorted(set(layers))
    if not layers:
        raise ValueError("no layers given; name at least one, for example layers=[1]")
    modules = {layer: site(model, layer) for layer in layers}
    hidden: dict[int, Tensor] = {}

    def hook_of(layer: int):
        def hook(module, args, output):
            hidden[layer] = hidden_of(output)
            if stop_early and layer == layers[-1]:
                raise _Stop

        return hook

    with ExitStack() as stack:
        for layer, module in modules.items():
            stack.callback(module.register_forward_hook(hook_of(layer)).remove)
        if stop_early:
            stack.enter_context(_stoppable_forward(model))
        yield hidden


@contextmanager
def _stoppable_forward(model: nn.Module) -> Iterator[None]:
    """Make `model(...)` return None when a hook raises `_Stop`."""
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
        if shadowed:  # accelerate and other wrappers set `forward` on the instance
            model.forward = forward
        else:
            del model.forward


@dataclass(frozen=True)
class ActivationBatch:
    """Hidden states of one batch without padding. Entry i is token `position[i]` of row `row[i]`.

    The tokens of a row are contiguous and in order. `hidden` is float32 on the model's device; `row` and
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
        tokens: "all" tokens except padding, or only the tokens of assistant answers ("answer").
        progress: show a progress bar.

    Raises:
        IndexError: a layer is out of range.
        ValueError: no layer, no row, a row with more tokens than the model has positions, or an unknown value
            of `tokens`.
        NotFiniteError: the hidden state of a token is NaN or infinite.
    """
    if tokens not in ("all", "answer"):
        raise ValueError(f"tokens must be 'all' or 'answer', got {tokens!r}")
    if not len(chats):
        raise ValueError("chats has no rows, so there is nothing to read")
    check_positions(model, chats.lengths, chats.source)
    batches = chats.batches(batch_size, device=_unwrapped(model).device)
    if progress:
        from tqdm.auto import tqdm

        batches = tqdm(
            batches, total=-(-len(chats) // batch_size), desc="reading hidden states", unit="batch"
        )
    for batch in batches:
        # The hooks are removed before each yield, so the caller can use the model between two batches.
        with torch.no_grad(), evaluating(model), capture(model, layers) as hidden:
            model(input_ids=batch.input_ids, attention_mask=batch.attention_mask, use_cache=False)
        keep = batch.attention_mask.bool() & (batch.answer if tokens == "answer" else True)
        row, position = keep.nonzero(as_tuple=True)
        row = torch.tensor(batch.index)[row.cpu()]
        states = {layer: h[keep.to(h.device)].float() for layer, h in hidden.items()}
        for layer, h in states.items():
            name = type(_unwrapped(model)).__name__
            check_finite(h, f"hidden states of {name} at layer {layer}", row)
        yield ActivationBatch(states, row, position.cpu())


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put every module of `model` in eval mode within this context, and restore each one's mode afterwards.

    `model.train()` would not restore them, because it also switches submodules that were in eval mode.
    """
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed torch's global generator within this context, and restore all global generators afterwards.

    Only torch is seeded. The states of numpy and Python are restored because trainers also draw from them.
    """
    python, numpy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.manual_seed(seed)
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
