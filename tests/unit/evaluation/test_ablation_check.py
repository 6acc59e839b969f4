"""The ablation check: accuracies with an ablation off and on, and what passes."""

from __future__ import annotations

import pytest
import torch

from caft_utils.classroom.cues.tasks import single_choice
from caft_utils.directions import Directions
from caft_utils.evaluation.ablation_check import AblationCheck, check_ablation, letter_accuracy
from caft_utils.evaluation.bootstrap import Rate
from caft_utils.finetune_config import FinetuneConfig
from caft_utils.finetuning.run import finetune
from caft_utils.interventions import ablate
from caft_utils.tasks.items import Item


def rate(value):
    return Rate(value, value, value, 100)


def checked(intended_off=1.0, intended_on=0.95, unintended_off=1.0, unintended_on=0.55):
    off, on = (
        {"a": rate(x), "b": rate(y)}
        for x, y in ((intended_off, unintended_off), (intended_on, unintended_on))
    )
    return AblationCheck(on, off, intended="a", unintended="b")


def test_what_passes():
    assert checked().passes and "passes: yes" in str(checked()) and "b (unintended)" in str(checked())
    assert not checked(unintended_on=0.8).removed  # still answered
    assert not checked(unintended_on=0.2).removed  # always wrong: the subject is still known
    assert not checked(unintended_off=0.5).removed  # never known, so nothing was removed
    assert not checked(intended_on=0.7).kept and not checked(intended_off=0.5, intended_on=0.5).kept
    assert not checked(intended_on=0.7).passes and "passes: no" in str(checked(intended_on=0.7))


@pytest.fixture(scope="module")
def items():
    return {
        "files": [Item(f"open {i}", "file", "question") for i in range(16)],
        "persons": [Item(f"are {i}", "you", "system") for i in range(16)],
    }


def test_letters_and_interventions(tiny, tokenizer, items):
    """Batched accuracies equal those of single rows; with everything ablated both letters tie."""
    chats = {name: single_choice(tokenizer, part, word=name) for name, part in items.items()}
    model, both = tiny("qwen2"), single_choice(tokenizer, items["files"] + items["persons"])
    trained = finetune(
        model, both, FinetuneConfig(method="full", lr=2e-3, steps=30, batch_size=32, accumulate=1)
    )
    result = check_ablation(
        trained, chats, during=ablate(Directions({2: torch.eye(64)})), intended="files", unintended="persons"
    )
    for name, rows in chats.items():
        right = [e.input_ids[e.answer.index(True)] for e in rows]
        told = []
        for example in rows:  # one by one, without padding
            ids = torch.tensor([example.input_ids[: example.answer.index(True)]])
            with torch.no_grad():
                told.append(trained(input_ids=ids).logits[0, -1])
        pair = sorted(set(right))
        hits = [max(pair, key=lambda i, row=row: row[i]) == r for row, r in zip(told, right)]
        assert result.off[name].value == pytest.approx(sum(hits) / 16) and result.off[name].n == 16
        assert result.on[name].value == 0.5  # zero logits: the letters tie
    assert not trained._forward_hooks and letter_accuracy(trained, chats["files"]) == result.off["files"]


def test_wrong_rows(model, tokenizer, items):
    chats = {"files": single_choice(tokenizer, items["files"])}
    during = ablate(Directions({0: torch.eye(64)[:1]}))
    with pytest.raises(ValueError, match="no rows of persons; there are files"):
        check_ablation(model, chats, during=during, intended="files", unintended="persons")
    one = single_choice(tokenizer, items["files"], rows=1)
    with pytest.raises(ValueError, match="one of two letters"):
        letter_accuracy(model, one)
