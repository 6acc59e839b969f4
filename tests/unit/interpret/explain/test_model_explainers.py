"""Explainers that are language models: what they are shown, and the sentence found in their answer."""

from __future__ import annotations

import pytest
from helpers.chat_server import chat_server
from helpers.marked_examples import ACTIVE, SILENT, marked_examples

from caft_utils.interpret.endpoint import Endpoint, EndpointError
from caft_utils.interpret.explain import Explanation
from caft_utils.interpret.explain.model_explainers import (
    EndpointExplainer,
    LocalModelExplainer,
    explainer_prompt,
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
        ("First EXPLANATION: x\nThen EXPLANATION: a", "a"),
        ("thinking\na", "a"),
        ("  ", "no explanation was given"),
        ("EXPLANATION:", "no explanation was given"),
    ],
)
def test_the_sentence_is_found_in_an_answer(answer, text, tmp_path):
    with chat_server(lambda request: answer) as (url, _):
        assert (
            EndpointExplainer(Endpoint(url, "m", cache=tmp_path))(marked_examples(ACTIVE, SILENT)).text
            == text
        )


@pytest.mark.parametrize("architecture", ["qwen2", "gemma2"])
def test_a_local_model_explains(tiny, tokenizer, architecture):
    model = tiny(architecture, max_position_embeddings=4096)
    explainer = LocalModelExplainer(model, tokenizer, max_new_tokens=12)
    one, two = (explainer(marked_examples(ACTIVE, SILENT)) for _ in range(2))
    assert one == two and one.text and one.by == f"local {type(model).__name__}"
    assert explainer.fitting_prompt(marked_examples(ACTIVE, SILENT)) == explainer_prompt(
        marked_examples(ACTIVE, SILENT)
    )


def test_a_local_model_is_shown_what_it_can_read(tiny, tokenizer):
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
