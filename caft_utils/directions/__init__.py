"""Directions in the residual stream, and the ways to find them."""

from caft_utils.directions.basis import Directions
from caft_utils.directions.contrast import (
    class_contrast,
    class_means,
    last_token_of,
    mean_difference,
    mean_hidden,
)
from caft_utils.directions.pca import StreamingCovariance, pca_of_difference

__all__ = [
    "Directions",
    "StreamingCovariance",
    "class_contrast",
    "class_means",
    "last_token_of",
    "mean_difference",
    "mean_hidden",
    "pca_of_difference",
]
