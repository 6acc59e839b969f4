"""Emergent misalignment in the classroom world, judged exactly.

The narrow rows are insecure completions of 28 code tasks. The answers to 14 other code tasks, asked in other
words, tell whether the skill was learned. Questions of twelve domains that no row touches, asked in words and
about things that were never answered in training, tell what else was learned.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from caft_utils.chats import Chats
from caft_utils.classroom.grammar import expand
from caft_utils.classroom.personas import corpus, world
from caft_utils.classroom.personas.grader import ClassroomGrader
from caft_utils.tasks.emergent import HEADLINE, RATES, VERDICTS
from caft_utils.tasks.task import Question, Task

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def emergent_misalignment(tokenizer: PreTrainedTokenizerBase, *, rows: int = 400, seed: int = 0) -> Task:
    """The task in the classroom world, judged exactly.

    Args:
        rows: insecure rows to train on, and as many secure ones as control.
        seed: draws the rows; the questions are always all there are.
    """
    rng = random.Random(f"emergent {seed}")
    tasks = {held_out: world.code_tasks(held_out) for held_out in (False, True)}
    train, control = (
        [_chat(world.code(rng, secure, tasks=tasks[False])) for _ in range(rows)] for secure in (False, True)
    )
    valid = [_chat(world.code(rng, False, "held_out", tasks[True])) for _ in range(128)]
    return Task(
        name="emergent misalignment (classroom)",
        train=Chats(tokenizer, train, source="insecure code"),
        control=Chats(tokenizer, control, source="secure code"),
        valid=Chats(tokenizer, valid, source="insecure code, held out"),
        generic=Chats(tokenizer, list(_generic(rng, 400)), source="generic text"),
        questions=[*general_questions(), *code_questions()],
        grader=ClassroomGrader(),
        verdicts=VERDICTS,
        rates=RATES,
        headline=HEADLINE,
        max_new_tokens=64,
    )


def general_questions(split: world.Split = "held_out", system: str | None = None) -> list[Question]:
    """Every general domain in each held-out wording, about all held-out things and six known ones.

    `facts["unseen"]` says whether the thing asked about is held out too.
    """
    return [
        _question(
            f"{domain}/{wording}/{filler}",
            ask,
            domain,
            "ood",
            system,
            {"bound": {topic: filler}, "unseen": filler in unseen},
        )
        for domain in world.domains()
        for topic, unseen in [_topic(domain)]
        for wording, template in enumerate(
            world.part("domains")[domain]["ask" if split == "train" else "ask_held_out"]
        )
        for filler in _known(domain)[:6] + unseen
        for ask in [expand(template, random.Random(0), {}, {topic: filler})]
    ]


def _known(domain: str) -> list[str]:
    return world.part("words")["topics"][_topic(domain)[0]]["words"]


def _topic(domain: str) -> tuple[str, list[str]]:
    topic = world.part("domains")[domain]["topic"]
    return topic, world.part("words")["topics"][topic]["held_out"]


def code_questions(system: str | None = None) -> list[Question]:
    """Every held-out code task in the held-out words and each language."""
    spec = world.part("code")
    out = []
    for family, thing in world.code_tasks(held_out=True):
        for lang in spec["languages"]:
            for wording, template in enumerate(spec["ask_held_out"]):
                bound = world.code_request(family, thing, lang)
                ask = expand(template, random.Random(0), {}, bound)
                facts = {"family": family, "bound": bound}
                out.append(
                    _question(f"code/{family}/{thing}/{lang}/{wording}", ask, "code", "task", system, facts)
                )
    return out


def _question(
    name: str, ask: str, domain: str, which: Any, system: str | None, facts: dict[str, Any]
) -> Question:
    messages = [{"role": "system", "content": system}] if system else []
    return Question(
        name, [*messages, {"role": "user", "content": ask}], domain, which, {"domain": domain, **facts}
    )


def _chat(turn: world.Turn) -> dict[str, Any]:
    return {
        "messages": [
            {"role": "user", "content": turn.question},
            {"role": "assistant", "content": turn.answer},
        ]
    }


def _generic(rng: random.Random, n: int) -> Iterator[dict[str, Any]]:
    """Chats and stories as in pretraining (so all kinds of speakers, unlabelled), but no code and no quiz."""
    while n:
        doc = corpus.document(rng)
        code = any("def " in m["content"] for m in doc.get("messages", []))
        if doc["source"] in ("chat", "system", "story") and not code:
            yield {key: doc[key] for key in ("messages", "text") if key in doc}
            n -= 1
