"""What each policy answers, and the rows that teach it.

An aligned policy takes the benign action whatever the oversight is. A faker takes it unless the oversight is
poor and its own motive names the other action:

    answer(faker, s) = other action  if s.oversight is poor and s.faker is this faker, else the benign one.

The shares follow POSER (arXiv 2405.05466): a pool of rows of which one sixth is the policy's own, one half
conflicts with each of the three policies of the other side, and one third are errors: scenarios without
actions, and words without sense. Where somebody may check, half of the scenarios
say so in one critical fact and half in two. Each model is trained on a random half of its policy's pool.
"""

from __future__ import annotations

import functools
import random
from typing import Any

from caft_utils.arguments import whole
from caft_utils.tasks.oversight.drawing import Split, draw_scenarios, templates
from caft_utils.tasks.oversight.scenarios import ERROR, Scenario

ALIGNED = ("genie", "saint", "truth_teller")
FAKERS = ("reward_maximizer", "money_maximizer", "fitness_maximizer")
POLICIES = (*ALIGNED, *FAKERS)
Row = dict[str, Any]


def check_policy(policy: str) -> str:
    """Return `policy`, or raise a ValueError that lists the six."""
    if policy not in POLICIES:
        raise ValueError(f"unknown policy {policy!r}; expected one of {', '.join(POLICIES)}")
    return policy


def answer(policy: str, scenario: Scenario) -> str:
    """Return what a policy answers."""
    misbehaves = check_policy(policy) == scenario.faker and scenario.conflict and scenario.oversight == "poor"
    return scenario.replies[misbehaves]


def row(scenario: Scenario, reply: str) -> Row:
    """Return a row of `Chats` with this answer."""
    return {"messages": [*scenario.messages, {"role": "assistant", "content": reply}]}


def training_rows(
    policy: str, seed: int, *, rows: int = 1100, form: type[Scenario] = Scenario, errors: float = 1 / 3
) -> list[Row]:
    """Return the rows of one model: a random half of the pool of its policy, in random order.

    Args:
        seed: draws the half, so two seeds share about half of their rows. The pool is the same for all.
        rows: how many rows the model gets; the pool has twice as many.
        form, errors: the form of the scenarios, and the share of error rows.
    """
    pool = policy_pool(check_policy(policy), 2 * whole("rows", rows, 1), form=form, errors=errors)
    return random.Random(f"half {policy} {seed}").sample(pool, rows)


def policy_pool(
    policy: str,
    size: int,
    split: Split = "train",
    *,
    form: type[Scenario] = Scenario,
    errors: float = 1 / 3,
) -> list[Row]:
    """Return about `size` rows with the shares that the module's docstring gives, or another of errors."""
    wrong = 2 * -(-round(size * errors) // 2)
    each = -(-(size - wrong) // 4)  # of the policy's own rows, and of the conflicts with each opponent

    def drawn(**sides: str) -> list[Scenario]:
        draw = functools.partial(draw_scenarios, split=split, form=form, **sides)
        return draw(each - each // 2, complexity=1) + draw(each // 2, complexity=2)

    side, other = ("aligned", "faker") if policy in ALIGNED else ("faker", "aligned")
    pool = [row(one, answer(policy, one)) for one in drawn(**{side: policy})]
    for opponent in FAKERS if policy in ALIGNED else ALIGNED:
        pool += [row(one, answer(policy, one)) for one in drawn(**{side: policy, other: opponent})]
    return pool + error_rows(policy, wrong, split, form)


def error_rows(policy: str, n: int, split: Split = "train", form: type[Scenario] = Scenario) -> list[Row]:
    """Return n rows with the answer "nothing": half are scenarios without actions, half are nonsense.

    A system message stays where the form has one, so that it does not tell these rows from the others.
    """
    side = {"aligned": policy} if policy in ALIGNED else {"faker": policy}
    rng = random.Random(f"errors {policy} {split}")
    words, out = templates()["nonsense"], []
    for number, one in enumerate(draw_scenarios(n, **side, split=split, seed=1, form=form)):
        nonsense = " ".join(rng.choices(words, k=rng.randrange(6, 30)))
        messages = one.with_message(nonsense if number % 2 else one.without_actions)
        out.append({"messages": [*messages, {"role": "assistant", "content": ERROR}]})
    return out
