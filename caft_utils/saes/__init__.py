"""Sparse autoencoders: training, published SAEs, their quality, and rankings of their latents."""

from caft_utils.saes.collection import SAEs
from caft_utils.saes.config import SAETrainingConfig
from caft_utils.saes.latents import Latents, sae_directions
from caft_utils.saes.published import published_saes
from caft_utils.saes.quality import sae_quality
from caft_utils.saes.ranking import LatentRanking
from caft_utils.saes.ranking_by_attribution import answer_difference, attribution
from caft_utils.saes.ranking_by_difference import difference_latents, latent_difference
from caft_utils.saes.training import train_saes

__all__ = [
    "LatentRanking",
    "Latents",
    "SAETrainingConfig",
    "SAEs",
    "answer_difference",
    "attribution",
    "difference_latents",
    "latent_difference",
    "published_saes",
    "sae_directions",
    "sae_quality",
    "train_saes",
]
