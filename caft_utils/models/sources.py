"""Resolvers, which turn the name of a model into the folder or hub id of its files.

`load` asks each resolver of RESOLVERS in turn. A resolver returns None for a name that it does not handle,
and raises for one that it handles but cannot find. To support another source, add a resolver to the list.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from caft_utils.arguments import mapping
from caft_utils.models import smollm2
from caft_utils.models.gguf_conversion import converted_gguf
from caft_utils.paths import data_path
from caft_utils.store import digest, file_sha256
from caft_utils.text_files import read_json

CLASSROOM = {
    "classroom": "qwen",
    "classroom-qwen": "qwen",
    "classroom-mistral": "mistral",
    "classroom-cues": "cues",
    "classroom-gender": "gender",
}
CONFIGS = ("config.json", "adapter_config.json")  # of a model, of an adapter
CHECKSUMS = "sha256.json"
HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*")


@dataclass(frozen=True)
class ModelSource:
    """The place to read a model from.

    Attributes:
        location: a local folder or a hub id, as `from_pretrained` takes it.
        revision: branch, tag or commit on the hub; None is its main branch.
        identity: a name for the weights, where the source knows one. Without it `load` uses the commit of the
            hub, else a checksum of the weights.
    """

    location: str
    revision: str | None = None
    identity: str | None = None


def classroom_checkpoint(name: str, revision: str | None = None) -> ModelSource | None:
    """Resolve the name of a shipped checkpoint, after comparing its files with their checksums.

    Raises:
        FileNotFoundError: the checkpoint or one of its files is missing.
        ValueError: a file is damaged.
    """
    kind = CLASSROOM.get(name)
    if kind is None:
        return None
    folder = data_path("classroom", kind)
    remedy = f"`git checkout -- data/classroom/{kind}` restores it, `make classroom` trains it anew"
    if not (folder / CHECKSUMS).is_file():
        raise FileNotFoundError(
            f"no classroom checkpoint in {folder} (expected: {CHECKSUMS} and the files it lists); "
            f"{remedy}, or let CAFT_DATA name the repository's data folder"
        )
    checksums = mapping(str(folder / CHECKSUMS), read_json(folder / CHECKSUMS))
    for file, expected in checksums.items():
        if not (folder / file).is_file():
            raise FileNotFoundError(f"{folder / file} is missing from the classroom checkpoint; {remedy}")
        if file_sha256(folder / file) != expected:
            raise ValueError(f"{folder / file} is damaged: its sha256 is not in {CHECKSUMS}; {remedy}")
    return ModelSource(str(folder), identity=f"classroom-{kind}@{digest(checksums)[:16]}")


def real_model(name: str, revision: str | None = None) -> ModelSource | None:
    """Resolve "smollm2", see smollm2.py for its places and errors.

    Its tokenizer splits numbers into digits. transformers would replace it by that of GPT-2, which does not.
    """
    if name != smollm2.NAME:
        return None
    found = smollm2.find_smollm2()
    if found.identity is None:
        local_folder(str(found.folder))  # refuses a folder without a model
    return ModelSource(str(found.folder), identity=found.identity)


def gguf_file(name: str, revision: str | None = None) -> ModelSource | None:
    """Resolve the path of a GGUF file, after converting it; see gguf_conversion.py for its errors."""
    if not name.lower().endswith(".gguf"):
        return None
    folder, checksum = converted_gguf(name)
    return ModelSource(str(folder), identity=f"gguf-{checksum[:16]}")


def local_folder(name: str, revision: str | None = None) -> ModelSource | None:
    """Resolve the path of a folder that `save_pretrained` wrote, of a model or an adapter.

    Raises:
        FileNotFoundError: there is no such folder, or it contains no model.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        if any((folder / name).is_file() for name in CONFIGS):
            return ModelSource(str(folder))
        raise FileNotFoundError(
            f"{folder} holds no config.json; expected a folder that save_pretrained wrote"
        )
    if not HUB_ID.fullmatch(name) and (len(folder.parts) > 1 or name.startswith((".", "~"))):
        raise FileNotFoundError(f"there is no folder {folder}")
    return None


def hub_repository(name: str, revision: str | None = None) -> ModelSource | None:
    """Resolve a hub id, after checking that it can be read.

    Without this check, transformers retries an unreachable hub for 46 seconds.

    Raises:
        ValueError: the hub has no such repository or revision, or it is gated.
        ConnectionError: the repository is not in the hub's cache and the hub cannot be reached.
    """
    import huggingface_hub
    from huggingface_hub import errors

    if not HUB_ID.fullmatch(name):
        return None
    source = ModelSource(name, revision)
    cached = (huggingface_hub.try_to_load_from_cache(name, file, revision=revision) for file in CONFIGS)
    if any(isinstance(path, str) for path in cached):
        return source
    try:
        huggingface_hub.HfApi().model_info(name, revision=revision, timeout=10)
    except errors.GatedRepoError as error:
        raise ValueError(
            f"{name} is gated: accept its licence on the hub and log in (`hf auth login`)"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise ValueError(f"{name} has no revision {revision!r} on the hub") from error
    except errors.RepositoryNotFoundError as error:
        raise ValueError(
            f"unknown model {name!r}: the hub has no such repository, or you may not read it"
        ) from error
    except Exception as error:
        raise ConnectionError(
            f"{name} is neither a local folder nor in this machine's hub cache, and the hub cannot be "
            f"reached ({type(error).__name__}); "
            'connect (and unset HF_HUB_OFFLINE), pass a local folder, or use load("classroom")'
        ) from error
    return source


Resolver = Callable[[str, str | None], ModelSource | None]
# A local folder comes before the hub: a relative path like "runs/first" has the form of a hub id.
RESOLVERS: list[Resolver] = [classroom_checkpoint, real_model, gguf_file, local_folder, hub_repository]


def find_source(name: str, revision: str | None = None) -> ModelSource | None:
    """Return the source from the first resolver that handles the name, or None."""
    return next((source for resolve in RESOLVERS if (source := resolve(name, revision))), None)
