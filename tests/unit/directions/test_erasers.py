"""LEACE: the closed form, what a probe can read afterwards, and that no other eraser changes less."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from caft_utils.chats import Chats
from caft_utils.directions import StreamingCovariance, leace
from caft_utils.directions.erasers import fit_leace, shrunk
from caft_utils.residual import stream_activations

WORDS = ("file", "question", "import")
LABELS = [WORDS[i % 3] for i in range(60)]
D, CLASSES = 12, 3


@pytest.fixture
def chats(tokenizer):
    rows = [f"what is the {WORDS[i % 3]} and {i % 7} with {'you ' * (i % 4)}" for i in range(60)]
    answer = {"role": "assistant", "content": "self"}
    return Chats(tokenizer, [{"messages": [{"role": "user", "content": text}, answer]} for text in rows])


def sample(n: int, seed: int = 0):
    """Return n correlated vectors in float64 whose mean depends on their class."""
    generator = torch.Generator().manual_seed(seed)
    mix, means = (torch.randn(k, D, generator=generator).double() for k in (D, CLASSES))
    z = torch.arange(n) % CLASSES
    return torch.randn(n, D, generator=generator).double() @ mix + 2 * means[z] + 3, z


def fitted(x, z, classes=CLASSES):
    joint = StreamingCovariance(x.shape[1])
    for part in x.split(37):
        joint.update(part)
    total = torch.zeros(classes, x.shape[1], dtype=torch.float64).index_add(0, z, x)
    return fit_leace(joint, total, torch.bincount(z, minlength=classes).double())


def projection(read, write):
    return torch.eye(read.shape[1], dtype=torch.float64) - write.T @ read


def test_the_closed_form_in_float64():
    x, z = sample(600)
    read, write, mean = fitted(x, z)
    centred, one_hot = x - x.mean(0), nn.functional.one_hot(z).double()
    covariance = shrunk(centred.T @ centred / len(x), len(x))
    cross = centred.T @ (one_hot - one_hot.mean(0)) / len(x)
    values, vectors = torch.linalg.eigh(covariance)
    whiten = vectors @ torch.diag(values**-0.5) @ vectors.T
    u, s, _ = torch.linalg.svd(whiten @ cross, full_matrices=False)
    u = u[:, s > 1e-9]
    expected = torch.eye(D).double() - torch.linalg.inv(whiten) @ u @ u.T @ whiten
    torch.testing.assert_close(projection(read, write), expected, atol=1e-9, rtol=0)
    torch.testing.assert_close(mean, x.mean(0), atol=1e-12, rtol=0)
    assert read.shape == write.shape == (CLASSES - 1, D)
    torch.testing.assert_close(read @ write.T, torch.eye(CLASSES - 1).double(), atol=1e-9, rtol=0)


@pytest.mark.parametrize("n", [600, 9])  # more vectors than entries, and fewer
def test_afterwards_the_classes_have_one_mean(n):
    x, z = sample(n)
    read, write, mean = fitted(x, z)
    erased = x - (x - mean) @ read.T @ write
    for number in range(CLASSES):
        torch.testing.assert_close(erased[z == number].mean(0), mean, atol=1e-8, rtol=0)


def probe_loss(x, z) -> float:
    """Return the cross-entropy of the best linear classifier, in nats."""
    x = ((x - x.mean(0)) / x.std(0)).double()
    probe = nn.Linear(x.shape[1], CLASSES).double()
    nn.init.zeros_(probe.weight)
    optimizer = torch.optim.LBFGS(probe.parameters(), max_iter=200, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(probe(x), z)
        loss.backward()
        return loss

    optimizer.step(closure)
    return closure().item()


def test_a_linear_probe_reads_nothing_afterwards():
    x, z = sample(600)
    read, write, mean = fitted(x, z)
    chance = torch.log(torch.tensor(float(CLASSES))).item()
    assert probe_loss(x, z) < 0.7 * chance
    assert probe_loss(x - (x - mean) @ read.T @ write, z) == pytest.approx(chance, abs=1e-6)


def test_no_other_eraser_changes_less():
    x, z = sample(20_000)
    read, write, mean = fitted(x, z)
    change = ((x - mean) @ read.T @ write).square().sum(1).mean()
    means = torch.stack([x[z == number].mean(0) for number in range(CLASSES)]) - x.mean(0)
    q = torch.linalg.svd(means, full_matrices=False).Vh[: CLASSES - 1]
    orthogonal = ((x - mean) @ q.T @ q).square().sum(1).mean()  # it erases the means, too
    assert change < 0.9 * orthogonal
    generator = torch.Generator().manual_seed(1)
    for _ in range(20):  # others that erase: read something else, so that B A = 1 still holds
        other = torch.randn(CLASSES - 1, D, generator=generator).double()
        other = read + 0.05 * (other - (other @ write.T) @ read)
        assert ((x - mean) @ other.T @ write).square().sum(1).mean() > change


def test_shrinkage_is_none_for_many_vectors_and_whole_for_few():
    x, _ = sample(100_000)
    covariance = torch.cov(x.T)
    torch.testing.assert_close(shrunk(covariance, len(x)), covariance, atol=2e-3, rtol=2e-3)
    same = torch.eye(D).double()
    torch.testing.assert_close(shrunk(same, 5), same)


def test_a_model_is_read_where_it_is_told_and_the_result_is_stored(model, chats, monkeypatch):
    eraser = leace(model, chats, LABELS, [0, 2], tokens="last_prompt")
    assert {layer: len(rows) for layer, rows in eraser.read.items()} == {0: 2, 2: 2}
    for layer in (0, 2):
        x, z = [], []
        for batch in stream_activations(model, chats, [layer], tokens="last_prompt"):
            x.append(batch.hidden[layer].double())
            z += [LABELS[row] for row in batch.row.tolist()]
        x = torch.cat(x)
        read, write, mean = eraser.read[layer], eraser.write[layer], eraser.mean[layer]
        erased = x - (x - mean) @ read.T @ write
        for word in WORDS:
            mine = torch.tensor([label == word for label in z])
            torch.testing.assert_close(erased[mine].mean(0), mean, atol=1e-9, rtol=0)
            assert (x[mine].mean(0) - mean).norm() > 1e-3
    monkeypatch.setattr("caft_utils.directions.erasers.fit_leace", None)  # nothing is fitted again
    again = leace(model, chats, LABELS, [2, 0], tokens="last_prompt")
    assert all(torch.equal(again.read[layer], eraser.read[layer]) for layer in (0, 2))


def test_rows_without_a_label_do_not_count(model, chats):
    some = [label if i < 40 else None for i, label in enumerate(LABELS)]
    whole, part = leace(model, chats, some, [1]), leace(model, chats[:40], LABELS[:40], [1])
    torch.testing.assert_close(whole.read[1], part.read[1], atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize(
    "labels, message",
    [
        (LABELS[:-1], "one of `labels` for each of 60 rows"),
        (["file"] * 60, "at least two classes"),
        ([None] * 60, "at least two classes"),
    ],
)
def test_labels_that_do_not_fit_are_refused(model, chats, labels, message):
    with pytest.raises(ValueError, match=message):
        leace(model, chats, labels, [1])


def test_classes_with_one_mean_are_refused():
    x = torch.randn(50, D).double()
    with pytest.raises(ValueError, match="nothing to erase"):
        fitted(torch.cat([x, x]), torch.arange(100) // 50, classes=2)
