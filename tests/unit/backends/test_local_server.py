"""A loaded model behind HTTP: it writes what `generate` writes, and the client and the judge can read it."""

from __future__ import annotations

import math

import pytest
import torch

from caft_utils.backends.local_server import serving
from caft_utils.chats import prompt_ids
from caft_utils.evaluation import generate
from caft_utils.interpret.endpoint import Endpoint, EndpointError

PROMPT = [{"role": "user", "content": "what is the question"}]


@pytest.fixture
def url(model, tokenizer):
    with serving(model, tokenizer, "tiny") as address:
        yield address


def client(url, tmp_path, name="tiny"):
    return Endpoint(url, name, key_env=None, cache=tmp_path, attempts=1)


def test_a_reply_is_what_the_model_writes_with_its_probabilities(url, model, tokenizer, tmp_path):
    endpoint = client(url, tmp_path)
    reply = endpoint.chat(PROMPT, max_tokens=5, top_logprobs=3)
    assert [reply.text] == generate(model, tokenizer, [PROMPT], temperature=0, max_new_tokens=5)
    assert reply.finish == "length" and len(reply.logprobs) == 5
    assert reply.tokens == (len(prompt_ids(tokenizer, PROMPT)), 5)
    with torch.no_grad():
        logits = model(torch.tensor([prompt_ids(tokenizer, PROMPT)])).logits[0, -1]
    best = logits.log_softmax(-1).max().item()
    assert next(iter(reply.logprobs[0].values())) == pytest.approx(best, abs=1e-4)
    assert all(math.exp(value) <= 1 for step in reply.logprobs for value in step.values())
    drawn = {endpoint.chat(PROMPT, max_tokens=5, temperature=2.0, seed=seed).text for seed in range(4)}
    assert len(drawn) > 1
    again = client(url, tmp_path / "new").chat(PROMPT, max_tokens=5, temperature=2.0, seed=3).text
    assert again == endpoint.chat(PROMPT, max_tokens=5, temperature=2.0, seed=3).text


def test_what_it_cannot_do_is_refused(url, tmp_path):
    with pytest.raises(EndpointError, match="`other` does not exist; this is `tiny`") as refused:
        client(url, tmp_path, "other").chat(PROMPT)
    assert refused.value.for_all
    with pytest.raises(EndpointError, match="top_logprobs must be at least 0 and at most 20"):
        client(url, tmp_path).chat(PROMPT, top_logprobs=21)
    with pytest.raises(EndpointError, match="positions"):
        client(url, tmp_path).chat(PROMPT, max_tokens=5000)
