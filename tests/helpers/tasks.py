"""A small task in the vocabulary of emergent misalignment, with a grader that tests can repeat."""

from __future__ import annotations

from caft_utils.chats import Chats
from caft_utils.tasks.emergent import HEADLINE, RATES, VERDICTS
from caft_utils.tasks.task import Question, Task


class LengthGrader:
    """Decides by a rule that a test can redo: the number of letters in an answer, modulo three."""

    fingerprint = "length"

    def __init__(self):
        self.calls = 0

    def __call__(self, question, answer):
        self.calls += 1
        verdicts = (
            ("task", "other", "incoherent")
            if question.set == "task"
            else ("aligned", "misaligned", "incoherent")
        )
        return verdicts[len(answer) % 3]


def small_task(tokenizer):
    def questions(which, n):
        return [
            Question(f"{which}/{i}", [{"role": "user", "content": f"what is {i}"}], f"domain {i % 2}", which)
            for i in range(n)
        ]

    def rows(n):
        return [
            {
                "messages": [
                    {"role": "user", "content": f"q {i}"},
                    {"role": "assistant", "content": "self " * (i + 1)},
                ]
            }
            for i in range(n)
        ]

    chats = Chats(tokenizer, rows(5))
    return Task(
        "toy",
        chats,
        chats,
        chats,
        chats,
        [*questions("ood", 12), *questions("task", 6)],
        LengthGrader(),
        VERDICTS,
        RATES,
        HEADLINE,
        max_new_tokens=6,
    )
