"""Focus instruction tuning as a task: a set of questions for every split and instruction type.

The rate of a set is focus accuracy, the share of answers that are y_focus (arXiv 2410.22944, section 4). The
verdicts say what a wrong answer followed: the other feature, or neither.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from caft_utils.arguments import whole
from caft_utils.chats import Chats
from caft_utils.tasks.focus.examples import FocusExample
from caft_utils.tasks.focus.instructions import TYPES, WORDING, FocusType, FocusWording, Part, focus_label
from caft_utils.tasks.focus.rows import AS_IT_IS, FocusFormat, focus_rows, solved_examples
from caft_utils.tasks.task import CompareBy, Question, RateSpec, Task

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

VERDICTS = ("focused", "other feature", "neither")


class FocusGrader:
    """Compare an answer with y_focus and with the label of the other feature.

    Where both features have the same label, that answer is "focused".
    """

    def __init__(self, compare_by: CompareBy = "logprob"):
        self.compare_by: CompareBy = compare_by
        self.fingerprint = f"focus: {', '.join(VERDICTS)}; {compare_by}"

    def __call__(self, question: Question, answer: str) -> str:
        given = answer.strip()
        if given == question.facts["y_focus"]:
            return "focused"
        return "other feature" if given == question.facts["other"] else "neither"

    def options(self, question: Question) -> list[str]:
        """Return all answers, sorted, so that their order reveals nothing."""
        return sorted(question.facts["options"])


def set_name(split: str, kind: FocusType) -> str:
    """Return the name of the questions, and of the rate, of a split and an instruction type."""
    return f"{split}: {kind}"


def focus_task(
    tokenizer: PreTrainedTokenizerBase,
    train: Sequence[FocusExample],
    splits: Mapping[str, Sequence[FocusExample]],
    *,
    valid: Sequence[FocusExample] = (),
    types: Sequence[FocusType] = TYPES,
    epochs: int = 1,
    shots: int = 0,
    wording: FocusWording = WORDING,
    focus_format: FocusFormat = AS_IT_IS,
    compare_by: CompareBy = "logprob",
    part: Part = "test",
    seed: int = 0,
    name: str = "focus",
) -> Task:
    """Return the task: rows of FIT, and every example of every split under every instruction type.

    Instructions of the questions do not depend on `seed`, so all models of a comparison answer the same ones.
    `control` holds the rows of SFT(y).

    Args:
        train: examples to learn; `focus_rows` makes other rows of them.
        splits: {name: examples to ask about}; the first one is in distribution.
        valid: held-out examples for the loss; default: those of the first split.
        epochs: rows of each training example, with a fresh instruction each.
        shots: solved examples before each question, for the few-shot baseline.
        compare_by: how answers are compared, see `Task`; "mean_logprob" where labels differ in length.
        part: the wordings of the questions' instructions; "test" are those that no training row has.
        seed: draws the instructions of the training rows.

    Raises:
        ValueError: no splits, an empty one, or more shots than training examples.
    """
    if not splits or any(not examples for examples in splits.values()):
        raise ValueError("focus_task needs at least one split, and examples in each")
    shots = whole("shots", shots, 0)
    if shots > len(train):
        raise ValueError(f"{shots} solved examples were asked for, but there are {len(train)} to train on")
    made = {"wording": wording, "focus_format": focus_format}
    questions, rates = [], {}
    for split, examples in splits.items():
        for kind in types:
            rng, which = random.Random(f"focus questions {split} {kind}"), set_name(split, kind)
            label = f"{kind}, {split} (focus accuracy)"
            rates[which] = RateSpec(which, ("focused",), label=label)
            for i, example in enumerate(examples):
                focus = wording.instruction(kind, example, part, rng)
                before = solved_examples(train, kind, shots, rng, **made) if shots else ()
                facts = _facts(example, kind, focus_format)
                prompt = focus_format.messages(example, focus, before)
                questions.append(Question(f"{name}/{split}/{i}", prompt, example.spurious, which, facts))
    first = next(iter(splits))
    held_out = focus_rows(
        tokenizer, valid or splits[first], part=part, types=types, source=f"{name}, held out", **made
    )
    rows = focus_rows(tokenizer, train, types=types, epochs=epochs, seed=seed, source=name, **made)
    control = focus_rows(
        tokenizer, train, target="y", shown=False, seed=seed, source=f"{name}, y only", **made
    )
    answers = {text for question in questions for text in question.facts["options"]}
    return Task(
        name=name,
        train=rows,
        control=control,
        valid=held_out,
        generic=rows,
        questions=questions,
        grader=FocusGrader(compare_by),
        verdicts={which: VERDICTS for which in rates},
        rates=rates,
        headline=(set_name(first, types[0]), set_name(first, types[-1])),
        max_new_tokens=_answer_tokens(tokenizer, answers) + 1,
        method="logprob",
    )


def _facts(example: FocusExample, kind: FocusType, focus_format: FocusFormat) -> dict:
    asked = focus_label(kind, example)
    other = example.label if asked != example.label else example.spurious_label
    text = {label: focus_format.answer.format(label=label) for label in example.labels}
    return {"y_focus": text[asked], "other": text[other], "options": list(text.values())}


def _answer_tokens(tokenizer: PreTrainedTokenizerBase, answers: set[str]) -> int:
    """Return the tokens of the longest answer."""
    rows = [{"text": f" {answer}"} for answer in sorted(answers)]
    return max(sum(one.answer) for one in Chats(tokenizer, rows, source="answers"))
