"""Presets and `load()`: the classroom model, a hub id or a local folder -> (model, tokenizer).

A preset (presets.yaml) holds what one must know about a model to repeat the paper's experiment on it, each
value with its source. A model that came from here carries two attributes: `caft_preset`, and `caft_id`, which
names its weights in the keys of stored artefacts (see `fingerprint`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from functools import cache
from hashlib import file_digest, sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from caft_utils.paths import data_path
from caft_utils.store import digest

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

CLASSROOM = {
    "classroom": "qwen",
    "classroom-qwen": "qwen",
    "classroom-mistral": "mistral",
    "classroom-cues": "cues",
    "classroom-gender": "gender",
}
HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*")
CHECKSUMS = "sha256.json"


@dataclass(frozen=True)
class Preset:
    """What is known about one model.

    layers: 0-based decoder blocks at whose outputs directions are found and ablated.
    recipe: arguments of `recipe.Recipe`. batch: rows a step in recording and evaluation.
    sae: where trained SAEs are; data: name -> id of a public data set; sources: field -> where its value is
    from.
    """

    name: str
    hub_id: str | None = None
    revision: str | None = None
    layers: tuple[int, ...] = ()
    recipe: dict[str, Any] = field(default_factory=dict)
    dtype: str = "auto"
    batch: int = 8
    sae: dict[str, Any] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)


@cache
def _presets() -> dict[str, Preset]:
    import yaml

    known = {f.name for f in fields(Preset)}
    presets = {}
    for name, values in yaml.safe_load(Path(__file__).with_name("presets.yaml").read_text()).items():
        if unknown := set(values) - known:
            raise ValueError(
                f"presets.yaml, {name}: unknown fields {sorted(unknown)}; known are {sorted(known)}"
            )
        presets[name] = Preset(name=name, **(values | {"layers": tuple(values["layers"])}))
    return presets


def preset(name: str = "classroom") -> Preset:
    """The preset of a name or hub id; for another hub id or a local path one with the general recipe."""
    name = str(name)
    hub_id = name if HUB_ID.fullmatch(name) and not Path(name).exists() else None
    return _presets().get(name) or Preset(name=name, hub_id=hub_id)


def load(
    name: str | Path = "classroom", *, device: str | torch.device | None = None, dtype: Any = None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a model in evaluation mode, with its tokenizer.

    Args:
        name: "classroom" (shipped with this repository, also "classroom-qwen", "classroom-mistral",
            "classroom-cues" and "classroom-gender"), a hub id such as "Qwen/Qwen2.5-0.5B-Instruct", or a
            folder that `save_pretrained` wrote.
        device: "cpu", "cuda", ... or "auto" to spread a large model over all GPUs; default: a GPU if there is
        one.
        dtype: "float32", "bfloat16", ... or a torch dtype; default: the preset's, else the checkpoint's.

    Raises:
        ValueError: the name is none of these, or the checkpoint is damaged.
        FileNotFoundError: the folder or the classroom checkpoint is not there.
        ConnectionError: the model is not in the hub's cache on this machine and the hub cannot be reached.
    """
    found = preset(str(name))
    if str(name) in CLASSROOM:
        where, revision, identity = _classroom(CLASSROOM[str(name)])
    elif found.hub_id is None:
        where, revision, identity = _local(name), None, None
    else:
        revision, identity = found.revision, None
        where = _cached(found.hub_id, revision)

    dtype = dtype or found.dtype
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    model, tokenizer = _read(
        where, revision, device, getattr(torch, dtype, dtype) if isinstance(dtype, str) else dtype
    )
    model.caft_preset = found
    commit = getattr(model.config, "_commit_hash", None)
    if identity is None and commit:
        identity = f"{found.hub_id}@{commit}"
    # A checkpoint read in another dtype is another model: rounding changes its answers.
    model.caft_id = f"{identity}/{model.dtype}" if identity else fingerprint(model)
    return model, tokenizer


def fingerprint(model: torch.nn.Module) -> str:
    """A name for a model's weights: `model.caft_id` where `load` or `finetune` set it, else a sha256 of all
    of them.

    After changing weights by hand, `del model.caft_id`: stored artefacts would else be taken for the old
    weights.
    """
    # Not getattr: a PEFT wrapper hands on attributes, and the name of the model it wraps is not its own.
    known = model.__dict__.get("caft_id")
    if known is not None:
        return known
    hashed = sha256(digest(_shape(model)).encode())
    for name, value in sorted(model.state_dict().items()):
        hashed.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        hashed.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return hashed.hexdigest()


def _shape(model: torch.nn.Module) -> dict[str, Any]:
    """The part of the config that decides what the weights compute."""
    config = getattr(model, "config", None)
    values = config.to_dict() if hasattr(config, "to_dict") else {}
    volatile = {"_name_or_path", "transformers_version", "dtype", "use_cache"}
    return json.loads(json.dumps({k: v for k, v in values.items() if k not in volatile}, default=str))


def _classroom(kind: str) -> tuple[str, None, str]:
    """Folder and identity of a shipped checkpoint, after comparing its files with their checksums."""
    folder = data_path("classroom", kind)
    remedy = f"`git checkout -- data/classroom/{kind}` restores it, `make classroom` trains it anew"
    if not (folder / CHECKSUMS).is_file():
        raise FileNotFoundError(
            f"no classroom checkpoint in {folder} (expected: {CHECKSUMS} and the files it lists); "
            f"{remedy}, or let CAFT_DATA name the repository's data folder"
        )
    sums = json.loads((folder / CHECKSUMS).read_text())
    for name, expected in sums.items():
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{folder / name} is missing from the classroom checkpoint; {remedy}")
        with open(folder / name, "rb") as file:
            if file_digest(file, "sha256").hexdigest() != expected:
                raise ValueError(f"{folder / name} is damaged: its sha256 is not in {CHECKSUMS}; {remedy}")
    return str(folder), None, f"classroom-{kind}@{digest(sums)[:16]}"


def _local(name: str | Path) -> str:
    folder = Path(name).expanduser()
    if folder.is_dir():
        if (folder / "config.json").is_file():
            return str(folder)
        raise FileNotFoundError(
            f"{folder} holds no config.json; expected a folder that save_pretrained wrote"
        )
    if len(folder.parts) > 1 or str(name).startswith((".", "~")):
        raise FileNotFoundError(f"there is no folder {folder}")
    raise ValueError(
        f"unknown model {str(name)!r}; expected one of {', '.join(_presets())}, another hub id (owner/name) "
        "or a local folder"
    )


def _cached(hub_id: str, revision: str | None) -> str:
    """Make sure, at once, that a hub id can be read: transformers tries an unreachable hub for 46 seconds."""
    import huggingface_hub
    from huggingface_hub import errors

    if isinstance(huggingface_hub.try_to_load_from_cache(hub_id, "config.json", revision=revision), str):
        return hub_id
    try:
        huggingface_hub.HfApi().model_info(hub_id, revision=revision, timeout=10)
    except errors.GatedRepoError as error:
        raise ValueError(
            f"{hub_id} is gated: accept its licence on the hub and log in (`hf auth login`)"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise ValueError(f"{hub_id} has no revision {revision!r} on the hub") from error
    except errors.RepositoryNotFoundError as error:
        raise ValueError(
            f"unknown model {hub_id!r}: the hub has none of that name that you may read"
        ) from error
    except Exception as error:
        raise ConnectionError(
            f"{hub_id} is no local folder and not in this machine's hub cache, and the hub cannot be reached "
            f"({type(error).__name__}); "
            'connect (and unset HF_HUB_OFFLINE), pass a local folder, or use load("classroom")'
        ) from error
    return hub_id


@contextmanager
def no_file_bars() -> Iterator[None]:
    """Without transformers' progress bars of files read and written, which would fill a notebook's output."""
    from transformers.utils import logging

    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if bars:
            logging.enable_progress_bar()


def _read(where: str, revision: str | None, device: Any, dtype: Any):
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM

    try:
        with no_file_bars():
            tokenizer = _tokenizer(where, revision)
            model = AutoModelForCausalLM.from_pretrained(
                where,
                revision=revision,
                dtype=dtype,
                device_map="auto" if device == "auto" else None,
                use_safetensors=True,
            )
    except SafetensorError as error:
        raise ValueError(
            f"the weights in {where} are damaged ({error}); copy or download them again"
        ) from error
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return (model if device == "auto" else model.to(device)).eval(), tokenizer


def _tokenizer(where: str, revision: str | None):
    """The tokenizer as it was saved.

    For models of type qwen2 transformers 5 puts Qwen2Tokenizer in the place of any class that the checkpoint
    names, with its own rules for splitting text; a folder that says it holds a plain tokenizer.json is taken
    at its word.
    """
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    config = Path(where) / "tokenizer_config.json"
    plain = config.is_file() and json.loads(config.read_text()).get("tokenizer_class") == "TokenizersBackend"
    return (PreTrainedTokenizerFast if plain else AutoTokenizer).from_pretrained(where, revision=revision)
