"""Means: differences equal numpy's, a planted concept is found where it is, noise gives no direction."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers.models import perturbed
from helpers.texts import random_chats

from caft_utils.chats import Chats
from caft_utils.directions import (
    class_contrast,
    class_means,
    last_token_positions,
    mean_difference,
    mean_hidden,
)
from caft_utils.residual import stream_activations

LAYERS = [0, 2]
WORDS = ("file", "question", "import")
LABELS = [WORDS[i % 3] for i in range(30)]


def chat(word, i):
    user = {"role": "user", "content": f"what is the {word} and {i} with you"}
    return {"messages": [user, {"role": "assistant", "content": "self"}]}


@pytest.fixture
def chats(tokenizer):
    """Thirty rows, a third of them about each word."""
    return Chats(tokenizer, [chat(WORDS[i % 3], i) for i in range(30)])


@pytest.fixture
def texts(tokenizer):
    return random_chats(tokenizer)


def stored(model, chats, layer, **options):
    """All hidden states in a fixed order, as a numpy array: what streaming must never need."""
    parts = list(stream_activations(model, chats, [layer], **options))
    return torch.cat([p.hidden[layer] for p in parts]).double().numpy()


# --- mean_hidden, mean_difference, class_contrast ---


def test_mean_hidden_and_mean_difference(model, texts):
    tuned = perturbed(model)
    means = mean_hidden(model, texts, LAYERS, tokens="answer", batch_size=3)
    found = mean_difference(tuned, model, texts, LAYERS, tokens="answer", batch_size=3)
    for layer in LAYERS:
        after, before = (stored(m, texts, layer, tokens="answer") for m in (tuned, model))
        np.testing.assert_allclose(means[layer], before.mean(0), rtol=1e-4, atol=1e-7)
        v = (after - before).mean(0)
        length = found.about["norm"][str(layer)][0]
        np.testing.assert_allclose(found[layer][0] * length, v, rtol=1e-3, atol=1e-6)
    assert found.ranks == {0: 1, 2: 1}


def test_mean_difference_of_several_references_is_the_mean_of_theirs(model, tiny, texts):
    references = [perturbed(model), tiny("qwen2", seed=5)]
    each = [mean_difference(one, model, texts, [1]) for one in references]
    both = mean_difference(references, model, texts, [1])
    v = sum(one[1][0] * one.about["norm"]["1"][0] for one in each) / 2
    np.testing.assert_allclose(both[1][0] * both.about["norm"]["1"][0], v, rtol=1e-3, atol=1e-6)
    assert len(both.about["tuned"]) == 2


def test_class_contrast_points_from_negative_to_positive(model, texts):
    positive, negative = texts[:10], texts[10:20]
    found = class_contrast(model, positive, negative, [1])
    v = stored(model, positive, 1).mean(0) - stored(model, negative, 1).mean(0)
    assert found.cosine(1, torch.tensor(v)).item() == pytest.approx(1, abs=1e-4)
    assert found.about["positive"] == positive.fingerprint


def test_errors_of_contrasts(model, tiny, texts):
    with pytest.raises(ValueError, match=r"equal at layers \[1\]"):
        class_contrast(model, texts, texts, [1])
    with pytest.raises(ValueError, match=r"equal at layers \[0, 2\]"):
        mean_difference(model, model, texts, LAYERS)
    with pytest.raises(ValueError, match="differ in width: 32 and 64"):
        mean_difference(tiny("qwen2", hidden_size=32), model, texts, [1])


# --- class_means ---


def test_the_span_is_that_of_the_contrasts(model, chats):
    """At the embedding the class means are the embeddings of the three words: two axes, exactly known."""
    at = last_token_positions(chats, LABELS)
    found = class_means(model, chats, LABELS, [-1, 1], at=at)
    assert found.ranks == {-1: 2, 1: 2}
    ids = [chats[i].input_ids[at[i]] for i in range(3)]
    embeddings = model.get_input_embeddings().weight[ids].detach()
    contrasts = embeddings - embeddings.mean(0)
    rest = contrasts - contrasts @ found[-1].T @ found[-1]
    assert rest.norm() < 1e-5 * contrasts.norm()
    assert found.about["classes"] == list(WORDS) and found.about["count"] == [10, 10, 10]
    assert found.about["norm"]["-1"][0] >= 0.25 and len(found.about["norm"]["-1"]) == 2
    axes = torch.linalg.svd(contrasts, full_matrices=False).Vh[:2]
    assert (found[-1] @ axes.T).abs().diagonal().min() > 0.999  # strongest first


def test_two_classes_are_the_class_contrast(model, chats):
    """Of all tokens as well as of answers, and rows without a label do not count."""
    labels = [None if label == "import" else label for label in LABELS]
    positive, negative = (
        Chats(chats.tokenizer, [row for row, label in zip(chats.rows, LABELS) if label == word])
        for word in WORDS[:2]
    )
    for tokens in ("all", "answer"):
        axes = class_means(model, chats, labels, [0, 2], tokens=tokens, min_contrast=0)
        v = class_contrast(model, positive, negative, [0, 2], tokens=tokens)
        for layer in (0, 2):
            assert axes.ranks[layer] == 1 and abs(axes[layer][0] @ v[layer][0]) > 0.9999


def test_noise_is_dropped(model, chats):
    """Labels that mean nothing: what is left of contrasts is noise, and no direction comes of it."""
    torch.manual_seed(0)
    labels = torch.randint(2, (30,)).tolist()
    with pytest.raises(ValueError, match=r"no class mean is 0.25 sd away"):
        class_means(model, chats, labels, [0, 1])
    assert class_means(model, chats, labels, [0], min_contrast=0).ranks == {0: 1}
    same_at_start = class_means(model, chats, LABELS, [-1, 2], at=[len(e.input_ids) - 1 for e in chats])
    # the last token is the same in all rows: nothing at the embedding, and something where rows were mixed
    assert same_at_start.layers == [2] and same_at_start.about["dropped_layers"] == [-1]


def test_a_class_that_differs_along_one_axis_gives_one(model, chats, monkeypatch):
    """Three classes on a line: the second axis is noise and goes."""
    torch.manual_seed(0)
    line, noise = torch.eye(64)[5], 0.05 * torch.randn(30, 64)
    place = {"file": -1.0, "question": 0.0, "import": 1.0}

    def planted(model, chats, layers, **options):
        for batch in stream_activations(model, chats, layers, **options):
            values = torch.tensor([place[LABELS[row]] for row in batch.row])
            batch.hidden[0] = values[:, None] * line + noise[batch.row]
            yield batch

    monkeypatch.setattr("caft_utils.directions.model_streams.stream_activations", planted)
    found = class_means(model, chats, LABELS, [0])
    assert found.ranks == {0: 1} and abs(found[0][0] @ line) > 0.99


@pytest.mark.parametrize(
    "options, says",
    [
        ({"labels": LABELS[:3]}, "one of `labels` for each of 30 rows, got 3"),
        ({"at": [0]}, "one entry for each of the 30 rows, got 1 entries"),
        ({"at": [999] * 30}, r"tokens of row 0 \(\d+ tokens\) must be .* at most"),
        ({"labels": ["x"] * 30}, "at least two classes"),
        ({"tokens": [[] for _ in range(30)]}, "have no token to read"),
        ({"labels": LABELS, "at": [0] * 30, "tokens": "answer"}, "leave out tokens='answer'"),
    ],
)
def test_what_does_not_fit_is_refused(model, chats, options, says):
    options = {"labels": LABELS} | options
    with pytest.raises(ValueError, match=says):
        class_means(model, chats, layers=[0], **options)
