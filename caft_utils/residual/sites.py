"""Sites in the residual stream: name them, capture their hidden states, edit them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from caft_utils.arguments import checked

EMBEDDING = -1
DISTRIBUTED = "torch.distributed"


def inner_model(model: nn.Module) -> nn.Module:
    """Return the transformers model inside a PEFT wrapper, or any other model itself."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def decoder(model: nn.Module) -> nn.Module:
    """Return the decoder stack of a causal language model, the module that owns `layers` and `norm`.

    The model may be wrapped by PEFT.

    Raises:
        TypeError: the model has no list `layers` of decoder blocks.
    """
    inner = inner_model(model)
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
    return inner_model(model).config.get_text_config().hidden_size


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
            f"layer {layer} is out of range: this {type(inner_model(model)).__name__} has layers 0 to "
            f"{len(blocks) - 1}, and {EMBEDDING} for the embedding output"
        )
    return inner_model(model).get_input_embeddings() if layer == EMBEDDING else blocks[layer]


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

    This affects every forward pass of `model`: training, generation, capture and `output_hidden_states`.
    Contexts nest, and hooks that were registered earlier run first. Models wrapped by PEFT and gradient
    checkpointing work. The hooks are removed when the context ends, also after an exception.

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
            _let_transformers_see_edits(module)
        yield model


def _let_transformers_see_edits(module: nn.Module) -> None:
    """Move the hooks with which transformers records hidden states behind all others of a module.

    It registers them at the first call with `output_hidden_states=True` and leaves them there.
    """
    for key in [key for key, hook in module._forward_hooks.items() if _is_recorder(hook)]:
        module._forward_hooks.move_to_end(key)


def _is_recorder(hook: Callable) -> bool:
    return getattr(hook, "__module__", "") == "transformers.utils.output_capturing"


@contextmanager
def without_hooks(model: nn.Module) -> Iterator[None]:
    """Take all hooks off the modules of `model` within this context, so that its forward passes are plain.

    Hooks of torch.distributed stay, because they gather sharded weights.
    """
    taken = []
    for module in model.modules():
        for name in ("_forward_hooks", "_forward_pre_hooks"):
            hooks = getattr(module, name)
            if hooks:
                kept = {
                    k: h for k, h in hooks.items() if getattr(h, "__module__", "").startswith(DISTRIBUTED)
                }
                taken.append((module, name, hooks))
                setattr(module, name, OrderedDict(kept))
    try:
        yield
    finally:
        for module, name, hooks in taken:
            setattr(module, name, hooks)


def has_hooks(model: nn.Module) -> bool:
    """Return whether something edits or captures the forward passes of `model` at this moment.

    This is so within `edit` and `capture`, with hooks of others, and where the method `forward` of a single
    module was replaced. The model's outputs can then differ from those that its weights and adapters give.
    NNsight, which replaces `forward` of all modules for good, does not count: it does nothing outside traces.
    """
    for module in model.modules():
        if has_replaced_forward(module) and not _is_of_nnsight(vars(module)["forward"]):
            return True
        hooks = (*module._forward_hooks.values(), *module._forward_pre_hooks.values())
        # transformers leaves its own hooks in place, which record outputs only when asked to.
        if not all(_is_recorder(hook) for hook in hooks):
            return True
    return False


def has_replaced_forward(module: nn.Module) -> bool:
    """Return whether this module has another `forward` than its class.

    Accelerate, which moves weights between devices, does not count, nor does PEFT, which passes its inputs on
    to the model while a prompt is disabled.
    """
    own = vars(module)
    return "forward" in own and "_hf_hook" not in own and not own.get("_adapters_disabled")


def _is_of_nnsight(forward: Any) -> bool:
    return type(forward).__module__.startswith("nnsight.")


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
