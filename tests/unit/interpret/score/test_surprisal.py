"""Surprisal: losses are those of each window on its own, and an explanation lowers the right ones."""

from __future__ import annotations

import pytest
import torch
from helpers.copier import COPIED, OTHERS, copied_explanation, make_copier
from helpers.planted import as_window, planted

from caft_utils.interpret.score import Surprisal
from caft_utils.interpret.score.surprisal import window_losses


def test_a_model_that_predicts_what_it_has_read(tokenizer):
    scorer = Surprisal(make_copier(tokenizer), tokenizer)
    for topic in COPIED:
        examples = planted(topic, topics=COPIED, filler=OTHERS)
        for explained in COPIED:
            score = scorer(copied_explanation(explained), examples)
            assert score.low > 0.7 if topic == explained else score.low < 0.5, (topic, explained, score)
            assert score.n == 40 and score.failures == 0


def test_prefix_and_dummy_are_what_the_model_reads(model, tokenizer):
    examples = planted("pets", n=4)
    windows = examples.scorer_windows + examples.scorer_negatives
    without, given = (window_losses(model, tokenizer, windows, f"{text}: ") for text in ("you", "dogs"))
    reduction = without - given
    above = reduction[:4, None] > reduction[None, 4:]
    score = Surprisal(model, tokenizer, dummy="you", prefix="{explanation}: ")('"dogs"', examples)
    assert score.value == pytest.approx(float(above.float().mean()))


@pytest.mark.parametrize("architecture, sliding_window", [("qwen2", None), ("mistral", 3), ("gemma2", 3)])
def test_losses_are_those_of_each_window_by_itself(tiny, tokenizer, architecture, sliding_window):
    """Also where attention sees fewer tokens than there are before a window."""
    model = tiny(architecture, **({"sliding_window": sliding_window} if sliding_window else {}))
    windows = planted("pets", n=9).scorer_windows
    prefix = "text about dogs\n\n"
    want = []
    for window in windows:
        start, own = (tokenizer(text)["input_ids"] for text in (prefix, "".join(window.tokens)))
        with torch.no_grad():
            logits = model(torch.tensor([start + own])).logits[0, len(start) - 1 : -1]
        want.append(float(torch.nn.functional.cross_entropy(logits, torch.tensor(own))))
    for batch_size in (1, 4, 9):
        got = window_losses(model, tokenizer, windows, prefix, batch_size=batch_size)
        assert got.tolist() == pytest.approx(want, abs=1e-4), f"batches of {batch_size}"


def test_dropout_is_off_and_the_mode_comes_back(tiny, tokenizer):
    model = tiny("qwen2", attention_dropout=0.5).train()
    windows = planted("pets", n=3).scorer_windows
    first, second = (window_losses(model, tokenizer, windows, "you") for _ in range(2))
    assert torch.equal(first, second) and model.training


def test_empty_windows_and_prefixes(model, tokenizer):
    assert window_losses(model, tokenizer, [as_window("")], "you").isnan().all()
    with pytest.raises(ValueError, match="prefix"):
        window_losses(model, tokenizer, planted("pets", n=3).scorer_windows, "")
