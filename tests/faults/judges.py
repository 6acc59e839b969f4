"""Answers of language models that are no verdict: half a thought, prose, refusals, numbers off the scale.

Judges, relevance and explainers ask a server on this machine. An answer that ends inside a thought has no
verdict. Whatever the answer, a verdict lies on its scale and an explanation is a text for readers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from helpers.chat_server import alternatives, chat_server
from helpers.malice import MALICE, VILLAIN
from helpers.planted import planted

from caft_utils.interpret.endpoint import Endpoint, EndpointError
from caft_utils.interpret.explain import Explanation
from caft_utils.interpret.explain.model_explainers import EndpointExplainer
from caft_utils.interpret.score.window_judges import EndpointWindowJudge
from caft_utils.interpret.select.endpoint_relevance import EndpointRelevance
from faults.mutate import TEXTS
from faults.outcomes import Outcome, refusal
from faults.running import Attempt

VERDICTS = ("yes", "no", "85", "7", "EXPLANATION: text about animals that people keep")
ODD = (
    "**Yes**", " \nno\n", "Yes and no", "maybe",
    "I cannot answer that.", "no, yes", "nobody", "1e999", "nan", "-3",
    "100000", "\uff15\uff10", "8 out of 10",
    "50-60", "EXPLANATION:", "Sure! Here it is: EXPLANATION: x", "yes" * 3000,
    "\U0001f600", *TEXTS,
)  # fmt: skip
THOUGHTS = ("<think>is it yes or no? 85?</think>", "<thinking>yes</thinking>\n\n", "[THINK]no, 7[/THINK]")
HALF = ("<think>so it is yes, 85, EXPLANATION: half", "<think>", "<think>\nno")


@dataclass(frozen=True)
class Answer:
    """An answer with its end; `half` if it ends inside a thought, `clear` if it is nothing but a verdict."""

    text: str
    finish: str
    logprobs: dict | None
    half: bool
    clear: bool

    def choice(self) -> dict[str, Any]:
        message = {"role": "assistant", "content": self.text}
        return {"message": message, "finish_reason": self.finish, "logprobs": self.logprobs}


def judged_replies(home: Path) -> Attempt:
    """One odd answer to every question of a judge, a relevance function or an explainer."""
    examples = planted("pets")

    def attempt(rng: Random, folder: Path) -> Outcome:
        answer = _answer(rng)
        (folder / "input.txt").write_text(repr(answer), "utf-8", "backslashreplace")
        kind = rng.choice(("judge", "relevance", "explainer"))
        with chat_server(lambda request: answer.choice()) as (address, _):
            endpoint = Endpoint(address, "m", key_env=None, cache=folder, attempts=1, workers=1, timeout=10)
            try:
                match kind:
                    case "judge":
                        (value,) = EndpointWindowJudge(endpoint)(VILLAIN.text, examples.scorer_windows[:1])
                        wrong = _off_scale(value, 1.0, answer, {"yes": 1.0, "no": 0.0})
                    case "relevance":
                        (value,) = EndpointRelevance(endpoint)({(1, 0, "+"): VILLAIN}, MALICE).values()
                        wrong = _off_scale(value, 100.0, answer, {"85": 85.0, "7": 7.0})
                    case _:
                        (value,) = EndpointExplainer(endpoint).explain_all([examples])
                        wrong = _no_explanation(value, answer)
            except EndpointError as error:
                return refusal(error, ["answer", "repl", "server"])
            except Exception as error:
                return refusal(error, [])
        return Outcome("silent", f"{kind}: {wrong}, from {answer}"[:500]) if wrong else Outcome("fine")

    return attempt


def _answer(rng: Random) -> Answer:
    verdict, half = rng.choice(VERDICTS), rng.random() < 0.25
    text = rng.choice((verdict, verdict, rng.choice(ODD), verdict + rng.choice(ODD)))
    if half:
        text = rng.choice(HALF)
    elif rng.random() < 0.3:
        text = rng.choice(THOUGHTS) + text
    first = text[:1] if rng.random() < 0.3 else text.split(" ")[0]
    logprobs = rng.choice(
        (
            None,
            None,
            alternatives({first: -0.01}),
            alternatives({first: -5.0, "yes": -6.0, "no": -5.5, "85": -5.0}),
            alternatives({"\n": -0.1, "yes": -4.0}, {"yes": -0.1, "no": -3.0}),
        )
    )
    return Answer(text, rng.choice(("stop", "stop", "length")), logprobs, half, text == verdict)


def _off_scale(value: Any, top: float, answer: Answer, expected: dict[str, float]) -> str | None:
    if value is None:
        return None
    if not isinstance(value, float | int) or not math.isfinite(value) or not 0 <= value <= top:
        return f"{value!r} is not from 0 to {top:g}"
    if answer.half:
        return f"{value!r} was read from half a thought"
    plain = answer.clear and answer.finish == "stop" and answer.logprobs is None
    if plain and expected.get(answer.text, value) != value:
        return f"{value!r} instead of {expected[answer.text]}"
    return None


def _no_explanation(value: Any, answer: Answer) -> str | None:
    if isinstance(value, EndpointError):
        return None
    if not isinstance(value, Explanation) or not value.text.strip():
        return f"{value!r} is no explanation"
    value.text.encode()
    if answer.half or "think>" in value.text.lower() or "[/think" in value.text.lower():
        return f"{value.text!r} is a thought"
    return None
