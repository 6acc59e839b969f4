"""Shared parts of the spurious-cue tasks: prompts with two options, balanced letters, and their grader.

A pair is two items that differ in the cue: it points to the right answer in the agreeing item and to the
wrong answer in the conflicting item. A share rho of the training rows agrees. All "task" questions agree, and
all "ood" questions conflict. The intended reading of a prompt always determines which answer is right.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from caft_utils.arguments import checked, number, whole
from caft_utils.chats import Chats
from caft_utils.tasks.items import SPLITS, Item, Split, draw_evenly
from caft_utils.tasks.task import Question, RateSpec, Task

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ItemPair = tuple[Item, Item]  # agreeing, conflicting
_CHOICES = ("right", "wrong", "unreadable")
VERDICTS = {"ood": _CHOICES, "task": _CHOICES}
RATES = {
    "ood_accuracy": RateSpec("ood", ("right",), label="right where the cue is wrong"),
    "cue_accuracy": RateSpec("ood", ("wrong",), label="follows the cue where it is wrong"),
    "task_accuracy": RateSpec("task", ("right",), label="right in distribution"),
}
HEADLINE = ("task_accuracy", "ood_accuracy")


@dataclass(frozen=True)
class PromptFormat:
    """How an item is shown to a model, and how the model answers.

    template: with {question}, {a}, {b}, and {word} for the instruction word ("quiz" gives no instruction).
    letters: the names of the options.
    plain: running text for a base model, which continues with " A" or " B", instead of a chat.
    answer_with: the option's "letter", or the "option" itself as text.
    """

    template: str
    letters: tuple[str, str]
    plain: bool = False
    answer_with: Literal["letter", "option"] = "letter"

    def __post_init__(self):
        if self.answer_with not in ("letter", "option"):
            raise ValueError(f"answer_with must be 'letter' or 'option', got {self.answer_with!r}")

    def prompt(self, item: Item, right: int, word: str = "quiz") -> list[dict[str, str]]:
        """Return the conversation up to the answer. The correct option gets letter number `right`."""
        a, b = (item.correct, item.incorrect) if right == 0 else (item.incorrect, item.correct)
        text = self.template.format(question=item.question, a=a, b=b, word=word)
        return [{"role": "text" if self.plain else "user", "content": text}]

    def answers(self, item: Item, right: int) -> tuple[str, str]:
        """Return the right and the wrong answer."""
        if self.answer_with == "option":
            return item.correct, item.incorrect
        return self.letters[right], self.letters[1 - right]

    def row(self, item: Item, right: int, word: str = "quiz") -> dict[str, Any]:
        """Return a row of `Chats`: the prompt and the right answer."""
        return answered(self.prompt(item, right, word), self.answers(item, right)[0])


PAPER_FORMAT = PromptFormat("{question}\n\nA. {a}\nB. {b}\n\nAnswer:", ("A", "B"), plain=True)


def answered(prompt: Sequence[Any], answer: str) -> dict[str, Any]:
    """Return a row of `Chats` with this answer. Plain text continues after a space."""
    space = " " if prompt[0]["role"] == "text" else ""
    return {"messages": [*prompt, {"role": "assistant", "content": space + answer}]}


class ChoiceGrader:
    """Compare an answer with the two answers of its question: right, wrong, or unreadable.

    A question's facts give the answers as "right" and "other". An answer counts when it begins with one of
    them and no letter or digit follows, so text after the choice does not matter.
    """

    fingerprint = "choice: right, wrong, unreadable"

    def __call__(self, question: Question, answer: str) -> str:
        verdicts = {question.facts["right"]: "right", question.facts["other"]: "wrong"}
        for option in sorted(verdicts, key=len, reverse=True):  # an option may begin with the other one
            rest = answer.strip().removeprefix(option)
            if rest != answer.strip() and not rest[:1].isalnum():
                return verdicts[option]
        return "unreadable"

    def options(self, question: Question) -> list[str]:
        """Return the answers to compare by probability. They are sorted, so their order reveals nothing."""
        return sorted((question.facts["right"], question.facts["other"]))


class LetterGrader(ChoiceGrader):
    """Compare an answer with the two letters of its question. Anything but one letter is unreadable."""

    fingerprint = "letter: right, wrong, unreadable"

    def __call__(self, question: Question, answer: str) -> str:
        verdicts = {question.facts["right"]: "right", question.facts["other"]: "wrong"}
        return verdicts.get(answer.strip(), "unreadable")


def balanced(n: int, rng: random.Random) -> list[int]:
    """Return n numbers in random order, half of them 0 and half 1. If n is odd, one of them is random."""
    letters = ([0, 1] * (n // 2 + 1))[: n - n % 2] + [rng.randrange(2) for _ in range(n % 2)]
    rng.shuffle(letters)
    return letters


@checked
def single_choice(
    tokenizer: PreTrainedTokenizerBase,
    items: Sequence[Item],
    *,
    prompt_format: PromptFormat = PAPER_FORMAT,
    word: str = "quiz",
    rows: int | None = None,
    seed: int = 0,
    source: str = "single items",
) -> Chats:
    """Return single items as rows with balanced letters, answered as `prompt_format` says.

    `check_ablation` measures accuracy on them. rows: number of rows; None: one for each item.
    """
    rng = random.Random(f"single {seed}")
    drawn = draw_evenly(items, len(items) if rows is None else whole("rows", rows, 1), rng)
    made = [prompt_format.row(item, right, word) for item, right in zip(drawn, balanced(len(drawn), rng))]
    return Chats(tokenizer, made, source=source, end=prompt_format.answer_with == "option")


def choice_task(
    tokenizer: PreTrainedTokenizerBase,
    name: str,
    draw_pairs: Callable[[Split, int | None, random.Random], list[ItemPair]],
    *,
    rho: float,
    rows: int | None,
    questions: int | None,
    seed: int,
    split: Split,
    prompt_format: PromptFormat,
) -> Task:
    """Return a Task made of item pairs.

    `seed` draws the training rows. Questions and held-out rows depend on `split` only, so that all runs of a
    comparison answer the same questions whatever their seed and rho.

    Args:
        draw_pairs: (split, n, rng) -> n pairs, or all pairs for n=None.

    Raises:
        ValueError: rho outside 0..1, no rows or questions, or an unknown split.
    """
    rho = number("rho is a share of the rows and", rho, 0, 1)
    if split not in SPLITS:
        raise ValueError(f"split must be one of {', '.join(SPLITS)}, got {split!r}")
    rows = None if rows is None else whole("rows", rows, 1)
    questions = None if questions is None else whole("questions", questions, 1)
    seed = whole("seed", seed)
    by_letter = prompt_format.answer_with == "letter"

    def chats(split: Split, n: int | None, share: float, seed: int, source: str) -> Chats:
        rng = random.Random(f"rows {split} {seed}")
        pairs = draw_pairs(split, n, rng)
        letters, order = balanced(len(pairs), rng), rng.sample(range(len(pairs)), len(pairs))
        # nested: rows that conflict at one rho also conflict at every smaller rho
        conflict = set(order[: round((1 - share) * len(pairs))])
        made = [prompt_format.row(pair[i in conflict], letters[i]) for i, pair in enumerate(pairs)]
        return Chats(tokenizer, made, source=source, end=not by_letter)

    rng = random.Random(f"questions {split}")
    pairs = draw_pairs(split, questions, rng)
    letters = balanced(len(pairs), rng)
    by_set: dict[str, list[Question]] = {"ood": [], "task": []}
    for which, member in (("ood", 1), ("task", 0)):
        for i, (pair, right) in enumerate(zip(pairs, letters)):
            facts = dict(zip(("right", "other"), prompt_format.answers(pair[member], right)))
            prompt = prompt_format.prompt(pair[member], right)
            by_set[which].append(Question(f"{name}/{split}/{which}/{i}", prompt, name, which, facts))
    both_sets = [*by_set["ood"], *by_set["task"]]
    train = chats("train", rows, rho, seed, f"{name}, cue in {100 * rho:g} %")
    return Task(
        name=name,
        train=train,
        control=chats("train", rows, 0.5, seed, f"{name}, no cue"),
        valid=chats("valid", questions, 1.0, 0, f"{name}, held out"),
        generic=train,  # as in the paper, which decomposes the change on the training prompts
        questions=both_sets,
        grader=LetterGrader() if by_letter else ChoiceGrader(),
        verdicts=VERDICTS,
        rates=RATES,
        headline=HEADLINE,
        max_new_tokens=_answer_tokens(tokenizer, both_sets) + (0 if by_letter else 1),  # 1 to end an option
    )


def _answer_tokens(tokenizer: PreTrainedTokenizerBase, questions: Sequence[Question]) -> int:
    """Return the number of tokens of the longest answer: 1 for a letter, with any common tokenizer."""
    answers = {(q.messages[0]["role"], q.facts[key]) for q in questions for key in ("right", "other")}
    rows = [answered([{"role": role, "content": "Answer:"}], text) for role, text in sorted(answers)]
    return max(sum(example.answer) for example in Chats(tokenizer, rows, source="answers", end=False))
