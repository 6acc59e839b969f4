"""Random directions that hold as much variance as given ones."""

from __future__ import annotations

import pytest
import torch

from caft_utils.directions import Directions, difference_scatter, pca_of_difference, random_with_variance


def scatter(d: int = 24, seed: int = 0) -> torch.Tensor:
    """Return a covariance whose eigenvalues fall by a tenth each."""
    q = torch.linalg.qr(torch.randn(d, d, generator=torch.Generator().manual_seed(seed)).double()).Q
    return q @ torch.diag(0.9 ** torch.arange(d).double()) @ q.T


def share(found: torch.Tensor, s: torch.Tensor) -> float:
    return float((found.double() @ s @ found.double().T).trace() / s.trace())


def test_equal_share_and_orthogonal():
    s = scatter()
    axes = torch.linalg.eigh(s).eigenvectors.T.flip(0)
    like = Directions({3: axes[[2, 5]].float(), 7: axes[[4]].float()})
    drawn = [random_with_variance(like, {3: s, 7: s}, seed=seed) for seed in (0, 1)]
    for found in drawn:
        assert found.ranks == like.ranks
        for layer in (3, 7):
            assert (found[layer] @ like[layer].T).abs().max() < 1e-5
            assert share(found[layer], s) == pytest.approx(share(like[layer], s), rel=1e-4)
            assert found.about["reached"][str(layer)] == pytest.approx(share(found[layer], s), rel=1e-4)
    assert (drawn[0][7] @ drawn[1][7].T).abs() < 0.9, "another seed draws others"
    assert share(like.random_like(0)[3], s) < 0.7 * share(like[3], s), "rows of equal rank hold less"


def test_where_the_rest_holds_less_the_most_that_it_holds():
    s = scatter()
    axes = torch.linalg.eigh(s).eigenvectors.T.flip(0)
    found = random_with_variance(Directions({0: axes[:2].float()}), {0: s}, seed=0)
    assert (found[0].double() @ axes[2:4].T).svd().S.min() > 0.999
    assert found.about["reached"]["0"] < found.about["wanted"]["0"]


def test_the_scatter_is_the_one_that_pca_decomposes(tiny, tokenizer):
    from caft_utils.chats import Chats

    base, tuned = tiny("qwen2", seed=0), tiny("qwen2", seed=1)
    chats = Chats(tokenizer, [{"text": "a file is opened"}, {"text": "a question is asked"}])
    s = difference_scatter(tuned, base, chats, [1])[1]
    found = pca_of_difference(tuned, base, chats, [1], k=2)
    assert share(found[1], s) == pytest.approx(sum(found.about["explained_variance"]["1"]), rel=1e-4)


@pytest.mark.parametrize(
    ("covariance", "said"),
    [
        ({}, "expected a covariance"),
        ({0: torch.eye(3)}, "expected a covariance"),
        ({0: torch.zeros(4, 4)}, "no variance"),
    ],
)
def test_bad_input(covariance, said):
    with pytest.raises(ValueError, match=said):
        random_with_variance(Directions({0: torch.eye(4)[:1]}), covariance, seed=0)


def test_no_room():
    with pytest.raises(ValueError, match="no room"):
        random_with_variance(Directions({0: torch.eye(4)[:3]}), {0: torch.eye(4)}, seed=0)


def test_a_scatter_needs_a_tuned_model(tiny, tokenizer):
    from caft_utils.chats import Chats

    with pytest.raises(ValueError, match="empty list"):
        difference_scatter([], tiny("qwen2"), Chats(tokenizer, [{"text": "a file is opened"}]), [1])
