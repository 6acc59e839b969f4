"""The cells of the study of spurious cues: what is measured for a setting, a method and a seed."""

from __future__ import annotations

import random
from collections.abc import Sequence

import cues_exhibit as exhibit

from caft_utils import ablate, finetune, measure
from caft_utils.directions.subspace import Directions
from caft_utils.evaluation.measurement import Result
from caft_utils.evaluation.search import Rows
from caft_utils.finetuning.run import at_step
from caft_utils.saes.latents import sae_directions

MAIN = ("plain", "SAE", "SAE, hooks on", "SAE, test only", "PCA")
STEPS_KEPT = tuple(f"plain, step {step}" for step in exhibit.STEPS)
BASELINES = ("random directions", "random latents of the top 100", "top latents, not read")
BASELINES += ("no cue in training", "PCA, hooks on", "class means", *STEPS_KEPT)
RHOS = (0.5, 0.75, 0.9, 0.99)
# Is it the order of the components, or are these the wrong directions? (gender only)
LABELLED = ("PCA by labels", "PCA by labels, hooks on")
SWEPT = ("sentiment* | sports", "gender")


def measured(name: str, method: str, seed: int) -> Result:
    """One cell of the grid: a fine-tuning of this setting, asked the questions of the test split."""
    model, rho, during = exhibit.base(exhibit.model_of(name))[0], 1.0, None
    if method.startswith("rho"):  # "rho 0.9 plain", "rho 0.9 SAE"
        _, share, method = method.split(" ", 2)
        rho = float(share)
    match method.split(", "):
        case ["plain"]:
            made = exhibit.tuned(name, seed, rho=rho)
        case ["plain", step]:
            made = at_step(exhibit.tuned(name, seed), model, int(step.removeprefix("step ")))
        case ["no cue in training"]:
            made = finetune(model, exhibit.task(name, seed).control, exhibit.recipe(name), seed=seed)
        case ["SAE", "test only"]:
            made, during = exhibit.tuned(name, seed), ablate(exhibit.chosen(name, "SAE")[0])
        case [("SAE" | "PCA" | "PCA by labels" | "class means") as kind, *on]:
            made = exhibit.tuned(name, seed, exhibit.chosen(name, kind)[0], rho)
            during = ablate(exhibit.chosen(name, kind)[0]) if on else None
        case _:
            made = exhibit.tuned(name, seed, control(name, method, seed))
    return measure(made, exhibit.task(name, seed), temperature=0, batch_size=128, during=during)


def control(name: str, baseline: str, seed: int) -> Directions:
    """Directions of the rank and at the sites of the latents that were chosen, but taken without reading.

    The top 100 are those of a layer by attribution.
    """
    like = exhibit.chosen(name, "SAE")[0]
    if baseline == "random directions":
        return like.random_like(seed)
    rows: Rows = {}
    for layer, rank in like.ranks.items():
        order = [i for at, i in exhibit.ranked(name) if at == layer]
        if baseline == "random latents of the top 100":
            order = random.Random(f"{name} {layer} {seed}").sample(order[:100], min(rank, len(order)))
        elif baseline != "top latents, not read":
            raise ValueError(f"unknown method {baseline!r}")
        rows[layer] = order[:rank]
    return sae_directions(exhibit.autoencoders(exhibit.model_of(name)), rows)


def cells(part: str = "all", seeds: Sequence[int] = exhibit.SEEDS) -> list[tuple[str, str, int]]:
    """(setting, method, seed) of the whole study, the most important first; "main" ends with the 16 settings.

    Where rho is 1 the sweep is the grid itself.
    """
    asked = (*exhibit.PAPER, *exhibit.GENDERS)
    out = [(name, method, seed) for seed in seeds for method in MAIN for name in asked]
    if part == "main":
        return out
    out += [(name, method, seed) for seed in seeds for method in LABELLED for name in exhibit.GENDERS]
    compared = (*exhibit.PAPER[:8], *exhibit.GENDERS)  # as in the paper
    out += [(name, method, seed) for seed in seeds for method in BASELINES for name in compared]
    swept = [(name, f"rho {rho} {kind}") for name in SWEPT for rho in RHOS for kind in ("plain", "SAE")]
    out += [(*one, seed) for seed in seeds for one in swept]
    others = [name for name in exhibit.NAMES if name not in exhibit.PAPER]
    out += [(name, method, seed) for seed in seeds for method in ("plain", "SAE", "PCA") for name in others]
    return out + [(n, method, seed) for seed in seeds for method in BASELINES for n in exhibit.PAPER[8:]]


def key(name: str, method: str, seed: int) -> dict:
    """All that a cell depends on besides its name."""
    return {"study": "cues", "version": exhibit.VERSION, **exhibit.trained_by(name)}
