"""The model that a run trains: a clone of the base with an adapter, and how its weights are stored.

The clone shares the base's frozen weights in memory and carries its own LoRA adapter. Full fine-tuning copies
the weights, those in half precision as float32: bfloat16 keeps 8 bits of a weight, so an update of less than
1/512 of it would be rounded away. Either way the base stays as it is.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from caft_utils.finetuning.targets import block_matrices, check_reach, lora_targets
from caft_utils.models.content import content_of, tuner_layers, unwrapped
from caft_utils.residual import decoder_blocks, has_replaced_forward, seeded

if TYPE_CHECKING:
    from caft_utils.finetune_config import FinetuneConfig

WEIGHTS = "weights.safetensors"


def trainable_copy(model: nn.Module, config: FinetuneConfig, seed: int) -> nn.Module:
    """Return the model to train: with a fresh adapter, or with weights of its own.

    Raises:
        ValueError: `config.blocks` names a block that the model does not have, or `config.targets` does not
            reach the matrices of the blocks (targets.py).
    """
    from peft import LoraConfig, get_peft_model
    from transformers import GenerationConfig

    blocks, depth = config.blocks, len(decoder_blocks(model))
    if blocks is not None and blocks[-1] >= depth:
        raise ValueError(f"blocks {list(blocks)} exceed this model, whose blocks are 0 to {depth - 1}")
    twin = _starting_model(model, config)
    # Every checkpoint of full training saves the generation config, and some published ones cannot be saved.
    twin.generation_config = GenerationConfig()
    if config.method == "full":
        twin.requires_grad_(blocks is None)
        for block in blocks or ():
            decoder_blocks(twin)[block].requires_grad_(True)
        return twin
    matrices = block_matrices(twin, config)
    lora = LoraConfig(
        r=config.r,
        lora_alpha=config.alpha,
        lora_dropout=config.dropout,
        use_rslora=config.rslora,
        **lora_targets(twin, config),
        layers_to_transform=None if blocks is None else list(blocks),
        task_type="CAUSAL_LM",
    )
    with _creating_adapter(seed, twin):
        tuned = get_peft_model(twin, lora)
    check_reach(tuned, matrices, config)
    return tuned


def save_weights(model: nn.Module, config: FinetuneConfig, folder: Path) -> None:
    """Write the trained weights to `folder`: the adapter, or all weights."""
    from safetensors.torch import save_model

    folder.mkdir(parents=True, exist_ok=True)
    if config.method == "lora":
        with warnings.catch_warnings():
            # The base may be a stored run (run.py), whose folder has no config.
            warnings.filterwarnings("ignore", message="Could not find a config file")
            model.save_pretrained(folder)
    else:
        save_model(model, str(folder / WEIGHTS))


def restore(base: nn.Module, config: FinetuneConfig, folder: Path) -> nn.Module:
    """Return the model in evaluation mode that `save_weights` wrote for a run from `base`."""
    from peft import PeftModel
    from safetensors.torch import load_model

    twin = _starting_model(base, config)
    if config.method == "full":
        load_model(twin, str(folder / WEIGHTS))
        return twin.requires_grad_(False).eval()
    with _creating_adapter(0, twin):
        tuned = PeftModel.from_pretrained(twin, str(folder), low_cpu_mem_usage=True).eval()
    # The file of an earlier version names the model before any fine-tuning.
    tuned.peft_config["default"].base_model_name_or_path = vars(unwrapped(tuned)).get("name_or_path") or None
    return _merging_into_copies(tuned)


def _merging_into_copies(tuned: nn.Module) -> nn.Module:
    """Make the methods of `tuned` that merge its adapter write into copies of the weights, and return it.

    By default PEFT changes the weights in place. The base and all models that were fine-tuned from it share
    this memory, so they would change as well.
    """
    for name in ("merge_adapter", "merge_and_unload"):
        setattr(tuned.base_model, name, partial(getattr(tuned.base_model, name), safe_merge=True))
    return tuned


def check_trainable(model: nn.Module, config: FinetuneConfig) -> None:
    """Refuse a model whose weights cannot be trained as they are.

    Raises:
        ValueError: weights are offloaded, or quantised with method="full".
    """
    names = [name for name, value in model.named_parameters() if value.is_meta]
    if names:
        raise ValueError(
            f"{len(names)} weights of this model are offloaded (such as {names[0]}), because the GPU is too "
            "small for it, and offloaded weights can be read but not trained. Load it on one device, with "
            'load(..., device="cpu") or in a smaller dtype, or take a smaller model or a larger machine'
        )
    if config.method == "full":
        whole = [name for name, value in model.named_parameters() if not value.is_floating_point()]
        if whole:
            raise ValueError(
                f"{len(whole)} weights of this model are quantised (such as {whole[0]}), so they cannot be "
                'trained; use method="lora", or load the model without quantisation'
            )


def in_half_precision(model: nn.Module) -> bool:
    """Return whether some weights are bfloat16 or float16."""
    return any(value.dtype in (torch.bfloat16, torch.float16) for value in model.parameters())


def _starting_model(model: nn.Module, config: FinetuneConfig) -> nn.Module:
    """Return the start of a run: a clone with the adapters that act merged into its weights."""
    adapted = hasattr(model, "peft_config") or bool(tuner_layers(model))
    twin = _clone(model, share=config.method == "lora" and not adapted)
    if config.method == "full" and in_half_precision(model):
        twin = twin.float()
    return _without_adapters(twin) if adapted else twin


def _without_adapters(model: nn.Module) -> nn.Module:
    """Return the plain model inside, changed so that it computes what `model` does. `model` is used up.

    The adapters that act are made the active ones first. PEFT would merge disabled adapters too, and active
    ones into weights with merged ones, where they do not act.

    Raises:
        ValueError: an adapter cannot be merged, for example a learnt prompt.
    """
    layers, kind = tuner_layers(model), type(model).__name__
    if not layers and content_of(model).adapters:
        raise ValueError(
            f"the adapter of this {kind} is not part of any layer, so it cannot be merged into the weights "
            "to train on top of it; give the model without the adapter, or with one of another kind (LoRA)"
        )
    for layer in layers.values():
        if layer._disable_adapters:
            if layer.merged_adapters:
                layer.unmerge()
            layer._active_adapter = []
        elif layer.merged_adapters:
            layer._active_adapter = list(layer.merged_adapters)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="All adapters are already merged")
        if layers and hasattr(model, "merge_and_unload"):
            return model.merge_and_unload()
        return _merge_layers(unwrapped(model), layers)


def _merge_layers(model: nn.Module, layers: Mapping[str, nn.Module]) -> nn.Module:
    """Merge adapters that were put into `model` without a wrapper, as `model.add_adapter` does."""
    done: tuple[str, ...] = ()
    for name, layer in layers.items():
        if name.startswith(done):
            continue  # inside of another layer
        if hasattr(layer, "unload_and_optionally_merge_module"):
            plain = layer.unload_and_optionally_merge_module(merge=True, safe_merge=False, adapter_names=None)
        else:
            layer.merge()
            plain = layer.get_base_layer()
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, plain)
        done = (*done, f"{name}.")
    vars(model).pop("peft_config", None)
    if hasattr(model, "_hf_peft_config_loaded"):
        model._hf_peft_config_loaded = False
    return model


def _clone(model: nn.Module, *, share: bool) -> nn.Module:
    """Return a copy of all modules. With `share` its parameters are new frozen objects on the same memory."""
    memo: dict[int, Any] = {}
    if share:
        for value in (*model.parameters(), *model.buffers()):
            # New Parameter objects, so that freezing the clone leaves the original's `requires_grad` alone.
            plain = type(value) is nn.Parameter
            memo[id(value)] = nn.Parameter(value.detach(), requires_grad=False) if plain else value
    twin = copy.deepcopy(model, memo)
    for module in twin.modules():  # copied hooks and replaced methods would still act on the original
        module._forward_hooks.clear()
        module._forward_pre_hooks.clear()
        if has_replaced_forward(module):
            del module.forward
        vars(module).pop("__nnsight__", None)  # NNsight would think that its `forward` is still there
    for name in ("caft_id", "caft_run"):
        twin.__dict__.pop(name, None)
    return twin


@contextmanager
def _creating_adapter(seed: int, model: nn.Module) -> Iterator[None]:
    """Seed the global generators, from which PEFT draws weights, and silence its use of a deprecated name."""
    with seeded(seed, next(model.parameters()).device), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*gradient_checkpointing", category=FutureWarning)
        yield
