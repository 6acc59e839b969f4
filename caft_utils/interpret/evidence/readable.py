"""What can be read: directions of the residual stream and latents of an SAE, behind one protocol."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor


@runtime_checkable
class Readable(Protocol):
    """Directions that a reader looks at: `Directions` and an SAE's `Latents` are such.

    noun: what one of them is called, "component" or "latent".
    signed: both ends can be read (a component), or only where the value is above zero (a latent).
    """

    @property
    def noun(self) -> str: ...

    @property
    def signed(self) -> bool: ...

    @property
    def layers(self) -> list[int]: ...

    def indices(self, layer: int) -> list[int]:
        """The numbers by which a reader knows the directions of `layer`."""

    def values(self, layer: int, hidden: Float[Tensor, "n d"]) -> Float[Tensor, "n k"]:
        """Projections or activations of n hidden states, columns in the order of `indices(layer)`."""

    def vector(self, layer: int, i: int) -> Float[Tensor, " d"]:
        """The unit vector that direction i stands for in the residual stream."""
