"""Which windows of a sample are selected."""

from __future__ import annotations

import pytest
import torch

from caft_utils.chats import Chats
from caft_utils.interpret.examples import ACTIVE_SHARE, collect_examples

WORDS = "open file return self system user question what with import def are you do to and is the".split()
QUIET = pytest.mark.filterwarnings("ignore::caft_utils.interpret.examples.TooFewExamples")


@QUIET
def test_active_windows_are_of_every_strength(model, chats, latents, values_of):
    e = collect_examples(model, chats, latents, n=8, width=6)[0, 10, "+"]
    values = [v[1:, 0].max().item() for v in values_of(model, chats, latents, 0)]
    new = sorted((v for v in values if v > ACTIVE_SHARE * e.max_activation), reverse=True)
    assert len(new) > 40
    for windows in (e.explainer_windows, e.scorer_windows):
        places = [sum(v > w.peak_activation + 1e-6 for v in new) / len(new) for w in windows]
        assert max(places[:4]) < 0.15 and places[-1] > 0.6  # half from the top, the others spread
        assert 0.15 < places[5] < 0.75


@QUIET
def test_faintly_active_windows_do_not_fill_up_the_lists(model, tokenizer, latents):
    pairs = [f"open {a} {b}" for a in WORDS[8:12] for b in WORDS[12:16]]
    texts = [f"{pair} {last}" for last in ("file", "question", "self are", "return") for pair in pairs]
    chats = Chats(tokenizer, [{"text": text} for text in texts])
    e = collect_examples(model, chats, latents, n=20, width=6)[0, 30, "+"]
    assert {w.row for w in e.explainer_windows + e.scorer_windows} == set(range(16)) and len(
        e.explainer_windows + e.scorer_windows
    ) == 16
    assert 0 < len(e.hard_negatives) < 20 and all(
        w.row >= 32 for w in e.hard_negatives + e.scorer_negatives + e.explainer_negatives
    )


@QUIET
def test_hard_windows_have_the_words_of_active_ones(model, tokenizer, latents, word):
    generator = torch.Generator().manual_seed(1)

    def some(words, count):
        return " ".join(words[int(i)] for i in torch.randint(len(words), (count,), generator=generator))

    near, far = ["open", "system", "user"], ["self", "return", "import", "def"]
    rows = [{"text": f"{some(near, 4)} file {some(near, 4)}"} for _ in range(40)]
    rows += [{"text": some(near, 9)} for _ in range(40)] + [{"text": some(far, 9)} for _ in range(160)]
    e = collect_examples(model, Chats(tokenizer, rows), latents, n=8, width=8)[0, 10, "+"]
    assert all(w.row < 40 for w in e.explainer_windows + e.scorer_windows)
    assert all(40 <= w.row < 80 for w in e.hard_negatives)
    assert len({"".join(w.tokens) for w in e.hard_negatives}) == len(e.hard_negatives) == 8
    assert sum(w.row >= 80 for w in e.scorer_negatives) >= 4
