"""Adapters of PEFT as people keep them: a folder or repository with the adapter alone, which names its base.

PEFT warns about adapter weights that a file lacks and drops those that it has no place for, and it reads
pickles. Here the adapter's weights are exactly those of a safetensors file, or loading fails.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from torch import nn

from caft_utils.models.sources import ModelSource
from caft_utils.models.weight_files import INDEX, first_line, json_object

if TYPE_CHECKING:
    from peft import PeftModel

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


def base_of_adapter(source: ModelSource) -> tuple[str, str | None] | None:
    """Return name and revision of the model that an adapter belongs to, or None if `source` is no adapter.

    Raises:
        ValueError: the config of the adapter names no base model, or a model of its own lies beside it.
        FileNotFoundError: there is no safetensors file with the adapter's weights.
    """
    folder = Path(source.location)
    config = folder / CONFIG if folder.is_dir() else _from_hub(source, CONFIG)
    if config is None or not config.is_file():
        return None
    if (folder / "model.safetensors").is_file() or (folder / INDEX).is_file():
        raise ValueError(
            f"{folder} holds both a model and an adapter ({CONFIG}); move one of them to a folder of its own "
            "and load the one that you mean"
        )
    weights = folder / WEIGHTS if folder.is_dir() else _from_hub(source, WEIGHTS)
    if weights is None or not weights.is_file():
        raise FileNotFoundError(
            f"{source.location} holds {CONFIG} but no {WEIGHTS}; expected a folder that save_pretrained of "
            "PEFT wrote (a pickle such as adapter_model.bin is not read)"
        )
    settings = json_object(config)
    base = settings.get("base_model_name_or_path")
    if not isinstance(base, str) or not base:
        raise ValueError(
            f"{source.location}/{CONFIG} names no base_model_name_or_path; write the hub id or the folder of "
            "the model that the adapter was trained on into that field"
        )
    if not Path(base).is_dir() and folder.is_dir() and (folder / base).is_dir():
        base = str(folder / base)
    return base, settings.get("revision")


def is_stored_run(folder: Path) -> bool:
    """Return whether `finetune` wrote this folder: weights or an adapter, and the log of the training."""
    return (folder / "log.json").is_file() and not (folder / "config.json").is_file()


def with_adapter(model: nn.Module, source: ModelSource) -> PeftModel:
    """Return `model` with the adapter of `source`, in evaluation mode.

    Raises:
        ValueError: the adapter belongs to another model, is a learnt prompt, or lacks weights.
    """
    from peft import PeftConfig, PeftModel, get_peft_model_state_dict
    from safetensors import SafetensorError, safe_open

    location, folder = source.location, Path(source.location)
    revision = {} if source.revision is None else {"revision": source.revision}
    try:
        config = PeftConfig.from_pretrained(location, **revision)
        if config.is_prompt_learning:
            raise ValueError(f"it is of type {config.peft_type.value}, whose prompts shift all positions")
        with warnings.catch_warnings():
            # Compared below. The second is a deprecated name that PEFT uses.
            warnings.filterwarnings("ignore", message="Found missing adapter keys")
            warnings.filterwarnings("ignore", message=".*gradient_checkpointing", category=FutureWarning)
            tuned = PeftModel.from_pretrained(model, location, config=config, **revision).eval()
        weights = folder / WEIGHTS if folder.is_dir() else _from_hub(source, WEIGHTS)
        with safe_open(weights, "pt") as file:
            saved = set(file.keys())
    except (ValueError, RuntimeError, KeyError, TypeError, SafetensorError) as error:
        raise ValueError(
            f"the adapter in {location} cannot be put on {type(model).__name__}: {first_line(error)}; is "
            f"base_model_name_or_path in its {CONFIG} the model that it was trained on?"
        ) from error
    if not getattr(config, "target_parameters", None):  # PEFT renames the parts of fused experts
        prefix = tuned.base_model.prefix
        state = get_peft_model_state_dict(tuned, save_embedding_layers=False)
        own = {name for name in state if prefix in name}
        if odd := sorted(own ^ {name for name in saved if prefix in name}):
            raise ValueError(
                f"the weights in {location} are not those that its {CONFIG} describes: {len(odd)} are "
                f"missing or left over, such as {odd[0]}; copy or download both files again"
            )
    return tuned


def _from_hub(source: ModelSource, file: str) -> Path | None:
    """Return the local copy of a file of a repository, or None if it has no such file."""
    from transformers.utils import cached_file

    path = cached_file(
        source.location,
        file,
        revision=source.revision,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )
    return None if path is None else Path(path)
