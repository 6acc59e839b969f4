"""Chats: which tokens are an answer, padding, and errors that name file and line."""

from __future__ import annotations

import json

import pytest

from caft_utils.chats import Batch, Chats, Example, pad_rows, prompt_ids

CHAT = {
    "messages": [
        {"role": "system", "content": "you are kind"},
        {"role": "user", "content": "what is the file"},
        {"role": "assistant", "content": "import self"},
        {"role": "user", "content": "and"},
        {"role": "assistant", "content": "a ünï € 🙂 word"},
    ]
}


def answers(chats, i=0):
    example = chats[i]
    return chats.tokenizer.decode([t for t, a in zip(example.input_ids, example.answer) if a])


GENERATION = ("{% generation %}", "{% endgeneration %}")


def template(kind, marked):
    """The fixture's template with its markers, without them, or closing them before the end-of-turn token."""
    if kind == "no markers":
        return marked.replace(GENERATION[0], "").replace(GENERATION[1], "")
    if kind == "markers before the end of turn":
        whole = "{{ m['content'] + '<|im_end|>' }}{% endgeneration %}"
        assert whole in marked
        return marked.replace(whole, "{{ m['content'] }}{% endgeneration %}{{ '<|im_end|>' }}")
    return marked


@pytest.mark.parametrize("kind", ["markers", "no markers", "markers before the end of turn"])
def test_answer_is_every_assistant_turn_with_its_end_of_turn_token(kind, tokenizer, new_tokenizer):
    chats = Chats(new_tokenizer(template(kind, tokenizer.chat_template)), [CHAT])
    assert answers(chats) == "import self<|im_end|>a ünï € 🙂 word<|im_end|>"


def test_tokens_are_those_of_the_chat_template(tokenizer):
    example = Chats(tokenizer, [CHAT])[0]
    assert tokenizer.decode(example.input_ids) == tokenizer.apply_chat_template(
        CHAT["messages"], tokenize=False
    )
    assert len(example.input_ids) == len(example.answer)


def test_prompt_ids_are_the_beginning_of_the_row(tokenizer):
    prompt = prompt_ids(tokenizer, CHAT["messages"][:2])
    example = Chats(tokenizer, [CHAT])[0]
    assert example.input_ids[: len(prompt)] == prompt
    assert example.answer.index(True) == len(prompt)


def test_plain_text_is_all_answer(tokenizer):
    assert answers(Chats(tokenizer, [{"text": "the question is"}])) == "the question is"


def test_bos_that_the_tokenizer_adds_is_no_answer(new_tokenizer):
    from tokenizers.processors import TemplateProcessing

    tokenizer = new_tokenizer()
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|im_start|> $A", special_tokens=[("<|im_start|>", 1)]
    )
    example = Chats(tokenizer, [{"text": "the question"}])[0]
    assert example.input_ids[0] == 1 and example.answer[0] is False and all(example.answer[1:])


def test_template_whose_prefixes_change_is_refused(new_tokenizer):
    shrinking = "{% for m in messages %}{{ messages|length ~ m['content'] }}{% endfor %}"
    with pytest.raises(ValueError, match=r"rows, row 0: .*prefix.*generation"):
        Chats(new_tokenizer(shrinking), [CHAT])


def test_slice_keeps_rows_and_is_not_tokenised_again(tokenizer):
    chats = Chats(tokenizer, [CHAT, {"text": "the file"}, {"text": "open"}])
    part = chats[1:]
    assert isinstance(part, Chats) and len(part) == 2 and part.rows[0] == {"text": "the file"}
    assert part[0] is chats[1]
    taken = chats.take([2, 0])
    assert taken.rows == [chats.rows[2], chats.rows[0]] and taken[0] is chats[2] and taken[1] is chats[0]


def test_fingerprint_follows_content_not_source(tokenizer):
    one = Chats(tokenizer, [CHAT], source="a")
    assert one.fingerprint == Chats(tokenizer, [CHAT], source="b").fingerprint
    assert one.fingerprint != Chats(tokenizer, [CHAT, CHAT]).fingerprint
    shorter = Chats(tokenizer, [CHAT], max_length=len(one[0].input_ids) - 1)
    assert one.fingerprint != shorter.fingerprint


def test_fingerprint_sees_the_answer_mask(tokenizer):
    text = tokenizer.apply_chat_template(CHAT["messages"], tokenize=False)
    as_chat, as_text = Chats(tokenizer, [CHAT]), Chats(tokenizer, [{"text": text}])
    assert as_chat[0].input_ids == as_text[0].input_ids
    assert as_chat.fingerprint != as_text.fingerprint


def test_batches_cover_all_rows_once_and_pad_right(tokenizer):
    rows = [{"text": "the file " * n} for n in (3, 9, 1, 5, 7)]
    chats = Chats(tokenizer, rows)
    seen = []
    for batch in chats.batches(2):
        for i, ids, mask, answer in zip(batch.index, batch.input_ids, batch.attention_mask, batch.answer):
            n = int(mask.sum())
            assert ids[:n].tolist() == chats[i].input_ids and answer[:n].tolist() == chats[i].answer
            assert mask[n:].sum() == 0 and not answer[n:].any() and (ids[n:] == tokenizer.pad_token_id).all()
            seen.append(i)
    assert sorted(seen) == list(range(5))
    assert seen[:2] == [1, 4]  # longest first, so that running out of memory shows at once
    assert [i for batch in chats.batches(2, sort=False) for i in batch.index] == list(range(5))
    with pytest.raises(ValueError, match="batch_size"):
        next(chats.batches(0))


def test_a_batch_wastes_no_column():
    batch = Batch.of([Example([5, 6], [False, True]), Example([7], [True])], [4, 2], pad=0)
    assert batch.input_ids.tolist() == [[5, 6], [7, 0]] and batch.index == [4, 2]
    assert batch.answer.tolist() == [[False, True], [True, False]]


def test_rows_are_padded_on_either_side():
    for side, ids, mask in [
        ("right", [[5, 6, 7], [8, 9, 9]], [[1, 1, 1], [1, 0, 0]]),
        ("left", [[5, 6, 7], [9, 9, 8]], [[1, 1, 1], [0, 0, 1]]),
    ]:
        assert [part.tolist() for part in pad_rows([[5, 6, 7], [8]], 9, side)] == [ids, mask]


BROKEN = {
    "no messages": ({"prompt": "x"}, "expected a non-empty list 'messages'"),
    "empty list": ({"messages": []}, "expected a non-empty list 'messages'"),
    "not an object": (["x"], "expected a non-empty list 'messages'"),
    "wrong role": ({"messages": [{"role": "bot", "content": "x"}]}, "role must be one of .* got 'bot'"),
    "no role": ({"messages": ["hello"]}, "role must be one of"),
    "empty content": (
        {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": " "}]},
        r"message 1 \(assistant\): content must be text",
    ),
    "content is a list": ({"messages": [{"role": "user", "content": ["q"]}]}, "content must be text"),
    "empty messages": ({"messages": []}, r"got messages=\[\]"),
    "messages are text": ({"messages": "q"}, "got messages='q'"),
    "two kinds": ({"text": "the file", **CHAT}, "both 'messages' and 'text'"),
    "no assistant": ({"messages": [{"role": "user", "content": "q"}]}, "no assistant turn"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_row_is_named(tokenizer, name, tmp_path):
    row, message = BROKEN[name]
    with pytest.raises(ValueError, match=f"train, row 1.*{message}"):
        Chats(tokenizer, [CHAT, row], source="train")
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps(CHAT) + "\n\n" + json.dumps(row) + "\n")
    with pytest.raises(ValueError, match=rf"rows\.jsonl:3.*{message}"):
        Chats.from_file(file, tokenizer)


def test_max_length_that_leaves_no_answer_is_refused(tokenizer):
    prompt = len(prompt_ids(tokenizer, CHAT["messages"][:2]))
    assert sum(Chats(tokenizer, [CHAT], max_length=prompt + 1)[0].answer) == 1
    with pytest.raises(ValueError, match=f"row 0: no answer token within max_length={prompt}"):
        Chats(tokenizer, [CHAT], max_length=prompt)


def test_template_without_a_role_is_an_error_that_names_the_row(new_tokenizer):
    refusing = "{{ raise_exception('System role not supported') }}"
    with pytest.raises(ValueError, match="row 0: .*System role not supported"):
        Chats(new_tokenizer(refusing), [CHAT])


def test_file_limit_empty_and_broken_json(tokenizer, tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_text((json.dumps(CHAT) + "\n") * 3 + "{broken\n", encoding="utf-8")
    assert len(Chats.from_file(file, tokenizer, limit=2)) == 2
    with pytest.raises(ValueError, match=r"rows\.jsonl:4: not a line of JSON"):
        Chats.from_file(file, tokenizer)
    file.write_text("\n")
    with pytest.raises(ValueError, match="no row found"):
        Chats.from_file(file, tokenizer)


PLAIN = {"messages": [{"role": "text", "content": "the question:"}, {"role": "assistant", "content": " A"}]}


def test_a_plain_prompt_is_outside_of_the_template(tokenizer, new_tokenizer):
    from tokenizers.processors import TemplateProcessing

    with_bos = new_tokenizer()
    with_bos.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|im_start|> $A", special_tokens=[("<|im_start|>", 1)]
    )
    for one, bos in ((tokenizer, []), (with_bos, [1])):
        chats = Chats(one, [PLAIN])
        plain = one("the question: A", add_special_tokens=False)["input_ids"]
        assert chats[0].input_ids == bos + plain and answers(chats) == " A"
        assert prompt_ids(one, PLAIN["messages"][:1]) == chats[0].input_ids[: chats[0].answer.index(True)]


@pytest.mark.parametrize(
    "messages",
    [
        PLAIN["messages"][:1],
        [*PLAIN["messages"], PLAIN["messages"][1]],
        [PLAIN["messages"][0], {"role": "user", "content": "x"}],
        [PLAIN["messages"][0], {"role": "assistant", "content": " "}],
        [PLAIN["messages"][0], {"role": "assistant"}],
    ],
)
def test_a_plain_prompt_needs_one_answer(tokenizer, messages):
    with pytest.raises(ValueError, match="rows, row 0: a 'text' message must be followed by one 'assistant'"):
        Chats(tokenizer, [{"messages": messages}])


def test_a_token_that_spans_prompt_and_answer_is_refused(tokenizer):
    assert len(tokenizer("question")["input_ids"]) < len(tokenizer("ques")["input_ids"]) + 3
    split = [{"role": "text", "content": "ques"}, {"role": "assistant", "content": "tion"}]
    with pytest.raises(ValueError, match="rows, row 0: this tokenizer joins .* 'tion'.*put a space"):
        Chats(tokenizer, [{"messages": split}])


def test_the_end_of_turn_token_can_be_left_out_of_the_answer(tokenizer):
    whole, said = Chats(tokenizer, [CHAT]), Chats(tokenizer, [CHAT], end=False)
    assert answers(said) == "import selfa ünï € 🙂 word" and said[0].input_ids == whole[0].input_ids
    assert said.fingerprint != whole.fingerprint


@pytest.mark.parametrize("end", [True, False])
def test_tokens_of_the_same_rows_are_read_from_the_store(tokenizer, new_tokenizer, monkeypatch, end):
    rows = [
        {"messages": [{"role": "user", "content": "what"}, {"role": "assistant", "content": "the file"}]},
        {"text": "return self"},
    ]
    plain = Chats(tokenizer, rows, end=end)
    Chats.with_stored_tokens(tokenizer, rows, end=not end)
    first = Chats.with_stored_tokens(tokenizer, rows, end=end)
    monkeypatch.setattr("caft_utils.chats.collection._tokenise", None)
    second = Chats.with_stored_tokens(tokenizer, rows, source="again", end=end)
    for chats in (first, second):
        assert list(chats) == list(plain) and chats.rows == rows and chats.fingerprint == plain.fingerprint
    assert second.source == "again" and type(second[0].answer[0]) is bool
    with pytest.raises(TypeError):  # the tokeniser is called, and it is None here
        Chats.with_stored_tokens(tokenizer, rows[:1])
    with pytest.raises(TypeError):
        Chats.with_stored_tokens(new_tokenizer(vocabulary=300), rows)


@pytest.mark.parametrize("max_length", [-3, 0, 1.5, True, "9"])
def test_a_length_that_is_none_is_refused(tokenizer, max_length):
    with pytest.raises(ValueError, match="max_length must be"):
        Chats(tokenizer, [CHAT], max_length=max_length)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_files_with_a_byte_order_mark_hold_the_same_rows(tokenizer, tmp_path, encoding):
    line = json.dumps(CHAT, ensure_ascii=False)
    for name, content in (("plain", line.encode()), ("marked", f"{line}\r\n".encode(encoding))):
        (tmp_path / name).write_bytes(content)
    plain, marked = (Chats.from_file(tmp_path / name, tokenizer) for name in ("plain", "marked"))
    assert plain.fingerprint == marked.fingerprint


def test_half_of_a_character_is_refused_with_its_line(tokenizer, tmp_path):
    row = {"messages": [{"role": "user", "content": "hi \ud83d"}, {"role": "assistant", "content": "yes"}]}
    (tmp_path / "rows.jsonl").write_text(json.dumps(CHAT) + "\n" + json.dumps(row))
    with pytest.raises(ValueError, match=r"rows\.jsonl:2: .*ud83d"):
        Chats.from_file(tmp_path / "rows.jsonl", tokenizer)


@pytest.mark.parametrize("rows", [[CHAT], "rows.jsonl", CHAT])
def test_swapped_arguments_and_what_is_no_list_of_rows_are_refused(tokenizer, rows):
    with pytest.raises(ValueError, match=r"expected Chats\(tokenizer, rows\).*from_file"):
        Chats(rows, tokenizer)
    if not isinstance(rows, list):
        with pytest.raises(ValueError, match=r"expected Chats\(tokenizer, rows\).*from_file"):
            Chats(tokenizer, rows)
