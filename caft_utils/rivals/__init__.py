"""Alternatives to CAFT: other ways to keep a model from learning a trait, and their controls. One file each.

Each method is a function (model, rows, config, *, seed, ...) that returns a fine-tuned model. Methods that
act at test time return the intervention as well. A `Told` describes what information each method was given.
"""

from caft_utils.rivals.at_test_time import ablate_at_test, steer_at_test
from caft_utils.rivals.early_stopping import stop_early
from caft_utils.rivals.feature_distance import FeatureDistance, stay_close_by_features
from caft_utils.rivals.inoculation_adapter import inoculate_by_adapter
from caft_utils.rivals.inoculation_prompt import inoculate_by_prompt, with_prompt
from caft_utils.rivals.interleaving import interleave, mixed
from caft_utils.rivals.kl_to_base import KLToBase, stay_close_by_kl
from caft_utils.rivals.preventative_steering import (
    increments,
    random_vectors,
    steer_preventatively,
    steering_vectors,
)
from caft_utils.rivals.told import Told

__all__ = [
    "FeatureDistance",
    "KLToBase",
    "Told",
    "ablate_at_test",
    "increments",
    "inoculate_by_adapter",
    "inoculate_by_prompt",
    "interleave",
    "mixed",
    "random_vectors",
    "stay_close_by_features",
    "stay_close_by_kl",
    "steer_at_test",
    "steer_preventatively",
    "steering_vectors",
    "stop_early",
    "with_prompt",
]
