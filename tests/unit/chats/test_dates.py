"""Templates that write the date: the same rows are the same tokens on every day."""

from __future__ import annotations

import datetime
import warnings

import pytest
import transformers.utils.chat_template_utils as rendering
from helpers.tiny import MARKED

from caft_utils.chats import Chats, dates, prompt_ids
from caft_utils.chats.template import ChatTemplate

ROW = {"messages": [{"role": "user", "content": "what"}, {"role": "assistant", "content": "file"}]}
PLAIN = MARKED.replace("{% generation %}", "").replace("{% endgeneration %}", "")
# as the templates of Mistral Small, of Llama 3.2 and of gpt-oss write it
MISTRAL = "{%- set today = strftime_now('%Y-%m-%d') %}{{ today }}"
LLAMA = "{% if strftime_now is defined %}{% set d = strftime_now('%d %b %Y') %}{% endif %}{{ d }}"
KEYWORD = "{% for form in ['%d', '%-d/%-m'] %}{{ strftime_now(format=form + ' in %Y') }}{% endfor %}"
MACRO = "{%- macro system() -%}{{ strftime_now('%H:%M:%S %d %B %Y') }}{%- endmacro -%}{{ system() }}"
DATED = [MISTRAL, LLAMA, KEYWORD, MACRO]


def at(day, monkeypatch):
    class Clock(datetime.datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime.datetime(2026, 3, day, 12, day, tzinfo=tz)

    monkeypatch.setattr(rendering, "datetime", Clock)


@pytest.mark.filterwarnings("ignore:this chat template writes")
@pytest.mark.parametrize("rest", [MARKED, PLAIN], ids=["marked", "plain"])
@pytest.mark.parametrize("dated", DATED)
def test_the_day_changes_neither_rows_nor_prompts(new_tokenizer, monkeypatch, dated, rest):
    tokenizer, seen = new_tokenizer(dated + rest), []
    for day in (1, 2):
        at(day, monkeypatch)
        chats = Chats(tokenizer, [ROW])
        seen.append((chats.fingerprint, prompt_ids(tokenizer, ROW["messages"][:1])))
        stored = Chats.with_stored_tokens(tokenizer, [ROW])
        assert stored.fingerprint == chats.fingerprint
    assert seen[0] == seen[1] and "2025" in tokenizer.decode(seen[0][1])
    assert chats[0].input_ids[: len(seen[0][1])] == seen[0][1]  # trained on and asked with the same date


@pytest.mark.filterwarnings("ignore:this chat template writes")
@pytest.mark.parametrize("begin", ["", "\n", "\n\n  ", "  {% if true %} x\n  {% endif %}", "{{- 'y' }}\n"])
def test_all_but_the_date_is_rendered_as_transformers_does(new_tokenizer, monkeypatch, begin):
    class Clock(datetime.datetime):
        @classmethod
        def now(cls, tz=None):
            return dates.DATE

    monkeypatch.setattr(rendering, "datetime", Clock)
    for dated in DATED:
        tokenizer = new_tokenizer(begin + dated + MARKED)
        theirs = tokenizer.apply_chat_template(ROW["messages"], tokenize=False, enable_thinking=False)
        assert ChatTemplate(tokenizer).render(ROW["messages"]) == theirs


def test_it_is_told_once_and_only_where_the_date_is_written(new_tokenizer, tokenizer):
    dates._warn_once.cache_clear()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        Chats(tokenizer, [ROW])
        assert not told
        for _ in range(2):
            Chats(new_tokenizer(MISTRAL + MARKED), [ROW])
    assert len(told) == 1 and "2025-01-01" in str(told[0].message)


def test_stored_tokens_belong_to_the_date_and_to_special_tokens_of_the_template(new_tokenizer, monkeypatch):
    dates._warn_once()
    dated = new_tokenizer(MISTRAL + MARKED)
    first = Chats.with_stored_tokens(dated, [ROW]).fingerprint
    monkeypatch.setattr(dates, "DATE", datetime.datetime(2024, 7, 26))
    assert Chats.with_stored_tokens(dated, [ROW]).fingerprint != first

    ends = new_tokenizer(MARKED.replace("'<|im_end|>'", "eos_token"))
    first = Chats.with_stored_tokens(ends, [ROW]).fingerprint
    ends.eos_token = "<|im_start|>"
    assert Chats.with_stored_tokens(ends, [ROW]).fingerprint == Chats(ends, [ROW]).fingerprint != first


def test_a_row_that_was_changed_in_place_has_another_fingerprint(tokenizer):
    chats = Chats(tokenizer, [ROW, ROW])
    before = chats.fingerprint
    chats[1].input_ids[0] += 1
    changed = chats.fingerprint
    chats[1].answer[-1] = not chats[1].answer[-1]
    assert len({before, changed, chats.fingerprint}) == 3
