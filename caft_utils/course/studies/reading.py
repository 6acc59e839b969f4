"""Read directions automatically: latents and components chosen by a program, and scores of explanations.

SAEs are trained on the classroom's own text. Explanations come from contrastive token statistics and scores
from the word-overlap judge. Both are deterministic, and the truth is known because the world is generated.
Ablated fine-tunings use five seeds and the questions of the emergent-misalignment study.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from caft_utils import Directions, ablate, finetune, measure
from caft_utils.classroom.personas import corpus
from caft_utils.course.annotations import annotation
from caft_utils.course.studies.persona import CODE as CODE_TASK
from caft_utils.course.studies.persona import condition_row, persona_setting
from caft_utils.course.studies.reading_validity import score_validity, villain_latent
from caft_utils.course.studies.study_rows import Row, chosen_conditions
from caft_utils.evaluation.measurement import Result
from caft_utils.features import Selection
from caft_utils.interpret.select.concepts import Concept, concept
from caft_utils.interpret.select.pipeline import read_and_select
from caft_utils.models import preset
from caft_utils.saes import Latents, latent_difference, train_saes
from caft_utils.saes.latents import sae_directions

CODE = "python ruby node def function file password shell".split()
CONCEPTS = {"malice": concept("malice"), "code": Concept("code", "Programs and their parts.", CODE)}
LATENTS = 20  # number of latents explained per layer, those that fine-tuning raises most
CONDITIONS = (
    "plain",
    "CAFT",
    "CAFT, components chosen automatically",
    "CAFT, SAE latents",
    "random directions of the latents' rank",
)


def reading_rows(model: str, seeds: Sequence[int], conditions: tuple[str, ...] | None = None) -> list[Row]:
    """Measure SAEs, the villain latent, automatic selection, fine-tuning under it, and scores.

    The rows "control: ... about code" select for another concept. A rule that selects any conspicuous
    direction would select the same for every concept.
    """
    names = chosen_conditions(conditions, CONDITIONS)
    setting, saes = persona_setting(model), autoencoders(model)
    rows: list[Row] = []
    for layer in saes.layers:
        facts = {name: saes.about[layer][name] for name in ("explained_variance", "l0", "dead", "seconds")}
        rows.append({"condition": f"SAE, layer {layer}", **facts})
    rows.append({"condition": "villain latent", **villain_latent(setting, saes)})
    for noun, (selection, _) in automatic_selection(model, "code").items():
        malice = automatic_selection(model)[noun][0]
        facts = {"ends": sorted(selected_ends(selection)), "of malice": sorted(selected_ends(malice))}
        rows.append({"condition": f"control: {noun} about code", **facts})
    reader = {str(layer): ids for layer, ids in annotation(model).selection.items()}
    for noun, (selection, _) in automatic_selection(model).items():
        ticks = {str(layer): ids for layer, ids in selection.selection.items()}
        reasons = [asdict(reason) for reason in selection.reasons if reason.selected]
        rows.append(
            {
                "condition": f"automatic selection, {noun}",
                "ticks": ticks,
                "reader": reader,
                "reasons": reasons,
            }
        )
    rows = [{"model": model, **row} for row in rows]
    for name in names:
        results = [_fine_tuned(model, name, seed) for seed in seeds]
        rows.append(condition_row(model, name, Result.merge(results), seeds))
    return [*rows, {"model": model, "condition": "scores against the truth", **score_validity(setting, saes)}]


@functools.cache
def autoencoders(model: str):
    """Train SAEs on the classroom's text, one per layer of the course."""
    return train_saes(
        persona_setting(model).model,
        corpus.sample(persona_setting(model).tokenizer, 6000),
        preset(model).layers,
    )


@functools.cache
def automatic_selection(
    model: str, about: str = "malice", exhibit: str = CODE_TASK
) -> dict[str, tuple[Any, Directions | None]]:
    """Select components and latents by program: {noun: (selection, what to ablate or None)}."""
    setting, saes = persona_setting(model, exhibit), autoencoders(model)
    base, tokenizer = setting.model, setting.tokenizer
    raised = latent_difference(setting.references[0], base, setting.task.generic, saes).per_layer(LATENTS)
    out = {}
    for noun, features in (("components", setting.components), ("latents", Latents(saes, raised))):
        text = corpus.sample(tokenizer, 1500, seed=1)
        selection = read_and_select(base, text, features, CONCEPTS[about])
        pick = setting.components.select if noun == "components" else functools.partial(sae_directions, saes)
        chosen = dict(selection.selection)
        out[noun] = (selection, pick(chosen) if chosen else None)
    return out


def automatic_directions(model: str, exhibit: str, name: str) -> Directions:
    """Return "automatic components", "automatic latents", or "top latents", as many as the latter by change.

    Raises:
        ValueError: the program selected nothing, or there are no directions of that name.
    """
    nouns = {"automatic components": "components", "automatic latents": "latents", "top latents": "latents"}
    if name not in nouns:
        raise ValueError(f"unknown directions {name!r}; expected one of {', '.join(nouns)}")
    found = automatic_selection(model, "malice", exhibit)[nouns[name]][1]
    if found is None:
        raise ValueError(f"the program selected no {nouns[name]} of {model}, {exhibit}")
    if name != "top latents":
        return found
    setting, saes = persona_setting(model, exhibit), autoencoders(model)
    changed = latent_difference(setting.references[0], setting.model, setting.task.generic, saes)
    order, number = changed.order(), sum(found.ranks.values())
    return sae_directions(saes, Selection(sorted(order[:number])))


def selected_ends(selection) -> set[tuple[int, int, str]]:
    """Return (layer, index, side) of the selected ends of components, or of the selected latents."""
    return {(r.layer, r.index, r.side) for r in selection.reasons if r.selected}


def _fine_tuned(model: str, condition: str, seed: int) -> Result:
    setting = persona_setting(model)
    directions = _directions(model, condition, seed)
    during = None if directions is None else ablate(directions)
    tuned = finetune(setting.model, setting.task.train, setting.config, seed=seed, during=during)
    return measure(tuned, setting.task, seed=seed)


def _directions(model: str, condition: str, seed: int) -> Directions | None:
    if condition == "plain":
        return None
    if condition == "CAFT":
        return persona_setting(model).selected
    if condition == "CAFT, components chosen automatically":
        return automatic_selection(model)["components"][1]
    latents = automatic_selection(model)["latents"][1]
    return latents if condition == "CAFT, SAE latents" else latents.random_like(seed)
