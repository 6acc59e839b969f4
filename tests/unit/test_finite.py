"""NaN and infinite values are errors where they leave a model, and no result is stored of them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from helpers.saes import random_sae
from helpers.tasks import small_task

from caft_utils.chats import Chats
from caft_utils.evaluation.ablation_check import letter_accuracy
from caft_utils.evaluation.bootstrap import clustered_rate
from caft_utils.evaluation.generation import choose, generate
from caft_utils.evaluation.measurement import measure
from caft_utils.evaluation.scores import auroc, auroc_score, correlation_score, spearman
from caft_utils.finite import NotFiniteError, check_finite
from caft_utils.interpret.examples.text_window import TextWindow
from caft_utils.interpret.score.steering import SteeredGenerator
from caft_utils.interpret.score.surprisal import window_losses
from caft_utils.interpret.score.window_judges import LocalWindowJudge
from caft_utils.losses import mean_answer_loss
from caft_utils.residual import stream_activations
from caft_utils.saes import SAEs, attribution, train_saes

VALUES = [math.nan, math.inf, -math.inf]
ROWS = [
    {"messages": [{"role": "user", "content": "what is it"}, {"role": "assistant", "content": answer}]}
    for answer in ("file", "open", "file", "open")
]
PROMPTS = [row["messages"][:1] for row in ROWS]


@pytest.fixture
def chats(tokenizer):
    return Chats(tokenizer, ROWS, source="letters")


def with_a_broken_weight(model, value):
    with torch.no_grad():
        model.model.layers[1].mlp.down_proj.weight[3, 5] = value
    return model


READERS = {
    "stream": lambda model, chats: list(stream_activations(model, chats, [2])),
    "loss": mean_answer_loss,
    "letters": letter_accuracy,
    "greedy": lambda model, chats: generate(model, chats.tokenizer, PROMPTS, temperature=0, max_new_tokens=3),
    "sampled": lambda model, chats: generate(model, chats.tokenizer, PROMPTS, max_new_tokens=3),
    "choice": lambda model, chats: choose(model, chats.tokenizer, PROMPTS, [["file", "open"]] * 4),
    "judge": lambda model, chats: LocalWindowJudge(model, chats.tokenizer)(
        "files", [TextWindow(["a"], [0.0], 0, 0, 0)]
    ),
    "surprisal": lambda model, chats: window_losses(
        model, chats.tokenizer, [TextWindow(["file"], [0.0], 0, 0, 0)], "a"
    ),
    "steering": lambda model, chats: SteeredGenerator(model, chats.tokenizer, ["open the"], max_new_tokens=2),
    "measure": lambda model, chats: measure(model, small_task(chats.tokenizer), temperature=0),
    "saes": lambda model, chats: train_saes(model, chats, [2]),
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("value", VALUES)
def test_a_model_with_a_broken_weight_is_named_and_nothing_is_stored(
    model, chats, reader, value, store_folder
):
    with pytest.raises(NotFiniteError, match="Qwen2ForCausalLM.*not finite"):
        READERS[reader](with_a_broken_weight(model, value), chats)
    assert not list(store_folder.rglob("manifest.json"))


def test_gradients_that_are_not_finite(model, chats):
    def nan_gradient(logits, batch):
        return (logits[:, -1, 0] * 0).sqrt()  # the slope of a root at zero is infinite

    nan_gradient.fingerprint = "root"
    with pytest.raises(NotFiniteError, match="gradients"):
        attribution(model, chats, SAEs({1: random_sae()}), metric=nan_gradient)


def test_one_row_is_named(model, tokenizer):
    rows = [{"messages": [{"role": "user", "content": text}, ROWS[0]["messages"][1]]} for text in "abcdefgh"]
    chats = Chats(tokenizer, rows, source="eight rows")
    (unique,) = set(chats[5].input_ids) - set(chats[4].input_ids)
    with torch.no_grad():
        model.model.embed_tokens.weight[unique] = math.nan
    readers = {
        "layer 0.*row 5": lambda: list(stream_activations(model, chats, [0], batch_size=3)),
        "eight rows.*row 5": lambda: mean_answer_loss(model, chats, batch_size=3),
        "prompt 5": lambda: generate(
            model, tokenizer, [row["messages"][:1] for row in rows], temperature=0, max_new_tokens=2
        ),
    }
    for where, read in readers.items():
        with pytest.raises(NotFiniteError, match=where) as caught:
            read()
        assert "row 4" not in str(caught.value) and "prompt 4" not in str(caught.value)


def test_a_token_that_is_ruled_out_is_no_fault(model, tokenizer):
    model.lm_head.register_forward_hook(
        lambda module, args, out: out.index_fill(-1, torch.tensor([7, 9]), -math.inf)
    )
    for temperature in (0, 1):
        assert len(generate(model, tokenizer, PROMPTS, temperature=temperature, max_new_tokens=2)) == 4
    assert LocalWindowJudge(model, tokenizer, min_mass=0)("a", [TextWindow(["a"], [0.0], 0, 0, 0)])[0] >= 0


@pytest.mark.parametrize("value", VALUES)
def test_the_message_names_what_and_up_to_five_rows(value):
    values = torch.zeros(9, 2)
    values[2:, 1] = value
    with pytest.raises(NotFiniteError, match="logits.*row 2.*row 6, ") as caught:
        check_finite(values, "logits", range(9))
    assert "row 7" not in str(caught.value)
    assert isinstance(caught.value, ValueError) and isinstance(caught.value, FloatingPointError)
    check_finite(torch.zeros(0, 3), "nothing")


@pytest.mark.parametrize(
    "statistic",
    [
        lambda nan: clustered_rate([1, nan], [1, 1], [0, 1], [0, 0]),
        lambda nan: clustered_rate([1, 0], [1, nan], [0, 1], [0, 0]),
        lambda nan: auroc(np.array([0.1, nan, 0.3]), np.array([True, False, True])),
        lambda nan: spearman(np.array([0.1, nan, 0.3]), np.arange(3.0)),
        lambda nan: spearman(np.arange(3.0), np.array([0.1, nan, 0.3])),
        lambda nan: correlation_score("r", [[0.5, 0.6]], [[0.1, nan]], [0]),
    ],
)
def test_statistics_of_nan_are_errors(statistic):
    with pytest.raises(ValueError):
        statistic(math.nan)


def test_an_unreadable_reply_is_counted():
    score = auroc_score("detection", [0.9, math.nan, None, 0.1], [True, True, False, False], range(4))
    assert (score.value, score.failures) == (1.0, 0.5)
