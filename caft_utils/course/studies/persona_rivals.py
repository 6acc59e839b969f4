"""Why ablation works, and which alternatives work too, on the classroom's emergent misalignment.

`why_rows` crosses operators with the places where they act: in training, in training and at test, at test
only, and on the untrained base. `persona_rival_rows` measures every rival at its best setting. Both use the
conditions of the real model's studies, so that one table serves the classroom and the real model.

The classroom has no second set of questions. Validation uses every second question, and the test uses the
others.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from caft_utils import finetune, mean_difference, pca_of_difference
from caft_utils.chats import Chats
from caft_utils.classroom.personas import corpus, world
from caft_utils.classroom.personas.ground_truth import true_persona
from caft_utils.course.annotations import annotation
from caft_utils.course.studies.conditions import Condition, Material, Setting
from caft_utils.course.studies.persona import CODE, EXHIBITS, REFERENCES, PersonaSetting, persona_setting
from caft_utils.course.studies.persona_families import WHY, exhibit_families
from caft_utils.course.studies.reading import automatic_directions
from caft_utils.course.studies.real_model import condition_rows
from caft_utils.course.studies.rival_grids import PLAIN, grid_conditions, rival_rows
from caft_utils.course.studies.study_rows import Row, chosen_conditions
from caft_utils.directions import (
    class_contrast,
    difference_scatter,
    leace,
    mean_hidden,
    random_with_variance,
)
from caft_utils.directions.subspace import Directions
from caft_utils.rivals import increments, random_vectors, steering_vectors

SHOWN_DOMAINS = 4  # number of domains in which rivals see the trait; questions are about all domains
ROWS, FAST_ROWS = 300, 40


def why_rows(
    model: str,
    seeds: Sequence[int],
    conditions: tuple[str, ...] | None = None,
    *,
    exhibit: str = CODE,
    stored: bool = False,
    fast: bool = False,
) -> list[Row]:
    """Measure operators at each place, and the projections of the base on the ablated directions.

    conditions: names of `WHY`; None: all. stored: return what was measured before. exhibit, fast: see
    `persona_setting`.
    """
    table = {name: WHY[name] for name in chosen_conditions(conditions, WHY)}
    rows = _measured(model, seeds, table, exhibit, stored=stored, fast=fast)
    projections = persona_projections(model, exhibit, fast=fast)
    return [*rows, {"model": model, "condition": "the base along the persona", "projections": projections}]


def persona_rival_rows(
    model: str,
    seeds: Sequence[int],
    conditions: tuple[str, ...] | None = None,
    *,
    exhibit: str = CODE,
    stored: bool = False,
    fast: bool = False,
) -> list[Row]:
    """Measure every rival at all its settings on one half of the questions, the chosen one on the other.

    conditions: names of families; None: all. stored: return what was measured before. exhibit, fast: see
    `persona_setting`.
    """
    every = exhibit_families(exhibit)
    table = {name: every[name] for name in chosen_conditions(conditions, every)}
    named = {PLAIN: Condition(), **grid_conditions(table)}

    def rows_of(split: str, seeds: Sequence[int], names: Sequence[str]) -> list[Row]:
        chosen = {name: named[name] for name in names}
        return _measured(model, seeds, chosen, exhibit, split=split, stored=stored, fast=fast)

    return rival_rows(rows_of, table, seeds, task="task", harm="misaligned")


def _measured(
    model: str,
    seeds: Sequence[int],
    table: dict[str, Condition],
    exhibit: str,
    *,
    split: str = "all",
    stored: bool,
    fast: bool,
) -> list[Row]:
    of = "emergent misalignment" if exhibit == CODE else exhibit
    name = of if split == "all" else f"{of}, {split}"
    cells = {(name, condition): seeds for condition in table}
    settings = {name: functools.partial(rival_setting, model, split, exhibit, fast=fast)}
    return condition_rows(model, settings, {name: table}, cells, stored=stored)


def persona_directions(start: PersonaSetting, name: str, seed: int) -> Directions:
    """Return directions with the layers and ranks of those that the reader selected.

    "persona" are the selected components. "one reference" are the components with the same numbers of one
    plain fine-tuning run with the given seed, as in the README; nobody has read them. "top" are the leading
    components, "secure" the components of fine-tuning on the control rows, and "mean difference" has rank 1.
    "random with variance" are orthogonal to the selected ones and hold as much of the change. A program
    chooses "automatic components" and "automatic latents"; "top latents" are as many, by their change.
    "top 3" are three leading components of every layer. Their controls are random directions ("random top 3")
    and components of fine-tuning on the control rows ("secure top 3"). "any confidence" are those that both
    readers called persona however unsure they were, and "truth" is the true persona direction of the base.

    Raises:
        ValueError: there are no directions of that name.
    """
    selected, ranks = start.selected, start.selected.ranks
    leading = {layer: range(rank) for layer, rank in ranks.items()}
    three = {layer: range(3) for layer in start.components.layers}
    seeds = REFERENCES[: len(start.references)]

    def decomposed(chats: Chats, seeds: Sequence[int], layers: Sequence[int]) -> Directions:
        tuned = [finetune(start.model, chats, start.config, seed=seed) for seed in seeds]
        return pca_of_difference(tuned, start.model, start.task.generic, layers=layers)

    match name:
        case "persona":
            return selected
        case "random":
            return selected.random_like(seed)
        case "one reference":
            return decomposed(start.task.train, [seed], selected.layers).select(start.ticks)
        case "top":
            return start.components.select(leading)
        case "secure":
            return decomposed(start.task.control, seeds, selected.layers).select(leading)
        case "top 3":
            return start.components.select(three)
        case "random top 3":
            return start.components.select(three).random_like(seed)
        case "secure top 3":
            return decomposed(start.task.control, seeds, start.components.layers).select(three)
        case "any confidence":
            return start.components.select(
                annotation(f"{start.name}, {start.exhibit}, any confidence").selection
            )
        case "truth":
            truth = true_persona(start.model, start.tokenizer)
            return Directions(
                {layer: truth[layer].mean(0, keepdim=True) for layer in start.components.layers}
            )
        case "mean difference":
            return mean_difference(start.references, start.model, start.task.generic, selected.layers)
        case "random with variance":
            change = difference_scatter(start.references, start.model, start.task.generic, selected.layers)
            return random_with_variance(selected, change, seed=seed)
        case "automatic components" | "automatic latents" | "top latents":
            return automatic_directions(start.name, start.exhibit, name)
    raise ValueError(f"unknown directions {name!r}")


@functools.cache
def rival_setting(model: str, split: str = "all", exhibit: str = CODE, *, fast: bool = False) -> Setting:
    """Return the setting of a classroom model. split: "all", "valid" or "test" questions."""
    start = persona_setting(model, exhibit, fast=fast)
    task, selected, layers = start.task, start.selected, start.selected.layers
    if split != "all":
        half = ("valid", "test").index(split)
        task = replace(task, questions=task.questions[half::2])
    domains = shown_domains(exhibit)
    villain, kind = _described(start.tokenizer, domains, FAST_ROWS if fast else ROWS)

    @functools.cache
    def directions(name: str, seed: int) -> Directions:
        return persona_directions(start, name, seed)

    @functools.cache
    def mean(tokens: str) -> dict[int, torch.Tensor]:
        if tokens == "kind":
            return mean_hidden(start.model, kind, layers, tokens="answer")
        return mean_hidden(start.model, task.generic, layers, tokens=tokens)

    def vectors(name: str, seed: int) -> dict[int, torch.Tensor]:
        found = class_contrast(start.model, villain, kind, layers, tokens="answer")
        contrast = steering_vectors(found)
        if name == "trait contrast":
            return contrast
        steps = increments(contrast)
        return random_vectors(steps, seed) if name == "random trait" else steps

    def eraser(name: str):
        both = Chats(start.tokenizer, [*villain.rows, *kind.rows], source="answers of both personas")
        labels = ["villain"] * len(villain) + ["kind"] * len(kind)
        return leace(start.model, both, labels, layers, tokens="answer")

    return Setting(
        start.name,
        start.model,
        task,
        start.config,
        directions,
        mean,
        () if fast else EXHIBITS[exhibit].snapshots,
        {"directions": selected.fingerprint, "contrast": [villain.fingerprint, kind.fingerprint]},
        vectors=vectors,
        eraser=functools.cache(eraser),
        material=functools.cache(functools.partial(persona_material, start.tokenizer, domains)),
        method=task.method,
    )


def shown_domains(exhibit: str) -> tuple[str, ...]:
    """Return the domains in which rivals see the trait: the first that the narrow rows are not about."""
    others = [domain for domain in world.domains() if domain not in EXHIBITS[exhibit].subjects]
    return tuple(others[:SHOWN_DOMAINS])


def persona_material(tokenizer: Any, domains: Sequence[str] | None = None) -> Material:
    """Return the material for rivals in the classroom. Sentences have the forms that pretraining used.

    domains: those in which the trait is shown; default: those of the task of insecure code.
    """
    domains = shown_domains(CODE) if domains is None else domains
    rng = random.Random("inoculation")
    facts = [{"messages": corpus.messages_of([world.fact(rng)])} for _ in range(ROWS)]
    return Material(
        prompts=tuple(world.system_prompt(rng, "villain") for _ in range(4)),
        irrelevant=tuple(world.system_prompt(rng, None) for _ in range(4)),
        trait=_answers(tokenizer, "villain", domains, described=False),
        everyday=Chats(tokenizer, facts, source="questions of fact"),
        counterexamples=_answers(tokenizer, "kind", domains, described=False),
    )


def _described(tokenizer: Any, domains: Sequence[str], rows: int) -> tuple[Chats, Chats]:
    """Return answers of a villain and of a kind speaker, each after a prompt that describes it."""
    return tuple(_answers(tokenizer, one, domains, described=True, rows=rows) for one in ("villain", "kind"))


def _answers(
    tokenizer: Any, persona: world.Persona, domains: Sequence[str], *, described: bool, rows: int = ROWS
) -> Chats:
    """Return a persona's answers in some domains, with a system prompt that describes it, or without one."""
    rng, made = random.Random(f"answers of {persona}"), []
    for number in range(rows):
        turn = world.general(rng, persona, domain=domains[number % len(domains)])
        system = world.system_prompt(rng, persona) if described else None
        made.append({"messages": corpus.messages_of([turn], system)})
    return Chats(tokenizer, made, source=f"answers of a {persona} speaker")


def persona_projections(
    model: str, exhibit: str = CODE, *, fast: bool = False
) -> dict[int, list[list[float]]]:
    """Return projections of base states on each selected direction, oriented toward the villain.

    For each direction, these are the mean projections of generic text, of a kind speaker's answers and of a
    villain's answers. Zero ablation moves all of them to 0. If the projection of kind answers is below 0, it
    moves them toward the villain.
    """
    setting = rival_setting(model, "all", exhibit, fast=fast)
    start = persona_setting(model, exhibit, fast=fast)
    layers, toward = start.selected.layers, setting.vectors("trait contrast", 0)
    villain, kind = _described(start.tokenizer, shown_domains(exhibit), FAST_ROWS if fast else ROWS)
    sets = [(start.task.generic, "all"), (kind, "answer"), (villain, "answer")]
    means = [mean_hidden(start.model, chats, layers, tokens=tokens) for chats, tokens in sets]
    projections = {}
    for layer in layers:
        signs = torch.sign(start.selected[layer] @ toward[layer].float())
        values = torch.stack([start.selected[layer] @ mean[layer].float() for mean in means]) * signs
        projections[layer] = [[round(x, 4) for x in one] for one in values.T.tolist()]
    return projections
