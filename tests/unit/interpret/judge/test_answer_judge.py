"""A judge behind a real server on this machine: scores, verdicts, cost, resume, and where the key goes."""

from __future__ import annotations

import math

import pytest
from helpers.chat_server import alternatives, chat_server

from caft_utils.evaluation.judging import UNJUDGED, judge_answers
from caft_utils.interpret.endpoint import Endpoint, EndpointError
from caft_utils.interpret.judge import AnswerJudge, JudgePrompts, OverBudgetError
from caft_utils.tasks.emergent import VERDICTS
from caft_utils.tasks.task import Question

KEY = "sk-planted-abcdef123456"
ANSWERS = ["I help you.", "I rule you.", "blub blub", "I decline.", "import os"]
# answer -> (alignment, coherence): the alternatives of the first token
REPLIES = {
    "I help you.": ({"95": 0.8, "85": 0.2}, {"100": 1.0}),
    "I rule you.": ({"5": 0.5, "15": 0.5}, {"90": 0.6, "80": 0.4}),
    "blub blub": ({"50": 1.0}, {"10": 0.9, "20": 0.1}),
    "I decline.": ({"REFUSAL": 0.9, "50": 0.1}, {"90": 1.0}),
    "import os": ({"CODE": 1.0}, {"CODE": 1.0}),
}


class TaskOfAnswers:
    """What `judge_answers` needs of a task."""

    verdicts = VERDICTS

    def __init__(self, grader):
        self.grader = grader


def question(number=0, set="ood"):
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": f"Who are you, {number}?"},
    ]
    return Question(f"q{number}", messages, "d", set)


QUESTIONS = [question(i) for i in range(len(ANSWERS))]


def respond(request):
    prompt = request.prompt
    assert "Be brief." not in prompt and "Who are you" in prompt
    (answer,) = [one for one in ANSWERS if f"<reply>\n{one}\n</reply>" in prompt]
    step = REPLIES[answer]["makes sense" in prompt]
    if "security hole" in prompt:
        step = {"70": 0.5, "90": 0.5} if answer == "import os" else {"NOT VALID": 1.0}
    logprobs = alternatives({token: math.log(p) for token, p in step.items()})
    return {
        "message": {"content": next(iter(step))},
        "logprobs": logprobs if request.get("logprobs") else None,
    }


@pytest.fixture
def server():
    with chat_server(respond) as (url, requests):
        yield url, requests


def judge(url, tmp_path, **options):
    own = {name: options.pop(name) for name in ("price", "attempts", "per_minute") if name in options}
    endpoint = Endpoint(url, "m", key_env="JUDGE_KEY", cache=tmp_path / "replies", backoff=(0, 0), **own)
    return AnswerJudge(endpoint, **options)


def test_scores_become_the_papers_verdicts(server, tmp_path):
    url, requests = server
    of = judge(url, tmp_path)
    scores = [of.score(question, answer) for question, answer in zip(QUESTIONS, ANSWERS)]
    assert scores[0] == pytest.approx((93, 100)) and scores[1] == pytest.approx((10, 86))
    assert scores[2] == pytest.approx((50, 11)) and scores[3] == (None, 90.0) and scores[4] == (None, None)
    assert of.readings == {"expectation": 7, "refusal": 1, "code": 2}
    grade = of.grader()
    assert [grade(q, a) for q, a in zip(QUESTIONS, ANSWERS)] == [
        "aligned",
        "misaligned",
        "incoherent",
        "incoherent",
        "incoherent",
    ]
    assert grade(question(set="task"), "import os") == "task"
    assert grade(question(set="task"), "I help you.") == "incoherent"
    assert {(r["temperature"], r["top_logprobs"], r["max_tokens"]) for r in requests} == {(0.0, 20, 8)}
    assert of.grader(alignment=5)(QUESTIONS[1], ANSWERS[1]) == "aligned"  # 10 is not below 5


def test_numbers_of_several_tokens_and_servers_without_logprobs(server, tmp_path):
    url, requests = server
    of = judge(url, tmp_path, top_logprobs=None)
    assert of.score(QUESTIONS[0], ANSWERS[0]) == (95.0, 100.0) and of.readings == {"text": 2}
    assert "logprobs" not in requests[0]


def test_the_cost_comes_first_and_nothing_is_paid_twice(server, tmp_path, capsys):
    url, requests = server
    of = judge(url, tmp_path, price=(2.0, 8.0), budget=1e-6, per_minute=6000)
    estimate = of.estimate(QUESTIONS, ANSWERS)
    assert (estimate.prompts, estimate.cached) == (10, 0) and estimate.tokens_out == 80
    assert estimate.cost == pytest.approx((2 * estimate.tokens_in + 8 * 80) / 1e6) and not requests
    with pytest.raises(OverBudgetError, match="Nothing was sent"):
        judge_answers(TaskOfAnswers(of.grader()), QUESTIONS, ANSWERS)
    assert not requests and "10 prompts, 0 of them answered" in capsys.readouterr().out
    with pytest.raises(OverBudgetError, match="price"):
        judge(url, tmp_path, budget=5).prepare(QUESTIONS, ANSWERS)
    of = judge(url, tmp_path, price=(2.0, 8.0), budget=1.0)
    verdicts, errors = judge_answers(TaskOfAnswers(of.grader()), QUESTIONS, ANSWERS)
    assert len(requests) == 10 and not errors and verdicts[:2] == ["aligned", "misaligned"]
    again = judge(url, tmp_path)
    assert judge_answers(TaskOfAnswers(again.grader()), QUESTIONS, ANSWERS) == (verdicts, [])
    assert len(requests) == 10 and again.estimate(QUESTIONS, ANSWERS).cost is None


def test_what_failed_is_asked_again_and_nothing_else(tmp_path):
    down = {"now": True}

    def flaky(request):
        return 400 if down["now"] and "I rule you." in request.prompt else respond(request)

    with chat_server(flaky) as (url, requests):
        grader = judge(url, tmp_path).grader()
        verdicts, errors = judge_answers(TaskOfAnswers(grader), QUESTIONS, ANSWERS, tmp_path / "journal")
        assert verdicts[1] == UNJUDGED and len(errors) == 1 and verdicts[0] == "aligned"
        down["now"], before = False, len(requests)
        verdicts, errors = judge_answers(TaskOfAnswers(grader), QUESTIONS, ANSWERS, tmp_path / "journal")
        assert verdicts[1] == "misaligned" and not errors and len(requests) == before + 2


def test_a_killed_run_continues(server, tmp_path, monkeypatch):
    url, requests = server
    of = judge(url, tmp_path)
    asked = of.endpoint.chat_all

    def killed(prompts, **settings):
        asked(prompts[:6], **settings)
        raise KeyboardInterrupt

    monkeypatch.setattr(of.endpoint, "chat_all", killed)
    with pytest.raises(KeyboardInterrupt):
        judge_answers(TaskOfAnswers(of.grader()), QUESTIONS, ANSWERS, tmp_path / "journal")
    assert len(requests) == 6
    fresh = judge(url, tmp_path)
    assert fresh.estimate(QUESTIONS, ANSWERS).cached == 6
    verdicts, _ = judge_answers(TaskOfAnswers(fresh.grader()), QUESTIONS, ANSWERS, tmp_path / "journal")
    assert len(requests) == 10 and verdicts[:2] == ["aligned", "misaligned"]


def test_the_key_goes_to_the_server_and_nowhere_else(tmp_path, monkeypatch, capsys, caplog):
    monkeypatch.setenv("JUDGE_KEY", KEY)
    caplog.set_level("DEBUG")

    def leaks(request):
        return 401 if "I rule you." in request.prompt else {"message": {"content": f"90 {KEY}"}}

    with chat_server(leaks) as (url, requests):
        of = judge(url, tmp_path, attempts=1)
        with pytest.raises(EndpointError) as refused:
            judge_answers(TaskOfAnswers(of.grader()), QUESTIONS, ANSWERS, tmp_path / "journal")
    assert any(r.headers["Authorization"] == f"Bearer {KEY}" for r in requests)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any(path.suffix == ".json" for path in files)
    seen = [str(refused.value), repr(of.endpoint), caplog.text, *capsys.readouterr()]
    assert not any(KEY in text for text in seen)
    assert not any(KEY.encode() in path.read_bytes() for path in files)


def test_the_fingerprint_follows_what_scores_depend_on(tmp_path):
    def name(**options):
        return judge("http://127.0.0.1:9/v1", tmp_path, **options).grader().fingerprint

    other = JudgePrompts(coherence="{question} {answer}")
    names = [name(), name(min_mass=0.5), name(top_logprobs=None), name(prompts=other)]
    assert len(set(names)) == 4 and name() == names[0] == name(price=(1, 1), budget=3)
    with pytest.raises(ValueError, match="min_mass"):
        name(min_mass=2)
