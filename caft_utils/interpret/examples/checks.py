"""Check arguments that several functions share."""

from __future__ import annotations

from torch import nn

from caft_utils.features import Features
from caft_utils.residual import width


def check_window_size(n: int, width: int) -> None:
    """Raise ValueError unless n windows of `width` tokens can be collected."""
    if n < 1 or width < 1:
        raise ValueError(f"n and width must be at least 1, got n={n} and width={width}")


def check_features(model: nn.Module, features: Features) -> None:
    """Raise ValueError if the features and the residual stream of the model differ in width."""
    for layer in features.layers:
        check_vector_width(model, len(features.vector(layer, features.indices(layer)[0])))


def check_vector_width(model: nn.Module, got: int) -> None:
    """Raise ValueError if a vector and the residual stream of the model differ in width."""
    if got != width(model):
        raise ValueError(
            f"the directions have width {got}, but the residual stream of {type(model).__name__} has "
            f"{width(model)}; were they found in another model?"
        )
