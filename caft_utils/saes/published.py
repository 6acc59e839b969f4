"""SAEs that others trained, from a folder or the hub: the ones CAFT used.

    dictionary_learning   <folder>/ae.pt + config.json, BatchTopK: Qwen2.5-Coder-32B and Mistral-24B
                          f = relu(z) where z > threshold (one scalar), z = W_enc (h - b_dec) + b_enc
    gemma_scope           <folder>/params.npz, JumpReLU: Gemma 2
                          f = relu(z) where z > threshold (one a latent), z = h W_enc + b_enc

Both become JumpReLU SAEs of sae-lens. A weights file from the hub is not trusted: `ae.pt` is a pickle, which
could run any code, and is read with `weights_only=True`, which builds tensors and nothing else; arrays are
read with `allow_pickle=False`. (Where the paper's SAEs are: `preset(name).sae`, arXiv 2507.16795, section 4.)
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from caft_utils.models import preset
from caft_utils.saes.collection import SAEs

Format = Literal["dictionary_learning", "gemma_scope"]
FILES = {"dictionary_learning": ("config.json", "ae.pt"), "gemma_scope": ("params.npz",)}
WILD = re.compile(r"\{\w+\}")


def published_saes(
    source: str | Path,
    layers: Sequence[int] | None = None,
    *,
    folder: str | None = None,
    format: Format | None = None,
    revision: str | None = None,
) -> SAEs:
    """The SAEs of `layers`, from a local folder or a repository on the hub.

    Args:
        source: a model with a preset that names its SAEs ("Qwen/Qwen2.5-Coder-32B-Instruct": nothing else
            is needed then), a local folder laid out like the repository, or a repository (owner/name).
        layers: default, those of the preset.
        folder: where the SAE of a layer is inside the repository, "{layer}" standing for the layer, and any
            other word in braces for one part of the path that is not known.
        format: of the files; default, the preset's, else seen from the files of a local folder.

    Raises:
        ValueError: `source` has no preset with SAEs, a file is not what its format says, holds anything but
            tensors, or two folders match. FileNotFoundError: no SAE of a layer is there.
        ConnectionError: the hub cannot be reached and the files are not in its cache.
    """
    known = preset(str(source))
    if known.sae is not None:
        folder, format = folder or known.sae.folder, format or known.sae.format
    if folder is None:
        raise ValueError(
            f"no preset names SAEs for {str(source)!r}: give the `folder` in which that repository or local "
            'folder keeps them, for example folder="layer_{layer}/width_16k/average_l0_71"'
        )
    layers = list(known.layers if layers is None else layers)
    if not layers:
        raise ValueError("no layers given; name at least one, for example layers=[12]")
    repository = str(source if known.sae is None else known.sae.repo)
    places = [(repository, folder.replace("{layer}", str(layer))) for layer in layers]
    if format == "sae_lens":  # a release in sae-lens' table, which knows where on the hub its SAEs are
        places, format = [_release(*place) for place in places], "gemma_scope"
    saes, about = {}, {}
    for layer, (repository, path) in zip(layers, places):
        found, kind = _folder(repository, path, format, revision)
        config, weights = (_dictionary_learning if kind == "dictionary_learning" else _gemma_scope)(
            found, layer
        )
        saes[layer] = _jumprelu(config, weights, found)
        if known.sae is not None and saes[layer].cfg.d_sae != known.sae.latents:
            raise ValueError(
                f"{found} holds an SAE of {saes[layer].cfg.d_sae} latents, but the preset of {source} "
                f"expects {known.sae.latents}; give the `folder` and `format` of the right one"
            )
        about[layer] = {"repository": repository, "folder": found.name, "path": path, "format": kind}
    return SAEs(saes, about)


def _release(name: str, sae: str) -> tuple[str, str]:
    """(repository, folder) of an SAE in sae-lens' table of releases."""
    from sae_lens.loading.pretrained_sae_loaders import get_conversion_loader_name
    from sae_lens.loading.pretrained_saes_directory import get_repo_id_and_folder_name

    if (loader := get_conversion_loader_name(name)) != "gemma_2":
        raise ValueError(f"release {name!r} of sae-lens has format {loader!r}; only Gemma Scope is read here")
    return get_repo_id_and_folder_name(name, sae)


def _folder(source: str, path: str, format: str | None, revision: str | None) -> tuple[Path, str]:
    """The one folder below `source` that matches `path` and holds the files of `format`, and its format."""
    formats = [format] if format else list(FILES)
    if unknown := set(formats) - set(FILES):
        raise ValueError(f"unknown format {unknown.pop()!r}; expected one of {', '.join(FILES)}")
    root = Path(source).expanduser()
    if not root.is_dir():
        root = _download(
            source, [f"{WILD.sub('*', path)}/{name}" for f in formats for name in FILES[f]], revision
        )
    pattern = re.compile("[^/]+".join(re.escape(piece) for piece in WILD.split(path)))
    folders = [f for f in [root, *root.rglob("*")] if f.is_dir()]
    found = [
        (folder, kind)
        for folder in folders
        for kind in formats
        if pattern.fullmatch(folder.relative_to(root).as_posix())
        and all((folder / name).is_file() for name in FILES[kind])
    ]
    if len(found) != 1:
        there = ", ".join(folder.relative_to(root).as_posix() for folder, _ in found) or "none"
        wanted = " or ".join(" and ".join(FILES[kind]) for kind in formats)
        raise (ValueError if found else FileNotFoundError)(
            f"expected one folder {path!r} with {wanted} in {source}, found {there}"
        )
    return found[0]


def _download(repository: str, patterns: list[str], revision: str | None) -> Path:
    """The files of a repository on the hub, or of its cache where the hub cannot be reached."""
    from huggingface_hub import errors, snapshot_download

    try:
        return Path(snapshot_download(repository, revision=revision, allow_patterns=patterns))
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError, errors.HFValidationError) as error:
        raise ValueError(
            f"{repository!r} is no local folder and no repository you may read: {error}"
        ) from error
    except Exception as error:
        raise ConnectionError(
            f"{repository} is not in this machine's hub cache, and the hub cannot be reached "
            f"({type(error).__name__}); connect (and unset HF_HUB_OFFLINE), or copy {patterns} to a local "
            "folder and pass that with `folder`"
        ) from error


def _dictionary_learning(folder: Path, layer: int) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """A BatchTopK SAE as dictionary_learning saves it: nn.Linear weights, [out, in]."""
    trainer = json.loads((folder / "config.json").read_text()).get("trainer", {})
    if "BatchTopK" not in trainer.get("dict_class", ""):
        raise ValueError(
            f"{folder}: expected a BatchTopK SAE, config.json says {trainer.get('dict_class')!r}"
        )
    if trainer.get("layer", layer) != layer:
        raise ValueError(f"{folder} is of layer {trainer['layer']} by its config.json, not of layer {layer}")
    try:
        saved = torch.load(folder / "ae.pt", map_location="cpu", weights_only=True)
    except Exception as error:  # a cut file alone raises three kinds of error, by where it was cut
        raise ValueError(
            f"{folder / 'ae.pt'} is refused: it is damaged or holds more than tensors, which could run code "
            f"when loaded ({str(error).splitlines()[0]})"
        ) from error
    names = ("encoder.weight", "encoder.bias", "decoder.weight", "b_dec", "threshold")
    encoder, b_enc, decoder, b_dec, threshold = _tensors(saved, names, folder / "ae.pt")
    if threshold.numel() != 1 or threshold < 0:
        raise ValueError(f"{folder / 'ae.pt'}: expected one threshold >= 0, got {threshold.tolist()}")
    weights = {"W_enc": encoder.T, "W_dec": decoder.T, "b_enc": b_enc, "b_dec": b_dec}
    return {"apply_b_dec_to_input": True}, weights | {"threshold": threshold.expand(len(b_enc))}


def _gemma_scope(folder: Path, layer: int) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """A JumpReLU SAE of Gemma Scope: arrays in [in, out] layout, a threshold for each latent."""
    import numpy as np

    path = folder / "params.npz"
    try:
        with np.load(path, allow_pickle=False) as file:
            saved = {name: torch.from_numpy(file[name]) for name in file.files}
    except Exception as error:  # zip, header and pickle errors all mean the same to the reader
        raise ValueError(
            f"{path} is refused: it is damaged or holds more than plain arrays ({str(error).splitlines()[0]})"
        ) from error
    names = ("W_enc", "W_dec", "b_enc", "b_dec", "threshold")
    return {"apply_b_dec_to_input": False}, dict(zip(names, _tensors(saved, names, path)))


def _tensors(saved: Any, names: Sequence[str], path: Path) -> list[Tensor]:
    saved = saved if isinstance(saved, dict) else {}
    if missing := [name for name in names if not isinstance(saved.get(name), Tensor)]:
        raise ValueError(f"{path} lacks {missing}; it holds {sorted(map(str, saved)) or 'no named tensors'}")
    return [saved[name].float() for name in names]


def _jumprelu(config: dict[str, Any], weights: dict[str, Tensor], folder: Path):
    from sae_lens import JumpReLUSAE, JumpReLUSAEConfig

    d, latents = weights["W_enc"].shape
    for name, shape in {
        "W_dec": (latents, d),
        "b_enc": (latents,),
        "b_dec": (d,),
        "threshold": (latents,),
    }.items():
        if tuple(weights[name].shape) != shape:
            raise ValueError(f"{folder}: {name} has shape {tuple(weights[name].shape)}, expected {shape}")
    sae = JumpReLUSAE(JumpReLUSAEConfig(d_in=d, d_sae=latents, **config))
    sae.load_state_dict({name: weight.contiguous() for name, weight in weights.items()})
    return sae
