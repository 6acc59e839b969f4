"""Presets and `load()`: the name of a model -> (model, tokenizer).

A preset (presets.yaml) holds the settings that repeat the paper's experiment on a model, each value with its
source. `load` gives a model two attributes: `caft_preset`, and `caft_id`, a readable name. Keys of stored
results contain this name while the model computes what it did when it was named (fingerprints.py).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from caft_utils.finetune_config import FinetuneConfig
from caft_utils.fingerprints import fingerprint, name_model
from caft_utils.model_sources import ModelSource, find_source

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class SAESource:
    """The location of published SAEs of a model.

    Attributes:
        repo: hub id of a repository, or a release of sae-lens with format="sae_lens".
        folder: the folder of one SAE in it; "{layer}" stands for the layer, any other word in braces for one
            unknown part of the path.
        format: "dictionary_learning", "gemma_scope" or "sae_lens".
        latents: number of latents of each SAE.
    """

    repo: str
    folder: str
    format: str
    latents: int


@dataclass(frozen=True)
class Preset:
    """The settings for one model.

    Attributes:
        layers: 0-based decoder blocks at whose outputs directions are found and ablated.
        finetune_config: the fine-tuning settings.
        dtype: dtype of the weights; "auto" is the checkpoint's own.
        revision: the revision on the hub to load; None is the main branch.
        sae: the location of its published SAEs, if there are any.
        data_notes: the data that the paper used with this model, for human readers only.
        sources: {field: the source of its value}.
    """

    name: str
    layers: tuple[int, ...] = ()
    finetune_config: FinetuneConfig = FinetuneConfig()
    dtype: str = "auto"
    revision: str | None = None
    sae: SAESource | None = None
    data_notes: Mapping[str, Any] = field(default_factory=dict)
    sources: Mapping[str, str] = field(default_factory=dict)


@cache
def presets() -> dict[str, Preset]:
    """Return all presets of presets.yaml by name.

    Raises:
        ValueError: an entry has an unknown field.
    """
    import yaml

    known = {f.name for f in fields(Preset)} - {"name"}
    entries = yaml.safe_load(Path(__file__).with_name("presets.yaml").read_text(encoding="utf-8"))
    found = {}
    for name, entry in entries.items():
        if unknown := set(entry) - known:
            raise ValueError(
                f"presets.yaml, {name}: unknown fields {sorted(unknown)}; known are {sorted(known)}"
            )
        values = entry | {
            "layers": tuple(entry["layers"]),
            "finetune_config": FinetuneConfig(**entry["finetune_config"]),
        }
        if sae := entry.get("sae"):
            values["sae"] = SAESource(**sae)
        found[name] = Preset(name, **values)
    return found


def preset(name: str = "classroom") -> Preset:
    """Return the preset of a name or hub id. Any other model gets the general settings and no layers."""
    name = str(name)
    return presets().get(name) or Preset(name)


def load(
    name: str | Path = "classroom", *, device: str | torch.device | None = None, dtype: Any = None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a model in evaluation mode, with its tokenizer.

    Args:
        name: "classroom" (shipped, as are "classroom-qwen", "classroom-mistral", "classroom-cues" and
            "classroom-gender"), a folder that `save_pretrained` wrote, or a hub id such as
            "Qwen/Qwen2.5-0.5B-Instruct".
        device: "cpu", "cuda", ... or "auto" to spread a large model over all GPUs. Default: a GPU if there is
            one.
        dtype: "float32", "bfloat16", ... or a torch dtype. Default: the preset's, else the checkpoint's.

    Raises:
        ValueError: the name is none of these, or the checkpoint is damaged.
        FileNotFoundError: the folder or the classroom checkpoint is not there.
        ConnectionError: the model is not in the hub's cache on this machine and the hub cannot be reached.
    """
    settings = preset(str(name))
    source = find_source(str(name), settings.revision)
    if source is None:
        raise ValueError(
            f"unknown model {str(name)!r}; expected one of {', '.join(presets())}, another hub id "
            "(owner/name) or a local folder"
        )
    dtype = dtype or settings.dtype
    dtype = getattr(torch, dtype, dtype) if isinstance(dtype, str) else dtype
    model, tokenizer = _read(source, device or ("cuda" if torch.cuda.is_available() else "cpu"), dtype)
    model.caft_preset = settings
    identity, commit = source.identity, getattr(model.config, "_commit_hash", None)
    if identity is None and commit and not Path(source.location).is_dir():
        identity = f"{source.location}@{commit}"
    # A checkpoint read in another dtype is another model: rounding changes its answers.
    name_model(model, f"{identity}/{model.dtype}" if identity else fingerprint(model))
    return model, tokenizer


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


def _read(source: ModelSource, device: Any, dtype: Any):
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM

    try:
        with hide_progress_bars():
            tokenizer = _tokenizer(source)
            model = AutoModelForCausalLM.from_pretrained(
                source.location,
                revision=source.revision,
                dtype=dtype,
                device_map="auto" if device == "auto" else None,
                use_safetensors=True,
            )
    except SafetensorError as error:
        raise ValueError(
            f"the weights in {source.location} are damaged ({error}); copy or download them again"
        ) from error
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return (model if device == "auto" else model.to(device)).eval(), tokenizer


def _tokenizer(source: ModelSource):
    """Return the tokenizer as it was saved.

    For models of type qwen2, transformers 5 replaces whatever class the checkpoint names by Qwen2Tokenizer,
    which splits text by its own rules. A folder that declares a plain tokenizer.json is read as one.
    """
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    config = Path(source.location) / "tokenizer_config.json"
    plain = config.is_file() and json.loads(config.read_text()).get("tokenizer_class") == "TokenizersBackend"
    tokenizer_class = PreTrainedTokenizerFast if plain else AutoTokenizer
    return tokenizer_class.from_pretrained(source.location, revision=source.revision)
