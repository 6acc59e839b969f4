"""Evidence: active where it says so, no row on both sides, and the same again for the same seed."""

from __future__ import annotations

import warnings
from dataclasses import replace

import pytest
import torch

from caft_utils.chats import Chats
from caft_utils.directions import Directions
from caft_utils.interpret.examples import TooFewExamples, collect_examples
from caft_utils.interpret.examples.hard_negatives import WordSimilarity
from caft_utils.interpret.examples.sampler import ACTIVE_SHARE, NON_ACTIVATING_SHARE, ExampleSampler
from caft_utils.residual import capture

WORDS = "open file return self system user question what with import def are you do to and is the".split()
LISTS = ("train", "test", "train_negatives", "test_negatives", "hard_negatives")


@pytest.fixture
def chats(tokenizer):
    generator = torch.Generator().manual_seed(0)
    rows = []
    for _ in range(150):
        length = int(torch.randint(5, 40, (1,), generator=generator))
        rows.append(
            {"text": " ".join(WORDS[int(i)] for i in torch.randint(18, (length,), generator=generator))}
        )
    return Chats(tokenizer, rows)


class Latents:
    """The first two fire at one token of the vocabulary each, by how near the hidden state is to its
    embedding; the third at the first's token and faintly at the second's; the others never and always."""

    noun, signed, layers = "latent", False, [0]

    def __init__(self, model, tokens):
        self.rows = model.model.embed_tokens.weight[tokens].detach()

    def indices(self, layer):
        return [10, 20, 30, 1, 2]

    def values(self, layer, hidden):
        unit = torch.nn.functional.normalize
        near = unit(hidden) @ unit(self.rows).T
        fixed = torch.tensor([[0.0, 1.0]]).expand(len(hidden), 2)
        near = torch.where(near > 0.5, near, 0.0)
        return torch.cat([near, near[:, :1] + 0.25 * near[:, 1:], fixed], 1)

    def vector(self, layer, i):
        return torch.nn.functional.normalize(torch.ones(64), dim=0)


@pytest.fixture
def word(tokenizer):
    return {w: tokenizer(f"the {w}")["input_ids"][-1] for w in WORDS}


@pytest.fixture
def latents(model, word):
    with torch.no_grad():  # hidden states at layer 0 then stay near the token's embedding
        model.model.embed_tokens.weight *= 20
    return Latents(model, [word["file"], word["question"]])


def values_of(model, chats, features, layer):
    """Of every row by itself, [tokens, k]."""
    found = []
    for example in chats:
        with torch.no_grad(), capture(model, [layer]) as hidden:
            model(torch.tensor([example.input_ids]))
            found.append(features.values(layer, hidden[layer][0]))
    return found


def test_windows_of_a_latent_are_where_it_fires_and_where_not(model, chats, latents, word):
    with pytest.warns(TooFewExamples) as caught:
        evidence = collect_examples(model, chats, latents, n=8, width=6)
    (told,) = [w.message for w in caught if isinstance(w.message, TooFewExamples)]  # others may warn too
    assert told.left_out == {
        (0, 1, "+"): "never active",
        (0, 2, "+"): "only 0 train_negatives, 0 test_negatives windows",
    }
    assert "no evidence for 2 directions: (0, 1, '+'): never active" in str(told)
    assert list(evidence) == [(0, 10, "+"), (0, 20, "+"), (0, 30, "+")]
    values = values_of(model, chats, latents, 0)
    for (layer, index, side), e in evidence.items():
        column, token = {10: 0, 20: 1, 30: 2}[index], word["question" if index == 20 else "file"]
        assert (e.layer, e.index, e.side, e.noun) == (layer, index, side, "latent")
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
                if name in ("train", "test"):
                    assert ids[w.position] == token and w.peak_activation > ACTIVE_SHARE * e.max_activation
                    assert w.peak_activation == pytest.approx(
                        float(values[w.row][1:, column].max()), abs=1e-5
                    )
                else:
                    assert token not in ids[span] and max(w.activations) == 0
        for windows in (e.train, e.test):
            assert [w.peak_activation for w in windows] == sorted(
                (w.peak_activation for w in windows), reverse=True
            )


@pytest.mark.parametrize("seed", [0, 3])
def test_explainers_and_scorers_share_no_row(model, chats, latents, seed):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        evidence = collect_examples(model, chats, latents, n=10, width=6, seed=seed)
    seen, scored = set(), set()
    for e in evidence.values():
        seen |= {w.row for w in e.train + e.train_negatives}
        scored |= {w.row for w in e.test + e.test_negatives + e.hard_negatives}
    assert len(seen) > 10 and len(scored) > 10 and not seen & scored  # over all latents, not one by one


@pytest.mark.filterwarnings("ignore::caft_utils.interpret.examples.TooFewWindows")
def test_the_same_seed_gives_the_same_evidence_whatever_the_batches(model, chats, latents):
    def rows(**how):
        evidence = collect_examples(model, chats, latents, n=6, width=5, **how)
        return {
            key: [[(w.row, w.position) for w in getattr(e, k)] for k in LISTS] for key, e in evidence.items()
        }

    first = rows(seed=1)
    assert first == rows(seed=1) == rows(seed=1, batch_size=3)
    assert first != rows(seed=2)


def test_both_sides_of_a_component(model, chats):
    found = Directions({1: torch.randn(2, 64, generator=torch.Generator().manual_seed(4))})
    evidence = collect_examples(model, chats, found, n=6, width=4)
    assert list(evidence) == [(1, 0, "+"), (1, 0, "-"), (1, 1, "+"), (1, 1, "-")]
    values = values_of(model, chats, found, 1)
    for (_, i, side), e in evidence.items():
        sign = 1 if side == "+" else -1
        assert e.noun == "component"
        assert e.max_activation == pytest.approx(
            max(float((sign * v[1:, i]).max()) for v in values), abs=1e-5
        )
        for name in LISTS:
            for w in getattr(e, name):
                part = values[w.row][w.position - w.peak :, i][: len(w.tokens)]
                assert w.activations == pytest.approx((sign * part).tolist(), abs=1e-5)
                active = name in ("train", "test")
                assert (w.peak_activation > ACTIVE_SHARE * e.max_activation) == active
        quiet = [max(w.activations) <= NON_ACTIVATING_SHARE * e.max_activation for w in e.test_negatives]
        assert quiet == sorted(quiet, reverse=True)  # the least active stand in, at the end
    plus, minus = evidence[1, 0, "+"], evidence[1, 0, "-"]
    assert plus.promoted_tokens == minus.suppressed_tokens and plus.suppressed_tokens == minus.promoted_tokens


@pytest.mark.filterwarnings("ignore::caft_utils.interpret.examples.TooFewWindows")
def test_active_windows_are_of_every_strength(model, chats, latents):
    e = collect_examples(model, chats, latents, n=8, width=6)[0, 10, "+"]
    values = [v[1:, 0].max().item() for v in values_of(model, chats, latents, 0)]
    new = sorted((v for v in values if v > ACTIVE_SHARE * e.max_activation), reverse=True)
    assert len(new) > 40
    for windows in (e.train, e.test):
        places = [sum(v > w.peak_activation + 1e-6 for v in new) / len(new) for w in windows]
        assert max(places[:4]) < 0.15 and places[-1] > 0.6  # half from the top, the others spread
        assert 0.15 < places[5] < 0.75


@pytest.mark.filterwarnings("ignore::caft_utils.interpret.examples.TooFewWindows")
def test_faintly_active_windows_do_not_fill_up_the_lists(model, tokenizer, latents):
    pairs = [f"open {a} {b}" for a in WORDS[8:12] for b in WORDS[12:16]]
    texts = [f"{pair} {last}" for last in ("file", "question", "self are", "return") for pair in pairs]
    chats = Chats(tokenizer, [{"text": text} for text in texts])
    e = collect_examples(model, chats, latents, n=20, width=6)[0, 30, "+"]
    assert {w.row for w in e.train + e.test} == set(range(16)) and len(e.train + e.test) == 16
    assert 0 < len(e.hard_negatives) < 20 and all(
        w.row >= 32 for w in e.hard_negatives + e.test_negatives + e.train_negatives
    )


def test_tickets_sample_activating_rows_evenly(model, chats, latents):
    taken = torch.zeros(len(chats))
    for seed in range(30):
        sampler = ExampleSampler(
            model, chats, latents, n=1, width=4, seed=seed, batch_size=50, progress=False
        )
        sample = sampler.read(torch.arange(len(chats)))[0, "+"]
        for found in sample.found("active", 0):
            taken[found.row] += 1
    fires = torch.tensor([float(v[1:, 0].max()) > 0 for v in values_of(model, chats, latents, 0)])
    assert taken[~fires].sum() == 0 and taken.sum() == 30 * 5
    halves = [t.sum().item() for t in taken[fires].chunk(2)]
    assert min(halves) > 45 and taken.max() < 10  # 75 expected, and 1.7 of each


@pytest.mark.filterwarnings("ignore::caft_utils.interpret.examples.TooFewWindows")
def test_hard_windows_have_the_words_of_active_ones(model, tokenizer, latents, word):
    generator = torch.Generator().manual_seed(1)

    def some(words, count):
        return " ".join(words[int(i)] for i in torch.randint(len(words), (count,), generator=generator))

    near, far = ["open", "system", "user"], ["self", "return", "import", "def"]
    rows = [{"text": f"{some(near, 4)} file {some(near, 4)}"} for _ in range(40)]
    rows += [{"text": some(near, 9)} for _ in range(40)] + [{"text": some(far, 9)} for _ in range(160)]
    e = collect_examples(model, Chats(tokenizer, rows), latents, n=8, width=8)[0, 10, "+"]
    assert all(w.row < 40 for w in e.train + e.test)
    assert all(40 <= w.row < 80 for w in e.hard_negatives)
    assert len({"".join(w.tokens) for w in e.hard_negatives}) == len(e.hard_negatives) == 8
    assert sum(w.row >= 80 for w in e.test_negatives) >= 4


def test_likeness_is_the_cosine_of_tf_idf(tokenizer):
    texts = ["open open file", "open return", "self return", "file file self file"]
    chats = Chats(tokenizer, [{"text": f"the {text}"} for text in texts])
    ids = [example.input_ids for example in chats]
    vocabulary = sorted({t for row in ids for t in row})
    counts = torch.tensor([[float(row.count(t)) for t in vocabulary] for row in ids])
    weights = counts * (((1 + 4) / (1 + (counts > 0).sum(0))).log() + 1)
    unit = torch.nn.functional.normalize(weights)
    likeness = WordSimilarity(chats)
    got = likeness.cosines(ids, likeness.towards([[ids[0]], [ids[1], ids[2]], []]))
    mean = torch.nn.functional.normalize(unit[1] + unit[2], dim=0)
    torch.testing.assert_close(got, torch.stack([unit @ unit[0], unit @ mean, torch.zeros(4)], 1))


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
        (told,) = [w.message for w in caught if isinstance(w.message, TooFewExamples)]
        assert len(told.left_out) == 5


def test_evidence_is_a_plain_frozen_value(model, chats):
    found = Directions({1: torch.randn(1, 64, generator=torch.Generator().manual_seed(4))})
    e = collect_examples(model, chats, found, n=4, width=4)[1, 0, "+"]
    assert replace(e, test=[]).train == e.train
    with pytest.raises(AttributeError):
        e.train = []
