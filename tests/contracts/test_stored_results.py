"""The contract of every function whose result is stored: a second call reads it. Add a function to CALLS."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch
from helpers.saes import random_sae

from caft_utils import Chats
from caft_utils.classroom.cues.tasks import single_choice
from caft_utils.classroom.message_labels import LabelledChats, LabelledMessage
from caft_utils.classroom.personas.ground_truth import header_states
from caft_utils.classroom.score_validity import labelled_directions
from caft_utils.directions import Directions, class_contrast, class_means, mean_difference, pca_of_difference
from caft_utils.evaluation.ablation_check import check_ablation, letter_accuracy, letter_difference
from caft_utils.evaluation.search import screen_on_base
from caft_utils.interpret.examples import collect_examples, extreme_windows
from caft_utils.interpret.select.concepts import Concept
from caft_utils.interpret.select.pipeline import read_and_select
from caft_utils.interpret.select.text_sources import source_shares
from caft_utils.interventions import ablate
from caft_utils.residual import capture, edit
from caft_utils.saes import (
    Latents,
    SAEs,
    attribution,
    difference_latents,
    latent_difference,
    sae_quality,
)
from caft_utils.tasks.items import Item
from caft_utils.tasks.task import Question

CONCEPT = Concept("asking", "Somebody asks something.", ["question"])
WORDS = "return self open file question import what are you with do".split()


@dataclass(frozen=True)
class Inputs:
    """What the functions read. `rows` are answered by one of two letters."""

    model: torch.nn.Module
    tuned: torch.nn.Module
    chats: Chats
    rows: Chats
    saes: SAEs
    directions: Directions

    @property
    def text(self) -> LabelledChats:
        messages = [
            LabelledMessage(row, 0, len(self.chats[row].input_ids), frozenset({f"kind: {'ab'[row % 2]}"}))
            for row in range(len(self.chats))
        ]
        return LabelledChats(self.chats, messages)

    @property
    def halves(self) -> dict[str, Chats]:
        return {"even": self.chats[::2], "odd": self.chats[1::2]}


def rows_of(directions: Directions):
    return {layer: directions[layer].tolist() for layer in directions.layers}, directions.about


def rows_of_ranking(ranking):
    return {layer: scores.tolist() for layer, scores in ranking.scores.items()}, dict(ranking.about)


def class_labels(chats):
    return [i % 2 for i in range(len(chats))]


def windows(i: Inputs, features):
    found = extreme_windows(i.model, i.chats, features, n=3, width=5)
    return {key: found[key] for key in found}


def screened(i: Inputs):
    both = {"files": i.rows, "other": i.rows[:8]}
    wanted = {"intended": "files", "unintended": "other"}
    return {k: (v.on, v.off) for k, v in screen_on_base(i.model, both, {"d": i.directions}, **wanted).items()}


def checked(i: Inputs):
    both, during = {"files": i.rows, "other": i.rows[:8]}, ablate(i.directions)
    check = check_ablation(i.model, both, during=during, intended="files", unintended="other")
    return check.on, check.off


def header(i: Inputs):
    asked = [Question(word, [{"role": "user", "content": word}], "files", "ood") for word in WORDS[:3]]
    return header_states(i.model, i.chats.tokenizer, asked).tolist()


CALLS = {
    "pca_of_difference": lambda i: rows_of(pca_of_difference(i.tuned, i.model, i.chats, [1, 0], k=3)),
    "mean_difference": lambda i: rows_of(mean_difference(i.tuned, i.model, i.chats, [0, 1])),
    "class_contrast": lambda i: rows_of(class_contrast(i.model, *i.halves.values(), [1])),
    "class_means": lambda i: rows_of(
        class_means(i.model, i.chats, class_labels(i.chats), [1], min_contrast=0.01)
    ),
    "sae_quality": lambda i: sae_quality(i.model, i.chats, i.saes, loss=True),
    "attribution": lambda i: rows_of_ranking(attribution(i.model, i.chats, i.saes)),
    "attribution of letters": lambda i: rows_of_ranking(
        attribution(i.model, i.rows, i.saes, letter_difference(i.rows))
    ),
    "latent_difference": lambda i: rows_of_ranking(latent_difference(i.tuned, i.model, i.chats, i.saes)),
    "difference_latents": lambda i: rows_of_ranking(difference_latents(i.tuned, i.model, i.chats, i.saes)),
    "extreme_windows of components": lambda i: windows(i, i.directions),
    "extreme_windows of latents": lambda i: windows(i, Latents(i.saes, {1: [3, 0]})),
    "collect_examples": lambda i: collect_examples(i.model, i.chats, i.directions, n=4, width=4),
    "read_and_select": lambda i: read_and_select(i.model, i.chats, i.directions, CONCEPT, n=4),
    "source_shares": lambda i: source_shares(i.model, i.halves, Latents(i.saes, {1: [3, 0]}), n=5),
    "letter_accuracy": lambda i: letter_accuracy(i.model, i.rows),
    "check_ablation": checked,
    "screen_on_base": screened,
    "header_states": header,
    "labelled_directions": lambda i: labelled_directions(i.model, i.text, i.directions, min_f1=0.0),
}


@pytest.fixture
def inputs(model, tiny, tokenizer) -> Inputs:
    generator = torch.Generator().manual_seed(0)
    words = [
        [WORDS[i] for i in torch.randint(len(WORDS), (14,), generator=generator).tolist()] for _ in range(24)
    ]
    asked = [
        [{"role": "user", "content": " ".join(row[:4])}, {"role": "assistant", "content": " ".join(row[4:])}]
        for row in words
    ]
    items = [Item(f"open {i}", "file", "question") for i in range(16)]
    return Inputs(
        model,
        tiny("qwen2", seed=1),
        Chats(tokenizer, [{"messages": messages} for messages in asked]),
        single_choice(tokenizer, items, word="files"),
        SAEs({1: random_sae()}),
        Directions({0: torch.randn(2, 64, generator=generator)}),
    )


@pytest.fixture(params=CALLS)
def call(request):
    return CALLS[request.param]


def stored_files(folder):
    files = (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock")
    return {path: path.stat().st_mtime_ns for path in files}


def no_forward(*args, **kwargs):
    raise AssertionError("the model ran")


def test_a_second_call_does_not_run_the_model(call, inputs, monkeypatch):
    first = call(inputs)
    monkeypatch.setattr(type(inputs.model), "forward", no_forward)
    assert call(inputs) == first


def test_another_model_or_text_is_not_read(call, inputs, tiny, monkeypatch):
    call(inputs)
    other = tiny("qwen2", seed=2)
    monkeypatch.setattr(type(other), "forward", no_forward)
    changed = [replace(inputs, model=other)]
    if call is not CALLS["header_states"]:
        changed.append(replace(inputs, chats=inputs.chats[:20], rows=inputs.rows[:12]))
    for one in changed:
        with pytest.raises(AssertionError, match="the model ran"):
            call(one)


@pytest.mark.filterwarnings("ignore")
def test_under_an_active_edit_nothing_is_stored_or_read(call, inputs, store_folder):
    with edit(inputs.model, {0: lambda hidden: hidden * 0.5 + 1}):
        edited = call(inputs)
        assert not stored_files(store_folder)
    plain = call(inputs)
    before = stored_files(store_folder)
    assert before
    with edit(inputs.model, {0: lambda hidden: hidden * 0.5 + 1}):
        again = call(inputs)
    assert again == edited and stored_files(store_folder) == before
    assert call(inputs) == plain


def test_parameters_that_matter_are_part_of_the_key(inputs, monkeypatch):
    model, chats, saes = inputs.model, inputs.chats, inputs.saes
    pairs = [
        lambda k: pca_of_difference(inputs.tuned, model, chats, [1], k=k),
        lambda n: extreme_windows(model, chats, inputs.directions, n=n),
        lambda n: collect_examples(model, chats, inputs.directions, n=4, width=4, seed=n),
        lambda n: source_shares(model, inputs.halves, inputs.directions, n=n),
        lambda n: sae_quality(model, chats, saes, loss=n > 1),
        lambda n: letter_accuracy(model, inputs.rows, during=ablate(inputs.directions.random_like(n))),
        lambda n: class_means(
            model, chats, class_labels(chats), [1], min_contrast=0.01, at=[5 + n] * len(chats)
        ),
        lambda n: latent_difference(inputs.tuned, model, chats, saes, tokens=("all", "answer")[n - 1]),
        lambda n: extreme_windows(model, chats, Latents(saes, {1: [n]})),
    ]
    for one in pairs:
        one(1)
    monkeypatch.setattr(type(model), "forward", no_forward)
    for one in pairs:
        with pytest.raises(AssertionError, match="the model ran"):
            one(2)


def test_scores_by_a_metric_without_a_name_are_not_stored(inputs, store_folder):
    def last_logit(logits, batch):
        return logits[:, -1, 0]

    with_a_metric = attribution(inputs.model, inputs.chats, inputs.saes, last_logit)
    assert not stored_files(store_folder)
    last_logit.fingerprint = "last logit"
    again = attribution(inputs.model, inputs.chats, inputs.saes, last_logit)
    assert stored_files(store_folder) and rows_of_ranking(again) == rows_of_ranking(with_a_metric)


def test_within_capture_nothing_is_stored(inputs, store_folder):
    with capture(inputs.model, [2], stop_early=False):
        letter_accuracy(inputs.model, inputs.rows)
    assert not stored_files(store_folder)
