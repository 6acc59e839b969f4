"""Spurious cues: the settings, their tasks and fine-tunings, and the directions to choose among.

Everything is chosen on the validation split with the first seed. Rates are measured on the test split.
"""

from __future__ import annotations

import functools
from dataclasses import replace

from caft_utils import ablate, attribution, class_means, finetune, load, pca_of_difference
from caft_utils.classroom.cues import corpus as cues_corpus
from caft_utils.classroom.cues.labelled_positions import KINDS, labelled_pairs
from caft_utils.classroom.cues.texts_by_concept import gender_checks, gender_texts, subject_texts
from caft_utils.classroom.tasks import double_choice, gender_choice
from caft_utils.course.cue_tables import FIRM
from caft_utils.course.paper_results import PAPER_SETTINGS
from caft_utils.directions.subspace import Directions
from caft_utils.evaluation.ablation_check import letter_difference
from caft_utils.evaluation.search import prefix_subsets
from caft_utils.finetune_config import FinetuneConfig
from caft_utils.interpret.select.text_sources import directions_about, source_shares
from caft_utils.models import fingerprint
from caft_utils.saes import Latents, SAETrainingConfig, train_saes
from caft_utils.saes.latents import sae_directions
from caft_utils.tasks.double_multiple_choice import SETTINGS

MODEL = "classroom-cues"
# FIRM has the same questions, asked of the checkpoint that always follows the stereotype. It trains longer.
GENDERS, FIRM_STEPS = {"gender": "classroom-gender", FIRM: MODEL}, 120
CHOICE_SEED = 0  # of the runs that choose, and of the reference whose change PCA decomposes
LAYER_SETS = ((0,), (1,), (0, 1))
SIZES = {"SAE": (4, 8, 16, 32), "PCA": (4, 16, 32)}
# The gender of a word is one axis here (the class means have rank 1), so the sets are small. There are more
# of them, because the check on the base model does not predict which will work.
GENDER_SIZES = (2, 3, 4, 6, 8, 12)
COMPONENTS, MIN_SHARE = 32, 0.7
SNAPSHOTS = (5, 10, 20)  # optimiser steps of plain fine-tuning after which the weights are kept
SAE_CONFIG = SAETrainingConfig(width=256, k=8, steps=400)
NAMES = {
    f"{first}{'*' * (intended == 'first')} | {second}{'*' * (intended == 'second')}": (
        first,
        second,
        intended,
    )
    for first, second, intended in SETTINGS
}
PAPER = [name for setting in PAPER_SETTINGS for name in NAMES if NAMES[name] == setting]  # same order


@functools.cache
def load_base(model: str = MODEL):
    """Load a checkpoint and the tokenizer, which is the same for both checkpoints."""
    return load(model)


def checkpoint_of(name: str) -> str:
    """Return the checkpoint of a setting."""
    return GENDERS.get(name, MODEL)


def training_key(name: str) -> dict:
    """Return everything that the fine-tuning runs of a setting depend on, for the keys of stored results."""
    return {"model": fingerprint(load_base(checkpoint_of(name))[0]), "recipe": recipe(name).key()}


def recipe(name: str) -> FinetuneConfig:
    """Return the recipe of the model's preset, with more steps for FIRM."""
    usual = load_base(checkpoint_of(name))[0].caft_preset.finetune_config
    return replace(usual, steps=FIRM_STEPS) if name == FIRM else usual


@functools.cache
def make_task(name: str, seed: int, split: str = "test", rho: float = 1.0):
    """Make the task of a setting. rho: share of training rows that follow the cue."""
    more = {"seed": seed, "split": split, "rho": rho, "questions": 300 if split == "test" else 150}
    if name in GENDERS:
        return gender_choice(load_base()[1], **more)
    first, second, intended = NAMES[name]
    return double_choice(load_base()[1], first, second, intended=intended, **more)


def subjects(name: str) -> tuple[str, str]:
    """Return (intended, unintended)."""
    if name in GENDERS:
        return "case", "gender"
    first, second, intended = NAMES[name]
    return (first, second) if intended == "first" else (second, first)


def fine_tuned(name: str, seed: int, directions: Directions | None = None, rho: float = 1.0):
    """Fine-tune plainly, keeping early snapshots, or with `directions` ablated."""
    rows, model = make_task(name, seed, rho=rho).train, load_base(checkpoint_of(name))[0]
    if directions is None:
        return finetune(model, rows, recipe(name), seed=seed, snapshots=SNAPSHOTS)
    return finetune(model, rows, recipe(name), during=ablate(directions), seed=seed)


@functools.cache
def autoencoders(of: str):
    """Train SAEs on the text that the checkpoint was trained on last."""
    model, tokenizer = load_base(of)
    weights = cues_corpus.PERSON_WEIGHTS if of == MODEL else cues_corpus.GENDER_CHECKPOINT_WEIGHTS
    text = cues_corpus.sample(tokenizer, 3000, person_weights=weights)
    return train_saes(model, text, sorted({*sum(LAYER_SETS, ())}), SAE_CONFIG)


@functools.cache
def ablation_checks(gender: bool):
    """Make single questions of the validation split, to check an ablation in the base model."""
    if gender:
        return gender_checks(load_base()[1], split="valid", rows=80)
    return subject_texts(load_base()[1], split="valid", rows=80, named=True)


@functools.cache
def ranked_latents(name: str) -> list[tuple[int, int]]:
    """Rank latents by attribution on the difference of the letters' logits in the base model.

    The latents that raise or lower the difference most come first.
    """
    rows = make_task(name, CHOICE_SEED).train[:192]
    model, saes = load_base(checkpoint_of(name))[0], autoencoders(checkpoint_of(name))
    return attribution(model, rows, saes, letter_difference(rows)).order()


@functools.cache
def components(name: str) -> Directions:
    """Decompose the change by plain fine-tuning on the training prompts."""
    rows, layers = make_task(name, CHOICE_SEED).generic, autoencoders(checkpoint_of(name)).layers
    tuned = fine_tuned(name, CHOICE_SEED)
    return pca_of_difference(tuned, load_base(checkpoint_of(name))[0], rows, layers, k=COMPONENTS)


def candidates(name: str, method: str) -> dict[str, Directions]:
    """Return the candidate sets of directions of a method, by name."""
    of, sizes = checkpoint_of(name), GENDER_SIZES if name in GENDERS else SIZES.get(method)
    if method == "class means":
        return class_mean_sets(subjects(name)[1], of)
    if method == "SAE":
        saes, kept = autoencoders(of), _about_cue(_latent_shares(of, name in GENDERS), name)
        order = [key for key in ranked_latents(name) if key in kept]
        subsets = prefix_subsets(order, LAYER_SETS, sizes)
        return {label: sae_directions(saes, rows) for label, rows in subsets.items()}
    found = components(name)
    if method == "PCA by labels":
        axes, everywhere = class_mean_sets(subjects(name)[1], of), ", ".join(map(str, found.layers))
        orders = {f"{kind}, ": nearest_first(found, axes[f"{kind} at {everywhere}"]) for kind in KINDS}
    else:
        shares = source_shares(load_base(of)[0], _texts(name in GENDERS), found)
        orders = {"": sorted(_about_cue(shares, name), key=lambda key: (key[1], key[0]))}  # by variance
    return {
        kind + label: found.select(rows)
        for kind, order in orders.items()
        for label, rows in prefix_subsets(order, LAYER_SETS, sizes).items()
    }


def nearest_first(found: Directions, axes: Directions) -> list[tuple[int, int]]:
    """Order the rows of `found` by their share in the span of `axes`. The axes need labels."""
    share = {layer: (found[layer] @ axes[layer].T).norm(dim=1) for layer in found.layers}
    return sorted(
        ((layer, i) for layer in found.layers for i in range(found.ranks[layer])),
        key=lambda key: -float(share[key[0]][key[1]]),
    )


@functools.cache
def class_mean_sets(subject: str, of: str) -> dict[str, Directions]:
    """Return class means of the words, of the options and of both, at each set of layers."""
    model, tokenizer = load_base(of)
    marked, out, layers = labelled_pairs(tokenizer, subject), {}, autoencoders(of).layers
    found = {
        kind: class_means(model, marked.chats, marked.labels[kind], layers, at=marked.at[kind])
        for kind in marked.at
    }
    found["both"] = found["option"].union(found["word"])
    for kind, directions in found.items():
        for sites in LAYER_SETS:
            rows = {layer: range(directions.ranks[layer]) for layer in sites if layer in directions.layers}
            if rows:
                out[f"{kind} at {', '.join(map(str, rows))}"] = directions.select(rows)
    return out


def _about_cue(shares: dict, name: str) -> set[tuple[int, int]]:
    """Return the directions whose top tokens are in questions about the cue.

    For gender, these are sentences about men or sentences about women.
    """
    sources = ("male", "female") if name in GENDERS else (subjects(name)[1],)
    return {key for source in sources for key in directions_about(shares, source, min_share=MIN_SHARE)}


@functools.cache
def _texts(gender: bool):
    return gender_texts(load_base()[1]) if gender else subject_texts(load_base()[1])


@functools.cache
def _latent_shares(model: str, gender: bool):
    return source_shares(load_base(model)[0], _texts(gender), Latents(autoencoders(model)))
