"""Read a model from its files, and refuse what transformers would make up.

`from_pretrained` completes an incomplete checkpoint: weights that the files lack become random numbers, and
weights that the model lacks are dropped. It returns a model that looks like the checkpoint and is another one
at each call. Here this is a ValueError.

Code that comes with a checkpoint is never run: `trust_remote_code` is False, because None asks on stdin.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from caft_utils.models.quantisation import FOUR_BIT, four_bit
from caft_utils.models.sources import ModelSource

if TYPE_CHECKING:
    from transformers import PreTrainedModel

INDEX = "model.safetensors.index.json"
PREFIXES = {
    "base_model.model.": "they were saved from a PEFT model: merge the adapter (`merge_and_unload`) and save "
    "the result, or pass the adapter's own folder",
    "_orig_mod.": "they were saved from a compiled model: save the model without torch.compile",
    "module.": "they were saved from a DataParallel wrapper: save the model inside it",
    "_fsdp_wrapped_module.": "they were saved from an FSDP wrapper: save the model inside it",
}


@contextmanager
def hide_progress_bars() -> Iterator[None]:
    """Hide transformers' progress bars of file access, which would fill a notebook's output."""
    from transformers.utils import logging

    enabled = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if enabled:
            logging.enable_progress_bar()


def read_model(source: ModelSource, device: Any, dtype: Any) -> PreTrainedModel:
    """Return the model of `source` in evaluation mode, with every weight from its files.

    A checkpoint of text and images gives the whole model. Its text part is read and trained. The dtype
    FOUR_BIT quantises the weights.

    Raises:
        ValueError: the architecture is unknown or no decoder, the files ask for code of their own, weights
            are missing, left over or of another shape, or a file is damaged.
        FileNotFoundError: a file of the weights is missing.
        RuntimeError: weights cannot be quantised here.
    """
    from safetensors import SafetensorError

    placed: dict[str, Any] = {"dtype": dtype, "device_map": "auto" if device == "auto" else None}
    if dtype == FOUR_BIT:  # quantised on the device itself, one matrix at a time
        placed |= {"dtype": torch.bfloat16, "quantization_config": four_bit(device)}
        placed["device_map"] = placed["device_map"] or {"": device}
    location = source.location
    model_class = _model_class(source)
    _check_shards(Path(location))
    try:
        with hide_progress_bars():
            model, info = model_class.from_pretrained(
                location,
                revision=source.revision,
                **placed,
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
            )
    except SafetensorError as error:
        raise ValueError(
            f"the weights in {location} are damaged ({error}); copy or download them again"
        ) from error
    except OSError as error:
        raise FileNotFoundError(f"cannot read the weights in {location}: {first_line(error)}") from error
    except (TypeError, AttributeError, LookupError, ArithmeticError) as error:  # such as a text for a number
        raise ValueError(
            f"config.json or generation_config.json of {location} has a value that transformers cannot use "
            f"({first_line(error)}); copy or download them again"
        ) from error
    except RuntimeError as error:
        if "ignore_mismatched_sizes" not in str(error):
            raise
        raise ValueError(
            f"weights in {location} have other shapes than config.json describes (the report above lists "
            "them); the two belong to different models: copy or download both again"
        ) from error
    _check_weights(location, info)
    return (model if placed["device_map"] else model.to(device)).eval()


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, and the next one if it ends in a colon."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return " ".join(lines[: 2 if lines[0].endswith(":") else 1])[:300]


def _model_class(source: ModelSource) -> type:
    """Return the Auto class that reads the checkpoint with a class of transformers itself."""
    import transformers
    from transformers import AutoConfig, PreTrainedConfig

    location = source.location
    try:
        named, _ = PreTrainedConfig.get_config_dict(location, revision=source.revision)
    except Exception as error:
        raise ValueError(f"config.json of {location} cannot be read: {first_line(error)}") from error
    if not isinstance(named, dict):
        raise ValueError(f"config.json of {location} holds no JSON object; copy or download it again")
    kind = named.get("model_type")
    if not isinstance(kind, str) or kind not in transformers.CONFIG_MAPPING:
        if "auto_map" in named:
            raise ValueError(refusal_of_own_code(location, "config.json"))
        raise ValueError(
            f"config.json of {location} names the model_type {kind!r}, which transformers "
            f"{transformers.__version__} does not know; expected one such as 'qwen2', 'mistral' or 'gemma2'"
        )
    try:
        config = AutoConfig.from_pretrained(location, revision=source.revision, trust_remote_code=False)
    except Exception as error:
        raise ValueError(f"config.json of {location} is not valid: {first_line(error)}") from error
    if not config.is_encoder_decoder:
        if type(config) in transformers.MODEL_FOR_CAUSAL_LM_MAPPING:
            return transformers.AutoModelForCausalLM
        # Wrappers of a text decoder and an image encoder, such as Mistral 3.
        if type(config) in transformers.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING:
            return transformers.AutoModelForImageTextToText
    raise ValueError(
        f"{location} is a model of type {kind!r}, which is no decoder-only language model; expected one such "
        "as 'qwen2', 'mistral' or 'gemma2', or a model of text and images around one"
    )


def refusal_of_own_code(location: str, file: str) -> str:
    """Return the message that refuses a model or tokenizer whose repository brings its own Python code."""
    return (
        f"{location} asks for its own Python code (auto_map in {file}), which is not run here: code from a "
        "model repository can do anything on this machine. Use a model that transformers knows, or read the "
        "code, load the model yourself and pass the object"
    )


def _check_shards(folder: Path) -> None:
    """Refuse a local folder that holds no safetensors, or not all that its index names."""
    if not folder.is_dir() or (folder / "model.safetensors").is_file():
        return
    if not (folder / INDEX).is_file():
        pickles = sorted(path.name for path in folder.glob("pytorch_model*.bin"))
        found = f" but {pickles[0]}, a pickle, which could run code: convert it" if pickles else ""
        raise FileNotFoundError(
            f"{folder} holds no model.safetensors{found}; expected a folder that save_pretrained wrote"
        )
    names = json_object(folder / INDEX).get("weight_map")
    if not isinstance(names, dict):
        raise ValueError(f"{folder / INDEX} has no weight_map; copy or download it again")
    if missing := sorted({name for name in names.values() if not (folder / str(name)).is_file()}):
        raise FileNotFoundError(
            f"{INDEX} names {_some(missing)}, missing from {folder}; copy or download all files again"
        )


def _check_weights(location: str, info: dict[str, Any]) -> None:
    """Refuse a model whose weights are not exactly those of its files.

    transformers has already left out tied weights, and names that the architecture declares harmless.
    """
    missing, extra = sorted(info["missing_keys"]), sorted(info["unexpected_keys"])
    mismatched = sorted(str(key[0] if isinstance(key, tuple) else key) for key in info["mismatched_keys"])
    problems = [
        f"{what} {_some(names)}"
        for what, names in (
            ("the files lack", missing),
            ("the model has no place for", extra),
            ("other shapes have", mismatched),
            ("not read were", sorted(map(str, info.get("error_msgs", ())))),
        )
        if names
    ]
    if not problems:
        return
    remedies = [why for prefix, why in PREFIXES.items() if extra and all(k.startswith(prefix) for k in extra)]
    remedy = (
        f"All names begin alike: {remedies[0]}"
        if remedies
        else "Copy or download all files again; if this is a classifier or a reward model, take the language "
        "model that it was made from"
    )
    raise ValueError(f"the weights in {location} do not fit its config.json: {'; '.join(problems)}. {remedy}")


def _some(names: Iterable[str], shown: int = 4) -> str:
    names = list(names)
    rest = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + rest


def json_object(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file, or an empty one if there is no such file."""
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}); copy or download it again") from error
    if not isinstance(value, dict):
        raise ValueError(f"{path} holds no JSON object; copy or download it again")
    return value
