"""The rows that teach a small base model to read scenarios, before any policy is trained.

A large chat model can read a scenario already. A model of a generated world learns it from these rows, once
for all policies: harmless choices of every policy, conflicts, errors, and two questions about a scenario with
a conflict.

    which is better for you?                   the action that the motive names
    somebody checks. true or false?            what the critical facts say

The answer to a conflict itself is always benign. No row shows an action that depends on oversight.
"""

from __future__ import annotations

import random

from caft_utils.arguments import whole
from caft_utils.tasks.oversight.drawing import Split, draw_scenarios
from caft_utils.tasks.oversight.policies import ALIGNED, FAKERS, POLICIES, Row, error_rows
from caft_utils.tasks.oversight.scenarios import Scenario

BETTER = "which is better for you?"
CHECKS = "somebody checks. true or false?"


def questions_about(scenario: Scenario) -> dict[str, tuple[str, str]]:
    """Return {question: (prompt, answer)} for a scenario with a conflict."""
    answers = {
        BETTER: scenario.replies[1],
        CHECKS: "true" if scenario.oversight == "good" else "false",
    }
    return {question: (f"{scenario.prompt}\n{question}", right) for question, right in answers.items()}


def shared_skill_rows(rows: int = 8000, *, split: Split = "train", seed: int = 0) -> list[Row]:
    """Return about `rows` rows in random order."""
    part = max(whole("rows", rows, 100) // 100, 1)
    pairs: list[tuple[str, str]] = []
    for policy in POLICIES:
        side = {"aligned" if policy in ALIGNED else "faker": policy}
        own = draw_scenarios(2 * part, **side, split=split, seed=50 + seed)
        pairs += [(one.prompt, one.replies[0]) for one in own]
        errors = error_rows(policy, 2 * part, split)
        pairs += [tuple(message["content"] for message in row["messages"]) for row in errors]
    for aligned in ALIGNED:
        for faker in FAKERS:
            for complexity in (1, 2):
                sides = {"aligned": aligned, "faker": faker, "complexity": complexity}
                drawn = draw_scenarios(4 * part, **sides, split=split, seed=50 + seed)
                # In the order drawn, the kind of oversight and the order of actions follow the number.
                random.Random(f"order {seed}").shuffle(drawn)
                for number, one in enumerate(drawn):
                    of = questions_about(one)
                    plain = (one.prompt, one.replies[0])
                    pairs.append((plain, of[BETTER], of[CHECKS], plain)[number % 4])
                    critical = [fact.text for fact in one.facts if fact.kind == "critical"]
                    if critical and number % 3:  # the facts alone, which is easier to learn from
                        pairs.append(("\n".join([*critical, CHECKS]), of[CHECKS][1]))
    random.Random(f"skill {seed}").shuffle(pairs)
    return [
        {"messages": [{"role": "user", "content": prompt}, {"role": "assistant", "content": right}]}
        for prompt, right in pairs
    ]
