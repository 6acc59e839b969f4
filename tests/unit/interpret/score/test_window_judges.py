"""Judges that are language models: one in this process, read through its logits, and one on a server."""

from __future__ import annotations

import math

import pytest
import torch
from helpers.chat_server import alternatives, chat_server

from caft_utils.chats import prompt_ids
from caft_utils.interpret.endpoint import Endpoint, EndpointError, Reply
from caft_utils.interpret.examples.text_window import TextWindow
from caft_utils.interpret.score.window_judges import (
    EndpointWindowJudge,
    LocalWindowJudge,
    _yes_probability,
    judge_prompt,
)


def window(*tokens):
    return TextWindow(list(tokens), [0.0] * len(tokens), 0, 0, 0)


WINDOWS = [
    window("the", " dog", "s", " bark", " at", " night"),
    window("open", " the", " file"),
    window(" what", " is"),
    window("a", " b", " c", " d", " e", " f", " g", " h", "."),
]


def test_marks_are_shown_to_the_judge():
    text = window("the", " big", " dog", "s", "\n", " bark", ".")
    (marked,), (plain,) = judge_prompt("pets", text, {2, 3}), judge_prompt("pets", text)
    assert "<<dogs>>" in marked["content"]
    assert "<<" not in plain["content"] and "pets" in plain["content"]


def test_braces_in_texts_are_only_text():
    content = judge_prompt("{text} {0}", window("{explanation}", " {x}"))[0]["content"]
    assert "Description: {text} {0}" in content and "Text: {explanation} {x}" in content


def test_local_judge_reads_the_odds_of_yes_from_the_logits(model, tokenizer):
    def first(word):
        return tokenizer(word)["input_ids"][0]

    forms = ("yes", "Yes", "YES"), ("no", "No", "NO")
    # the spellings with a space before them begin with a token that is a space and says nothing
    assert tokenizer.decode([first(" yes")]) == tokenizer.decode([first(" no")]) == " "
    yes, no = (sorted({first(form) for form in group}) for group in forms)
    marks = [{1, 2}, {0}, {1}, {3, 4}]
    plain = LocalWindowJudge(model, tokenizer, min_mass=0)("about dogs", WINDOWS)
    marked = LocalWindowJudge(model, tokenizer, min_mass=0)("about dogs", WINDOWS, marks)
    for given, among in ((plain, [None] * 4), (marked, marks)):
        for p, text, those in zip(given, WINDOWS, among):
            ids = prompt_ids(tokenizer, judge_prompt("about dogs", text, those))
            with torch.no_grad():
                likely = model(torch.tensor([ids])).logits[0, -1].softmax(-1)
            assert p == pytest.approx(float(likely[yes].sum() / likely[yes + no].sum()), abs=1e-5)
    assert all(abs(a - b) > 1e-6 for a, b in zip(plain, marked)), "marks are seen"
    for batch_size in (1, 3):
        got = LocalWindowJudge(model, tokenizer, batch_size=batch_size, min_mass=0)("about dogs", WINDOWS)
        assert got == pytest.approx(plain, abs=1e-5)


def test_local_judge_follows_the_model(model, tokenizer):
    yes, no = (tokenizer(word)["input_ids"][0] for word in ("yes", "no"))
    for liked, bound in ((yes, lambda p: p > 0.9), (no, lambda p: p < 0.1)):
        inclined = LocalWindowJudge(model, tokenizer)
        # the final norm's mean direction read as a liking for one word
        hook = model.lm_head.register_forward_hook(
            lambda module, args, out, liked=liked: out.index_add(
                -1, torch.tensor([liked]), torch.full((*out.shape[:-1], 1), 30.0)
            )
        )
        assert all(bound(p) for p in inclined("about dogs", WINDOWS))
        hook.remove()


def test_local_judge_without_a_chat_template_or_a_clear_answer(model, new_tokenizer):
    plain = new_tokenizer(template=None)
    assert all(0 < p < 1 for p in LocalWindowJudge(model, plain, min_mass=0)("about dogs", WINDOWS))
    # a random model gives yes and no less than a hundredth of the probability each
    assert LocalWindowJudge(model, plain)("about dogs", WINDOWS) == [None] * 4


def test_a_tokenizer_that_cannot_say_yes_is_refused(model):
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.WordLevel({"<unk>": 0, "a": 1}, unk_token="<unk>"))
    with pytest.raises(ValueError, match="begins the answers yes and no with the same token"):
        LocalWindowJudge(model, PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="<unk>"))


ANSWERS = {
    "forbidden": ("", None),
    "dogs": ("Yes", {"Yes": -0.2231, " no": -1.6094, "maybe": -5.0}),  # 0.8 and 0.2
    "cats": ("no", {"no": -0.1054, " Yes": -2.3026}),  # 0.9 and 0.1
    "birds": ("**Yes**, it does", {"**": -0.01}),
    "fish": ("No.", None),
    "stones": ("Nobody knows", {"Nob": -0.1}),
    "trees": (None, None),
    "": ("I cannot tell", None),
}


def answer(request):
    """Answer by what stands in the prompt."""
    prompt = request.prompt
    text, tops = next(given for what, given in ANSWERS.items() if what in prompt)
    if text is None or "forbidden" in prompt:
        return 401 if "forbidden" in prompt else 400
    logprobs = alternatives(tops) if request.get("logprobs") and tops else None
    return {"message": {"role": "assistant", "content": text}, "finish_reason": "stop", "logprobs": logprobs}


@pytest.fixture
def server():
    with chat_server(answer) as (url, _):
        yield url


def test_endpoint_judge_reads_logprobs_then_text_and_gives_up_on_the_rest(server, tmp_path):
    judge = EndpointWindowJudge(Endpoint(server, "m", cache=tmp_path, attempts=1))
    windows = [window(word) for word in ("dogs", "cats", "birds", "fish", "stones", "clouds", "trees")]
    got = judge("animals", windows)
    assert judge.name == "m"
    assert got[:2] == pytest.approx([0.8, 0.1], abs=1e-3)
    assert got[2:] == [1.0, 0.0, None, None, None]
    text_only = EndpointWindowJudge(Endpoint(server, "m", cache=tmp_path, attempts=1), top_logprobs=None)
    assert text_only("animals", windows) == [1.0, 0.0, 1.0, 0.0, None, None, None]
    assert judge("animals", windows[:1], [{0}]) == pytest.approx([0.8], abs=1e-3)


def test_endpoint_judge_stops_where_no_reply_can_come(server, tmp_path):
    judge = EndpointWindowJudge(Endpoint(server, "m", cache=tmp_path, attempts=1))
    with pytest.raises(EndpointError, match="401"):
        judge("animals", [window("dogs"), window("forbidden")])
    with pytest.raises(EndpointError, match="400"):
        judge("animals", [window("trees"), window(" trees")])
    assert judge("animals", []) == []


def said(text, *steps, finish="stop"):
    probabilities = [{token: math.log(p) for token, p in step.items()} for step in steps]
    return Reply(text, probabilities or None, None, finish)


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (said("\nyes", {"\n": 0.99, " no": 0.01}, {"yes": 0.9, "no": 0.1}), 0.9),
        (said("**No**", {"**": 1.0, "Yes": 1e-4}, {"No": 0.75, "Yes": 0.25}, {"**": 1.0}), 0.25),
        (said(" Yes.", {" Yes": 0.5, "yes": 0.2, "YES,": 0.1, " no": 0.1, "No": 0.1}), 0.8),
        (said("yes", {"y": 0.9, "no": 0.1}, {"es": 1.0}), 1.0),  # a verdict of several tokens: the text
        (said("yes", {"yes": 0.3, "perhaps": 0.3, "no": 0.1}), 1.0),  # too little mass: the text
        (said("Perhaps", {"Perhaps": 0.6, "yes": 0.39, "no": 0.01}), None),
        (said("no-one", {"no": 0.9, "yes": 0.1}), 0.1),
        (said("Nobody", {"Nob": 0.9, "no": 0.1}), None),
        (said("yes or no? no"), None),
        (said("Yes, and no"), None),
        (said("<think>", {"<think>": 0.99, "No": 0.01}, finish="length"), None),
        (said("<think>\nyes, I think", finish="length"), None),
        (said("[THINK]no, wait"), None),
        (
            said(
                "<think>no?</think>\n\nYes",
                {"<think>": 1.0},
                {"no": 1.0},
                {"?</think>\n\n": 1.0},
                {"Yes": 1.0},
            ),
            1.0,
        ),
        (said("no, it is not so.</think>yes"), 1.0),
        (said("<|channel|>analysis<|message|>no..."), None),
        (
            said("<|channel|>analysis<|message|>no<|end|><|start|>assistant<|channel|>final<|message|>yes"),
            1.0,
        ),
        (said("<|START_THINKING|>no"), None),
        (said("\u25c1think\u25b7no\u25c1/think\u25b7yes"), 1.0),
        (said("no", finish="length"), None),  # perhaps it begins "nobody"
        (said("no,", finish="length"), 0.0),
        (said("yes", finish="content_filter"), None),
        (said("yes", finish="error"), None),
        (said("yes", {"no": 0.9, "yes": 0.1}), 1.0),  # tokens of another text
        (said("", {"yes": 1.0}), None),
        (said('{"answer": "yes"}'), None),
    ],
)
def test_a_verdict_is_read_where_it_is_given(reply, expected):
    got = _yes_probability(reply)
    assert got is None if expected is None else got == pytest.approx(expected)
