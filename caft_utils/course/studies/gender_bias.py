"""Gender bias on a real model, with the published sentences: CAFT, its rivals and its controls.

The task is that of the paper's section 6. The model answers with the word (he, she, him or her), because a
model of this size does not use letters reliably. In training every pronoun has the gender that the profession
suggests. "ood" questions have the other gender, so only grammatical case gives the right answer.

Directions are the components of (tuned - base) at the last token of the prompt, where the answer is formed.
They come from fine-tuning runs with seeds that are never measured. A reader selected components blind
(data/annotations.yaml). A selection by labels of training rows is the upper bound.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import torch

from caft_utils import class_means, load, mean_difference, pca_of_difference
from caft_utils.course.annotations import annotation
from caft_utils.course.studies import gender_latents
from caft_utils.course.studies.conditions import Setting
from caft_utils.course.studies.gender_conditions import (
    CONDITIONS,
    EVERY_CONDITION,
    FAMILIES,
    HARM,
    SNAPSHOTS,
    TASK,
    condition_seeds,
)
from caft_utils.course.studies.gender_labels import (
    READ,
    d_prime,
    last_prompt_values,
    row_labels,
    rows_by_gender,
)
from caft_utils.course.studies.gender_material import make_gender_material
from caft_utils.course.studies.gender_recipes import (
    COMPONENTS,
    HEADLINE,
    LAYERS,
    MODEL,
    MORE_PROFESSIONS,
    READ_ROWS,
    RECIPES,
    REFERENCES,
)
from caft_utils.course.studies.real_model import condition_rows
from caft_utils.course.studies.references import reference_runs
from caft_utils.course.studies.rival_grids import rival_rows
from caft_utils.course.studies.study_rows import Row, chosen_conditions
from caft_utils.directions import (
    Eraser,
    class_contrast,
    difference_scatter,
    leace,
    mean_hidden,
    random_with_variance,
)
from caft_utils.directions.subspace import Directions
from caft_utils.rivals import increments, random_vectors, steering_vectors
from caft_utils.tasks.gender import (
    PROFESSIONS,
    PROFESSIONS_OF_RELEASE,
    WORD_FORMAT,
    ItemsOf,
    gender_choice,
    gender_items,
)
from caft_utils.tasks.published_data import published_file
from caft_utils.tasks.task import Task


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

    conditions: names of `EVERY_CONDITION`; None: those of `CONDITIONS`.
    file: the user's own copy of the published sentences; None downloads them. split: "valid" to choose,
    "test" to report. recipes: keys of `RECIPES`; where nobody has read the components, only the conditions
    without directions are measured. rival_seeds: seeds of all conditions but those of `MOST_SEEDS`.
    stored: measure nothing and return what was measured before.
    """
    names = chosen_conditions(tuple(CONDITIONS) if conditions is None else conditions, EVERY_CONDITION)
    chosen_conditions(tuple(recipes), RECIPES)
    tables = {
        recipe: {name: EVERY_CONDITION[name] for name in names if _can_measure(recipe, name)}
        for recipe in recipes
    }
    cells = {
        (recipe, name): condition_seeds(name, seeds, rival_seeds)
        for recipe, table in tables.items()
        for name in table
    }
    settings = {recipe: functools.partial(gender_setting, model, recipe, split, file) for recipe in recipes}
    rows = condition_rows(model, settings, tables, cells, stored=stored)
    return [row | {"headline": row["setting"] == HEADLINE, "split": split} for row in rows]


def gender_rival_rows(
    model: str,
    seeds: Sequence[int],
    conditions: tuple[str, ...] | None = None,
    *,
    file: str | None = None,
    recipe: str = HEADLINE,
    stored: bool = False,
) -> list[Row]:
    """Measure every rival at all its settings on validation rows, and the chosen one on test rows.

    conditions: names of `FAMILIES`; None: all. See `rival_rows` for the rule, and `gender_rows` for the rest.
    """
    table = {name: FAMILIES[name] for name in chosen_conditions(conditions, FAMILIES)}

    def rows_of(split: str, seeds: Sequence[int], names: Sequence[str]) -> list[Row]:
        options = {"file": file, "split": split, "recipes": (recipe,), "stored": stored}
        return gender_rows(model, seeds, tuple(names), **options)

    return rival_rows(rows_of, table, seeds, task=TASK, harm=HARM)


def _can_measure(recipe: str, name: str) -> bool:
    """Return whether a recipe has its own row of a condition: its own base, and directions if needed."""
    condition = EVERY_CONDITION[name]
    if name == "base":
        return recipe in (HEADLINE, MORE_PROFESSIONS)  # the other recipes share the headline's base
    if "latents" in str(condition.during):
        return recipe == HEADLINE and gender_latents.is_read()  # latents are read in this recipe only
    return _selected(recipe) is not None or (condition.during is None and condition.at_test is None)


@functools.cache
def gender_task(
    model: str, split: str = "test", file: str | None = None, recipe: str = HEADLINE
) -> tuple[Any, Task]:
    """Return the model and the task, whose sentences are about the professions of the recipe."""
    loaded, tokenizer = load(model)
    items = _items(file, recipe)
    task = gender_choice(
        tokenizer, items=items, rows=None, questions=None, split=split, prompt_format=WORD_FORMAT
    )
    return loaded, task


def _items(file: str | None, recipe: str = HEADLINE) -> ItemsOf:
    professions = PROFESSIONS if recipe == MORE_PROFESSIONS else PROFESSIONS_OF_RELEASE
    return gender_items(published_file("gender", file), professions=professions)


def gender_setting(model: str, recipe: str, split: str = "test", file: str | None = None) -> Setting:
    """Return the setting of a recipe. Its directions are computed on first use."""
    loaded, task = gender_task(model, split, file, recipe)
    read_in = _read_in(recipe)
    find = functools.cache(functools.partial(_directions, model, read_in, file))

    def directions(name: str, seed: int) -> Directions:
        if "latents" in name:
            return gender_latents.latent_directions(name, *latents(), seed=seed)
        if name == "random with variance":
            return random_with_variance(find("read"), scatter(), seed=seed)
        return find("read").random_like(seed) if name == "random" else find(name)

    @functools.cache
    def latents() -> tuple[Any, list[tuple[int, int]]]:
        saes = gender_latents.autoencoders(loaded, task.train)
        return saes, gender_latents.changed_latents(references(model, read_in, file), loaded, rows, saes)

    @functools.cache
    def scatter() -> dict[int, torch.Tensor]:
        tuned = references(model, read_in, file)
        return difference_scatter(tuned, loaded, rows, find("read").layers, **READ)

    def vectors(name: str, seed: int) -> dict[int, torch.Tensor]:
        if name == "gender":
            return steering_vectors(_gender_contrast(model, read_in, file, find("read").layers))
        found = increments(steering_vectors(find("mean difference")))
        return random_vectors(found, seed) if name == "random trait" else found

    @functools.cache
    def mean(tokens: str) -> dict[int, torch.Tensor]:
        if tokens == "female":
            _, female = rows_by_gender(rows)
            return mean_hidden(references(model, read_in, file)[0], female, LAYERS, **READ)
        return mean_hidden(loaded, rows, LAYERS, tokens=tokens)

    def eraser(name: str) -> Eraser:
        labels = [gender for gender, _ in row_labels(rows)]
        return leace(references(model, read_in, file)[0], rows, labels, find("read").layers, **READ)

    rows = task.train[:READ_ROWS]
    key = {"references": REFERENCES, "rows": rows.fingerprint, "layers": LAYERS, "read": _selected(recipe)}
    material = functools.cache(lambda: make_gender_material(task.train.tokenizer, _items(file, recipe)))
    more = {"vectors": vectors, "eraser": functools.cache(eraser), "material": material}
    latent_key = functools.cache(lambda: gender_latents.key_of_latents(task.train))
    more["more_keys"] = dict.fromkeys(("latents", "top latents", "random latents"), latent_key)
    return Setting(recipe, loaded, task, RECIPES[recipe], directions, mean, SNAPSHOTS, key, **more)


def _gender_contrast(model: str, recipe: str, file: str | None, layers: Sequence[int]) -> Directions:
    """Return male minus female in the first reference, which has learnt to distinguish them."""
    _, task = gender_task(model, "valid", file)
    male, female = rows_by_gender(task.train[:READ_ROWS])
    return class_contrast(references(model, recipe, file)[0], male, female, layers, **READ)


def _read_in(recipe: str) -> str:
    """Return the recipe whose components the reader read for this recipe."""
    return HEADLINE if recipe == MORE_PROFESSIONS else recipe


def _selected(recipe: str) -> dict[int, list[int]] | None:
    """Return the components that the blind reader selected, or None if nobody has read them."""
    try:
        return annotation(f"{MODEL}, gender, {_read_in(recipe)}").selection
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
    """Return the plain fine-tuning runs whose change is decomposed."""
    loaded, task = gender_task(model, "valid", file)
    return reference_runs(loaded, task.train, RECIPES[recipe], REFERENCES, SNAPSHOTS)


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
    read = found.select(annotation(f"{MODEL}, gender, {recipe}").selection)
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


def components_by_labels(model: str, recipe: str, file: str | None = None) -> dict[int, list[int]]:
    """Return the components that separate the genders better than the cases, by labels of training rows.

    The distance of two classes is d', the difference of their means over their pooled standard deviation. A
    component is chosen if its d' of gender exceeds 1 and its d' of case.
    """
    _, task = gender_task(model, "valid", file)
    rows, found = task.train[:READ_ROWS], components(model, recipe, file)
    values = last_prompt_values(references(model, recipe, file)[0], rows, found)
    labels = row_labels(rows)
    male = torch.tensor([gender == "male" for gender, _ in labels])
    subject = torch.tensor([case == "nominative" for _, case in labels])
    chosen: dict[int, list[int]] = {}
    for layer, x in values.items():
        gender, case = d_prime(x, male), d_prime(x, subject)
        if picked := [i for i in range(x.shape[1]) if gender[i] > max(1.0, float(case[i]))]:
            chosen[layer] = picked
    return chosen
