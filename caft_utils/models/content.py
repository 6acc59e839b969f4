"""What a model computes: its weights under the names of the plain model, and the adapters in effect.

Wrappers of PEFT and torch.compile rename weights without changing them, so the names are those of the plain
model. An adapter of PEFT is listed while it acts. One that is loaded but not active, or disabled, does
nothing, and a merged one is part of the weights.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

Tensors = list[tuple[str, Any, nn.Module]]  # name, tensor or packed tensors, and the module that holds them
SIMPLE = (bool, int, float, str, type(None))
BOOKKEEPING = {"base_model_name_or_path", "revision", "inference_mode", "auto_mapping", "peft_version"}


@dataclass
class Content:
    """What a model computes.

    Attributes:
        weights: parameters and persistent buffers without adapters.
        rotary: frequencies of rotary embeddings that are not those of the config.
        adapters: a description and the tensors of each adapter that acts, one entry for each layer.
    """

    weights: Tensors = field(default_factory=list)
    rotary: Tensors = field(default_factory=list)
    adapters: list[tuple[str, Tensors]] = field(default_factory=list)


def content_of(model: nn.Module) -> Content:
    """Return the content of a model in any wrapper. No tensor is read or copied."""
    content, kinds = Content(), _tuner_classes()
    *outer, inner = _wrappers(model)
    _walk(inner, "", content, kinds)
    for wrapper in outer:
        _add_wrapper(wrapper, content)
    return content


def unwrapped(model: nn.Module) -> nn.Module:
    """Return the model inside wrappers of PEFT and torch.compile, or any other model itself."""
    return _wrappers(model)[-1]


def tuner_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Return the layers with adapters of PEFT by their names, outer ones first."""
    kinds = _tuner_classes()
    return {name: module for name, module in model.named_modules() if kinds and isinstance(module, kinds)}


def fetched_tensors(tensors: Tensors) -> Iterator[tuple[str, Tensor]]:
    """Yield names and tensors. Those that accelerate keeps elsewhere are fetched, one at a time.

    Raises:
        ValueError: a tensor is on the meta device, and accelerate holds no copy of it.
    """
    for name, tensor, module in tensors:
        if isinstance(tensor, Tensor) and tensor.is_meta:
            tensor = _offloaded(name, tensor, module)
        yield from _plain_tensors(name, tensor)


def _plain_tensors(name: str, value: Any) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors that a quantised one, or the packed state of a layer, consists of."""
    if isinstance(value, (tuple, list)):
        for number, part in enumerate(value):
            yield from _plain_tensors(f"{name}.{number}", part)
    elif not isinstance(value, Tensor):
        yield f"{name} {value}", torch.empty(0)
    elif hasattr(value, "__tensor_flatten__"):
        parts, settings = value.__tensor_flatten__()
        for part in parts:
            yield from _plain_tensors(f"{name}.{part} {settings}", getattr(value, part))
    elif value.is_quantized:
        scheme = str(value.flatten()[:0])  # its repr names scheme, scales and zero points
        yield f"{name} {scheme}", value.int_repr()
    else:
        yield name, value


def _offloaded(name: str, tensor: Tensor, module: nn.Module) -> Tensor:
    hook = getattr(module, "_hf_hook", None)
    for one in (hook, *getattr(hook, "hooks", ())):
        held = getattr(one, "weights_map", None)
        if held is not None:
            return held[name.rpartition(".")[2]].to(tensor.dtype)
    raise ValueError(
        f"the weight {name} is on the meta device and accelerate holds no copy of it, so results of this "
        "model cannot be named or stored; load the model with its weights"
    )


def _walk(module: nn.Module, prefix: str, content: Content, kinds: tuple[type, ...]) -> None:
    inside = module._modules
    if kinds and isinstance(module, kinds):
        if inside.get("token_adapter") is not None:  # a layer of its own, around the embedding
            return _walk(inside["token_adapter"], prefix, content, kinds)
        _add_layer(module, prefix, content)
        wrapped = "base_layer" if "base_layer" in inside else "original_module"
        return _walk(inside[wrapped], prefix, content, kinds)
    if inside.get("_orig_mod") is not None:  # compiled by torch.compile
        return _walk(inside["_orig_mod"], prefix, content, kinds)
    content.weights += _own_tensors(module, prefix)
    for name in module._non_persistent_buffers_set:
        if name.endswith("inv_freq") and "original" not in name and _is_odd(module, name):
            content.rotary.append((prefix + name, module._buffers[name], module))
    for name, child in inside.items():
        if child is not None:
            _walk(child, f"{prefix}{name}.", content, kinds)


def _own_tensors(module: nn.Module, prefix: str) -> Tensors:
    """Return what `module.state_dict()` has of the module itself."""
    if type(module)._save_to_state_dict is nn.Module._save_to_state_dict:
        own = {k: b for k, b in module._buffers.items() if k not in module._non_persistent_buffers_set}
        own |= module._parameters
    else:  # quantised layers add their scales, or pack their weights
        own = {}
        module._save_to_state_dict(own, "", True)
    return [(prefix + name, value, module) for name, value in own.items() if value is not None]


def _is_odd(module: nn.Module, name: str) -> bool:
    """Return whether frequencies were rounded (`model.half()`) or edited after they were computed.

    Some kinds of rotary embedding adapt theirs to the length of each text, which does not count.
    """
    value = module._buffers[name]
    original = module._buffers.get(name.replace("inv_freq", "original_inv_freq"))
    if value is None or value.is_meta:
        return False
    adaptive = any(word in str(getattr(module, "rope_type", "")) for word in ("dynamic", "longrope"))
    edited = original is not None and not adaptive and not torch.equal(value, original)
    return edited or value.dtype != torch.float32


def _add_layer(layer: nn.Module, prefix: str, content: Content) -> None:
    """Add the adapters that act on one layer."""
    known, role = layer._get_available_adapters(), "added"
    if layer._disable_adapters:
        # PEFT takes merged adapters out of the weights in the next forward pass.
        acting, role = list(layer.merged_adapters), "taken out"
    elif layer.merged_adapters:
        acting = []
    elif "original_module" in layer._modules:  # a module is replaced as a whole, by one adapter
        acting = layer.active_adapters[:1] if known.issuperset(layer.active_adapters) else []
    else:
        acting = [name for name in layer.active_adapters if name in known]
    for name in acting:
        tensors: Tensors = [(k, value, layer) for k, value in layer._parameters.items() if value is not None]
        for key, part in layer._modules.items():
            if part is None or key in ("base_layer", "original_module"):
                continue
            if hasattr(part, "keys"):  # one entry for each adapter
                part = part[name] if name in part else nn.Identity()
            if isinstance(part, Tensor):
                tensors.append((key, part, layer))
            else:
                state = part.state_dict(keep_vars=True)
                tensors += [(f"{key}.{sub}", value, part) for sub, value in state.items()]
        settings = {}
        for key, value in vars(layer).items():
            own = isinstance(value, dict) and name in value
            value = value[name] if own else value
            if key.startswith("_") or key in ("training", "frozen_peft_weight_names"):
                continue
            if isinstance(value, Tensor):
                tensors.append((key, value, layer))
            elif own or isinstance(value, SIMPLE):
                settings[key] = value
        about = [prefix, type(layer).__name__, role, settings]
        content.adapters.append((json.dumps(about, sort_keys=True, default=_class_name), tensors))


def _add_wrapper(wrapper: nn.Module, content: Content) -> None:
    """Add what a wrapper of PEFT holds outside the layers: prompts, routers, settings of its hooks."""
    inside = wrapper._modules
    if "base_model" in inside:
        active = wrapper.active_adapter
        for name in [active] if isinstance(active, str) else active:
            config = wrapper.peft_config.get(name)
            if config is None:
                continue
            if config.is_prompt_learning and not vars(wrapper).get("_adapters_disabled"):
                settings = {k: v for k, v in config.to_dict().items() if k not in BOOKKEEPING}
                prompts = inside["prompt_encoder"][name].state_dict(keep_vars=True)
                about = json.dumps(settings, sort_keys=True, default=_class_name)
                content.adapters.append((about, [(k, v, wrapper) for k, v in prompts.items()]))
            elif content.adapters and getattr(config, "alora_invocation_tokens", None):
                content.adapters.append((f"begins after {config.alora_invocation_tokens}", []))
    elif content.adapters:
        for key, part in inside.items():
            if key not in ("model", "_orig_mod") and not hasattr(part, "keys"):  # for example X-LoRA's router
                content.adapters.append((key, [(k, v, part) for k, v in part.state_dict().items()]))


def _class_name(value: Any) -> str:
    return type(value).__name__ if not isinstance(value, set) else str(sorted(map(str, value)))


def _wrappers(model: nn.Module) -> list[nn.Module]:
    """Return the model with all wrappers, the outermost first and the plain model last."""
    found = [model]
    while True:
        inside = found[-1]._modules
        from_peft = any(cls.__module__.startswith("peft.") for cls in type(found[-1]).__mro__)
        names = ("_orig_mod", *(("base_model", "model") if from_peft else ()))
        inner = next((inside[name] for name in names if inside.get(name) is not None), None)
        if inner is None:
            return found
        found.append(inner)


def _tuner_classes() -> tuple[type, ...]:
    """Return PEFT's classes of layers with adapters, or none while PEFT is not imported."""
    if "peft" not in sys.modules:
        return ()
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.other import AuxiliaryTrainingWrapper

    return BaseTunerLayer, AuxiliaryTrainingWrapper
