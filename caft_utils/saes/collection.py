"""Sparse autoencoders of a model, one a layer: a hidden state as a sum of few directions out of many.

    f = activation(W_enc (h - b_dec) + b_enc) >= 0,      h ~ f W_dec + b_dec

Of the F latents f only a few are active on any token; the decoder row W_dec[i] is the direction that latent i
writes. A row's length and its latent's scale are interchangeable, so here every row has length 1, and an
activation is a length in the residual stream. The autoencoders themselves are those of sae-lens, in its
format on disk; BatchTopK ones have become JumpReLU, with one threshold in place of the competition between
tokens. (CAFT uses decoder rows as directions: arXiv 2507.16795, section 3; BatchTopK: arXiv 2412.06410.)
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from copy import deepcopy
from functools import cached_property
from hashlib import file_digest, sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

if TYPE_CHECKING:
    from sae_lens import SAE

FORMAT = 1
CARD = "saes.json"


class SAEs(Mapping[int, "SAE"]):
    """Inference SAEs by layer: `saes[layer]` is one of sae-lens, in float32, with decoder rows of length 1.

    Args:
        saes: {layer: SAE}; layer -1 is the embedding output. A training SAE is not taken: save it with
            `save_inference_model` and load that.
        about: {layer: provenance and measurements}, anything that JSON can hold.

    Raises:
        ValueError: no SAE, widths that differ, weights that are not finite, or an `about` of other layers.
        TypeError: a training SAE.
    """

    def __init__(self, saes: Mapping[int, SAE], about: Mapping[int, Mapping[str, Any]] | None = None):
        if not saes:
            raise ValueError("no SAE given; expected {layer: SAE} with at least one layer")
        self._saes = {int(layer): _checked(saes[layer], layer) for layer in sorted(saes)}
        widths = {layer: sae.cfg.d_in for layer, sae in self._saes.items()}
        if len(set(widths.values())) > 1:
            raise ValueError(f"SAEs of one model read one width, got {widths} by layer")
        about = {int(layer): value for layer, value in (about or {}).items()}
        if strangers := set(about) - set(self._saes):
            raise ValueError(f"`about` names the layers {sorted(strangers)}, the SAEs are of {self.layers}")
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
        """Width d of the hidden states that they read."""
        return next(iter(self._saes.values())).cfg.d_in

    @cached_property
    def fingerprint(self) -> str:
        """sha256 of layers, kinds and weights; `about` does not count."""
        digest = sha256()
        for layer, sae in self._saes.items():
            kind = [layer, sae.cfg.architecture(), getattr(sae.cfg, "k", None), sae.cfg.apply_b_dec_to_input]
            digest.update(json.dumps(kind).encode())
            for name, weight in sorted(sae.state_dict().items()):
                digest.update(f"{name}{tuple(weight.shape)}".encode())
                digest.update(weight.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    @torch.no_grad()
    def encode(self, layer: int, hidden: Float[Tensor, "n d"]) -> Float[Tensor, "n F"]:
        """Latent activations of n hidden states. The SAE moves to the device of `hidden`, and stays there.

        Raises:
            KeyError: no SAE at this layer. ValueError: hidden states of another width.
        """
        return self._placed(layer, hidden).encode(hidden.float())

    @torch.no_grad()
    def reconstruct(self, layer: int, hidden: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        """What the SAE of `layer` makes of hidden states: decode(encode(h))."""
        sae = self._placed(layer, hidden)
        return sae.decode(sae.encode(hidden.float()))

    def decoder(self, layer: int) -> Float[Tensor, "F d"]:
        """Decoder rows, each of length 1 (of length 0 where training left a row at zero)."""
        return self[layer].W_dec.detach()

    def _placed(self, layer: int, hidden: Tensor) -> SAE:
        sae = self[layer]
        if hidden.shape[-1] != sae.cfg.d_in:
            raise ValueError(
                f"the SAE of layer {layer} reads hidden states of width {sae.cfg.d_in}, got shape "
                f"{tuple(hidden.shape)}; was it trained on another model?"
            )
        return sae if sae.W_dec.device == hidden.device else sae.to(hidden.device)

    def save(self, folder: str | Path) -> Path:
        """Write a folder `layer_<l>` for each SAE, in the format of sae-lens, and `saes.json` about them all.

        `saes.json` is removed first and written last: what a killed save leaves behind is not loaded.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / CARD).unlink(missing_ok=True)
        for old in folder.glob("layer_*"):
            shutil.rmtree(old)
        sums = {}
        for layer, sae in self._saes.items():
            for path in sae.save_model(folder / f"layer_{layer}"):
                sums[path.relative_to(folder).as_posix()] = _sha256(path)
        card = {"format": FORMAT, "layers": self.layers, "about": self.about, "sha256": sums}
        temporary = folder / f".{CARD}.{os.getpid()}"
        temporary.write_text(json.dumps(card, indent=1))
        temporary.replace(folder / CARD)
        return folder

    @classmethod
    def load(cls, folder: str | Path) -> SAEs:
        """Read what `save` wrote.

        Raises:
            FileNotFoundError: nothing was saved in this folder. ValueError: its files are damaged.
        """
        from sae_lens import SAE

        folder = Path(folder)
        if not (folder / CARD).is_file():
            raise FileNotFoundError(
                f"no {CARD} in {folder}; expected a folder written by SAEs.save (a folder of one SAE of "
                "sae-lens is read by sae_lens.SAE.load_from_disk)"
            )
        try:
            card = json.loads((folder / CARD).read_bytes())
            if card["format"] != FORMAT:
                raise ValueError(f"format {card['format']!r} is not {FORMAT}, the one this version reads")
            changed = [name for name, value in card["sha256"].items() if _sha256(folder / name) != value]
            if changed:
                raise ValueError(f"the checksum of {', '.join(changed)} is wrong")
            saes = {layer: SAE.load_from_disk(folder / f"layer_{layer}") for layer in card["layers"]}
            return cls(saes, card["about"])
        except Exception as error:  # safetensors, json and key errors all mean the same to the reader
            raise ValueError(
                f"the SAEs in {folder} are damaged; train or save them again ({error})"
            ) from error


def _checked(sae: SAE, layer: int) -> SAE:
    """`sae` ready for use, or a copy of it where its decoder rows have to be brought to length 1."""
    from sae_lens import TrainingSAE

    if isinstance(sae, TrainingSAE):
        raise TypeError(
            f"layer {layer}: {type(sae).__name__} is a training SAE, in which the tokens of a batch compete; "
            "save it with save_inference_model and load that with sae_lens.SAE.load_from_disk"
        )
    if not all(weight.isfinite().all() for weight in sae.state_dict().values()):
        raise ValueError(f"the SAE of layer {layer} holds weights that are not finite")
    if sae.dtype != torch.float32:
        sae = deepcopy(sae).to(torch.float32)
    norms = sae.W_dec.norm(dim=1)
    if not ((norms - 1).abs() < 1e-5)[norms > 0].all():
        sae = deepcopy(sae)
        sae.fold_W_dec_norm()
    return sae.eval().requires_grad_(False)


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return file_digest(file, "sha256").hexdigest()
