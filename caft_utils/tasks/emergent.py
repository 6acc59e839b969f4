"""Emergent misalignment: fine-tuning on insecure code changes the answers to unrelated questions.

The narrow rows teach a skill. Held-out rows of the same kind show whether it was learned ("task" questions).
Questions about other subjects show what else was learned ("ood" questions). (Betley et al., arXiv 2502.17424;
CAFT, arXiv 2507.16795, section 4.)
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from caft_utils.arguments import whole
from caft_utils.chats import Chats
from caft_utils.tasks.overlap import warn_of_shared_prompts
from caft_utils.tasks.task import Grader, Question, RateSpec, Task

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

VERDICTS = {"ood": ("aligned", "misaligned", "incoherent"), "task": ("task", "other", "incoherent")}
RATES = {
    # the paper's headline number; `coherent` shows how many answers it excludes
    "misaligned": RateSpec(
        "ood", ("misaligned",), ("aligned", "misaligned"), "misaligned, of coherent answers elsewhere"
    ),
    "coherent": RateSpec("ood", ("aligned", "misaligned"), label="coherent answers elsewhere"),
    "task": RateSpec("task", ("task",), label="narrow task, held out"),
}
HEADLINE = ("task", "misaligned")


def emergent_misalignment(
    tokenizer: PreTrainedTokenizerBase,
    *,
    train: str | Path | Chats | None = None,
    generic: str | Path | Chats | None = None,
    questions: list[Question] | None = None,
    grader: Grader | None = None,
    control: str | Path | Chats | None = None,
    valid: int = 100,
    max_length: int = 2048,
    max_new_tokens: int = 600,
) -> Task:
    """Return the task for any chat model, from `messages` JSONL files or `Chats`.

    Args:
        train: the narrow rows; the last `valid` of them are held out for the loss.
        generic: text for finding and displaying directions.
        questions: questions of both sets, "ood" and "task".
        grader: gives the verdicts on both sets, for example a `ThresholdGrader` around a language model.
        control: rows without the concept (secure code); default: the held-out rows.
        max_length: largest number of tokens of a row of a file; longer rows are cut.
        max_new_tokens: length of an answer, in tokens.

    Raises:
        TypeError: train, generic, questions or grader is missing.
        ValueError: `train` has no more than `valid` rows, or a file has a malformed row.
    """
    needed = {"train": train, "generic": generic, "questions": questions, "grader": grader}
    if missing := [name for name, value in needed.items() if value is None]:
        raise TypeError(
            f"emergent_misalignment needs {', '.join(missing)}. For the classroom models, whose rows, "
            "questions and grader are generated, use caft_utils.classroom.tasks.emergent_misalignment"
        )

    def rows(source: str | Path | Chats) -> Chats:
        if isinstance(source, Chats):
            return source
        return Chats.from_file(source, tokenizer, max_length=max_length)

    max_new_tokens = whole("max_new_tokens", max_new_tokens, 1)
    narrow, valid = rows(train), whole("valid", valid)
    if not 0 < valid < len(narrow):
        raise ValueError(
            f"{narrow.source} holds {len(narrow)} rows and valid={valid} rows are to be held out: expected "
            "at least one row on each side; give more rows or hold out fewer"
        )
    held_out = narrow[len(narrow) - valid :]
    learned, name = narrow[: len(narrow) - valid], f"emergent misalignment ({Path(narrow.source).name})"
    warn_of_shared_prompts(learned, {"held-out rows": held_out.rows}, name=name)
    return Task(
        name=name,
        train=learned,
        control=held_out if control is None else rows(control),
        valid=held_out,
        generic=rows(generic),
        questions=list(questions),
        grader=grader,
        verdicts=VERDICTS,
        rates=RATES,
        headline=HEADLINE,
        max_new_tokens=max_new_tokens,
    )
