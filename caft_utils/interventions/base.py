"""Interventions: edits of the residual stream at chosen sites, on for the length of a `with` block.

Ablation, the intervention of CAFT, projects onto the complement of the directions Q (rows, orthonormal):

    h  ->  h - (h Q^T) Q            or, around a mean,   h - ((h - mu) Q^T) Q

at every position of a site. Nothing is detached, so the backward pass is projected too: the gradient that
reaches the site has no component along Q either, and training can neither use these directions there nor be
pushed along them. After training the hooks go and the plain model stays. (arXiv 2507.16795, section 3.)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from hashlib import sha256

import torch
from jaxtyping import Float
from torch import Tensor, nn

from caft_utils.residual import edit, width


class Intervention(nn.Module):
    """Base of all interventions: named vectors by layer, and `on(model)`, which puts `edit` into the forward
    pass.

    Subclasses give `vectors` {name: {layer: tensor}}, kept as float32 buffers, and write `edit(layer,
    hidden)`.

    Raises:
        ValueError: a tensor is not finite or has another width than the rest.
    """

    def __init__(self, vectors: Mapping[str, Mapping[int, Float[Tensor, "... d"]]]):
        super().__init__()
        self.layers: list[int] = sorted({layer for by_layer in vectors.values() for layer in by_layer})
        if not self.layers:
            raise ValueError("an intervention needs at least one layer")
        for name, by_layer in vectors.items():
            for layer, tensor in by_layer.items():
                tensor = torch.as_tensor(tensor).detach().float().cpu().clone()
                if not tensor.isfinite().all():
                    raise ValueError(f"{name} at layer {layer} holds values that are not finite")
                self.register_buffer(f"{name}_{layer}", tensor)
        widths = {name: buffer.shape[-1] for name, buffer in self.named_buffers()}
        if len(set(widths.values())) > 1:
            raise ValueError(f"vectors of one model have one width, got {widths}")
        self.width: int = next(iter(widths.values()))
        self._placed: dict[tuple, Tensor] = {}

    @property
    def fingerprint(self) -> str:
        """sha256 of what the intervention does: its kind, settings, layers and vectors."""
        digest = sha256(f"{type(self).__name__}({self.extra_repr()})".encode())
        for name, buffer in sorted(self.named_buffers()):
            digest.update(f"{name}{tuple(buffer.shape)}".encode())
            digest.update(buffer.detach().cpu().numpy().tobytes())
        return digest.hexdigest()

    def vector(self, name: str, layer: int, like: Tensor) -> Tensor:
        """The buffer on the device and in the dtype of `like`, copied there once."""
        key = (name, layer, like.device, like.dtype)
        if key not in self._placed:
            self._placed[key] = getattr(self, f"{name}_{layer}").to(like.device, like.dtype)
        return self._placed[key]

    def edit(self, layer: int, hidden: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
        """The edited hidden states, in the shape and dtype of `hidden`."""
        raise NotImplementedError

    @contextmanager
    def on(self, model: nn.Module) -> Iterator[nn.Module]:
        """Edit every forward pass of `model` within this block: training, generation, recording.

        Contexts nest; hooks that are already there run first. Works through a PEFT wrapper and with gradient
        checkpointing. The hooks are removed when the block ends, by an exception too.

        Raises:
            ValueError: the model has another width. IndexError: it lacks a layer. Nothing is hooked then.
        """
        if width(model) != self.width:
            raise ValueError(
                f"this intervention has width {self.width}, but the residual stream of "
                f"{type(model).__name__} has width {width(model)}; were they found in another model?"
            )
        with edit(model, {layer: partial(self.edit, layer) for layer in self.layers}):
            yield model


def at_least_float32(hidden: Tensor) -> Tensor:
    """At least float32. In bfloat16 Q is not orthonormal to better than 0.4 %, and so much would leak
    through."""
    return hidden if hidden.dtype == torch.float64 else hidden.float()


def one_vector_each(vectors: Mapping[int, Tensor]) -> Mapping[int, Float[Tensor, " d"]]:
    for layer, vector in vectors.items():
        if vector.ndim != 1:
            raise ValueError(f"layer {layer}: expected one vector [d], got shape {tuple(vector.shape)}")
    return vectors
