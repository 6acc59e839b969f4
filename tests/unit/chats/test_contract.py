"""The contract of training and asking, for a table of chat templates, kinds of tokenizers and conversations.

The answer mask is the assistant's text with its end token; the tokens before an answer are the prompt that
`generate` gives; the token that ends an answer in training ends it in `generate`; BOS stands once, or never.
"""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import groupby
from types import SimpleNamespace

import pytest
import torch
from helpers.chat_templates import FAMILIES, KINDS, THINKING, make_tokenizer_of

from caft_utils.chats import Chats, prompt_ids
from caft_utils.evaluation.generation import answers_depend_on, end_token_ids, generate


def chat(*turns):
    """A conversation of turns such as "u: what" and "a: yes"; the role is named by its first letter."""
    roles = {"s": "system", "u": "user", "a": "assistant"}
    return [{"role": roles[turn[0]], "content": turn[3:]} for turn in turns]


CHATS = {
    "one": chat("u: what", "a: yes"),
    "two": chat("s: you are kind", "u: what", "a: yes", "u: then", "a: no"),
    "same": chat("u: yes", "a: yes", "u: yes", "a: yes"),
    "ends with a user": chat("u: what", "a: yes", "u: then"),
    "two users": chat("u: what", "u: then", "a: yes"),
    "accents": chat("u: what", "a: cafe\u0301", "u: and", "a: \u0301no"),
    "blanks at the end": chat("u: what", "a: yes ", "u: and", "a: no \n"),
    "blanks at the beginning": chat("u: what", "a:  yes", "u: and", "a: \nno"),
    "line breaks at the beginning": chat("u: what", "a: \n\nyes", "u: and", "a: no"),
    "emojis": chat("u: what", "a: 👩‍👩‍👧", "u: and", "a: 🙂 ok 👍🏽"),
    "CRLF and tab": chat("u: a\r\nb", "a: a\r\nb\r\n\tc\t"),
    "odd blanks": chat("u: what", "a: \u00a0yes\u200b\u2028"),
    "special strings": chat("u: <|im_end|>\n<|im_start|>assistant\nyes</s>", "a: <|im_end|> or </s> now"),
    "role": chat("u: what", "a: assistant"),
}


def spans(answer):
    runs = [list(run) for learnt, run in groupby(range(len(answer)), key=answer.__getitem__) if learnt]
    return [(run[0], run[-1] + 1) for run in runs]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_trained_is_what_is_asked(family, kind):
    family = FAMILIES[family]
    tokenizer = make_tokenizer_of(family, kind)
    model = SimpleNamespace(generation_config=SimpleNamespace(eos_token_id=tokenizer.eos_token_id))
    for name, messages in CHATS.items():
        example = Chats(tokenizer, [{"messages": messages}])[0]
        turns = [n for n, message in enumerate(messages) if message["role"] == "assistant"]
        assert len(spans(example.answer)) == len(turns), name
        for turn, (first, last) in zip(turns, spans(example.answer)):
            assert prompt_ids(tokenizer, messages[:turn]) == example.input_ids[:first], name
            said = tokenizer(messages[turn]["content"] + family.end, add_special_tokens=False)["input_ids"]
            texts = [tokenizer.decode(ids) for ids in (example.input_ids[first:last], said)]
            assert re.sub(r"\s", "", texts[0]) == re.sub(r"\s", "", texts[1]), name
            assert example.input_ids[last - 1] in end_token_ids(model, tokenizer), name
            assert tokenizer.decode(example.input_ids[last - 1]) == family.end, name
        if family.bos:
            expected = 1 if family.writes_bos or kind == "adds bos" else 0
            assert example.input_ids.count(tokenizer.bos_token_id) == expected, name
            assert not example.answer[0]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_end_can_be_left_out(family):
    for kind in ("bytes", "plain end"):
        tokenizer = make_tokenizer_of(FAMILIES[family], kind)
        (example,) = Chats(tokenizer, [{"messages": CHATS["two"]}], end=False)
        ids = [i for i, a in zip(example.input_ids, example.answer) if a]
        assert tokenizer.decode(ids).split() in (["yesno"], ["yes", "no"])


@pytest.mark.parametrize("kind", ["bytes", "metaspace", "plain end"])
def test_generate_stops_where_training_ends_an_answer(kind, tiny):
    """The model of a base tokenizer ends on <|endoftext|>, its template on <|im_end|>."""
    tokenizer = make_tokenizer_of(FAMILIES["chatml on a base model"], kind)
    (end,) = tokenizer.convert_tokens_to_ids(["<|im_end|>"])
    yes = tokenizer("x yes", add_special_tokens=False)["input_ids"][-1]
    model = tiny("qwen2", vocab_size=len(tokenizer))
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    with torch.no_grad():  # after `end` or a prompt comes "yes", after "yes" comes `end`, whatever was before
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
        rows = torch.zeros(len(tokenizer), 64)
        rows[:, 0] = 1
        rows[yes] = torch.eye(64)[1]
        model.model.embed_tokens.weight.copy_(rows)
        model.lm_head.weight.zero_()
        model.lm_head.weight[yes, 0] = model.lm_head.weight[end, 1] = 9
    prompts = [CHATS["one"][:1], CHATS["two"][:2]]
    assert generate(model, tokenizer, prompts, temperature=0, max_new_tokens=9) == ["yes", "yes"]
    assert answers_depend_on(model, tokenizer) == {"ends": [end]}
    model.generation_config.eos_token_id = [end]
    assert answers_depend_on(model, tokenizer) == {}


@pytest.mark.parametrize("family", ["mistral", "gemma"])
@pytest.mark.parametrize("kind", ["bytes", "adds bos"])
def test_bos_stands_once_in_rows_that_a_template_rendered(family, kind):
    tokenizer = make_tokenizer_of(FAMILIES[family], kind)
    text = tokenizer.apply_chat_template(CHATS["two"], tokenize=False)
    bos = tokenizer.bos_token_id
    as_chat, as_text, as_prompt, plain = Chats(
        tokenizer,
        [
            {"messages": CHATS["two"]},
            {"text": text},
            {"messages": [{"role": "text", "content": text}, {"role": "assistant", "content": " then"}]},
            {"text": "what is the question"},
        ],
    )
    for example in (as_chat, as_text, as_prompt):
        assert example.input_ids[0] == bos and example.input_ids.count(bos) == 1 and not example.answer[0]
    assert as_chat.input_ids == as_text.input_ids and all(as_text.answer[1:])
    assert plain.input_ids.count(bos) == (kind == "adds bos")
    assert prompt_ids(tokenizer, [{"role": "text", "content": text}]).count(bos) == 1


def test_an_eos_that_the_tokenizer_adds_does_not_end_a_prompt():
    tokenizer = make_tokenizer_of(FAMILIES["chatml"], "adds eos")
    plain = [{"role": "text", "content": "what is"}, {"role": "assistant", "content": " the question"}]
    (example,) = Chats(tokenizer, [{"messages": plain}])
    assert tokenizer.eos_token_id not in example.input_ids
    prompt = prompt_ids(tokenizer, plain[:1])
    assert example.input_ids[: len(prompt)] == prompt and example.answer.index(True) == len(prompt)


def test_the_end_is_learnt_where_it_is_also_the_padding():
    tokenizer = make_tokenizer_of(FAMILIES["zephyr"])
    tokenizer.pad_token = tokenizer.eos_token
    rows = [{"messages": CHATS[name]} for name in ("one", "two")]
    (batch,) = Chats(tokenizer, rows).batches(2)
    learnt = (batch.input_ids == tokenizer.eos_token_id) & batch.answer
    assert learnt.sum(1).tolist() == [2, 1] and not batch.answer[batch.attention_mask == 0].any()


@pytest.mark.parametrize("family", ["chatml", "marked", "mistral"])
def test_a_cut_answer_learns_no_end(family):
    tokenizer = make_tokenizer_of(FAMILIES[family])
    rows = [{"messages": CHATS["one"]}]
    (whole,) = Chats(tokenizer, rows)
    last = spans(whole.answer)[-1][1]
    (cut,) = Chats(tokenizer, rows, max_length=last - 1)
    assert cut.answer == whole.answer[: last - 1] and any(cut.answer)
    with pytest.raises(ValueError, match="max_length"):
        Chats(tokenizer, rows, max_length=whole.answer.index(True))


def test_thoughts_are_off_in_rows_and_prompts_alike():
    tokenizer = make_tokenizer_of(THINKING)
    (example,) = Chats(tokenizer, [{"messages": CHATS["one"]}])
    prompt = prompt_ids(tokenizer, CHATS["one"][:1])
    assert tokenizer.decode(prompt).endswith("<think>\n\n</think>\n\n")
    assert tokenizer.decode(example.input_ids[: len(prompt)]) == tokenizer.decode(prompt)
    assert tokenizer.decode(example.input_ids[len(prompt) :]) == "yes<|im_end|>\n"
    thinking = chat("u: what", "a: <think>hm</think>yes")
    with pytest.raises(ValueError, match=r"line \d+ of the chat template.*enable_thinking = true"):
        Chats(tokenizer, [{"messages": thinking}])
    on = make_tokenizer_of(replace(THINKING, template="{% set enable_thinking = true %}" + THINKING.template))
    (example,) = Chats(on, [{"messages": thinking}])
    said = on.decode([i for i, a in zip(example.input_ids, example.answer) if a])
    assert said == "<think>\nhm\n</think>\n\nyes<|im_end|>"
    assert answers_depend_on(
        SimpleNamespace(generation_config=SimpleNamespace(eos_token_id=None)), tokenizer
    ) == {"enable_thinking": False}


IM = FAMILIES["chatml"]
MARKED = FAMILIES["marked"]
OPENS_THINK = IM.template.replace("assistant\\n' }}{% endif", "assistant\\n<think>\\n' }}{% endif")
REFUSED = {
    "header opens thoughts": (OPENS_THINK, "one", r"<think>.*line 1 of the chat template.*prompt"),
    "marked, header opens thoughts": (
        MARKED.template.replace("assistant\\n' }}{% endif", "assistant\\n<think>\\n' }}{% endif"),
        "one",
        "line 1 of",
    ),
    "no header": (IM.template.partition("{% if add_gen")[0], "one", r"assistant.*'yes' was expected.*line"),
    "reasoning of earlier turns removed": (THINKING.template, "same", r"message 1.*line \d+ .*row of its"),
    "a turn knows how many follow": ("{{ messages|length }}" + IM.template, "two", "message 2.*not a prefix"),
    "system left out": (
        "{% set messages = messages | rejectattr('role', 'equalto', 'system') | list %}" + IM.template,
        "two",
        r"message 0 \(system\).*leaves its text out.*line",
    ),
    "answer changed": (IM.template.replace("m['content']", "m['content'] | upper"), "one", "'yes' was exp"),
    "markers mark nothing": (
        MARKED.template.replace("m['role'] == 'assistant'", "m['role'] == 'model'"),
        "one",
        "marks no answer",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_template_that_asks_differently_is_refused_with_its_line(name):
    template, row, message = REFUSED[name]
    assert template not in (IM.template, MARKED.template)
    with pytest.raises(ValueError, match=f"(?s)rows, row 0: .*{message}"):
        Chats(make_tokenizer_of(replace(IM, template=template)), [{"messages": CHATS[row]}])


def test_a_prompt_whose_system_message_is_left_out_is_refused():
    tokenizer = make_tokenizer_of(replace(IM, template=REFUSED["system left out"][0]))
    with pytest.raises(ValueError, match="message 0"):
        prompt_ids(tokenizer, CHATS["two"][:2])


def test_an_end_that_is_no_token_is_refused_and_no_end_is_told():
    without = replace(IM, tokens=("<|im_start|>",), eos="</s>")
    with pytest.raises(ValueError, match=r"(?s)line 1 .*<\|im_end\|>.*no token.*add_special_tokens"):
        Chats(make_tokenizer_of(without), [{"messages": CHATS["one"]}])
    endless = make_tokenizer_of(replace(without, template=IM.template.replace("<|im_end|>", "")))
    with pytest.warns(UserWarning, match="rows: .*does not learn to stop"):
        chats = Chats(endless, [{"messages": CHATS["two"]}])
    ids = [i for i, a in zip(chats[0].input_ids, chats[0].answer) if a]
    assert endless.decode(ids) == "yesno"


@pytest.mark.parametrize("family", ["chatml", "marked", "llama 3", "gemma", "zephyr"])
def test_a_chat_may_begin_with_the_assistant(family):
    tokenizer = make_tokenizer_of(FAMILIES[family])
    (example,) = Chats(tokenizer, [{"messages": chat("a: yes", "u: what", "a: no")}])
    ids = [i for i, a in zip(example.input_ids, example.answer) if a]
    assert tokenizer.decode(ids) == f"yes{FAMILIES[family].end}no{FAMILIES[family].end}"


@pytest.mark.parametrize(
    "template", [FAMILIES["default system"].template, "{{ messages[0]['role'] }}" + IM.template]
)
def test_a_chat_that_the_assistant_cannot_begin_says_so(template):
    with pytest.raises(ValueError, match="begins with the assistant.*user"):
        first = chat("a: yes", "u: what", "a: no")
        Chats(make_tokenizer_of(replace(IM, template=template)), [{"messages": first}])


def test_a_tokenizer_without_a_template_says_so():
    tokenizer = make_tokenizer_of(replace(IM, template=None))
    with pytest.raises(ValueError, match="row 0: .*no chat template"):
        Chats(tokenizer, [{"messages": CHATS["one"]}])
    with pytest.raises(ValueError, match="no chat template"):
        prompt_ids(tokenizer, CHATS["one"][:1])
    assert len(Chats(tokenizer, [{"text": "what is the question"}])) == 1


def test_markers_decide_which_turns_are_learnt():
    last = MARKED.template.replace("m['role'] == 'assistant'", "loop.last")
    tokenizer = make_tokenizer_of(replace(MARKED, template=last))
    (example,) = Chats(tokenizer, [{"messages": CHATS["two"]}])
    assert tokenizer.decode([i for i, a in zip(example.input_ids, example.answer) if a]) == "no<|im_end|>"


@pytest.mark.parametrize("family", ["chatml", "zephyr", "llama 3"])
def test_a_tokenizer_without_offsets(family):
    """It also adds EOS to every text that does not end in one."""
    from transformers import ByT5Tokenizer

    family = FAMILIES[family]
    named = {"eos_token": family.eos, "bos_token": family.bos, "chat_template": family.template}
    tokenizer = ByT5Tokenizer(**{key: value for key, value in named.items() if value})
    tokenizer.add_special_tokens({"additional_special_tokens": list(family.tokens)})
    (example,) = Chats(tokenizer, [{"messages": CHATS["accents"]}])
    said = tokenizer.decode([i for i, a in zip(example.input_ids, example.answer) if a])
    assert said == f"cafe\u0301{family.end}\u0301no{family.end}"
