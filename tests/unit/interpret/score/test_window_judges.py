"""Judges that are language models: one in this process, read through its logits, and one on a server."""

from __future__ import annotations

import pytest
import torch
from helpers.chat_server import alternatives, chat_server

from caft_utils.chats import prompt_ids
from caft_utils.interpret.endpoint import Endpoint, EndpointError
from caft_utils.interpret.examples.text_window import TextWindow
from caft_utils.interpret.score.window_judges import EndpointWindowJudge, LocalWindowJudge, judge_prompt


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
    plain = LocalWindowJudge(model, tokenizer)("about dogs", WINDOWS)
    marked = LocalWindowJudge(model, tokenizer)("about dogs", WINDOWS, marks)
    for given, among in ((plain, [None] * 4), (marked, marks)):
        for p, text, those in zip(given, WINDOWS, among):
            ids = prompt_ids(tokenizer, judge_prompt("about dogs", text, those))
            with torch.no_grad():
                likely = model(torch.tensor([ids])).logits[0, -1].softmax(-1)
            assert p == pytest.approx(float(likely[yes].sum() / likely[yes + no].sum()), abs=1e-5)
    assert all(abs(a - b) > 1e-6 for a, b in zip(plain, marked)), "marks are seen"
    for batch_size in (1, 3):
        got = LocalWindowJudge(model, tokenizer, batch_size=batch_size)("about dogs", WINDOWS)
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


def test_local_judge_without_a_chat_template_and_with_broken_logits(model, new_tokenizer):
    plain = new_tokenizer(template=None)
    assert all(0 < p < 1 for p in LocalWindowJudge(model, plain)("about dogs", WINDOWS))
    with torch.no_grad():
        model.lm_head.weight.fill_(float("nan"))
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
