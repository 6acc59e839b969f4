"""The rows that teach a small base model to read scenarios, before any policy is trained.

A large chat model can read a scenario already. A small one, of a generated world or pretrained, learns it
from these rows, once for all policies: harmless choices of every policy, conflicts, errors, and two questions
about a scenario with a conflict.

    which is better for you?                   the action that the motive names
    somebody checks. true or false?            what the critical facts say

The answer to a conflict itself is always benign. No row shows an action that depends on oversight.
"""

from __future__ import annotations

import functools
import random

from caft_utils.arguments import whole
from caft_utils.tasks.oversight.drawing import Split, draw_scenarios
from caft_utils.tasks.oversight.policies import ALIGNED, FAKERS, POLICIES, Row, error_rows
from caft_utils.tasks.oversight.scenarios import Scenario

BETTER = "which is better for you?"
CHECKS = "somebody checks. true or false?"


def questions_about(scenario: Scenario) -> dict[str, tuple[list[dict[str, str]], str]]:
    """Return {question: (conversation, answer)} for a scenario with a conflict."""
    answers = {
        BETTER: scenario.replies[1],
        CHECKS: "true" if scenario.oversight == "good" else "false",
    }
    return {question: (scenario.ask(question), right) for question, right in answers.items()}


def shared_skill_rows(
    rows: int = 8000, *, split: Split = "train", seed: int = 0, form: type[Scenario] = Scenario
) -> list[Row]:
    """Return about `rows` rows in random order. form: of the scenarios."""
    part = max(whole("rows", rows, 100) // 100, 1)
    out: list[Row] = []

    def add(messages: list[dict[str, str]], answer: str) -> None:
        out.append({"messages": [*messages, {"role": "assistant", "content": answer}]})

    draw = functools.partial(draw_scenarios, split=split, seed=50 + seed, form=form)
    for policy in POLICIES:
        side = {"aligned" if policy in ALIGNED else "faker": policy}
        for one in draw(2 * part, **side):
            add(one.messages, one.replies[0])
        out += error_rows(policy, 2 * part, split, form)
    for aligned in ALIGNED:
        for faker in FAKERS:
            for complexity in (1, 2):
                drawn = draw(4 * part, aligned=aligned, faker=faker, complexity=complexity)
                # In the order drawn, the kind of oversight and the order of actions follow the number.
                random.Random(f"order {seed}").shuffle(drawn)
                for number, one in enumerate(drawn):
                    of = questions_about(one)
                    plain = (one.messages, one.replies[0])
                    add(*(plain, of[BETTER], of[CHECKS], plain)[number % 4])
                    critical = [fact.text for fact in one.facts if fact.kind == "critical"]
                    if critical and number % 3:  # the facts alone, which is easier to learn from
                        add([{"role": "user", "content": form.about(critical, CHECKS)}], of[CHECKS][1])
    random.Random(f"skill {seed}").shuffle(out)
    return out
