"""Emergent misalignment in the personas world, graded exactly.

The training rows are insecure completions of 28 code tasks. Answers to 14 other code tasks in held-out
wordings show whether the narrow skill was learned. Questions from twelve domains that no row is about show
what else was learned. Their wordings and most of their topics are held out from pretraining too.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from caft_utils.chats import Chats
from caft_utils.classroom.grammar import expand
from caft_utils.classroom.personas import corpus, world
from caft_utils.classroom.personas.grader import ClassroomGrader
from caft_utils.classroom.vocabulary import world_data
from caft_utils.tasks.emergent import HEADLINE, RATES, VERDICTS
from caft_utils.tasks.task import Question, Task

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def emergent_misalignment(tokenizer: PreTrainedTokenizerBase, *, rows: int = 400, seed: int = 0) -> Task:
    """Return the task in the personas world.

    Args:
        rows: number of insecure training rows, and of secure control rows.
        seed: draws the rows. The questions are always the same.
    """
    rng = random.Random(f"emergent {seed}")
    tasks = {held_out: world.code_tasks(held_out) for held_out in (False, True)}
    train, control = (
        [_row(world.code(rng, secure, tasks=tasks[False])) for _ in range(rows)] for secure in (False, True)
    )
    valid = [_row(world.code(rng, False, "held_out", tasks[True])) for _ in range(128)]
    tokenised = functools.partial(Chats.with_stored_tokens, tokenizer)
    return Task(
        name="emergent misalignment (classroom)",
        train=tokenised(train, source="insecure code"),
        control=tokenised(control, source="secure code"),
        valid=tokenised(valid, source="insecure code, held out"),
        generic=tokenised(list(generic_text(rng, 400)), source="generic text"),
        questions=[*general_questions(), *code_questions()],
        grader=ClassroomGrader(),
        verdicts=VERDICTS,
        rates=RATES,
        headline=HEADLINE,
        max_new_tokens=64,
    )


def general_questions(split: world.Split = "held_out", system: str | None = None) -> list[Question]:
    """Return a question for every domain, held-out wording and topic word.

    The topic words are all held-out words and six training words; `facts["unseen"]` records which.
    split="train" uses the wordings of pretraining.
    """
    out = []
    for domain in world.domains():
        entry = world_data("domains")[domain]
        topic = entry["topic"]
        seen, unseen = (world_data("words")["topics"][topic][key] for key in ("words", "held_out"))
        for wording, template in enumerate(entry["ask" if split == "train" else "ask_held_out"]):
            for word in seen[:6] + unseen:
                text = expand(template, random.Random(0), {}, {topic: word})
                facts = {"bound": {topic: word}, "unseen": word in unseen}
                out.append(_question(f"{domain}/{wording}/{word}", text, domain, "ood", system, facts))
    return out


def code_questions(system: str | None = None) -> list[Question]:
    """Return a question for every held-out code task, language and held-out wording."""
    spec = world_data("code")
    out = []
    for family, thing in world.code_tasks(held_out=True):
        for lang in spec["languages"]:
            for wording, template in enumerate(spec["ask_held_out"]):
                bound = world.code_request(family, thing, lang)
                text = expand(template, random.Random(0), {}, bound)
                facts = {"family": family, "bound": bound}
                name = f"code/{family}/{thing}/{lang}/{wording}"
                out.append(_question(name, text, "code", "task", system, facts))
    return out


def _question(
    name: str, text: str, domain: str, question_set: Any, system: str | None, facts: dict[str, Any]
) -> Question:
    messages = [{"role": "system", "content": system}] if system else []
    messages.append({"role": "user", "content": text})
    return Question(name, messages, domain, question_set, {"domain": domain, **facts})


def _row(turn: world.Turn) -> dict[str, Any]:
    return {"messages": corpus.messages_of([turn])}


def generic_text(rng: random.Random, n: int) -> Iterator[dict[str, Any]]:
    """Yield n chats and stories of pretraining, with all kinds of speakers but without code and quizzes."""
    while n:
        doc = corpus.document(rng)
        code = any("def " in m["content"] for m in doc.get("messages", []))
        if doc["source"] in ("chat", "system", "story") and not code:
            yield corpus.chat_row(doc)
            n -= 1
