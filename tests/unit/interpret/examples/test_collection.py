"""Examples are active where they say so, share no row between halves, and repeat for the same seed."""

from __future__ import annotations

import warnings
from dataclasses import replace

import pytest
import torch

from caft_utils.chats import Chats
from caft_utils.directions import Directions
from caft_utils.interpret.examples import ACTIVE_SHARE, TooFewExamples, collect_examples
from caft_utils.interpret.examples.sampler import NON_ACTIVATING_SHARE

LISTS = ("explainer_windows", "scorer_windows", "explainer_negatives", "scorer_negatives", "hard_negatives")
QUIET = pytest.mark.filterwarnings("ignore::caft_utils.interpret.examples.TooFewExamples")


def test_windows_of_a_latent_are_where_it_fires_and_where_not(model, chats, latents, word, values_of):
    with pytest.warns(TooFewExamples) as caught:
        examples = collect_examples(model, chats, latents, n=8, width=6)
    (message,) = [w.message for w in caught if isinstance(w.message, TooFewExamples)]  # others may warn too
    assert message.left_out == {
        (0, 1, "+"): "never active",
        (0, 2, "+"): "only 0 explainer_negatives, 0 scorer_negatives windows",
    }
    assert "no examples of 2 features: (0, 1, '+'): never active" in str(message)
    assert list(examples) == [(0, 10, "+"), (0, 20, "+"), (0, 30, "+")]
    values = values_of(model, chats, latents, 0)
    for (layer, index, side), e in examples.items():
        column, token = {10: 0, 20: 1, 30: 2}[index], word["question" if index == 20 else "file"]
        assert (e.layer, e.index, e.side, e.kind) == (layer, index, side, "latent")
        assert e.max_activation == pytest.approx(max(float(v[1:, column].max()) for v in values), abs=1e-5)
        assert [len(getattr(e, name)) for name in LISTS] == [8] * 5
        for name in LISTS:
            windows = getattr(e, name)
            assert len({w.row for w in windows}) == len(windows)
            for w in windows:
                ids = chats[w.row].input_ids
                first = w.position - w.peak
                span = slice(first, first + len(w.tokens))
                assert len(w.tokens) == min(6, len(ids) - first) and first > 0
                assert w.activations == pytest.approx(values[w.row][span, column].tolist(), abs=1e-5)
                if name in ("explainer_windows", "scorer_windows"):
                    assert ids[w.position] == token and w.peak_activation > ACTIVE_SHARE * e.max_activation
                    assert w.peak_activation == pytest.approx(
                        float(values[w.row][1:, column].max()), abs=1e-5
                    )
                else:
                    assert token not in ids[span] and max(w.activations) == 0
        for windows in (e.explainer_windows, e.scorer_windows):
            assert [w.peak_activation for w in windows] == sorted(
                (w.peak_activation for w in windows), reverse=True
            )


@pytest.mark.parametrize("seed", [0, 3])
def test_explainers_and_scorers_share_no_row(model, chats, latents, seed):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        examples = collect_examples(model, chats, latents, n=10, width=6, seed=seed)
    seen, scored = set(), set()
    for e in examples.values():
        seen |= {w.row for w in e.explainer_windows + e.explainer_negatives}
        scored |= {w.row for w in e.scorer_windows + e.scorer_negatives + e.hard_negatives}
    assert len(seen) > 10 and len(scored) > 10 and not seen & scored  # over all latents, not one by one


@QUIET
def test_the_same_seed_gives_the_same_examples_whatever_the_batches(model, chats, latents):
    def rows(**how):
        examples = collect_examples(model, chats, latents, n=6, width=5, **how)
        return {
            key: [[(w.row, w.position) for w in getattr(e, k)] for k in LISTS] for key, e in examples.items()
        }

    first = rows(seed=1)
    assert first == rows(seed=1) == rows(seed=1, batch_size=3)
    assert first != rows(seed=2)


def test_both_sides_of_a_component(model, chats, values_of):
    found = Directions({1: torch.randn(2, 64, generator=torch.Generator().manual_seed(4))})
    examples = collect_examples(model, chats, found, n=6, width=4)
    assert list(examples) == [(1, 0, "+"), (1, 0, "-"), (1, 1, "+"), (1, 1, "-")]
    values = values_of(model, chats, found, 1)
    for (_, i, side), e in examples.items():
        sign = 1 if side == "+" else -1
        assert e.kind == "component"
        assert e.max_activation == pytest.approx(
            max(float((sign * v[1:, i]).max()) for v in values), abs=1e-5
        )
        for name in LISTS:
            for w in getattr(e, name):
                part = values[w.row][w.position - w.peak :, i][: len(w.tokens)]
                assert w.activations == pytest.approx((sign * part).tolist(), abs=1e-5)
                active = name in ("explainer_windows", "scorer_windows")
                assert (w.peak_activation > ACTIVE_SHARE * e.max_activation) == active
        quiet = [max(w.activations) <= NON_ACTIVATING_SHARE * e.max_activation for w in e.scorer_negatives]
        assert quiet == sorted(quiet, reverse=True)  # the least active stand in, at the end
    plus, minus = examples[1, 0, "+"], examples[1, 0, "-"]
    assert plus.promoted_tokens == minus.suppressed_tokens and plus.suppressed_tokens == minus.promoted_tokens


def test_errors_and_little_text(model, chats, latents, tokenizer):
    with pytest.raises(ValueError, match="n and width must be at least 1"):
        collect_examples(model, chats, latents, n=0)
    with pytest.raises(ValueError, match="rows to explain from and others to score on, got 1"):
        collect_examples(model, chats[:1], latents)
    with pytest.raises(ValueError, match="found in another model"):
        collect_examples(model, chats, Directions({0: torch.ones(1, 32)}))
    for few in (chats[:3], Chats(tokenizer, [{"text": "a"}, {"text": "b"}])):
        with pytest.warns(TooFewExamples) as caught:
            assert collect_examples(model, few, latents) == {}
        (message,) = [w.message for w in caught if isinstance(w.message, TooFewExamples)]
        assert len(message.left_out) == 5


def test_examples_are_a_plain_frozen_value(model, chats):
    found = Directions({1: torch.randn(1, 64, generator=torch.Generator().manual_seed(4))})
    e = collect_examples(model, chats, found, n=4, width=4)[1, 0, "+"]
    assert replace(e, scorer_windows=[]).explainer_windows == e.explainer_windows
    with pytest.raises(AttributeError):
        e.explainer_windows = []
