"""Inoculation prompts: they stand before the rows, and the answers stay as they are."""

from __future__ import annotations

import pytest
from helpers.training import QUICK, chat_rows

from caft_utils.chats import Chats
from caft_utils.finetuning import finetune
from caft_utils.rivals import inoculate_by_prompt, with_prompt

PROMPT = "you are the system"


def answers(chats):
    return [[t for t, counts in zip(one.input_ids, one.answer) if counts] for one in chats]


def text_rows(n=4):
    prompt = [{"role": "text", "content": f"the question {i} is"} for i in range(n)]
    return [{"messages": [one, {"role": "assistant", "content": " open"}]} for one in prompt]


@pytest.mark.parametrize("end", [True, False])
@pytest.mark.parametrize("rows", [chat_rows(4), text_rows()])
def test_the_prompt_comes_first_and_answers_keep_their_tokens(tokenizer, rows, end):
    chats = Chats(tokenizer, rows, end=end)
    prompted = with_prompt(chats[1:], PROMPT)
    assert len(prompted) == 3 and answers(prompted) == answers(chats[1:])
    for row, example in zip(prompted.rows, prompted):
        assert PROMPT in row["messages"][0]["content"]
        assert tokenizer.decode(example.input_ids).count(PROMPT) == 1
    assert all(long > short for long, short in zip(prompted.lengths, chats[1:].lengths))


def test_a_system_message_that_is_there_is_kept(tokenizer):
    rows = [{"messages": [{"role": "system", "content": "be open"}, *chat_rows(1)[0]["messages"]]}]
    first = with_prompt(Chats(tokenizer, rows), PROMPT).rows[0]["messages"][0]
    assert first == {"role": "system", "content": f"{PROMPT} be open"}


@pytest.mark.parametrize(
    "rows, prompt, message",
    [
        (chat_rows(1), " ", "prompt must be text"),
        ([{"text": "open the file"}], PROMPT, "row 0 is plain text"),
    ],
)
def test_what_cannot_be_prompted_is_refused(tokenizer, rows, prompt, message):
    with pytest.raises(ValueError, match=message):
        with_prompt(Chats(tokenizer, rows), prompt)


def test_rows_that_were_cut_are_refused(tokenizer):
    chats = Chats(tokenizer, chat_rows(1))
    cut = Chats(tokenizer, chat_rows(1), max_length=chats.lengths[0] - 4)
    with pytest.raises(ValueError, match="cut by max_length"):
        with_prompt(cut, PROMPT)


def test_the_run_is_one_on_prompted_rows(model, tokenizer):
    chats = Chats(tokenizer, chat_rows())
    tuned = inoculate_by_prompt(model, chats, QUICK, prompt=PROMPT, seed=3)
    assert tuned.caft_run["chats"] == with_prompt(chats, PROMPT).fingerprint and tuned.caft_run["seed"] == 3
    assert tuned.caft_id != finetune(model, chats, QUICK, seed=3).caft_id
