"""Explainers that are language models: what they are shown, and the sentence found in their answer."""

from __future__ import annotations

import pytest
from helpers.chat_server import chat_server
from helpers.marked_examples import ACTIVE, SILENT, marked_examples

from caft_utils.interpret.endpoint import Endpoint, EndpointError
from caft_utils.interpret.explain import Explanation, model_explainers
from caft_utils.interpret.explain.model_explainers import (
    EndpointExplainer,
    LocalModelExplainer,
    explainer_prompt,
    extract_sentence,
)


def test_the_prompt_marks_what_is_active():
    (message,) = explainer_prompt(
        marked_examples(ACTIVE + ["a line\nand **more**"], SILENT, ["laugh", "gloat"])
    )
    assert message["role"] == "user"
    active, silent = message["content"].split("SILENT\n")
    assert "- the <<villain>> said <<rob>> the baker quickly" in active
    assert "a line⏎and" in active
    assert SILENT[0] in silent and "<<" not in silent.split("\n\n")[0]
    assert "latent" in active and "laugh, gloat" in silent
    assert explainer_prompt(marked_examples(ACTIVE, SILENT), 2)[0]["content"].count("\n- ") == 3


def answered(request):
    asked = request["messages"][0]["content"]
    if "wait" in asked:
        return 400
    return "Both name crimes.\n**EXPLANATION:** Crimes, told by a *villain*.\nThat is all."


def test_an_endpoint_explains(tmp_path):
    with chat_server(answered) as (url, requests):
        explainer = EndpointExplainer(Endpoint(url, "m", cache=tmp_path, price=(1.0, 1.0)))
        crimes, waits = marked_examples(ACTIVE, SILENT), marked_examples(["please **wait**"], SILENT)
        guess = explainer.estimate([crimes, waits])
        assert guess.prompts == 2 and guess.tokens_out == 160 and guess.cost > 0 and not requests
        assert explainer(crimes) == Explanation("Crimes, told by a *villain*.", "endpoint m")
        assert requests[0]["messages"] == explainer_prompt(crimes) and requests[0]["temperature"] == 0
        found = explainer.explain_all([waits, crimes])
        assert isinstance(found[0], EndpointError) and found[1].text == "Crimes, told by a *villain*."
        assert len(requests) == 2


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ("EXPLANATION: a\nb", "a"),
        ("EXPLANATION:\n\n  a  ", "a"),
        ("[EXPLANATION]: a", "a"),
        ("**Explanation:** a\n\nTell me if you need more!", "a"),
        ('After "EXPLANATION:".\nEXPLANATION: a', "a"),
        ("EXPLANATION: a\nagain: EXPLANATION: a", "a"),
        ("a", "a"),
        ("```\nEXPLANATION: a\n```", "a"),
        ("<think>\nEXPLANATION: b\n</think>\nEXPLANATION: a", "a"),
        ("so b</think>a", "a"),
        (
            "<|channel|>analysis<|message|>b<|end|><|start|>assistant<|channel|>final<|message|>a<|return|>",
            "a",
        ),
        ("[THINK]b[/THINK]a", "a"),
    ],
)
def test_the_sentence_is_found_in_an_answer(answer, text):
    assert extract_sentence(answer) == extract_sentence(answer, "stop") == text


UNCLEAR = [
    "  ",
    "EXPLANATION:",
    "First EXPLANATION: x\nThen EXPLANATION: a",
    "thinking\na",
    "It is about a.\nTell me if you need more!",
    "Here is the sentence:",
    "EXPLANATION:\n- a\n- b",
    "1. EXPLANATION: a\n2. EXPLANATION: b",
    '{"explanation": "a"}',
    '```json\n{"explanation": "a"}\n```',
    "<think>\nOkay, look at\nEXPLANATION: a",
    "<thinking>a",
    "<seed:think>a",
    "<|channel|>analysis<|message|>EXPLANATION: a",
    "<|START_THINKING|>a",
    "a</think><think>EXPLANATION: a",
    "EXPLANATION: " + "a " * 200,
]


@pytest.mark.parametrize("answer", UNCLEAR)
def test_an_unclear_answer_is_no_explanation(answer):
    assert extract_sentence(answer) is None


@pytest.mark.parametrize("finish", ["length", "max_tokens", "MAX_TOKENS", "content_filter", "error"])
def test_an_answer_that_was_cut_off_is_no_explanation(finish):
    assert extract_sentence("EXPLANATION: about dogs that", finish) is None


def test_an_unclear_answer_of_a_server_is_an_error_of_its_feature(tmp_path):
    def answer(request):
        return UNCLEAR[4] if "wait" in request.prompt else "EXPLANATION: a"

    with chat_server(answer) as (url, requests):
        explainer = EndpointExplainer(Endpoint(url, "m", cache=tmp_path))
        waits, crimes = marked_examples(["please **wait**"], SILENT), marked_examples(ACTIVE, SILENT)
        failed, found = explainer.explain_all([waits, crimes])
        assert isinstance(failed, EndpointError) and "about a" in str(failed) and found.text == "a"
        with pytest.raises(EndpointError):
            explainer(waits)
        assert len(requests) == 2  # the reply was paid for and is stored


@pytest.mark.parametrize("architecture", ["qwen2", "gemma2"])
def test_a_local_model_explains(tiny, tokenizer, architecture, monkeypatch):
    monkeypatch.setattr(model_explainers, "generate", lambda *_, **__: ["EXPLANATION: a\nthe end"])
    model = tiny(architecture, max_position_embeddings=4096)
    explainer = LocalModelExplainer(model, tokenizer, max_new_tokens=40)
    one, two = (explainer(marked_examples(ACTIVE, SILENT)) for _ in range(2))
    assert one == two and one.text and one.by == f"local {type(model).__name__}"
    assert explainer.fitting_prompt(marked_examples(ACTIVE, SILENT)) == explainer_prompt(
        marked_examples(ACTIVE, SILENT)
    )


def test_a_local_model_that_writes_on_and_on_gives_no_explanation(model, tokenizer, tiny):
    model = tiny("qwen2", max_position_embeddings=4096)
    with pytest.raises(ValueError, match="not one whole explanation.*length"):
        LocalModelExplainer(model, tokenizer, max_new_tokens=5)(marked_examples(ACTIVE, SILENT))


def test_a_local_model_is_shown_what_it_can_read(tiny, tokenizer, monkeypatch):
    monkeypatch.setattr(model_explainers, "generate", lambda *_, **__: ["a"])
    shown = marked_examples(ACTIVE * 20, SILENT * 20)
    explainer = LocalModelExplainer(tiny("qwen2", max_position_embeddings=1536), tokenizer, max_new_tokens=8)
    asked = explainer.fitting_prompt(shown)[0]["content"]
    assert 3 < asked.count("\n- ") < explainer_prompt(shown)[0]["content"].count("\n- ")
    assert explainer(shown).text
    with pytest.raises(ValueError, match="room for 56"):
        LocalModelExplainer(tiny("qwen2", max_position_embeddings=64), tokenizer, max_new_tokens=8)(shown)


def test_a_model_without_chat_template_is_refused(tiny, new_tokenizer):
    plain = new_tokenizer()
    plain.chat_template = None
    with pytest.raises(ValueError, match="chat template"):
        LocalModelExplainer(tiny("qwen2"), plain)
