"""The streaming pass finds the extremes of all rows, whatever the batches."""

from __future__ import annotations

import pytest
import torch
from helpers.fake_features import FakeFeatures

from caft_utils.chats import Chats
from caft_utils.directions import Directions
from caft_utils.features import Features
from caft_utils.interpret import extreme_windows
from caft_utils.interpret.examples import streaming
from caft_utils.interpret.examples.histogram import BINS
from caft_utils.residual import capture

WORDS = "open the file and return what is question you are to do with self import def of system é €".split()


@pytest.fixture
def chats(tokenizer):
    generator = torch.Generator().manual_seed(0)
    texts = [{"text": "open"}]  # at most two tokens
    for _ in range(30):
        length = int(torch.randint(2, 15, (1,), generator=generator))
        picks = torch.randint(len(WORDS), (length,), generator=generator)
        texts.append({"text": " ".join(WORDS[i] for i in picks)})
    return Chats(tokenizer, texts)


@pytest.fixture
def directions():
    generator = torch.Generator().manual_seed(1)
    return Directions({0: torch.randn(2, 64, generator=generator), 2: torch.eye(64)[:1]})


def projections(model, chats, directions, layer, i):
    """Of every row by itself, which is what streaming in padded batches must agree with."""
    found = []
    for example in chats:
        with torch.no_grad(), capture(model, [layer]) as hidden:
            model(torch.tensor([example.input_ids]))
        found.append((hidden[layer][0] @ directions[layer][i]).tolist())
    return found


def candidates(chats):
    """{row: positions}: the first token of a row never, and each text so far in one row only."""
    seen, found = set(), {}
    for ids, row in sorted((example.input_ids, row) for row, example in enumerate(chats)):
        found[row] = [t for t in range(1, len(ids)) if tuple(ids[: t + 1]) not in seen]
        seen |= {tuple(ids[: t + 1]) for t in range(len(ids))}
    return found


@pytest.mark.parametrize("batch_size", [1, 7, 100])
def test_windows_are_the_extremes_of_all_rows(model, chats, directions, batch_size):
    ends = extreme_windows(model, chats, directions, n=5, width=6, batch_size=batch_size)
    assert list(ends) == [(0, 0), (0, 1), (2, 0)]
    allowed = candidates(chats)
    assert sum(map(len, allowed.values())) < sum(len(e.input_ids) - 1 for e in chats)  # some rows begin alike
    for (layer, i), got in ends.items():
        rows = projections(model, chats, directions, layer, i)
        for side, sign in ((got.top, 1), (got.bottom, -1)):
            best = [max((sign * rows[row][t], row, t) for t in at) for row, at in allowed.items() if at]
            want = [(row, t) for _, row, t in sorted(best, reverse=True)[:5]]
            assert [(w.row, w.position) for w in side] == want
            for window in side:
                start = window.position - window.peak
                expected = rows[window.row][start : start + len(window.tokens)]
                assert window.activations == pytest.approx(expected, abs=1e-5)
                assert window.peak_activation == window.activations[window.peak]
                ids = chats[window.row].input_ids
                assert len(window.tokens) == min(6, len(ids)) and 0 <= window.peak < len(window.tokens)


def test_a_shared_beginning_takes_one_place_only(model, tokenizer):
    rows = [[{"role": "user", "content": w}, {"role": "assistant", "content": "import"}] for w in WORDS]
    chats = Chats(tokenizer, [{"messages": row} for row in rows] * 2)
    header = tokenizer("<|im_start|>user")["input_ids"][-1]
    found = Directions(
        {-1: model.model.embed_tokens.weight[header]}
    )  # the header's last token wins in each row
    top = extreme_windows(model, chats, found, n=10)[-1, 0].top
    texts = ["".join(window.tokens[: window.peak + 1]) for window in top]
    assert len(texts) == 10 and sum(text.endswith("user") or text.endswith("er") for text in texts) == 1
    assert top[0].position < 5
    assert len({window.row % len(WORDS) for window in top}) == 10


def test_the_first_token_is_never_a_peak_nor_counted(model, chats):
    # the direction of one word's embedding: rows that begin with this word would win with their first token
    word = chats.tokenizer("open")["input_ids"][0]
    texts = ["open the file", "open and open", "the file"]
    rows = Chats(chats.tokenizer, [{"text": text} for text in texts])
    found = Directions({-1: model.model.embed_tokens.weight[word]})
    ends = extreme_windows(model, rows, found, n=3)[-1, 0]
    assert all(w.position > 0 for w in ends.top + ends.bottom)
    assert sum(ends.histogram.counts) == sum(len(e.input_ids) - 1 for e in rows)


def test_histogram_counts_every_token_in_its_bin(model, chats, directions):
    got = extreme_windows(model, chats, directions, n=1, batch_size=3)[0, 1].histogram
    values = torch.tensor([v for row in projections(model, chats, directions, 0, 1) for v in row[1:]])
    assert got.edge >= values.abs().max() > got.edge / 4
    want = torch.histc(values, BINS, -got.edge, got.edge)
    assert sum(got.counts) == len(values)
    assert (torch.tensor(got.counts) - want).abs().sum() <= 4  # rounding may move values on an edge


def test_latents_have_one_end_and_windows_only_where_they_fire(model, chats):
    word = chats.tokenizer("a file")["input_ids"][-1]
    unused = chats.tokenizer("@")["input_ids"][-1]
    rows = model.model.embed_tokens.weight[[unused, word]]  # with gradient, as an SAE's parameters may have

    def above_threshold(hidden):
        return torch.relu(hidden @ rows.T - 0.9 * (rows**2).sum(1))

    latents = FakeFeatures(above_threshold, layers=[-1], indices=[7, 3])
    assert isinstance(latents, Features) and rows.requires_grad
    ends = extreme_windows(model, chats, latents, n=4)
    assert list(ends) == [(-1, 7), (-1, 3)] and len(ends) == 2
    assert ends[-1, 7].top == ends[-1, 7].bottom == ends[-1, 3].bottom == []
    top = ends[-1, 3].top
    assert len(top) == 4 and all(chats[w.row].input_ids[w.position] == word for w in top)
    assert all(w.tokens[w.peak] == " file" and w.peak_activation > 0 for w in top)
    assert [w.row for w in top] == sorted(w.row for w in top)  # equal values stand in the order of rows
    counts, tokens = ends[-1, 7].histogram.counts, sum(len(e.input_ids) - 1 for e in chats)
    assert counts[BINS // 2] == sum(counts) == tokens and ends[-1, 7].histogram.edge == 0
    with pytest.raises(KeyError, match=r"no feature \(-1, 0\)"):
        ends[-1, 0]


def test_blocks_and_parts_of_any_size_find_the_same(model, chats, monkeypatch):
    many = torch.nn.functional.normalize(torch.randn(50, 64, generator=torch.Generator().manual_seed(2)))

    def values(hidden):
        sizes.append(hidden.shape)
        return hidden @ many.T

    sizes = []
    frame = FakeFeatures(values, layers=[-1], indices=range(50), two_sided=True)
    want = extreme_windows(model, chats, frame, n=3)
    assert len(sizes) == 1  # all rows at once
    monkeypatch.setattr(streaming, "MAX_VALUES", 50 * 40)
    monkeypatch.setattr(streaming, "VALUES_PER_STEP", 120)
    got = extreme_windows(model, chats, frame, n=3)
    assert len(sizes) > 5 and all(n <= 40 for n, _ in sizes[1:])
    rows = FakeFeatures(many, layers=[-1], two_sided=True, projections=True)
    blocks = extreme_windows(model, chats, rows, n=3)
    for key in want:
        for other in (got[key], blocks[key]):
            assert want[key].histogram == other.histogram
            for a, b in zip(want[key].top + want[key].bottom, other.top + other.bottom, strict=True):
                assert (a.row, a.position, a.tokens) == (b.row, b.position, b.tokens)
                assert a.activations == pytest.approx(b.activations, abs=1e-6)


def test_errors_of_windows(model, tiny, chats, directions, tokenizer):
    with pytest.raises(ValueError, match="n and width must be at least 1"):
        extreme_windows(model, chats, directions, n=0)
    with pytest.raises(ValueError, match="width 64, but the residual stream of Qwen2ForCausalLM has 32"):
        extreme_windows(tiny("qwen2", hidden_size=32), chats, directions)
    with pytest.raises(IndexError, match="layer 5"):
        extreme_windows(model, chats, Directions({5: torch.eye(64)[:1]}))
    single = Chats(tokenizer, [{"text": "a"}, {"text": "b"}])
    with pytest.raises(ValueError, match="two tokens or more"):
        extreme_windows(model, single, directions)
    with torch.no_grad():
        model.model.layers[0].mlp.down_proj.weight.fill_(float("nan"))
    with pytest.raises(ValueError, match="layer 0 are not finite"):
        extreme_windows(model, chats, directions)
