"""Rows beyond the positions of a model are refused wherever a model reads, trains or answers."""

from __future__ import annotations

import pytest
import transformers
from torch import nn

from caft_utils.chats import Chats
from caft_utils.evaluation.generation import choose, generate
from caft_utils.finetuning import finetune
from caft_utils.losses import mean_answer_loss
from caft_utils.models.positions import check_positions, position_limit
from caft_utils.residual import stream_activations

SHORT, ANSWER = [{"role": "user", "content": "you"}], {"role": "assistant", "content": "yes"}
PROMPT = [{"role": "user", "content": "you " * 60}]
STRETCHED = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64, "rope_theta": 1e4}


@pytest.mark.parametrize(
    "config, limit",
    [
        (transformers.Qwen2Config(max_position_embeddings=64), 64),
        (transformers.OPTConfig(max_position_embeddings=64), 64),
        (transformers.GPT2Config(n_positions=64), 64),
        (transformers.BloomConfig(), None),
        (transformers.Qwen2Config(max_position_embeddings=64, rope_parameters=STRETCHED), 256),
        (transformers.MistralConfig(max_position_embeddings=64, sliding_window=8), 64),
    ],
)
def test_the_limit_of_a_config(config, limit):
    model = nn.Module()
    model.config = config
    assert position_limit(model) == limit
    check_positions(model, [limit or 10**6], "rows")


READERS = [
    lambda model, chats: next(stream_activations(model, chats, [0])),
    lambda model, chats: mean_answer_loss(model, chats),
    lambda model, chats: finetune(model, chats),
]


@pytest.mark.parametrize(
    "use",
    [
        *READERS,
        lambda model, chats: generate(model, chats.tokenizer, [PROMPT], max_new_tokens=1),
        lambda model, chats: generate(model, chats.tokenizer, [SHORT], max_new_tokens=64),
        lambda model, chats: choose(model, chats.tokenizer, [PROMPT], [["yes", "no"]]),
    ],
)
def test_long_rows_are_refused(tiny, tokenizer, use):
    model = tiny("qwen2", max_position_embeddings=64)
    rows = [{"messages": [*SHORT, ANSWER]}, {"messages": [*PROMPT, ANSWER]}]
    chats = Chats(tokenizer, rows, source="mine.jsonl")
    with pytest.raises(ValueError, match=r"row [01].* 64 positions"):
        use(model, chats)


def test_cut_rows_are_read(tiny, tokenizer):
    chats = Chats(tokenizer, [{"text": "you " * 100}], max_length=64)
    model = tiny("qwen2", max_position_embeddings=64)
    assert len(next(stream_activations(model, chats, [0])).hidden[0]) == 64


@pytest.mark.parametrize(
    "use",
    [
        *READERS,
        lambda model, chats: generate(model, chats.tokenizer, [SHORT], max_new_tokens=1),
        lambda model, chats: choose(model, chats.tokenizer, [SHORT], [["yes", "no"]]),
    ],
)
def test_ids_of_another_tokenizer_are_refused(tiny, tokenizer, use):
    model = tiny("qwen2", vocab_size=10)
    chats = Chats(tokenizer, [{"messages": [*SHORT, ANSWER]}])
    with pytest.raises(ValueError, match=r"row 0: token id \d+, but .* the ids 0 to 9; .*own tokenizer"):
        use(model, chats)
