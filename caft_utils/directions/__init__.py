"""Directions in the residual stream, and the methods that find them."""

from caft_utils.directions.class_axes import class_means
from caft_utils.directions.controls import random_with_variance
from caft_utils.directions.covariance import StreamingCovariance
from caft_utils.directions.erasers import Eraser, leace
from caft_utils.directions.means import class_contrast, mean_difference, mean_hidden
from caft_utils.directions.pca import difference_scatter, pca_of_difference
from caft_utils.directions.subspace import Directions
from caft_utils.directions.token_positions import last_token_positions

__all__ = [
    "Directions",
    "Eraser",
    "StreamingCovariance",
    "class_contrast",
    "class_means",
    "difference_scatter",
    "last_token_positions",
    "leace",
    "mean_difference",
    "mean_hidden",
    "pca_of_difference",
    "random_with_variance",
]
