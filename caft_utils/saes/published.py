"""Load published SAEs from a local folder or the hub, in the two formats that CAFT used.

    dictionary_learning   <folder>/ae.pt + config.json, BatchTopK: Qwen2.5-Coder-32B and Mistral-24B
                          f = relu(z) where z > threshold (one scalar), z = W_enc (h - b_dec) + b_enc
    gemma_scope           <folder>/params.npz, JumpReLU: Gemma 2
                          f = relu(z) where z > threshold (one per latent), z = h W_enc + b_enc

Both become JumpReLU SAEs of sae-lens. `preset(name).sae` holds the locations of the paper's SAEs (arXiv
2507.16795, section 4).

Weights from the hub are not trusted. `ae.pt` is a pickle, which could run code, so it is read with
`weights_only=True`, which builds nothing but tensors. Arrays are read with `allow_pickle=False`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from caft_utils.arguments import checked, mapping
from caft_utils.models import preset
from caft_utils.saes.collection import CARD_FILE, SAEs
from caft_utils.saes.sites import check_site
from caft_utils.text_files import read_json

Format = Literal["dictionary_learning", "gemma_scope"]
WEIGHT_FILES = {"dictionary_learning": ("config.json", "ae.pt"), "gemma_scope": ("params.npz",)}
PLACEHOLDER = re.compile(r"\{\w+\}")


@checked
def published_saes(
    source: str | Path,
    layers: Sequence[int] | None = None,
    *,
    folder: str | None = None,
    format: Format | None = None,
    revision: str | None = None,
) -> SAEs:
    """Return the SAEs of `layers` from a local folder or a repository on the hub.

    Args:
        source: a model whose preset names its SAEs, such as "Qwen/Qwen2.5-Coder-32B-Instruct", a local folder
            with the layout of the repository, or a repository (owner/name). A preset needs no other argument.
        layers: default, the layers of the preset.
        folder: path of a layer's SAE inside the repository. "{layer}" stands for the layer, any other word
            in braces for one unknown part of the path.
        format: file format. Default: the preset's, else detected from the files.
        revision: branch, tag or commit of the repository.

    Raises:
        ValueError: `source` has no preset with SAEs or is a folder that `SAEs.save` wrote, a file does not
            match its format or contains more than tensors, several folders match, or an SAE is of another
            site or layer.
        FileNotFoundError: a layer has no SAE there.
        ConnectionError: the hub cannot be reached and the files are not in its cache.
    """
    if (Path(source).expanduser() / CARD_FILE).is_file():
        raise ValueError(f"{source} was written by SAEs.save; read it with SAEs.load({str(source)!r})")
    source_preset = preset(str(source))
    known = source_preset.sae
    if known is not None:
        folder, format = folder or known.folder, format or known.format
    if folder is None:
        raise ValueError(
            f"no preset names SAEs for {str(source)!r}: give the `folder` in which that repository or local "
            'folder keeps them, for example folder="layer_{layer}/width_16k/average_l0_71"'
        )
    layers = list(source_preset.layers if layers is None else layers)
    if not layers:
        raise ValueError("no layers given; name at least one, for example layers=[12]")
    repository = str(source if known is None else known.repo)
    locations = [(repository, folder.replace("{layer}", str(layer))) for layer in layers]
    if format == "sae_lens":  # a release in the table of sae-lens, which lists the folders of its SAEs
        locations, format = [_release_location(*location) for location in locations], "gemma_scope"
    saes, about = {}, {}
    for layer, (repository, path) in zip(layers, locations):
        # Gemma Scope names the site in the repository, and no file repeats it.
        _, scope, rest = repository.rpartition("gemma-scope")
        check_site(scope + rest if scope else None, layer, f"{repository}/{path}")
        sae_folder, kind = _sae_folder(repository, path, format, revision)
        check_site("/".join(sae_folder.parts[-path.count("/") - 1 :]), layer, str(sae_folder))
        read = _read_dictionary_learning if kind == "dictionary_learning" else _read_gemma_scope
        config, weights = read(sae_folder, layer)
        saes[layer] = _jumprelu(config, weights, sae_folder)
        if known is not None and saes[layer].cfg.d_sae != known.latents:
            raise ValueError(
                f"{sae_folder} holds an SAE of {saes[layer].cfg.d_sae} latents, but the preset of {source} "
                f"expects {known.latents}; give the `folder` and `format` of the right one"
            )
        about[layer] = {"repository": repository, "folder": sae_folder.name, "path": path, "format": kind}
    return SAEs(saes, about)


def _release_location(name: str, sae: str) -> tuple[str, str]:
    """Return (repository, folder) of an SAE in the table of releases of sae-lens."""
    from sae_lens.loading.pretrained_sae_loaders import get_conversion_loader_name
    from sae_lens.loading.pretrained_saes_directory import get_repo_id_and_folder_name

    if (loader := get_conversion_loader_name(name)) != "gemma_2":
        raise ValueError(f"release {name!r} of sae-lens has format {loader!r}; only Gemma Scope can be read")
    return get_repo_id_and_folder_name(name, sae)


def _sae_folder(source: str, path: str, format: str | None, revision: str | None) -> tuple[Path, str]:
    """Return the only folder in `source` that matches `path` and holds a known format, and that format."""
    formats = [format] if format else list(WEIGHT_FILES)
    if unknown := set(formats) - set(WEIGHT_FILES):
        raise ValueError(f"unknown format {unknown.pop()!r}; expected one of {', '.join(WEIGHT_FILES)}")
    root = Path(source).expanduser()
    if not root.is_dir():
        root = _download(
            source,
            [f"{PLACEHOLDER.sub('*', path)}/{name}" for f in formats for name in WEIGHT_FILES[f]],
            revision,
        )
    pattern = re.compile("[^/]+".join(re.escape(piece) for piece in PLACEHOLDER.split(path)))
    folders = [f for f in [root, *root.rglob("*")] if f.is_dir()]
    matches = [
        (folder, kind)
        for folder in folders
        for kind in formats
        if pattern.fullmatch(folder.relative_to(root).as_posix())
        and all((folder / name).is_file() for name in WEIGHT_FILES[kind])
    ]
    if len(matches) != 1:
        there = ", ".join(folder.relative_to(root).as_posix() for folder, _ in matches) or "none"
        wanted = " or ".join(" and ".join(WEIGHT_FILES[kind]) for kind in formats)
        raise (ValueError if matches else FileNotFoundError)(
            f"expected one folder {path!r} with {wanted} in {source}, found {there}"
        )
    return matches[0]


def _download(repository: str, patterns: list[str], revision: str | None) -> Path:
    """Return a snapshot of a repository on the hub, or of its local cache if the hub cannot be reached."""
    from huggingface_hub import errors, snapshot_download

    try:
        return Path(snapshot_download(repository, revision=revision, allow_patterns=patterns))
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError, errors.HFValidationError) as error:
        raise ValueError(
            f"{repository!r} is neither a local folder nor a repository that you can read: {error}"
        ) from error
    except Exception as error:
        raise ConnectionError(
            f"{repository} is not in this machine's hub cache, and the hub cannot be reached "
            f"({type(error).__name__}); connect (and unset HF_HUB_OFFLINE), or copy {patterns} to a local "
            "folder and pass that with `folder`"
        ) from error


def _read_dictionary_learning(folder: Path, layer: int) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return config and weights of a BatchTopK SAE of dictionary_learning, whose matrices are [out, in]."""
    path = folder / "config.json"
    config = mapping(str(path), read_json(path))
    trainer, buffer = (mapping(f"{path}, {name}", config.get(name, {})) for name in ("trainer", "buffer"))
    if "BatchTopK" not in str(trainer.get("dict_class")):
        raise ValueError(
            f"{folder}: expected a BatchTopK SAE, config.json says {trainer.get('dict_class')!r}"
        )
    if trainer.get("layer", layer) != layer:
        raise ValueError(
            f"{folder} is of layer {trainer['layer']} according to its config.json, not of layer {layer}"
        )
    check_site(trainer.get("submodule_name"), layer, f"{folder} according to its config.json")
    if buffer.get("io", "out") != "out":
        raise ValueError(
            f"{folder} reads the input of a module according to its config.json (io: "
            f"{buffer['io']!r}); expected an SAE of a block's output (resid_post)"
        )
    try:
        saved = torch.load(folder / "ae.pt", map_location="cpu", weights_only=True)
    except Exception as error:  # a truncated file alone raises three kinds of error
        raise ValueError(
            f"{folder / 'ae.pt'} is refused: it is damaged or contains more than tensors, which could run "
            f"code when loaded ({_first_line(error)})"
        ) from error
    names = ("encoder.weight", "encoder.bias", "decoder.weight", "b_dec", "threshold")
    encoder, b_enc, decoder, b_dec, threshold = _tensors(saved, names, folder / "ae.pt")
    if threshold.numel() != 1 or threshold < 0:
        raise ValueError(f"{folder / 'ae.pt'}: expected one threshold >= 0, got {threshold.tolist()}")
    weights = {"W_enc": encoder.T, "W_dec": decoder.T, "b_enc": b_enc, "b_dec": b_dec}
    return {"apply_b_dec_to_input": True}, weights | {"threshold": threshold.expand(len(b_enc))}


def _read_gemma_scope(folder: Path, layer: int) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return config and weights of a JumpReLU SAE of Gemma Scope, whose matrices are [in, out]."""
    import numpy as np

    path = folder / "params.npz"
    try:
        with np.load(path, allow_pickle=False) as file:
            saved = {name: torch.from_numpy(file[name]) for name in file.files}
    except Exception as error:  # zip, header and pickle errors all mean a bad file
        raise ValueError(
            f"{path} is refused: it is damaged or contains more than plain arrays ({_first_line(error)})"
        ) from error
    names = ("W_enc", "W_dec", "b_enc", "b_dec", "threshold")
    return {"apply_b_dec_to_input": False}, dict(zip(names, _tensors(saved, names, path)))


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__


def _tensors(saved: Any, names: Sequence[str], path: Path) -> list[Tensor]:
    """Return the named tensors of a file in float32, or raise a ValueError that lists the missing ones."""
    saved = saved if isinstance(saved, dict) else {}
    if missing := [name for name in names if not isinstance(saved.get(name), Tensor)]:
        raise ValueError(f"{path} lacks {missing}; it holds {sorted(map(str, saved)) or 'no named tensors'}")
    return [saved[name].float() for name in names]


def _jumprelu(config: dict[str, Any], weights: dict[str, Tensor], folder: Path):
    """Return a JumpReLU SAE of sae-lens with these weights."""
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
