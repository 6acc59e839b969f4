"""Sparse autoencoders: training, quality, and the published ones."""

from caft_utils.saes.published import published_saes
from caft_utils.saes.quality import quality
from caft_utils.saes.saes import Latents, SAEs
from caft_utils.saes.train import SAERecipe, train_saes

__all__ = ["Latents", "SAERecipe", "SAEs", "published_saes", "quality", "train_saes"]
