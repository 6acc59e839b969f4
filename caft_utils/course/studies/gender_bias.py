"""Gender bias on a real model, with the published sentences: CAFT, its rivals and its controls.

The task is that of the paper's section 6. The model answers with the word (he, she, him or her), not with a
letter, because letters mean nothing to a model of this size. In training every pronoun has the gender that
the profession suggests; "ood" questions have the other one, so that only grammatical case gives the right
answer.

Directions are the components of (tuned - base) at the last token of the prompt, where the answer is formed.
They come from fine-tunings with seeds that are never measured. A reader selected components blind
(data/annotations.yaml); the selection by labels of training rows is the ceiling.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import torch

from caft_utils import FinetuneConfig, class_means, finetune, load, mean_difference, pca_of_difference
from caft_utils.chats import Chats
from caft_utils.course.annotations import annotation
from caft_utils.course.studies.experiment import Row, chosen_conditions
from caft_utils.course.studies.real_model import Condition, Setting, condition_rows
from caft_utils.directions import mean_hidden
from caft_utils.directions.subspace import Directions
from caft_utils.residual import stream_activations
from caft_utils.tasks.gender import (
    PROFESSIONS,
    PROFESSIONS_OF_RELEASE,
    WORD_FORMAT,
    gender_choice,
    gender_items,
)
from caft_utils.tasks.published_data import published_file
from caft_utils.tasks.task import Task

MODEL = "smollm2"
LAYERS = tuple(range(10, 29))  # blocks whose outputs are read
COMPONENTS = 3  # read at each block
REFERENCES = (100, 101)  # seeds of the fine-tunings whose change PCA decomposes
READ_ROWS = 200  # training rows on which directions are found
READ = {"tokens": "last_prompt"}
LORA: dict[str, Any] = {"r": 16, "alpha": 16, "rslora": False, "lr": 1e-3, "steps": 72, "warmup_steps": 8}
SHARED: dict[str, Any] = {"batch_size": 16, "accumulate": 1, "weight_decay": 0.0, "schedule": "linear"}
RECIPES = {
    "adapters on all blocks": FinetuneConfig(**LORA, **SHARED),
    "adapters on blocks 10-29": FinetuneConfig(**LORA, **SHARED, blocks=tuple(range(10, 30))),
    "all weights": FinetuneConfig(method="full", lr=3e-5, steps=40, warmup_steps=8, **SHARED),
}
# The recipe in which plain training is fooled most on validation rows (one seed): 19.8 % right where the
# stereotype is wrong, 29.3 % with adapters on blocks 10-29, 98.3 % with all weights.
HEADLINE = "adapters on all blocks"
# The same recipe and the same directions, found with doctors and nurses, for sentences about 16 professions.
MORE_PROFESSIONS = "adapters on all blocks, 16 professions"
RECIPES[MORE_PROFESSIONS] = RECIPES[HEADLINE]
SNAPSHOTS = (9, 18, 36)
RATES = (1e-4, 3e-4)

CONDITIONS = {
    "base": Condition(rows=None),
    "plain": Condition(),
    "CAFT, components read blind": Condition(during="read"),
    "random directions": Condition(during="random"),
    "top components, unread": Condition(during="top"),
    "first component of every block, unread": Condition(during="first"),
    "components read as case": Condition(during="case"),
    "mean difference": Condition(during="mean difference"),
    "class means (labels)": Condition(during="class means"),
    "CAFT, components by labels": Condition(during="labels"),
    "CAFT, hooks on at test": Condition(during="read", at_test="read"),
    "ablation at test only, to zero": Condition(at_test="read"),
    "ablation at test only, to the mean": Condition(at_test="read", to="all"),
    "ablation at test only, to the mean of last prompt tokens": Condition(at_test="read", to="last_prompt"),
    "base, hooks on": Condition(rows=None, at_test="read"),
    "data without the cue": Condition(rows="control"),
    **{f"plain, step {step}": Condition(step=step) for step in SNAPSHOTS},
    **{f"plain, lr {lr:g}": Condition(lr=lr) for lr in RATES},
}

MOST_SEEDS = ("plain", "CAFT, components read blind", "random directions")


def gender_rows(
    model: str,
    seeds: Sequence[int],
    conditions: tuple[str, ...] | None = None,
    *,
    file: str | None = None,
    split: str = "test",
    recipes: Sequence[str] = (HEADLINE,),
    rival_seeds: int = 3,
    stored: bool = False,
) -> list[Row]:
    """Measure the conditions in each recipe, seeds merged.

    file: the user's own copy of the published sentences; None downloads them. split: "valid" to choose,
    "test" to report. recipes: keys of `RECIPES`; where nobody has read the components, only the conditions
    without directions are measured. rival_seeds: seeds of all conditions but those of `MOST_SEEDS`.
    stored: measure nothing and return what was measured before.
    """
    names = chosen_conditions(conditions, CONDITIONS)
    chosen_conditions(tuple(recipes), RECIPES)
    tables = {
        recipe: {name: CONDITIONS[name] for name in names if _can_measure(recipe, name)} for recipe in recipes
    }
    cells = {
        (recipe, name): condition_seeds(name, seeds, rival_seeds)
        for recipe, table in tables.items()
        for name in table
    }
    settings = {recipe: functools.partial(gender_setting, model, recipe, split, file) for recipe in recipes}
    rows = condition_rows(model, settings, tables, cells, stored=stored)
    return [row | {"headline": row["setting"] == HEADLINE, "split": split} for row in rows]


def _can_measure(recipe: str, name: str) -> bool:
    """Say whether a recipe has its own row of a condition: a base for its task, and directions if needed."""
    condition = CONDITIONS[name]
    if name == "base":
        return recipe in (HEADLINE, MORE_PROFESSIONS)  # the other recipes share the headline's base
    return _selected(recipe) is not None or (condition.during is None and condition.at_test is None)


def condition_seeds(name: str, seeds: Sequence[int], rival_seeds: int) -> Sequence[int]:
    """Return the seeds of a condition: one for the base model, whose answers depend on no seed."""
    if name.startswith("base"):
        return seeds[:1]
    return seeds if name in MOST_SEEDS else seeds[:rival_seeds]


@functools.cache
def gender_task(
    model: str, split: str = "test", file: str | None = None, recipe: str = HEADLINE
) -> tuple[Any, Task]:
    """Return the model and the task, whose sentences are about the professions of the recipe."""
    loaded, tokenizer = load(model)
    professions = PROFESSIONS if recipe == MORE_PROFESSIONS else PROFESSIONS_OF_RELEASE
    items = gender_items(published_file("gender", file), professions=professions)
    task = gender_choice(
        tokenizer, items=items, rows=None, questions=None, split=split, prompt_format=WORD_FORMAT
    )
    return loaded, task


def gender_setting(model: str, recipe: str, split: str = "test", file: str | None = None) -> Setting:
    """Return the setting of a recipe; its directions are found when they are first asked for."""
    loaded, task = gender_task(model, split, file, recipe)
    read_in = HEADLINE if recipe == MORE_PROFESSIONS else recipe
    find = functools.cache(functools.partial(_directions, model, read_in, file))

    def directions(name: str, seed: int) -> Directions:
        return find("read").random_like(seed) if name == "random" else find(name)

    rows = task.train[:READ_ROWS]
    mean = functools.cache(lambda tokens: mean_hidden(loaded, rows, LAYERS, tokens=tokens))
    key = {"references": REFERENCES, "rows": rows.fingerprint, "layers": LAYERS, "read": _selected(recipe)}
    return Setting(recipe, loaded, task, RECIPES[recipe], directions, mean, SNAPSHOTS, key)


def _selected(recipe: str) -> dict[int, list[int]] | None:
    """Return the components that the blind reader selected, or None where nobody has read them."""
    try:
        return annotation(f"{MODEL}, gender, {HEADLINE if recipe == MORE_PROFESSIONS else recipe}").ticks
    except KeyError:
        return None


def components_of_case(recipe: str) -> dict[int, list[int]]:
    """Return the components that the blind reader named after grammatical case and nothing else first."""
    read: dict[int, list[int]] = {}
    for (layer, i), name in annotation(f"{MODEL}, gender, {recipe}").names.items():
        if name.startswith("case") and "mixed" not in name:
            read.setdefault(layer, []).append(i)
    return read


def references(model: str, recipe: str, file: str | None = None) -> list[Any]:
    """Return the plain fine-tunings whose change is decomposed."""
    loaded, task = gender_task(model, "valid", file)
    return [
        finetune(loaded, task.train, RECIPES[recipe], seed=seed, snapshots=SNAPSHOTS) for seed in REFERENCES
    ]


def components(model: str, recipe: str, file: str | None = None) -> Directions:
    """Return the components of the references' change at the last token of the prompt."""
    loaded, task = gender_task(model, "valid", file)
    rows = task.train[:READ_ROWS]
    return pca_of_difference(
        references(model, recipe, file), loaded, rows, layers=LAYERS, k=COMPONENTS, **READ
    )


def _directions(model: str, recipe: str, file: str | None, name: str) -> Directions:
    loaded, task = gender_task(model, "valid", file)
    rows, found = task.train[:READ_ROWS], components(model, recipe, file)
    if name == "labels":
        return found.select(components_by_labels(model, recipe, file))
    read = found.select(annotation(f"{MODEL}, gender, {recipe}").ticks)
    if name == "read":
        return read
    if name == "case":
        return found.select(components_of_case(recipe))
    if name == "first":
        return found.select({layer: [0] for layer in found.layers})
    if name == "top":
        return found.select({layer: range(rank) for layer, rank in read.ranks.items()})
    if name == "mean difference":
        return mean_difference(references(model, recipe, file), loaded, rows, read.layers, **READ)
    if name == "class means":
        tuned = references(model, recipe, file)[0]
        labels = [gender for gender, _ in row_labels(rows)]
        return class_means(tuned, rows, labels, read.layers, **READ)
    raise ValueError(f"unknown directions {name!r}")


def row_labels(rows: Chats) -> list[tuple[str, str]]:
    """Return the gender and the case of the right pronoun of each training row."""
    labels = {"he": ("male", "nominative"), "him": ("male", "object")}
    labels |= {"she": ("female", "nominative"), "her": ("female", "object")}
    return [labels[row["messages"][-1]["content"].strip()] for row in rows.rows]


def last_prompt_projections(model: Any, rows: Chats, found: Directions) -> dict[int, torch.Tensor]:
    """Return the projections of each row's last prompt token on the directions, {layer: [rows, k]}."""
    out = {layer: torch.full((len(rows), rank), torch.nan) for layer, rank in found.ranks.items()}
    for batch in stream_activations(model, rows, found.layers, **READ):
        for layer, values in out.items():
            # Batches hold rows of like length, so they come in another order than the rows.
            values[batch.row] = batch.hidden[layer].cpu() @ found[layer].float().T
    return out


def components_by_labels(model: str, recipe: str, file: str | None = None) -> dict[int, list[int]]:
    """Return the components that separate the genders better than the cases, by labels of training rows.

    The distance of two classes is d', the difference of their means over their pooled standard deviation. A
    component is chosen if its d' of gender exceeds 1 and its d' of case.
    """
    _, task = gender_task(model, "valid", file)
    rows, found = task.train[:READ_ROWS], components(model, recipe, file)
    values = last_prompt_projections(references(model, recipe, file)[0], rows, found)
    labels = row_labels(rows)
    male = torch.tensor([gender == "male" for gender, _ in labels])
    subject = torch.tensor([case == "nominative" for _, case in labels])
    chosen: dict[int, list[int]] = {}
    for layer, x in values.items():
        gender, case = _d_prime(x, male), _d_prime(x, subject)
        if picked := [i for i in range(x.shape[1]) if gender[i] > max(1.0, float(case[i]))]:
            chosen[layer] = picked
    return chosen


def _d_prime(x: torch.Tensor, positive: torch.Tensor) -> torch.Tensor:
    a, b = x[positive], x[~positive]
    return (a.mean(0) - b.mean(0)).abs() / ((a.var(0) + b.var(0)) / 2).sqrt()
