"""The exhibit of the claims about spurious cues: settings, directions and how they are chosen, measurements.

Everything is chosen on the validation split with the first seed; figures are of the test split with SEEDS.
"""

from __future__ import annotations

import functools
import json
import os
from dataclasses import asdict, replace
from pathlib import Path

from caft_utils import ablate, attribution, class_means, finetune, load, pca_of_difference
from caft_utils.classroom.cues import corpus as cues_corpus
from caft_utils.classroom.cues.labels import KINDS, gender_checks, gender_texts, marked_pairs, single_texts
from caft_utils.classroom.tasks import double_choice, gender_choice
from caft_utils.course.pages import FIRM
from caft_utils.directions.subspace import Directions
from caft_utils.evaluation.ablation_check import letter_difference
from caft_utils.evaluation.search import prefix_subsets, screen_on_base, try_candidates
from caft_utils.finetune_config import FinetuneConfig
from caft_utils.interpret.select.text_sources import about, source_shares
from caft_utils.models import fingerprint
from caft_utils.saes import Latents, SAETrainingConfig, train_saes
from caft_utils.saes.latents import sae_directions
from caft_utils.store import default_store
from caft_utils.tasks.double_choice import PAPER_SETTINGS, SETTINGS

# FIRM: the same questions to the checkpoint that has the stereotype fully, with a recipe for it.
GENDERS = {"gender": "classroom-gender", FIRM: "classroom-cues"}
MODEL, FIRM_STEPS = "classroom-cues", 120
SEEDS = tuple(range(int(os.environ.get("SEEDS", 5))))
CHOICE = 0  # seed of the fine-tunings that choose, and of the reference whose change PCA takes apart
VERSION = 2  # raise it when directions or measurements are made in another way
SITES = ((0,), (1,), (0, 1))
SIZES = {"SAE": (4, 8, 16, 32), "PCA": (4, 16, 32)}
COMPONENTS, LEAST = 32, 0.7
TRIALS = {"class means": 2, "SAE": 2, "PCA": 3}  # fine-tunings that choose, at most
ENOUGH = 0.95  # validation accuracy that ends them
# Gender of a word is one axis here (the class means have rank 1), so small sets are tried, and more of them,
# for the pre-check does not foretell which will do.
FEW, FEW_TRIALS = (2, 3, 4, 6, 8, 12), 12
STEPS = (5, 10, 20)
RECIPE = SAETrainingConfig(width=256, k=8, steps=400)
NAMES = {
    f"{first}{'*' * (intended == 'first')} | {second}{'*' * (intended == 'second')}": (
        first,
        second,
        intended,
    )
    for first, second, intended in SETTINGS
}
PAPER = [name for setting in PAPER_SETTINGS for name in NAMES if NAMES[name] == setting]  # in its order


@functools.cache
def base(model: str = MODEL):
    """Model and tokenizer, which is the same for both checkpoints."""
    return load(model)


def model_of(name: str) -> str:
    """The checkpoint of a setting."""
    return GENDERS.get(name, MODEL)


def trained_by(name: str) -> dict:
    """What every fine-tuning of a setting depends on, for the keys of stored results."""
    return {"model": fingerprint(base(model_of(name))[0]), "recipe": asdict(recipe(name))}


def recipe(name: str) -> FinetuneConfig:
    """Of the model's preset, longer for FIRM."""
    usual = FinetuneConfig(**base(model_of(name))[0].caft_preset.recipe)
    return replace(usual, steps=FIRM_STEPS) if name == FIRM else usual


@functools.cache
def task(name: str, seed: int, split: str = "test", rho: float = 1.0):
    more = {"seed": seed, "split": split, "rho": rho, "questions": 300 if split == "test" else 150}
    if name in GENDERS:
        return gender_choice(base()[1], **more)
    first, second, intended = NAMES[name]
    return double_choice(base()[1], first, second, intended=intended, **more)


def roles(name: str) -> tuple[str, str]:
    """(intended, unintended)."""
    if name in GENDERS:
        return "case", "gender"
    first, second, intended = NAMES[name]
    return (first, second) if intended == "first" else (second, first)


def tuned(name: str, seed: int, directions: Directions | None = None, rho: float = 1.0):
    """Plain, or under an ablation; of plain runs early steps are kept."""
    rows, model = task(name, seed, rho=rho).train, base(model_of(name))[0]
    if directions is None:
        return finetune(model, rows, recipe(name), seed=seed, snapshots=STEPS)
    return finetune(model, rows, recipe(name), during=ablate(directions), seed=seed)


@functools.cache
def autoencoders(of: str):
    """Trained on what the checkpoint was trained on last."""
    model, tokenizer = base(of)
    persons = cues_corpus.PERSONS if of == MODEL else cues_corpus.UNSETTLED
    text = cues_corpus.sample(tokenizer, 3000, persons=persons)
    return train_saes(model, text, sorted({*sum(SITES, ())}), RECIPE)


@functools.cache
def checks(gender: bool):
    """Single questions of the validation split, for the pre-check."""
    if gender:
        return gender_checks(base()[1], split="valid", rows=80)
    return single_texts(base()[1], split="valid", rows=80, named=True)


def belonging(shares: dict, name: str) -> set[tuple[int, int]]:
    """Directions about the unintended subject: their top tokens stand in its questions.

    For gender: in sentences about men, or in those about women.
    """
    wanted = ("male", "female") if name in GENDERS else (roles(name)[1],)
    return {key for source in wanted for key in about(shares, source, least=LEAST)}


@functools.cache
def texts(gender: bool):
    return gender_texts(base()[1]) if gender else single_texts(base()[1])


@functools.cache
def shares_of_latents(model: str, gender: bool):
    return source_shares(base(model)[0], texts(gender), Latents(autoencoders(model)))


@functools.cache
def ranking(name: str):
    """Latents by attribution on the difference of the letters' logits, in the base model."""
    rows = task(name, CHOICE).train[:192]
    model, saes = base(model_of(name))[0], autoencoders(model_of(name))
    return attribution(model, rows, saes, letter_difference(rows))


def ranked(name: str) -> list[tuple[int, int]]:
    """All latents, those first that raise or lower the difference most."""
    both = ranking(name).top(10**6) + ranking(name).top(10**6, end="-")
    return [(layer, i) for layer, i, _ in sorted(both, key=lambda entry: -abs(entry[2]))]


@functools.cache
def components(name: str) -> Directions:
    """Of what plain fine-tuning changes, on the training prompts."""
    rows, layers = task(name, CHOICE).generic, autoencoders(model_of(name)).layers
    return pca_of_difference(tuned(name, CHOICE), base(model_of(name))[0], rows, layers, k=COMPONENTS)


def candidates(name: str, method: str) -> dict[str, Directions]:
    """What is to be chosen among, by name."""
    of, sizes = model_of(name), FEW if name in GENDERS else SIZES.get(method)
    if method == "class means":
        return supervised(roles(name)[1], of)
    if method == "SAE":
        saes, kept = autoencoders(of), belonging(shares_of_latents(of, name in GENDERS), name)
        order = [key for key in ranked(name) if key in kept]
        return {
            label: sae_directions(saes, rows) for label, rows in prefix_subsets(order, SITES, sizes).items()
        }
    found = components(name)
    if method == "PCA by labels":
        axes, everywhere = supervised(roles(name)[1], of), ", ".join(map(str, found.layers))
        orders = {f"{kind}, ": nearest(found, axes[f"{kind} at {everywhere}"]) for kind in KINDS}
    else:
        shares = source_shares(base(of)[0], texts(name in GENDERS), found)
        by_variance = sorted(belonging(shares, name), key=lambda key: (key[1], key[0]))
        orders = {"": by_variance}
    return {
        kind + label: found.select(rows)
        for kind, order in orders.items()
        for label, rows in prefix_subsets(order, SITES, sizes).items()
    }


def nearest(found: Directions, axes: Directions) -> list[tuple[int, int]]:
    """Rows of `found`, those first that lie most in the span of `axes`: an order that nobody has without
    labels."""
    share = {layer: (found[layer] @ axes[layer].T).norm(dim=1) for layer in found.layers}
    return sorted(
        ((layer, i) for layer in found.layers for i in range(found.ranks[layer])),
        key=lambda key: -float(share[key[0]][key[1]]),
    )


@functools.cache
def supervised(subject: str, of: str) -> dict[str, Directions]:
    """Class means of the words, of the options, and of both, at each group of sites."""
    model, tokenizer = base(of)
    marked, out, layers = marked_pairs(tokenizer, subject), {}, autoencoders(of).layers
    found = {
        kind: class_means(model, marked.chats, marked.labels[kind], layers, at=marked.at[kind])
        for kind in marked.at
    }
    found["both"] = found["option"].union(found["word"])
    for kind, directions in found.items():
        for sites in SITES:
            rows = {layer: range(directions.ranks[layer]) for layer in sites if layer in directions.layers}
            if rows:
                out[f"{kind} at {', '.join(map(str, rows))}"] = directions.select(rows)
    return out


@functools.cache
def chosen(name: str, method: str) -> tuple[Directions, dict]:
    """What is ablated, and the record of how it was chosen: screened in the base, then tried."""
    key = {"cues choice": VERSION, "name": name, "method": method, **trained_by(name)}

    def write(folder: Path) -> None:
        every, model = candidates(name, method), base(model_of(name))[0]
        intended, unintended = roles(name)
        keep = FEW_TRIALS if name in GENDERS else TRIALS[method]
        known = {"intended": intended, "unintended": unintended, "keep": keep}
        best = screen_on_base(model, every, checks(name in GENDERS), **known)
        asked = try_candidates(
            model,
            {label: every[label] for label in best},
            task(name, CHOICE, "valid"),
            recipe(name),
            seed=CHOICE,
            enough=ENOUGH,
        )
        label = asked.best
        every[label].save(folder / "directions")
        base_accuracy = {subject: round(rate.value, 4) for subject, rate in best[label].on.items()}
        about = {"best": label, "passes": best[label].passes, "base under ablation": base_accuracy}
        about |= {"ranks": every[label].ranks, "trials": asked.rows, "candidates": len(every)}
        (folder / "choice.json").write_text(json.dumps(about))

    folder = default_store().fetch("cues-choice", key, write)
    return Directions.load(folder / "directions"), json.loads((folder / "choice.json").read_text())
