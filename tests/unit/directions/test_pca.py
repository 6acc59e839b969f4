"""PCA of the difference: exact against PCA on stored data, in memory that does not grow, with fixed signs."""

from __future__ import annotations

import copy
import gc
import weakref

import numpy as np
import pytest
import torch

from caft_utils.chats import Chats
from caft_utils.directions import (
    StreamingCovariance,
    class_contrast,
    mean_difference,
    mean_hidden,
    pca_of_difference,
)
from caft_utils.directions import pca as pca_module
from caft_utils.models import fingerprint
from caft_utils.residual import ActivationBatch, stream_activations

LAYERS = [0, 2]
WORDS = "open the file and return what is question you are to do with self import def of system".split()


@pytest.fixture
def chats(tokenizer):
    generator = torch.Generator().manual_seed(0)
    texts = []
    for _ in range(24):
        length = int(torch.randint(4, 12, (1,), generator=generator))
        picks = torch.randint(len(WORDS), (length,), generator=generator)
        texts.append({"text": " ".join(WORDS[i] for i in picks)})
    turn = [{"role": "user", "content": "what is"}, {"role": "assistant", "content": "import self and open"}]
    return Chats(tokenizer, texts + [{"messages": turn}])


def tuned_from(base, seed=0):
    model = copy.deepcopy(base)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.model.layers.parameters():
            parameter += 0.02 * torch.randn(parameter.shape, generator=generator)
    return model


def stored(model, chats, layer, **options):
    """All hidden states in a fixed order, as a numpy array: what streaming must never need."""
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
    tuned = tuned_from(model)
    found = pca_of_difference(tuned, model, chats, LAYERS, k=5, tokens=tokens, centre=centre, batch_size=3)
    for layer in LAYERS:
        x = stored(tuned, chats, layer, tokens=tokens) - stored(model, chats, layer, tokens=tokens)
        ratio, axes = numpy_pca(x, centre)
        np.testing.assert_allclose(found.about["explained_variance"][str(layer)], ratio[:5], rtol=1e-4)
        np.testing.assert_allclose(np.abs((found[layer].double().numpy() * axes[:5]).sum(1)), 1, atol=1e-5)
        np.testing.assert_allclose(found.about["mean"][str(layer)], x.mean(0), rtol=1e-3, atol=1e-6)
        # up to the rounding of float32 where a component is orthogonal to the mean
        assert (found[layer].double().numpy() @ x.mean(0) > -1e-6).all()
    assert found.about["count"] == len(x)


def test_several_references_are_centred_each_by_itself(model, chats):
    references = [tuned_from(model, seed) for seed in (1, 2)]
    found = pca_of_difference(references, model, chats, [1], k=3)
    base = stored(model, chats, 1)
    parts = [stored(tuned, chats, 1) - base for tuned in references]
    ratio, axes = numpy_pca(np.concatenate([x - x.mean(0) for x in parts]), centre=False)
    np.testing.assert_allclose(found.about["explained_variance"]["1"], ratio[:3], rtol=1e-4)
    np.testing.assert_allclose(np.abs((found[1].double().numpy() * axes[:3]).sum(1)), 1, atol=1e-5)
    assert found.about["tuned"] == [fingerprint(tuned) for tuned in references]


def test_provenance_names_models_and_data(model, chats):
    tuned = tuned_from(model)
    about = pca_of_difference(tuned, model, chats, [1], k=2).about
    assert about["base"] == fingerprint(model) != about["tuned"][0] and about["data"] == chats.fingerprint
    assert about["method"] == "pca_of_difference" and about["tokens"] == "all" and about["centre"] is True
    assert about["count"] == sum(len(example.input_ids) for example in chats)


def test_memory_does_not_grow_with_the_number_of_tokens(model, chats, monkeypatch):
    alive = weakref.WeakSet()
    most = []

    def watched(*args, **kwargs):
        for part in stream_activations(*args, **kwargs):
            gc.collect()
            alive.add(part)
            most.append(len(alive))
            yield part

    # Recorded compares by value, which sets cannot use; here every batch is itself
    monkeypatch.setattr(ActivationBatch, "__hash__", object.__hash__)
    monkeypatch.setattr(ActivationBatch, "__eq__", object.__eq__)
    monkeypatch.setattr(pca_module, "record", watched)
    pca_of_difference(tuned_from(model), model, chats, LAYERS, k=2, batch_size=1)
    assert len(most) == 2 * len(chats)  # two models, one batch a row
    assert max(most) <= 4  # this batch and the one before it, of each model


def test_errors_of_pca(model, tiny, chats):
    tuned = tuned_from(model)
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


def test_mean_hidden_and_mean_difference(model, chats):
    tuned = tuned_from(model)
    means = mean_hidden(model, chats, LAYERS, tokens="answer", batch_size=3)
    found = mean_difference(tuned, model, chats, LAYERS, tokens="answer", batch_size=3)
    for layer in LAYERS:
        after, before = (stored(m, chats, layer, tokens="answer") for m in (tuned, model))
        np.testing.assert_allclose(means[layer], before.mean(0), rtol=1e-4, atol=1e-7)
        v = (after - before).mean(0)
        length = found.about["norm"][str(layer)][0]
        np.testing.assert_allclose(found[layer][0] * length, v, rtol=1e-3, atol=1e-6)
    assert found.ranks == {0: 1, 2: 1}


def test_mean_difference_of_several_references_is_the_mean_of_theirs(model, tiny, chats):
    references = [tuned_from(model), tiny("qwen2", seed=5)]
    each = [mean_difference(one, model, chats, [1]) for one in references]
    both = mean_difference(references, model, chats, [1])
    v = sum(one[1][0] * one.about["norm"]["1"][0] for one in each) / 2
    np.testing.assert_allclose(both[1][0] * both.about["norm"]["1"][0], v, rtol=1e-3, atol=1e-6)
    assert len(both.about["tuned"]) == 2


def test_class_contrast_points_from_negative_to_positive(model, chats):
    positive, negative = chats[:10], chats[10:20]
    found = class_contrast(model, positive, negative, [1])
    v = stored(model, positive, 1).mean(0) - stored(model, negative, 1).mean(0)
    assert found.cosine(1, torch.tensor(v)).item() == pytest.approx(1, abs=1e-4)
    assert found.about["positive"] == positive.fingerprint


def test_errors_of_contrasts(model, tiny, chats):
    with pytest.raises(ValueError, match=r"equal at layers \[1\]"):
        class_contrast(model, chats, chats, [1])
    with pytest.raises(ValueError, match=r"equal at layers \[0, 2\]"):
        mean_difference(model, model, chats, LAYERS)
    with pytest.raises(ValueError, match="differ in width: 32 and 64"):
        mean_difference(tiny("qwen2", hidden_size=32), model, chats, [1])
