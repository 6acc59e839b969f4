"""Convert a GGUF file into a folder that `from_pretrained` reads: float32 weights, tokenizer, source.json.

The conversion is done once and kept in the store. Weights are written one tensor at a time, so that memory
holds the largest one and not the model.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from caft_utils.models.gguf_architectures import config_of
from caft_utils.models.gguf_files import GGUFFile
from caft_utils.models.gguf_tokenizers import tokenizer_of
from caft_utils.models.gguf_weights import weights_of
from caft_utils.store import Store, default_store, file_sha256

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

VERSION = 1  # of the conversion; to be raised when it writes something else


def converted_gguf(path: str | Path, store: Store | None = None) -> tuple[Path, str]:
    """Return the folder that a GGUF file was converted into, and the file's sha256.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, or of a kind that is not read; see gguf_files.py,
            gguf_architectures.py, gguf_weights.py and gguf_tokenizers.py.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    checksum = file_sha256(path)

    def write(folder: Path) -> None:
        write_converted(path, folder, {"file": path.name, "sha256": checksum})

    key = {"sha256": checksum, "conversion": VERSION}
    return (store or default_store()).fetch("gguf", key, write), checksum


def write_converted(path: Path, folder: Path, about: Mapping[str, Any]) -> None:
    """Write the model and the tokenizer of a GGUF file into `folder`, and `about` into its source.json.

    Raises:
        ValueError: as for `converted_gguf`.
    """
    from tqdm.auto import tqdm
    from transformers import GenerationConfig

    with GGUFFile(path) as file:
        config = config_of(file)
        shapes = _weight_shapes(config, file)
        tokenizer = tokenizer_of(file)
        tokenizer.save_pretrained(folder)
        config.save_pretrained(folder)
        GenerationConfig.from_model_config(config).save_pretrained(folder)
        weights = tqdm(weights_of(file, shapes), f"converting {path.name}", len(shapes), unit="tensor")
        write_safetensors(folder / "model.safetensors", shapes, weights)
        licence = file.metadata.get("general.license")
    about = {**about, "licence": about.get("licence", licence), "conversion": VERSION}
    (folder / "source.json").write_text(json.dumps(about, indent=1) + "\n")


def write_safetensors(
    path: Path, shapes: Mapping[str, tuple[int, ...]], tensors: Iterable[tuple[str, np.ndarray]]
) -> None:
    """Write float32 tensors, given in the order of `shapes`, without holding more than one of them.

    The format is that of https://github.com/huggingface/safetensors: the length of a JSON header, the header
    with the place of each tensor, and their bytes.
    """
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in shapes.items():
        start, end = end, end + 4 * prod(shape)
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for (name, values), expected in zip(tensors, shapes, strict=True):
            assert name == expected and values.shape == tuple(shapes[name])
            file.write(np.ascontiguousarray(values, "<f4").data)


def _weight_shapes(config: PreTrainedConfig, file: GGUFFile) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the model's weights without tied ones. No weight is made.

    Raises:
        ValueError: the config describes no model.
    """
    import torch
    from transformers import AutoModelForCausalLM

    try:
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config)
    except Exception as error:  # sizes that do not fit together, or that no tensor can have
        raise ValueError(f"{file.path} has settings that fit no model: {error}") from error
    config.architectures = [type(model).__name__]
    tied = {"lm_head.weight"} if config.tie_word_embeddings else set()
    return {name: tuple(value.shape) for name, value in model.state_dict().items() if name not in tied}
