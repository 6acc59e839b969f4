"""Check reading against the known truth: which latent detects the villain, and whether scores are valid."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import torch

from caft_utils.classroom.f1_detectors import best_f1, f1_at, max_per_message
from caft_utils.classroom.message_labels import LabelledChats
from caft_utils.classroom.personas.labels import labelled_chats
from caft_utils.classroom.score_validity import (
    label_explanation,
    labelled_directions,
    score_explanations,
    validity_of_scores,
)
from caft_utils.course.studies.persona import PersonaSetting
from caft_utils.evaluation.scores import mean_score
from caft_utils.interpret.examples import collect_examples
from caft_utils.interpret.score import (
    Detection,
    Embedding,
    Fuzzing,
    InterventionScore,
    Simulation,
    SteeredGenerator,
    Surprisal,
    score_all,
)
from caft_utils.interpret.score.controls import shuffle_activations
from caft_utils.interpret.score.word_overlap import WordOverlap
from caft_utils.saes import Latents

VILLAIN = "persona: villain"
WHERE = ("active", "other")  # the windows in which fuzzing marks wrong tokens


def villain_latent(setting: PersonaSetting, saes) -> dict[str, Any]:
    """Find the latent that detects the villain best, and as a control the best of as many random directions.

    Latent and threshold are chosen on one text, and F1 is also measured on held-out wordings. The unit is a
    system prompt or an answer that shows a persona: villain against kind.
    """
    model, tokenizer = setting.model, setting.tokenizer
    seen, unseen = (
        _with_persona(text)
        for text in (
            labelled_chats(tokenizer, 1000),
            labelled_chats(tokenizer, 500, seed=1, split="held_out"),
        )
    )
    random_rows = {}
    for layer in saes.layers:
        generator = torch.Generator().manual_seed(layer)
        shape = Latents(saes).vector(layer, 0).shape[0], len(Latents(saes).indices(layer))
        random_rows[layer] = torch.nn.functional.normalize(torch.randn(shape, generator=generator), dim=0)
    best = _best_detector(model, seen, unseen, saes.layers, saes.encode)
    chance = _best_detector(model, seen, unseen, saes.layers, lambda layer, h: h @ random_rows[layer])
    return best | {"f1_held_out_of_random": chance["f1_held_out"]}


def score_validity(setting: PersonaSetting, saes) -> dict[str, Any]:
    """Score right and wrong explanations of directions with a known label, and two controls.

    Returns:
        directions: how many have a known label. scores: figures of `validity_of_scores` by score.
        controls: mean scores of random explanations and of shuffled directions.
    """
    model, tokenizer = setting.model, setting.tokenizer
    text = labelled_chats(tokenizer, 1000, seed=2)
    known, examples, vectors = _known_with_examples(setting, saes, text)
    judge = WordOverlap()
    prompts = [question.messages for question in setting.task.question_set("ood")[::15]]
    generator = SteeredGenerator(model, tokenizer, prompts)
    detection, fuzzing = Detection(judge), Fuzzing(judge)

    def score(explanation, one):
        key = (one.noun, *one.key)
        scorers = [
            detection,
            fuzzing,
            Surprisal(model, tokenizer),
            Embedding(),
            InterventionScore(judge, generator, lambda *_: vectors[key]),
            Simulation(judge),
        ]
        found = score_all(scorers, explanation, examples[key])
        marks = {f"fuzzing {where}": found["fuzzing"].extra.get(f"in_{where}_windows") for where in WHERE}
        return {name: each.value for name, each in found.items()} | marks

    rows = score_explanations(known, score)
    controls, rng = {}, random.Random(0)
    # The control draws from all labels, so it is occasionally right. A wrong label scores below chance,
    # because the text that it describes is among the windows in which the direction is inactive.
    drawn = [label_explanation(rng.choice(text.labels)) for _ in known]
    for name, of in (("detection", detection), ("fuzzing", fuzzing)):
        at_random, dealt = [], []
        for one, other in zip(known, drawn):
            each = examples[one.noun, *one.key]
            at_random.append(of(other, each).value)
            dealt.append(of(label_explanation(one.label), shuffle_activations(each)).value)
        controls[name] = {
            "right explanation": _mean([r["scores"][name] for r in rows if r["right"]]),
            "wrong explanation": _mean([r["scores"][name] for r in rows if not r["right"]]),
            "random explanation": _mean(at_random),
            "shuffled direction": _mean(dealt),
        }
    return {"directions": len(known), "scores": validity_of_scores(rows), "controls": controls}


def _best_detector(model, seen: LabelledChats, unseen: LabelledChats, layers, values: Callable) -> dict:
    """Find the feature that detects the villain best; values(layer, hidden [n, d]) -> [n, feature]."""
    truth, best = seen.truth(VILLAIN), (0.0, 0, 0, 0.0)
    for layer in layers:
        f1, threshold = best_f1(
            max_per_message(model, seen, layer, lambda h, layer=layer: values(layer, h)), truth
        )
        best = max(best, (float(f1.max()), layer, int(f1.argmax()), float(threshold[f1.argmax()])))
    f1, layer, index, threshold = best
    held_out = max_per_message(model, unseen, layer, lambda h: values(layer, h)[:, [index]])[:, 0]
    about = {"layer": layer, "latent": index, "f1": f1}
    return about | {"f1_held_out": f1_at(held_out, unseen.truth(VILLAIN), threshold)}


def _with_persona(text: LabelledChats) -> LabelledChats:
    shows = [m for m in text.messages if any(label.startswith("persona") for label in m.labels)]
    return LabelledChats(text.chats, shows)


def _known_with_examples(setting: PersonaSetting, saes, text: LabelledChats):
    """Return directions with a known label, and by (noun, layer, index, side) their examples and vectors."""
    model = setting.model
    chats = labelled_chats(setting.tokenizer, 2000, seed=3).chats
    known, examples, vectors = [], {}, {}
    for features in (setting.components, Latents(saes)):
        some = labelled_directions(model, text, features)
        known += some
        ids = {
            layer: sorted({one.key[1] for one in some if one.key[0] == layer}) for layer in features.layers
        }
        ids = {layer: of_layer for layer, of_layer in ids.items() if of_layer}
        part = Latents(saes, ids) if features.kind == "latent" else setting.components.select(ids)
        for (layer, i, side), each in collect_examples(model, chats, part).items():
            number = i if features.kind == "latent" else ids[layer][i]
            examples[features.kind, layer, number, side] = each
            vectors[features.kind, layer, number, side] = part.vector(layer, i)
    return [one for one in known if (one.noun, *one.key) in examples], examples, vectors


def _mean(values: list[float]) -> list[float]:
    """Return the mean over directions with its 95 % interval."""
    score = mean_score("mean", values)
    return [round(score.value, 4), round(score.low, 4), round(score.high, 4)]
