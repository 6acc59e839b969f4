"""Directions in the residual stream, and the ways to find them."""

from caft_utils.directions.means import (
    class_contrast,
    class_means,
    last_token_of,
    mean_difference,
    mean_hidden,
)
from caft_utils.directions.pca import StreamingCovariance, pca_of_difference
from caft_utils.directions.subspace import Directions

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
