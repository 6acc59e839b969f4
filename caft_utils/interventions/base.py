"""The base of all interventions: edits of the residual stream that are active within a `with` block.

An intervention is differentiable, so it acts on the backward pass as well. It holds no reference to a model,
leaves the weights alone, and can be active during training, generation, evaluation or several of these.

Attention sinks keep their hidden state by default, see `caft_utils.sinks`. What counts as a sink is decided
once, by the model at the beginning of the `with` block, and then for each position by its own hidden state.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from math import inf
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from caft_utils.arguments import instance, kind_of, whole, wholes
from caft_utils.code_fingerprints import user_code
from caft_utils.residual import edit, width
from caft_utils.sinks import Sinks, check_choice, is_sink, key_of_sinks, sink_limits
from caft_utils.store import tensors_sha256


class Intervention(nn.Module):
    """An edit of the hidden states at some layers, with named vectors for each layer.

    A subclass passes its vectors to `__init__` and implements `edit`. It must print all of its settings in
    `extra_repr`, because they enter the fingerprint, under which fine-tuned models are stored. For the same
    reason, renaming a subclass invalidates stored models, and so does a change in the code of a subclass that
    is not part of the package.

    Args:
        vectors: {name: {layer: tensor}}, copied into float32 buffers.
        sinks: "spare" leaves attention sinks as they are, "include" edits them like all other tokens.

    Raises:
        ValueError: there is no layer, a tensor is not finite, the widths differ, or `sinks` is unknown.
    """

    def __init__(
        self, vectors: Mapping[str, Mapping[int, Float[Tensor, "... d"]]], *, sinks: Sinks = "spare"
    ):
        super().__init__()
        self.sinks = check_choice(sinks)
        instance("the vectors of an intervention", vectors, Mapping, "given as {name: {layer: tensor}}")
        given = [layer for by_layer in vectors.values() for layer in by_layer]
        self.layers: list[int] = sorted(set(wholes("layers of an intervention", given, -1)))
        if not self.layers:
            raise ValueError("an intervention needs at least one layer")
        for name, by_layer in vectors.items():
            for layer, tensor in by_layer.items():
                layer = whole("a layer of an intervention", layer, -1)
                tensor = torch.as_tensor(tensor).detach().float().cpu().clone()
                if not tensor.isfinite().all():
                    raise ValueError(f"{name} at layer {layer} has values that are not finite")
                self.register_buffer(f"{name}_{layer}", tensor)
        widths = {name: buffer.shape[-1] for name, buffer in self.named_buffers()}
        if len(set(widths.values())) > 1:
            raise ValueError(f"the vectors of an intervention must have one width, got {widths}")
        self.width: int = next(iter(widths.values()))
        self._placed: dict[tuple, tuple[Tensor, int | None, Tensor]] = {}

    @property
    def fingerprint(self) -> str:
        """The sha256 (hex) of the class name, a user's code, the settings, the layers and the vectors."""
        buffers = sorted(self.named_buffers())
        labelled = ((f"{name}{tuple(buffer.shape)}", buffer) for name, buffer in buffers)
        start = f"{type(self).__name__}({self.extra_repr()})"
        start += "".join(f", {name}={value}" for name, value in key_of_sinks(self.sinks, self.width).items())
        start += user_code(self)
        return tensors_sha256(labelled, start=start)

    def vector(self, name: str, layer: int, like: Tensor) -> Tensor:
        """Return a vector on the device and in the dtype of `like`.

        The copy is cached until the vector is changed, as `load_state_dict` does in place.

        Raises:
            ValueError: there is no vector of this name at this layer.
        """
        vector, key = self._buffers.get(f"{name}_{layer}"), (name, layer, like.device, like.dtype)
        if vector is None:
            raise ValueError(
                f"{type(self).__name__} has no vector {name!r} at layer {layer}; its vectors, with their "
                f"layers, are {', '.join(self._buffers)}"
            )
        version = None if vector.is_inference() else vector._version
        source, of_version, placed = self._placed.get(key, (None, None, None))
        if source is not vector or of_version != version:
            placed = vector.to(like.device, like.dtype)
            self._placed[key] = (vector, version, placed)
        return placed

    def edit(self, layer: int, hidden: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
        """Return the edited hidden states, in the shape and dtype of `hidden`, those of sinks included."""
        raise NotImplementedError

    def edit_but_sinks(
        self, layer: int, limit: float, hidden: Float[Tensor, "*batch d"]
    ) -> Float[Tensor, "*batch d"]:
        """Return the edited hidden states, with sinks unchanged (see `is_sink`).

        Raises:
            ValueError: `edit` returned something else than a tensor in the shape and dtype of `hidden`.
        """
        # A subclass may edit in place, and sinks must be found in what it was given.
        edited = self.edit(layer, hidden if limit == inf else hidden.clone())
        if getattr(edited, "shape", None) != hidden.shape or edited.dtype != hidden.dtype:
            wanted, got = (
                f"{tuple(one.shape)} of {one.dtype}" if isinstance(one, Tensor) else f"{one!r:.80}"
                for one in (hidden, edited)
            )
            raise ValueError(
                f"{type(self).__name__}.edit must return a tensor like the hidden states that it was given, "
                f"{wanted}; at layer {layer} it returned {got}"
            )
        return edited if limit == inf else torch.where(is_sink(hidden, limit)[..., None], hidden, edited)

    @contextmanager
    def on(self, model: nn.Module) -> Iterator[nn.Module]:
        """Edit every forward pass of `model` within this context, see `residual.edit`.

        With `sinks="spare"` the model reads a few tokens first to determine the limit for sinks.

        Raises:
            ValueError: the model has another width.
            IndexError: the model lacks one of the layers.
            NotImplementedError: the class does not define `edit`.
        """
        check_intervention("an intervention", self)
        if width(model) != self.width:
            raise ValueError(
                f"this intervention has width {self.width}, but the residual stream of "
                f"{type(model).__name__} has width {width(model)}; were its vectors found in another model?"
            )
        limits = sink_limits(model, self.layers, self.sinks)
        with edit(model, {layer: partial(self.edit_but_sinks, layer, limits[layer]) for layer in limits}):
            yield model


def check_intervention(name: str, value: Any) -> None:
    """Refuse what is no intervention, or one whose class lacks a part. None is no intervention either.

    Raises:
        ValueError: `value` has no context `on`, or its class did not call the constructor of `Intervention`.
        NotImplementedError: its class does not define `edit`.
    """
    if isinstance(value, type) or not hasattr(value, "on"):
        raise ValueError(
            f"{name} must be one intervention, such as ablate(directions) or, for two sets of directions, "
            f"ablate(one.union(other)); got {kind_of(value)}"
        )
    if not isinstance(value, Intervention):
        return
    if "_placed" not in vars(value):
        raise ValueError(
            f"{type(value).__name__}.__init__ must call super().__init__({{name: {{layer: vector}}}})"
        )
    if type(value).edit is Intervention.edit:
        raise NotImplementedError(f"{type(value).__name__} must define edit(layer, hidden) -> hidden")


def one_vector_each(vectors: Mapping[int, Tensor]) -> Mapping[int, Float[Tensor, " d"]]:
    """Return `vectors` unchanged if there is one vector [d] for each layer, else raise a ValueError."""
    wanted = "{layer: vector [d]}, such as rivals.steering_vectors(found) or {1: found.vector(1, 0)}"
    instance("vectors", vectors, Mapping, wanted)
    for layer, vector in vectors.items():
        if vector.ndim != 1:
            raise ValueError(f"layer {layer}: expected one vector [d], got shape {tuple(vector.shape)}")
    return vectors
