"""The model that a run trains: a clone of the base with an adapter, and how its weights are stored.

The clone shares the base's frozen weights in memory and carries its own LoRA adapter. Full fine-tuning
copies the weights. Either way the base stays as it is.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from caft_utils.residual import decoder_blocks, seeded

if TYPE_CHECKING:
    from caft_utils.finetune_config import FinetuneConfig

WEIGHTS = "weights.safetensors"


def trainable_copy(model: nn.Module, config: FinetuneConfig, seed: int) -> nn.Module:
    """Return the model to train: with a fresh adapter, or with weights of its own.

    Raises:
        ValueError: `config.blocks` names a block that the model does not have.
    """
    from peft import LoraConfig, get_peft_model

    blocks, depth = config.blocks, len(decoder_blocks(model))
    if blocks is not None and blocks[-1] >= depth:
        raise ValueError(f"blocks {list(blocks)} exceed this model, whose blocks are 0 to {depth - 1}")
    twin = _starting_model(model, config)
    if config.method == "full":
        twin.requires_grad_(blocks is None)
        for block in blocks or ():
            decoder_blocks(twin)[block].requires_grad_(True)
        return twin
    lora = LoraConfig(
        r=config.r,
        lora_alpha=config.alpha,
        lora_dropout=config.dropout,
        use_rslora=config.rslora,
        target_modules=list(config.targets),
        layers_to_transform=None if blocks is None else list(blocks),
        task_type="CAUSAL_LM",
    )
    with _creating_adapter(seed, twin):
        return get_peft_model(twin, lora)


def save_weights(model: nn.Module, config: FinetuneConfig, folder: Path) -> None:
    """Write the trained weights to `folder`: the adapter, or all weights."""
    from safetensors.torch import save_model

    folder.mkdir(parents=True, exist_ok=True)
    if config.method == "lora":
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
        return PeftModel.from_pretrained(twin, str(folder)).eval()


def _starting_model(model: nn.Module, config: FinetuneConfig) -> nn.Module:
    """Return the start of a run: a clone, with the adapter of an earlier run merged into its weights."""
    adapted = hasattr(model, "peft_config")
    twin = _clone(model, share=config.method == "lora" and not adapted)
    return twin.merge_and_unload() if adapted else twin


def _clone(model: nn.Module, *, share: bool) -> nn.Module:
    """Return a copy of all modules. With `share` its parameters are new frozen objects on the same memory."""
    memo: dict[int, Any] = {}
    if share:
        for value in (*model.parameters(), *model.buffers()):
            # New Parameter objects, so that freezing the clone leaves the original's `requires_grad` alone.
            plain = type(value) is nn.Parameter
            memo[id(value)] = nn.Parameter(value.detach(), requires_grad=False) if plain else value
    twin = copy.deepcopy(model, memo)
    for module in twin.modules():  # copied hooks would still act on the original
        module._forward_hooks.clear()
        module._forward_pre_hooks.clear()
    for name in ("caft_id", "caft_run"):
        twin.__dict__.pop(name, None)
    return twin


@contextmanager
def _creating_adapter(seed: int, model: nn.Module) -> Iterator[None]:
    """Seed the global generators, from which PEFT draws weights, and silence its use of a deprecated name."""
    with seeded(seed, next(model.parameters()).device), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*gradient_checkpointing", category=FutureWarning)
        yield
