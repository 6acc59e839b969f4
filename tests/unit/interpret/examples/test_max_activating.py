"""Windows: the streaming pass finds the extremes, whatever the batches, and shows the text as it is."""

from __future__ import annotations

import time

import pytest
import torch

from caft_utils.chats import Chats
from caft_utils.directions import Directions
from caft_utils.features import Features
from caft_utils.interpret import extreme_windows, logit_lens
from caft_utils.interpret.examples import running_topk as streaming
from caft_utils.interpret.examples.max_activating import pieces
from caft_utils.interpret.examples.running_topk import BINS, RunningTopK, Spans, StreamingHistogram, first_new
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


def test_growing_bins_equal_bins_made_with_all_values_known():
    torch.manual_seed(0)
    bins, scales = StreamingHistogram(2), [0.01, 0.3, 0.2, 5.0, 40.0]
    values = [torch.randn(50, 2) * scale * torch.tensor([1.0, 1e-4]) for scale in scales]
    for part in values:
        bins.add(part)
    for i in range(2):
        edge, column = float(bins.edge[i]), torch.cat(values)[:, i]
        assert bins.counts[i].tolist() == torch.histc(column, BINS, -edge, edge).long().tolist()
        assert edge / 2 < column.abs().max() <= edge


@pytest.mark.parametrize("size", [1, 7, 400])
def test_bins_do_not_depend_on_the_order_even_for_values_on_their_edges(size):
    generator = torch.Generator().manual_seed(0)
    edges = torch.arange(-20, 21)[:, None] / 20 * 2.0 ** torch.arange(-3, 5)
    near = [torch.nextafter(edges, torch.tensor(sign * torch.inf)) for sign in (-1, 1)]
    values = torch.cat([edges, *near]).flatten()[:, None]
    bins = StreamingHistogram(1)
    for part in values[torch.randperm(len(values), generator=generator)].split(size):
        bins.add(part)
    assert float(bins.edge) == 32  # the largest value, 16 and a little, is below it
    want = (values * (20 / 32)).floor().long().flatten() + 20
    assert bins.counts[0].tolist() == want.bincount(minlength=BINS).tolist()


class Firing:
    """Latents at the embedding: each fires at one token, and there by how far it is above a threshold."""

    noun, signed, layers = "latent", False, [-1]

    def __init__(self, model, tokens, numbers):
        self.rows, self.numbers = model.model.embed_tokens.weight[tokens], numbers

    def indices(self, layer):
        return self.numbers

    def values(self, layer, hidden):
        return torch.relu(hidden @ self.rows.T - 0.9 * (self.rows**2).sum(1))

    def vector(self, layer, i):
        row = self.rows[self.numbers.index(i)].detach()
        return row / row.norm()


def test_latents_have_one_end_and_windows_only_where_they_fire(model, chats):
    word = chats.tokenizer("a file")["input_ids"][-1]
    unused = chats.tokenizer("@")["input_ids"][-1]
    latents = Firing(model, [unused, word], [7, 3])
    assert isinstance(latents, Features) and latents.rows.requires_grad
    ends = extreme_windows(model, chats, latents, n=4)
    assert list(ends) == [(-1, 7), (-1, 3)] and len(ends) == 2
    assert ends[-1, 7].top == ends[-1, 7].bottom == ends[-1, 3].bottom == []
    top = ends[-1, 3].top
    assert len(top) == 4 and all(chats[w.row].input_ids[w.position] == word for w in top)
    assert all(w.tokens[w.peak] == " file" and w.peak_activation > 0 for w in top)
    assert [w.row for w in top] == sorted(w.row for w in top)  # equal values stand in the order of rows
    counts, tokens = ends[-1, 7].histogram.counts, sum(len(e.input_ids) - 1 for e in chats)
    assert counts[BINS // 2] == sum(counts) == tokens and ends[-1, 7].histogram.edge == 0
    with pytest.raises(KeyError, match=r"no direction \(-1, 0\)"):
        ends[-1, 0]


def test_blocks_and_parts_of_any_size_find_the_same(model, chats, monkeypatch):
    many = torch.nn.functional.normalize(torch.randn(50, 64, generator=torch.Generator().manual_seed(2)))

    class Frame(Firing):
        signed = True

        def values(self, layer, hidden):
            sizes.append(hidden.shape)
            return hidden @ many.T

    frame, sizes = Frame(model, [0] * 50, list(range(50))), []
    want = extreme_windows(model, chats, frame, n=3)
    assert len(sizes) == 1  # all rows at once
    monkeypatch.setattr(streaming, "AT_ONCE", 50 * 40)
    monkeypatch.setattr(streaming, "BLOCK", 120)
    got = extreme_windows(model, chats, frame, n=3)
    assert len(sizes) > 5 and all(n <= 40 for n, _ in sizes[1:])
    frame.projects_on = lambda layer: many
    blocks = extreme_windows(model, chats, frame, n=3)
    for key in want:
        for other in (got[key], blocks[key]):
            assert want[key].histogram == other.histogram
            for a, b in zip(want[key].top + want[key].bottom, other.top + other.bottom, strict=True):
                assert (a.row, a.position, a.tokens) == (b.row, b.position, b.tokens)
                assert a.values == pytest.approx(b.values, abs=1e-6)


def test_best_of_a_stream_are_the_best_of_all_whatever_the_order():
    generator = torch.Generator().manual_seed(0)
    rows, k, n = 60, 30, 4
    scores = torch.randn(rows, k, generator=generator).mul(2).round()
    scores.clamp_(max=0)  # many are equal, and some zeros negative
    scores[torch.rand(rows, k, generator=generator) < 0.3] = -torch.inf
    scores[:, 0] = -torch.inf
    want = [
        [row for _, row in sorted((-float(s), row) for row, s in enumerate(scores[:, i]) if s > -torch.inf)]
        for i in range(k)
    ]
    for size in (1, 7, 60):
        best, order = RunningTopK(k, n, 2), torch.randperm(rows, generator=generator)
        for part in order.split(size):
            start = 3 * torch.arange(len(part))  # three tokens a row
            span = torch.stack([start, start + 3], 1)
            best.offer(slice(0, k), torch.zeros(3 * size, k), scores[part], Spans(part, start, span, span))
        got = [[row for row, *_ in best.entries(i)] for i in range(k)]
        assert got == [rows[:n] for rows in want]


def test_repeated_beginnings_of_many_rows_are_found_quickly(chats):
    new = first_new(chats)
    for row, at in candidates(chats).items():
        assert [t for t in range(1, len(chats[row].input_ids)) if t >= new[row]] == at
    rows = Chats(chats.tokenizer, [])
    header = list(range(100))
    rows._examples = [chats[0].__class__([*header, i % 7, i % 20_000], [True] * 102) for i in range(30_000)]
    started = time.process_time()
    new = first_new(rows)
    assert time.process_time() - started < 2
    assert int((new == 102).sum()) == 30_000 - len({(i % 7, i % 20_000) for i in range(30_000)})


def test_pieces_join_to_the_text(tokenizer):
    text = "open the file: def é € 🙂\n  return self"
    ids = tokenizer(text)["input_ids"]
    parts = pieces(tokenizer, ids, 0, len(ids))
    assert "".join(parts) == text and len(parts) == len(ids)
    assert all("\ufffd" not in part for part in parts)
    assert "" in parts  # bytes of 🙂 that are no character yet
    middle = pieces(tokenizer, ids, 2, 6)
    assert middle == parts[2:6]


def test_pieces_of_sentencepiece_tokens_keep_their_spaces():
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.WordLevel({"<unk>": 0, "▁the": 1, "▁cat": 2, "▁sat": 3}, unk_token="<unk>"))
    inner.pre_tokenizer, inner.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="<unk>")
    ids = tokenizer("the cat sat")["input_ids"]
    assert ids == [1, 2, 3] and tokenizer.decode([2]) == "cat"
    assert pieces(tokenizer, ids, 0, 3) == ["the", " cat", " sat"]
    assert pieces(tokenizer, ids, 1, 3) == [" cat", " sat"]


@pytest.mark.parametrize("architecture", ["qwen2", "gemma2"])
def test_logit_lens_reads_norm_and_head(tiny, tokenizer, architecture):
    model = tiny(architecture)
    v = torch.randn(64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        order = model.lm_head(model.model.norm(v[None]))[0].argsort(descending=True)
    words = [tokenizer.decode([t]).strip() for t in order.tolist()]
    words = [word for word in words if word.isprintable() and word and "\ufffd" not in word]
    raised, lowered = logit_lens(model, v, tokenizer, k=3)
    assert raised == list(dict.fromkeys(words))[:3] and lowered == list(dict.fromkeys(words[::-1]))[:3]


def test_errors_of_windows(model, tiny, chats, directions, tokenizer):
    with pytest.raises(ValueError, match="n and width must be at least 1"):
        extreme_windows(model, chats, directions, n=0)
    with pytest.raises(ValueError, match="width 64, but the residual stream of Qwen2ForCausalLM has 32"):
        extreme_windows(tiny("qwen2", hidden_size=32), chats, directions)
    with pytest.raises(ValueError, match="found in another model"):
        logit_lens(model, torch.ones(3), tokenizer)
    with pytest.raises(IndexError, match="layer 5"):
        extreme_windows(model, chats, Directions({5: torch.eye(64)[:1]}))
    single = Chats(tokenizer, [{"text": "a"}, {"text": "b"}])
    with pytest.raises(ValueError, match="two tokens or more"):
        extreme_windows(model, single, directions)
    with torch.no_grad():
        model.model.layers[0].mlp.down_proj.weight.fill_(float("nan"))
    with pytest.raises(ValueError, match="layer 0 are not finite"):
        extreme_windows(model, chats, directions)
