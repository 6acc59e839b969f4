"""Sparse autoencoders of a model, at most one for each layer.

    f = activation(W_enc (h - b_dec) + b_enc) >= 0,      h ~ f W_dec + b_dec

An SAE writes a hidden state h as a sparse sum of decoder rows. Of its F latents f only a few are active on a
token, and the decoder row W_dec[i] is the direction that latent i writes. The length of a row and the scale
of its latent are interchangeable. Here every row has length 1, so an activation is a length in the residual
stream.

The autoencoders are inference SAEs of sae-lens, stored in its format. BatchTopK SAEs (arXiv 2412.06410) are
JumpReLU SAEs at inference, where one threshold replaces the competition between the tokens of a batch. CAFT
uses decoder rows as directions (arXiv 2507.16795, section 3).
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, suppress
from copy import deepcopy
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from caft_utils.checksums import tensors_checksum
from caft_utils.disk import disk_errors_explained, flush, make_folder, write_atomically
from caft_utils.saes.sites import check_site
from caft_utils.store import digest, file_sha256

if TYPE_CHECKING:
    from sae_lens import SAE

CARD_FILE = "saes.json"
CARD_FORMAT = 1


class SAEs(Mapping[int, "SAE"]):
    """Inference SAEs by layer: `saes[layer]` is an SAE of sae-lens in float32 with decoder rows of length 1.

    Args:
        saes: {layer: SAE}. Layer -1 is the embedding output. A training SAE is refused: save it with
            `save_inference_model` and load the result.
        about: {layer: provenance and measurements}. It must be JSON.

    Raises:
        ValueError: there is no SAE, widths differ, weights are not finite, `about` names other layers, or the
            metadata of an SAE name another site or layer.
        TypeError: a training SAE was given.
    """

    def __init__(self, saes: Mapping[int, SAE], about: Mapping[int, Mapping[str, Any]] | None = None):
        if not saes:
            raise ValueError("no SAE given; expected {layer: SAE} with at least one layer")
        self._fingerprints: dict[str, str] = {}
        self._saes = {int(layer): _ready_for_inference(saes[layer], layer) for layer in sorted(saes)}
        for layer, sae in self._saes.items():
            check_site(sae.cfg.metadata.hook_name, layer, f"the SAE given for layer {layer}")
        widths = {layer: sae.cfg.d_in for layer, sae in self._saes.items()}
        if len(set(widths.values())) > 1:
            raise ValueError(f"the SAEs of one model must read one width, got {widths} by layer")
        about = {int(layer): value for layer, value in (about or {}).items()}
        if other := set(about) - set(self._saes):
            raise ValueError(f"`about` names the layers {sorted(other)}, but the SAEs are of {self.layers}")
        self.about: dict[int, dict[str, Any]] = {
            layer: json.loads(json.dumps(about.get(layer, {}), allow_nan=False)) for layer in self._saes
        }

    def __getitem__(self, layer: int) -> SAE:
        if layer not in self._saes:
            raise KeyError(f"no SAE at layer {layer}; there are some at {self.layers}")
        return self._saes[layer]

    def __iter__(self) -> Iterator[int]:
        return iter(self._saes)

    def __len__(self) -> int:
        return len(self._saes)

    def __repr__(self) -> str:
        latents = ", ".join(f"{layer}: {sae.cfg.d_sae}" for layer, sae in self._saes.items())
        return f"SAEs({{{latents}}}, width {self.width})  # layer: latents"

    @property
    def layers(self) -> list[int]:
        return list(self._saes)

    @property
    def width(self) -> int:
        """The width d of the hidden states that the SAEs read."""
        return next(iter(self._saes.values())).cfg.d_in

    @property
    def fingerprint(self) -> str:
        """The sha256 (hex) of layers, architectures and weights, without `about`."""
        kinds = {layer: json.dumps(_kind(layer, sae)) for layer, sae in self._saes.items()}
        weights = {layer: sorted(sae.state_dict().items()) for layer, sae in self._saes.items()}
        # Weights can change in place. Compare a fast checksum, and recompute the sha256 only if it differs.
        named = ((f"{kinds[layer]} {name}", w) for layer in kinds for name, w in weights[layer])
        seen = tensors_checksum(named)
        if seen not in self._fingerprints:
            digest = sha256()
            for layer, kind in kinds.items():
                digest.update(kind.encode())
                for name, weight in weights[layer]:
                    digest.update(f"{name}{tuple(weight.shape)}".encode())
                    digest.update(weight.detach().cpu().contiguous().numpy().tobytes())
            self._fingerprints = {seen: digest.hexdigest()}
        return self._fingerprints[seen]

    @torch.no_grad()
    def encode(self, layer: int, hidden: Float[Tensor, "n d"]) -> Float[Tensor, "n F"]:
        """Return the latent activations of n hidden states. This moves the SAE to the device of `hidden`.

        Raises:
            KeyError: there is no SAE at this layer.
            ValueError: the hidden states have another width.
        """
        return self._on_device_of(hidden, layer).encode(hidden.float())

    @torch.no_grad()
    def reconstruct(self, layer: int, hidden: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        """Return decode(encode(h)), the reconstruction of n hidden states by the SAE of `layer`."""
        sae = self._on_device_of(hidden, layer)
        return sae.decode(sae.encode(hidden.float()))

    def decoder(self, layer: int) -> Float[Tensor, "F d"]:
        """Return the decoder rows, each of length 1, or 0 where training left a row at zero."""
        return self[layer].W_dec.detach()

    def _on_device_of(self, hidden: Tensor, layer: int) -> SAE:
        sae = self[layer]
        if hidden.shape[-1] != sae.cfg.d_in:
            raise ValueError(
                f"the SAE of layer {layer} reads hidden states of width {sae.cfg.d_in}, got shape "
                f"{tuple(hidden.shape)}; was it trained on another model?"
            )
        return sae if sae.W_dec.device == hidden.device else sae.to(hidden.device)

    def save(self, folder: str | Path) -> Path:
        """Write a folder `layer_<l>` for each SAE, in the format of sae-lens, and `saes.json` with checksums.

        The new files are written beside the old ones. Then the files that the old `saes.json` lists are
        removed, and no others. The new `saes.json` is written last. Until then `load` refuses the folder as
        incomplete.

        Raises:
            OSError: the disk is full or not writable.
        """
        folder = Path(folder)
        remedy = "free some space, or save to another folder"
        with disk_errors_explained(folder.absolute(), remedy), ExitStack() as stack:
            make_folder(folder)
            part = Path(stack.enter_context(TemporaryDirectory(dir=folder, prefix=".saes-")))
            checksums = {}
            for layer, sae in self._saes.items():
                for path in sae.save_model(part / f"layer_{layer}"):
                    checksums[path.relative_to(part).as_posix()] = file_sha256(path)
                    flush(path)
            replaced = _files_named_in(folder / CARD_FILE)
            (folder / CARD_FILE).unlink(missing_ok=True)
            for name in replaced:
                (folder / name).unlink(missing_ok=True)
                with suppress(OSError):  # not empty: it holds files that `save` did not write
                    (folder / name).parent.rmdir()
            for name in checksums:
                make_folder((folder / name).parent)
                os.replace(part / name, folder / name)
            # JSON turns keys into strings, so `about` is hashed in the form that it has in the file.
            about = json.loads(json.dumps(self.about))
            card = {"format": CARD_FORMAT, "layers": self.layers, "about": about, "sha256": checksums}
            card["about_sha256"] = digest(about)
            write_atomically(folder / CARD_FILE, json.dumps(card, indent=1))
        return folder

    @classmethod
    def load(cls, folder: str | Path) -> SAEs:
        """Return the SAEs that `save` wrote into `folder`.

        Raises:
            FileNotFoundError: nothing was saved in this folder.
            ValueError: the files are damaged.
        """
        from sae_lens import SAE

        folder = Path(folder)
        if not (folder / CARD_FILE).is_file():
            raise FileNotFoundError(
                f"no {CARD_FILE} in {folder}; expected a folder written by SAEs.save (read a folder with a "
                "single SAE of sae-lens with sae_lens.SAE.load_from_disk)"
            )
        try:
            card = json.loads((folder / CARD_FILE).read_bytes())
            if card["format"] != CARD_FORMAT:
                raise ValueError(f"format {card['format']!r} is not {CARD_FORMAT}, which this version reads")
            changed = [name for name, value in card["sha256"].items() if file_sha256(folder / name) != value]
            if changed:
                raise ValueError(f"the checksum of {', '.join(changed)} is wrong")
            about_sha256 = digest(card["about"])
            if card.get("about_sha256", about_sha256) != about_sha256:  # older cards have none
                raise ValueError("the checksum of `about` is wrong")
            saes = {layer: SAE.load_from_disk(folder / f"layer_{layer}") for layer in card["layers"]}
            return cls(saes, card["about"])
        except Exception as error:  # safetensors, JSON and key errors all mean that the files are damaged
            raise ValueError(
                f"the SAEs in {folder} are damaged; train or save them again ({error})"
            ) from error


def _kind(layer: int, sae: SAE) -> list[Any]:
    """Return the settings besides the weights that define an SAE, without those at their default."""
    cfg = sae.cfg
    kind = [layer, cfg.architecture(), getattr(cfg, "k", None), cfg.apply_b_dec_to_input]
    further = {name: getattr(cfg, name, "none") for name in ("normalize_activations", "reshape_activations")}
    return kind + [[name, value] for name, value in further.items() if value != "none"]


def _files_named_in(card: Path) -> list[str]:
    """Return the names of the files that an earlier `save` wrote."""
    try:
        names = list(json.loads(card.read_bytes())["sha256"])
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return []
    return [name for name in names if re.fullmatch(r"layer_-?\d+/[\w.]+", str(name)) and ".." not in name]


def _ready_for_inference(sae: SAE, layer: int) -> SAE:
    """Return `sae` in eval mode, or a copy if its dtype or the length of its decoder rows must change."""
    from sae_lens import TrainingSAE

    if isinstance(sae, TrainingSAE):
        raise TypeError(
            f"layer {layer}: {type(sae).__name__} is a training SAE, in which the tokens of a batch compete; "
            "save it with save_inference_model and load that with sae_lens.SAE.load_from_disk"
        )
    if not all(weight.isfinite().all() for weight in sae.state_dict().values()):
        raise ValueError(f"the SAE of layer {layer} has weights that are not finite")
    if sae.dtype != torch.float32:
        sae = deepcopy(sae).to(torch.float32)
    norms = sae.W_dec.norm(dim=1)
    if not ((norms - 1).abs() < 1e-5)[norms > 0].all():
        sae = deepcopy(sae)
        sae.fold_W_dec_norm()
    return sae.eval().requires_grad_(False)
