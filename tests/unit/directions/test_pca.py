"""PCA of the difference: equal to PCA on stored data, in memory that does not grow, with fixed signs."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest
import torch
from helpers.models import perturbed
from helpers.texts import random_chats

from caft_utils.directions import StreamingCovariance, model_streams, pca_of_difference
from caft_utils.models import fingerprint
from caft_utils.residual import ActivationBatch, stream_activations

LAYERS = [0, 2]


@pytest.fixture
def chats(tokenizer):
    return random_chats(tokenizer)


def stored(model, chats, layer, **options):
    """Return all hidden states in a fixed order as one numpy array, which streaming never holds."""
    parts = list(stream_activations(model, chats, [layer], **options))
    return torch.cat([p.hidden[layer] for p in parts]).double().numpy()


def numpy_pca(x, centre=True):
    x = x - x.mean(0) if centre else x
    _, s, vt = np.linalg.svd(x, full_matrices=False)
    return s**2 / (s**2).sum(), vt


def test_streaming_covariance_equals_numpy_on_all_data():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(1000, 12)) @ rng.normal(size=(12, 12)) + 1e4  # a large mean: naive sums would cancel
    streaming = StreamingCovariance(12)
    for start, stop in [(0, 1), (1, 7), (7, 7), (7, 600), (600, 1000)]:
        streaming.update(torch.tensor(x[start:stop]))
    assert streaming.count == 1000
    np.testing.assert_allclose(streaming.mean, x.mean(0), rtol=1e-12)
    np.testing.assert_allclose(streaming.covariance, np.cov(x.T), rtol=1e-9)
    np.testing.assert_allclose(streaming.scatter(centre=False), x.T @ x, rtol=1e-12)


def test_streaming_covariance_refuses_wrong_width_and_overflow():
    streaming = StreamingCovariance(4)
    with pytest.raises(ValueError, match=r"expected a tensor \[n, 4\], got shape \(2, 3\)"):
        streaming.update(torch.ones(2, 3))
    with pytest.raises(ValueError, match="not finite"):
        streaming.update(torch.tensor([[1.0, 2.0, float("inf"), 0.0]]))
    assert streaming.count == 0


@pytest.mark.parametrize("centre", [True, False])
@pytest.mark.parametrize("tokens", ["all", "answer"])
def test_components_equal_numpy_pca_of_stored_differences(model, chats, centre, tokens):
    tuned = perturbed(model)
    found = pca_of_difference(tuned, model, chats, LAYERS, k=5, tokens=tokens, centre=centre, batch_size=3)
    for layer in LAYERS:
        x = stored(tuned, chats, layer, tokens=tokens) - stored(model, chats, layer, tokens=tokens)
        ratio, axes = numpy_pca(x, centre)
        np.testing.assert_allclose(found.about["explained_variance"][str(layer)], ratio[:5], rtol=1e-4)
        np.testing.assert_allclose(np.abs((found[layer].double().numpy() * axes[:5]).sum(1)), 1, atol=1e-5)
        np.testing.assert_allclose(found.about["mean"][str(layer)], x.mean(0), rtol=1e-3, atol=1e-6)
        # up to the rounding of float32 where a component is orthogonal to the mean
        assert (found[layer].double().numpy() @ x.mean(0) > -1e-6).all()
    assert found.about["count"] == len(x) and found.about["centre"] is centre


def test_several_references_are_centred_each_by_itself(model, chats):
    references = [perturbed(model, seed) for seed in (1, 2)]
    found = pca_of_difference(references, model, chats, [1], k=3)
    base = stored(model, chats, 1)
    parts = [stored(tuned, chats, 1) - base for tuned in references]
    ratio, axes = numpy_pca(np.concatenate([x - x.mean(0) for x in parts]), centre=False)
    np.testing.assert_allclose(found.about["explained_variance"]["1"], ratio[:3], rtol=1e-4)
    np.testing.assert_allclose(np.abs((found[1].double().numpy() * axes[:3]).sum(1)), 1, atol=1e-5)
    assert found.about["tuned"] == [fingerprint(tuned) for tuned in references]


def test_memory_does_not_grow_with_the_number_of_tokens(model, chats, monkeypatch):
    alive = weakref.WeakSet()
    counts = []

    def watched(*args, **kwargs):
        for part in stream_activations(*args, **kwargs):
            gc.collect(0)  # the youngest objects, in case a cycle of references holds a batch
            alive.add(part)
            counts.append(len(alive))
            yield part

    # An ActivationBatch compares by value, which sets cannot use. Compare by identity here.
    monkeypatch.setattr(ActivationBatch, "__hash__", object.__hash__)
    monkeypatch.setattr(ActivationBatch, "__eq__", object.__eq__)
    monkeypatch.setattr(model_streams, "stream_activations", watched)
    pca_of_difference(perturbed(model), model, chats, LAYERS, k=2, batch_size=1)
    assert len(counts) == 2 * len(chats)  # two models, one batch a row
    assert max(counts) <= 6  # this batch and at most two before it, of each model


def test_errors_of_pca(model, tiny, chats):
    tuned = perturbed(model)
    with pytest.raises(ValueError, match=r"differ in width: \[32\] and 64"):
        pca_of_difference(tiny("qwen2", hidden_size=32), model, chats, [1])
    with pytest.raises(ValueError, match="equal hidden states at layer 1"):
        pca_of_difference(model, model, chats, [1])
    with pytest.raises(ValueError, match="equal hidden states at layer -1"):
        pca_of_difference(tuned, model, chats, [-1])
    with pytest.raises(IndexError, match="layer 3 is out of range"):
        pca_of_difference(tuned, model, chats, [3])
    with pytest.raises(ValueError, match="k must be 1 to 64, .* got 65"):
        pca_of_difference(tuned, model, chats, [1], k=65)
    with pytest.raises(ValueError, match="too few for 60 components"):
        pca_of_difference(tuned, model, chats[:2], [1], k=60)
    with pytest.raises(ValueError, match="empty list"):
        pca_of_difference([], model, chats, [1])
