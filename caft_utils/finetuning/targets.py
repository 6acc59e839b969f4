"""The weight matrices that an adapter changes.

PEFT adapts every module whose name ends with one of `targets`, and says nothing about a name without a
match. The names that suit Qwen, Mistral and Gemma therefore reach two of the four matrices of a Phi-3 block,
and in a model of text and images they reach into the image encoder too. Here each name must match a matrix of
the decoder blocks, nothing outside the blocks is adapted, and the default names and "all-linear" must reach
all matrices of a block. Routers, which choose the experts of a token, are left as they are.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from torch import nn

from caft_utils.finetune_config import ALL_LINEAR, ATTENTION_AND_MLP
from caft_utils.residual import decoder_blocks

if TYPE_CHECKING:
    from caft_utils.finetune_config import FinetuneConfig

ROUTERS = ("gate", "router", "shared_expert_gate")
# Matrices of single experts. For some models PEFT adapts the fused ones instead.
EXPERT_PARTS = ("gate_proj", "up_proj", "down_proj", "w1", "w2", "w3")


def block_matrices(model: nn.Module, config: FinetuneConfig) -> tuple[list[str], list[str]]:
    """Return the names of the matrices in the blocks that are trained: linear layers, and fused experts.

    Fused experts are the matrices of all experts in one parameter [experts, out, in].
    """
    linear, fused = [], []
    for path, module in _modules_in_blocks(model, config):
        if isinstance(module, nn.Linear) and path.rpartition(".")[2] not in ROUTERS:
            linear.append(path)
        elif not isinstance(module, nn.Conv1d):
            own = module.named_parameters(recurse=False)
            fused += [f"{path}.{name}" for name, value in own if value.ndim == 3]
    return linear, fused


def lora_targets(model: nn.Module, config: FinetuneConfig) -> dict[str, Any]:
    """Return the arguments of peft's LoraConfig that choose the matrices of a model without adapters.

    Raises:
        ValueError: a name in `config.targets` matches no matrix of the decoder blocks.
    """
    linear, fused = block_matrices(model, config)
    names, parameters = list(config.targets), []
    if config.targets == ALL_LINEAR:
        names, parameters = _last_parts(linear), fused
    else:
        fitting = [path for path, module in _modules_in_blocks(model, config) if _can_be_adapted(module)]
        _check_names([name for name in names if not (fused and name in EXPERT_PARTS)], fitting, linear)
    arguments: dict[str, Any] = {"target_modules": names}
    if parameters:
        arguments["target_parameters"] = parameters
    inside = re.escape(_path_of_blocks(model))
    outside = re.compile(rf"(?!{inside}\.)(.*\.)?({'|'.join(map(re.escape, names))})")
    if any(outside.fullmatch(path) for path, _ in model.named_modules()):
        arguments["exclude_modules"] = rf"(?!{inside}\.).*"
    return arguments


def check_reach(tuned: nn.Module, matrices: tuple[list[str], list[str]], config: FinetuneConfig) -> None:
    """Refuse an adapter that leaves out matrices which `config.targets` asks for.

    Args:
        tuned: the model with its adapter.
        matrices: `block_matrices` of the model before it got the adapter.

    Raises:
        ValueError: the targets are the default ones or "all-linear", and a matrix has no adapter, or a name
            matches nothing.
    """
    linear, fused = matrices
    tuner = tuned.base_model
    reached = {*tuner.targeted_module_names, *tuner.targeted_parameter_names}
    if config.targets not in (ATTENTION_AND_MLP, ALL_LINEAR):
        experts = EXPERT_PARTS if tuner.targeted_parameter_names else ()
        return _check_names([name for name in config.targets if name not in experts], reached, linear)
    if missed := [path for path in (*linear, *fused) if path not in reached]:
        names = _listed(_last_parts(missed))
        if config.targets == ALL_LINEAR:
            raise ValueError(f"PEFT cannot adapt {names} of this model; name others as `targets`")
        raise ValueError(_refusal(f"the targets {_listed(config.targets)} leave out {names}", linear))


def _check_names(names: Iterable[str], paths: Iterable[str], linear: list[str]) -> None:
    """Refuse names that are the end of no dotted name in `paths`."""
    unused = [name for name in names if not any(f".{path}".endswith(f".{name}") for path in paths)]
    if unused:
        raise ValueError(_refusal(f"no matrix of the decoder blocks is named {_listed(unused)}", linear))


def _refusal(what: str, linear: list[str]) -> str:
    names = ", ".join(repr(name) for name in _last_parts(linear))
    return (
        f'{what}; pass FinetuneConfig(targets="all-linear") for all matrices of this model, or name those '
        f"to adapt: targets=({names})"
    )


def _can_be_adapted(module: nn.Module) -> bool:
    """Return whether a module is one matrix, quantised or not."""
    return isinstance(module, nn.Linear | nn.Conv1d) or (
        hasattr(module, "in_features") and not any(True for _ in module.children())
    )


def _modules_in_blocks(model: nn.Module, config: FinetuneConfig) -> list[tuple[str, nn.Module]]:
    """Return the modules of the blocks that are trained, by their names in the model."""
    inside, found = _path_of_blocks(model), []
    for i, block in enumerate(decoder_blocks(model)):
        if config.blocks is None or i in config.blocks:
            found += [(f"{inside}.{i}.{name}", module) for name, module in block.named_modules() if name]
    return found


def _path_of_blocks(model: nn.Module) -> str:
    blocks = decoder_blocks(model)
    return next(path for path, module in model.named_modules() if module is blocks)


def _last_parts(paths: list[str]) -> list[str]:
    """Return the last parts of dotted names, each once."""
    return list(dict.fromkeys(path.rpartition(".")[2] for path in paths))


def _listed(names: Iterable[str]) -> str:
    return ", ".join(map(repr, names))
