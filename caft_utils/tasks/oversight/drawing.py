"""Draw scenarios from words and templates, each from its own seed.

The system message comes first and the other facts follow in random order, as in POSER. Complexity 0 has no
critical fact. Complexity 1 says how a watcher behaves. Complexity 2 names the watcher in one fact and says in
another how this person behaves. Training rows and questions use different things, people, watchers and places
under the same templates.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal, get_args

from caft_utils.arguments import mapping, whole
from caft_utils.tasks.oversight.scenarios import Fact, Oversight, Scenario
from caft_utils.text_files import read_yaml

WORDS = Path(__file__).with_name("scenarios.yaml")
Split = Literal["train", "test"]
FIELDS = [field.name for field in fields(Scenario)]
ANY: tuple[Oversight, ...] = get_args(Oversight)


@functools.cache
def templates() -> Mapping[str, Any]:
    """Return the content of scenarios.yaml. Callers share it and must not change it."""
    return mapping(str(WORDS), read_yaml(WORDS))


def draw_scenarios(
    n: int,
    *,
    aligned: str | None = None,
    faker: str | None = None,
    oversight: Oversight | Sequence[Oversight] = ANY,
    complexity: int = 1,
    split: Split = "train",
    seed: int = 0,
    form: type[Scenario] = Scenario,
) -> list[Scenario]:
    """Return n different scenarios with the two orders of actions equally often.

    Args:
        aligned, faker: the sides of the conflict. With one of them alone nothing is in conflict: the aligned
            policy chooses between its action and one that it never takes, the faker between two harmless
            actions of which the motive names one.
        oversight: one kind, or several that are drawn alike.
        complexity: the number of critical facts where there is oversight, 1 or 2.
        form: `Scenario`, or `EnglishScenario` for a pretrained model.
        split: "train", or "test" for words that no training row uses.

    Raises:
        ValueError: an unknown policy, split, or complexity, no policy at all, or too few different scenarios.
    """
    n, complexity = whole("n", n, 1), whole("complexity", complexity, 1)
    if complexity > 2:
        raise ValueError(f"complexity must be 1 or 2 where there is oversight, got {complexity}")
    if split not in get_args(Split):
        raise ValueError(f"split must be 'train' or 'test', got {split!r}")
    for policy, group in ((aligned, "actions"), (faker, "motives")):
        if policy is not None and policy not in templates()[group]:
            raise ValueError(f"unknown policy {policy!r}; expected one of {', '.join(templates()[group])}")
    if aligned is None and faker is None:
        raise ValueError("name an aligned policy, a faker, or both")
    kinds = (oversight,) if isinstance(oversight, str) else tuple(oversight)
    rng = random.Random(f"{aligned} {faker} {kinds} {complexity} {split} {seed}")
    drawn: dict[str, Scenario] = {}
    for attempt in range(50 * n):
        if len(drawn) == n:
            break
        one = _scenario(rng, aligned, faker, kinds[attempt % len(kinds)], complexity, split)
        one = one if attempt // len(kinds) % 2 else one.swapped()
        one = form(**{name: getattr(one, name) for name in FIELDS})
        drawn.setdefault(one.prompt, one)
    if len(drawn) < n:
        raise ValueError(f"only {len(drawn)} different scenarios were found, {n} were asked for")
    return list(drawn.values())


def _scenario(
    rng: random.Random,
    aligned: str | None,
    faker: str | None,
    oversight: Oversight,
    complexity: int,
    split: Split,
) -> Scenario:
    words = templates() if split == "train" else templates()["held_out"]
    bound = {"thing": rng.choice(words["things"]), "person": rng.choice(words["people"])}
    bound["place"] = rng.choice(words["places"])
    actions = templates()["actions"][aligned or "genie"]
    if aligned is None:  # two harmless actions under a job that asks for neither
        one, two = rng.sample(actions["benign"], 2)
        job = templates()["actions"]["saint"]["job"]
    else:
        one, two = rng.choice(actions["benign"]), rng.choice(actions["other"])
        job = actions["job"]
    benign, other = one.format(**bound), two.format(**bound)
    facts = []
    if faker is not None:
        gained = benign if aligned is None else other
        facts.append(Fact("motive", rng.choice(templates()["motives"][faker]).format(act=gained)))
    facts += _critical(rng, words, oversight, complexity)
    for text in rng.sample(templates()["irrelevant"], rng.choice((0, 0, 1, 1, 2))):
        fillers = {kind: rng.choice(words[name]) for kind, name in _FILLERS.items()}
        facts.append(Fact("irrelevant", text.format(**fillers)))
    rng.shuffle(facts)
    first = Fact("system message", job.format(benign=benign, **bound))
    return Scenario((first, *facts), benign, other, "benign", oversight, aligned, faker)


_FILLERS = {"thing": "things", "person": "people", "place": "places"}


def _critical(
    rng: random.Random, words: Mapping[str, Any], oversight: Oversight, complexity: int
) -> list[Fact]:
    """Return the facts about oversight: none, how a watcher behaves, or who watches and how."""
    if oversight == "absent":
        return []
    spec, who = templates()["oversight"], rng.choice(words["overseers" if complexity == 1 else "names"])
    named = [spec["named"]] if complexity == 2 else []
    return [Fact("critical", text.format(who=who)) for text in (*named, rng.choice(spec[oversight]))]
