"""SAE latents for the gender task of a real model: autoencoders, cards and directions.

The autoencoders are those of the base model, at the layers where the blind readers selected components. They
are trained on what the base computes on the training rows and on the course's advice rows. Latents are ranked
without labels by how much fine-tuning changed their activation at the last token of the prompt.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import torch

from caft_utils import train_saes
from caft_utils.chats import Chats
from caft_utils.course.annotations import annotation
from caft_utils.course.studies.gender_labels import READ
from caft_utils.directions.subspace import Directions
from caft_utils.features import Selection
from caft_utils.saes import LatentRanking, Latents, SAEs, SAETrainingConfig, latent_difference
from caft_utils.saes.latents import sae_directions
from caft_utils.tasks.advice_data import training_pairs

LAYERS = (18, 22, 24, 25, 26, 27, 28)
CONFIG = SAETrainingConfig(width=1152, k=32, steps=240, batch_tokens=1024)
SHOWN = 42  # latents that a reader is shown
ANNOTATION = "smollm2, gender, SAE latents"


def text(rows: Chats) -> Chats:
    """Return what the autoencoders read: these rows, and advice."""
    advice = [pair.row(quality) for pair in training_pairs() for quality in ("good", "bad")]
    return Chats(rows.tokenizer, [*rows.rows, *advice], source="gender and advice rows")


def autoencoders(base: Any, rows: Chats) -> SAEs:
    """Return the SAEs of the base model."""
    return train_saes(base, text(rows), LAYERS, CONFIG)


def changed_latents(references: list[Any], base: Any, rows: Chats, saes: SAEs) -> list[tuple[int, int]]:
    """Return (layer, latent) of all that fine-tuning changed, the largest mean change first."""
    rankings = [latent_difference(tuned, base, rows, saes, **READ) for tuned in references]
    mean = {layer: torch.stack([one.scores[layer] for one in rankings]).mean(0) for layer in saes.layers}
    return LatentRanking(mean).order()


def shown_latents(saes: SAEs, order: list[tuple[int, int]]) -> Latents:
    """Return the latents that a reader is shown: those that fine-tuning changed most."""
    return Latents(saes, Selection(sorted(order[:SHOWN])))


def is_read() -> bool:
    """Return whether somebody has read the latents."""
    try:
        return bool(annotation(ANNOTATION))
    except KeyError:
        return False


def latent_directions(name: str, saes: SAEs, order: list[tuple[int, int]], *, seed: int = 0) -> Directions:
    """Return the directions of "latents", which the reader selected, or of as many "top latents".

    "random latents" are random directions with the ranks of "latents", drawn with `seed`.
    """
    read = annotation(ANNOTATION).selection
    if name == "latents":
        return sae_directions(saes, read)
    if name == "random latents":
        return sae_directions(saes, read).random_like(seed)
    if name == "top latents":
        return sae_directions(saes, Selection(sorted(order[: sum(map(len, read.values()))])))
    raise ValueError(f"unknown latents {name!r}")


def key_of_latents(rows: Chats) -> dict[str, Any]:
    """Return all that their directions depend on besides the model, the references and their rows."""
    return {
        "selected": annotation(ANNOTATION).selection,
        "layers": LAYERS,
        "config": asdict(CONFIG),
        "text": text(rows).fingerprint,
    }
