"""Class means: a planted concept is found at the token that carries it, noise is dropped, labels must fit."""

from __future__ import annotations

import pytest
import torch

from caft_utils.chats import Chats
from caft_utils.directions.means import class_contrast, class_means, last_token_of, mean_hidden
from caft_utils.residual import stream_activations

WORDS = ("file", "question", "import")


def chat(word, i):
    user = {"role": "user", "content": f"what is the {word} and {i} with you"}
    return {"messages": [user, {"role": "assistant", "content": "self"}]}


@pytest.fixture
def chats(tokenizer):
    return Chats(tokenizer, [chat(WORDS[i % 3], i) for i in range(30)])


LABELS = [WORDS[i % 3] for i in range(30)]


def test_the_span_is_that_of_the_contrasts(model, chats):
    """At the embedding the class means are the embeddings of the three words: two axes, exactly known."""
    at = last_token_of(chats, LABELS)
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
        axes = class_means(model, chats, labels, [0, 2], tokens=tokens, drop=0)
        v = class_contrast(model, positive, negative, [0, 2], tokens=tokens)
        for layer in (0, 2):
            assert axes.ranks[layer] == 1 and abs(axes[layer][0] @ v[layer][0]) > 0.9999


def test_noise_is_dropped(model, chats):
    """Labels that mean nothing: what is left of contrasts is noise, and no direction comes of it."""
    torch.manual_seed(0)
    labels = torch.randint(2, (30,)).tolist()
    with pytest.raises(ValueError, match=r"no class mean is 0.25 sd away .* layers \[0, 1\]"):
        class_means(model, chats, labels, [0, 1])
    assert class_means(model, chats, labels, [0], drop=0).ranks == {0: 1}
    same_at_start = class_means(model, chats, LABELS, [-1, 2], at=[len(e.input_ids) - 1 for e in chats])
    # the last token is the same in all rows: nothing at the embedding, and something where rows were mixed
    assert same_at_start.layers == [2] and same_at_start.about["dropped"] == [-1]


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

    monkeypatch.setattr("caft_utils.directions.means.record", planted)
    found = class_means(model, chats, LABELS, [0])
    assert found.ranks == {0: 1} and abs(found[0][0] @ line) > 0.99


def test_means_are_what_they_were(model, chats):
    """The sums that both share: a mean over all tokens is that of all hidden states."""
    hidden = torch.cat([batch.hidden[1] for batch in stream_activations(model, chats, [1])])
    torch.testing.assert_close(mean_hidden(model, chats, [1])[1].float(), hidden.mean(0), atol=1e-5, rtol=0)


def test_last_token_of(tokenizer, chats):
    places = last_token_of(chats, LABELS)
    for example, place, word in zip(chats, places, LABELS):
        assert tokenizer.decode(example.input_ids[: place + 1]).endswith(word)
    rows = Chats(tokenizer, [chat("other hello he unknownword", 0)])
    text = tokenizer.decode(rows[0].input_ids[: last_token_of(rows, ["he"])[0] + 1])
    assert text.endswith("hello he")  # not the "he" in "other" or "hello"
    text = tokenizer.decode(rows[0].input_ids[: last_token_of(rows, ["unknownword"])[0] + 1])
    assert text.endswith("unknownword")
    with pytest.raises(ValueError, match="row 0 does not hold 'unknown' as a word"):
        last_token_of(rows, ["unknown"])
    with pytest.raises(ValueError, match="one text for each of 1 rows, got 2"):
        last_token_of(rows, ["he", "he"])


@pytest.mark.parametrize(
    "options, says",
    [
        ({"labels": LABELS[:3]}, "one of `labels` for each of 30 rows, got 3"),
        ({"at": [0]}, "one of `at` for each of 30 rows, got 1"),
        ({"at": [999] * 30}, "no token of rows"),
        ({"labels": ["x"] * 30}, "two classes or more"),
        ({"labels": LABELS, "at": [0] * 30, "tokens": "answer"}, "have no token that is read"),
    ],
)
def test_what_does_not_fit_is_refused(model, chats, options, says):
    options = {"labels": LABELS} | options
    with pytest.raises(ValueError, match=says):
        class_means(model, chats, layers=[0], **options)
