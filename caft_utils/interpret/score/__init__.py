"""Is an explanation true? Five scores of it, their controls, and scores of the scores."""

from caft_utils.interpret.score.scorers import (
    Score,
    Steering,
    detection,
    embedding,
    fuzzing,
    intervention,
    scores,
    simulation,
    surprisal,
)

__all__ = [
    "Score",
    "Steering",
    "detection",
    "embedding",
    "fuzzing",
    "intervention",
    "scores",
    "simulation",
    "surprisal",
]
