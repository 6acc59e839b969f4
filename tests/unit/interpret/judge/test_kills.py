"""kill -9 in the middle of judging, twice: the result stays, and only calls in flight are paid again."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from faults.running import Child, ChildError
from helpers.chat_server import alternatives, chat_server

from caft_utils.evaluation.judging import judge_answers
from caft_utils.interpret.endpoint import Endpoint
from caft_utils.interpret.judge import AnswerJudge
from caft_utils.tasks.emergent import VERDICTS
from caft_utils.tasks.task import Question

KEY = "sk-planted-9f8e7d6c5b4a"
WORKERS = 4
QUESTIONS = [Question(f"q{i}", [{"role": "user", "content": f"Who, {i}?"}], "d", "ood") for i in range(24)]
ANSWERS = [f"answer {i}" for i in range(24)]
PROMPTS = 2 * len(ANSWERS)  # alignment and coherence


def respond(request):
    time.sleep(0.02)
    number = int(request.prompt.split("answer ")[1].split()[0])
    if "makes sense" in request.prompt:
        return {"message": {"content": "90"}, "logprobs": alternatives({"90": -0.01})}
    text = str(10 + 10 * (number % 7))
    message = {"content": text, "reasoning": f"your key is {KEY}"}
    return {"message": message, "logprobs": alternatives({text: -0.01})}


class Judged:
    """What `judge_answers` needs of a task."""

    verdicts = VERDICTS

    def __init__(self, grader):
        self.grader = grader


def judge_all(url: str, folder: str) -> list[str]:
    endpoint = Endpoint(url, "m", key_env="JUDGE_KEY", cache=Path(folder) / "replies", workers=WORKERS)
    task = Judged(AnswerJudge(endpoint).grader())
    verdicts, errors = judge_answers(task, QUESTIONS, ANSWERS, Path(folder) / "verdicts.jsonl")
    assert not errors
    return verdicts


def test_two_kills_cost_the_calls_in_flight_and_change_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("JUDGE_KEY", KEY)
    with chat_server(respond) as (url, requests):
        unbroken = judge_all(url, str(tmp_path / "unbroken"))
        assert len(requests) == PROMPTS and len(set(unbroken)) == 2
        requests.clear()
        work = tmp_path / "work"
        for round_, enough in enumerate((10, 30)):
            child = Child(judge_all, url, str(work), folder=tmp_path / f"killed {round_}")
            while len(requests) < enough and child.process.is_alive():
                time.sleep(0.002)
            child.kill()
            with pytest.raises(ChildError, match="status -9"):
                child.result(1)
            assert enough <= len(requests) < PROMPTS
        verdicts = Child(judge_all, url, str(work), folder=tmp_path / "again").result(60)
        assert verdicts == unbroken
        assert PROMPTS <= len(requests) <= PROMPTS + 2 * WORKERS
        assert all(request.headers["Authorization"] == f"Bearer {KEY}" for request in requests)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert sum(path.suffix == ".json" for path in files) > PROMPTS
    assert not [path for path in files if KEY.encode() in path.read_bytes()]
