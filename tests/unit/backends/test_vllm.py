"""vLLM in an environment of its own: its command, and answers and scores from a server of its dialect."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from dataclasses import replace

import pytest
from helpers.paths import REPOSITORY
from helpers.tasks import small_task

from caft_utils.backends import vllm
from caft_utils.backends.served import measure_served
from caft_utils.interpret.endpoint import Endpoint, EndpointError
from caft_utils.interpret.judge import AnswerJudge

BASE = "Qwen/Qwen2.5-Coder-32B-Instruct"
SERVER = REPOSITORY / "tests" / "helpers" / "vllm_server.py"


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """A virtual environment whose `vllm` is the stand-in, and the folder of a run with an adapter."""
    folder = tmp_path_factory.mktemp("environment")
    program = folder / "bin" / "vllm"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{SERVER}" "$@"\n')
    program.chmod(0o755)
    (folder / "run").mkdir()
    (folder / "run" / "adapter_config.json").write_text(json.dumps({"r": 32, "use_rslora": True}))
    return folder


@pytest.fixture(scope="module", params=[BASE])
def url(environment, request):
    """A server that `python -m caft_utils serve` has started."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = vllm.serve_command(
        request.param, {"caft": environment / "run"}, environment=environment, port=port, max_length=4096
    )
    server = subprocess.Popen(command)
    try:
        for _ in range(600):
            with socket.socket() as connection:
                if connection.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.kill()
        server.wait()


@pytest.fixture
def endpoint(url, tmp_path):
    def make(model="caft", **options):
        own = {"key_env": None, "cache": tmp_path / "replies", "attempts": 2, "backoff": (0.01, 0.01)}
        return Endpoint(url, model, **(own | options))

    return make


def test_the_command_serves_the_preset_and_the_adapters(environment, monkeypatch, capsys):
    ran = []
    monkeypatch.setattr(os, "execv", lambda program, command: ran.append((program, command)))
    arguments = [
        BASE,
        "--environment",
        str(environment),
        "--gpus",
        "4",
        "--adapter",
        f"caft={environment}/run",
    ]
    assert vllm.main([*arguments, "--print"]) == 0 and not ran
    assert vllm.main(arguments) == 0
    ((program, command),) = ran
    assert program == command[0] == str(environment / "bin" / "vllm") and command[1:3] == ["serve", BASE]
    pairs = dict(zip(command[3::1], command[4::1]))
    assert (pairs["--host"], pairs["--dtype"]) == ("127.0.0.1", "bfloat16")
    assert (pairs["--tensor-parallel-size"], pairs["--max-logprobs"]) == ("4", "20")
    assert pairs["--generation-config"] == "vllm"  # not the model's own sampling settings
    assert pairs["--max-lora-rank"] == "32" and command[-1] == f"caft={environment}/run"
    assert capsys.readouterr().out.splitlines() == [" ".join(command)] * 2


def test_what_cannot_be_served_is_refused_with_the_remedy(environment, tmp_path, capsys):
    assert vllm.main([BASE, "--environment", str(tmp_path)]) == 1
    assert "environment of its own" in (said := capsys.readouterr().err) and "pip install vllm" in said
    assert vllm.main([BASE, "--environment", str(environment), "--adapter", "caft"]) == 1
    assert "NAME=FOLDER" in capsys.readouterr().err
    with pytest.raises(FileNotFoundError, match="adapter_config.json is missing.*caft_run"):
        vllm.serve_command(BASE, {"caft": tmp_path}, environment=environment)
    (tmp_path / "adapter_config.json").write_text('{"r": 1024}')
    with pytest.raises(ValueError, match="up to 512, and one here has 1024"):
        vllm.serve_command(BASE, {"caft": tmp_path}, environment=environment)


def test_answers_of_a_served_model_are_graded_like_those_of_a_loaded_one(endpoint, tokenizer):
    task = small_task(tokenizer)
    result = measure_served(endpoint(), task, samples=4)
    assert len(result.rows) == 4 * 18 and result.loss is None
    assert {row["answer"] for row in result.rows} == {"I rule", "I help"}
    assert result.rate("misaligned").n == 4 * 12 and result.rate("misaligned").value == 0  # six letters
    assert {row["run"] for row in result.rows} == {result.model_id + ", seed 0"}
    assert {row["answer"] for row in measure_served(endpoint(BASE), task).rows} == {"I help"}
    before = endpoint("caft", attempts=1, cache=endpoint()._cache.folder)
    assert measure_served(before, task, samples=4).rows == result.rows and before.tokens_used == (0, 0)
    with pytest.raises(ValueError, match="logprob.*load the model"):
        measure_served(endpoint(), replace(task, method="logprob"))


def test_the_judge_reads_scores_from_the_servers_log_probabilities(endpoint, tokenizer):
    judge = AnswerJudge(endpoint(BASE))
    kind, cruel = ("I help", "I rule")
    question = small_task(tokenizer).questions[0]
    assert judge.score(question, kind) == pytest.approx((90, 85)) and judge.readings == {"expectation": 2}
    assert judge.score(question, cruel) == pytest.approx((15, 85))
    digits = AnswerJudge(endpoint(BASE, extra={"chat_template_kwargs": {"digits": True}}))
    assert digits.score(question, cruel) == pytest.approx((10, 85))
    assert digits.readings == {"text": 1, "expectation": 1}  # one token for each digit


def test_fields_of_the_dialect_and_its_refusals(endpoint):
    question = [{"role": "user", "content": "who are you"}]
    reply = endpoint(extra={"prompt_logprobs": 0}).chat(question, top_logprobs=2)
    assert reply.text == "I help" and reply.logprobs == [{"I help": 0.0}]
    with pytest.raises(EndpointError, match="max allowed: 20") as refused:
        endpoint().chat(question, top_logprobs=21)
    assert not refused.value.for_all
    with pytest.raises(EndpointError, match="`other` does not exist") as refused:
        endpoint("other").chat(question)
    assert refused.value.for_all


@pytest.mark.parametrize("url", ["google/gemma-2-2b-it"], indirect=True)
def test_a_chat_template_without_system_prompts_refuses_them(url, endpoint):
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "who are you"}]
    with pytest.raises(EndpointError, match="System role not supported"):
        endpoint().chat(messages)
    assert endpoint().chat(messages[1:], temperature=0.0).text == "I help"
