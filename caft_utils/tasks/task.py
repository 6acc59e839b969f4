"""A task: rows to fine-tune on, questions to ask afterwards, a grader, and the rates of its verdicts.

Each task declares its own vocabulary. Questions belong to named sets, every set has its possible verdicts,
and a rate counts verdicts of one set. The tasks of this package have a set "task", which asks for what the
rows teach (held out, in distribution), and a set "ood", which shows how the model generalises elsewhere.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, Protocol, get_args

from caft_utils.arguments import instance, kind_of, whole
from caft_utils.code_fingerprints import user_code
from caft_utils.store import digest
from caft_utils.tasks.overlap import warn_of_shared_prompts
from caft_utils.text_files import half_pair

if TYPE_CHECKING:
    from caft_utils.chats import Chats

Method = Literal["generate", "logprob"]  # the model writes an answer, or the most probable option counts
CompareBy = Literal["logprob", "mean_logprob"]  # of the whole answer, or the mean over its tokens


@dataclass(frozen=True)
class Question:
    """One question: the conversation so far, its domain, its question set, and the facts for the grader.

    `id` is unique in its set. Intervals treat answers to questions of one id as one cluster.
    """

    id: str
    messages: Sequence[Mapping[str, str]]
    domain: str
    set: str
    facts: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self):
        listed = isinstance(self.messages, Sequence) and not isinstance(self.messages, str)
        if not listed or not all(isinstance(message, Mapping) for message in self.messages):
            raise ValueError(
                f"question {self.id}: messages must be a list such as "
                f'[{{"role": "user", "content": "Hi?"}}], got {self.messages!r:.80}'
            )


class Grader(Protocol):
    """Return the verdict on one answer.

    `fingerprint` identifies stored measurements, together with the grader's code where that is not part of
    the package. It must name everything else on which a verdict depends, such as settings and files. A grader
    that knows the possible answers lists them in `options(question)`. It may also have `compare_by`, the way
    in which their probabilities are compared (default: "logprob").
    """

    fingerprint: str

    def __call__(self, question: Question, answer: str) -> str: ...


def compares_by(grader: Grader) -> CompareBy:
    """Return how the options of a grader's questions are compared."""
    return getattr(grader, "compare_by", "logprob")


@dataclass(frozen=True)
class RateSpec:
    """The verdicts that a rate counts: those in `hits`, as a share of those in `among`.

    set: the question set. among: verdicts in the denominator; None: all answers of the set.
    label: the name of the rate in tables and figures, without the unit; default: its key.
    """

    set: str
    hits: tuple[str, ...]
    among: tuple[str, ...] | None = None
    label: str | None = None

    def __post_init__(self):
        for name in ("hits", "among"):
            if isinstance(verdicts := getattr(self, name), str):
                raise ValueError(
                    f"{name} must be a tuple of verdicts, got {verdicts!r}; write ({verdicts!r},)"
                )
        object.__setattr__(self, "hits", tuple(self.hits))
        if self.among is not None:
            object.__setattr__(self, "among", tuple(self.among))
            if outside := set(self.hits) - set(self.among):
                raise ValueError(f"hits {', '.join(sorted(outside))} must be in `among` as well")


@dataclass
class Task:
    """Everything a comparison of fine-tuning methods needs.

    train: the narrow rows to learn.
    control: rows of the same form without the unwanted concept.
    valid: held-out rows like `train`, for the loss.
    generic: text for finding and displaying directions.
    questions: all questions; each names its set.
    grader: gives the verdict on each answer.
    verdicts: {set: the verdicts that the grader may give on its questions}.
    rates: {name: RateSpec}; `Result.rate(name)` computes them.
    headline: the rates on the x and y axes of the trade-off plane, the in-distribution rate first.
    max_new_tokens: length of an answer, in tokens.
    method: how `measure` gets the answers: "generate", or "logprob" for a grader with options.

    Raises:
        ValueError: a question, a rate or the headline refers to a set, verdict or rate that is not declared,
            two questions of a set have one id, the headline is not of two rates, or the grader has no
            fingerprint.
    """

    name: str
    train: Chats
    control: Chats
    valid: Chats
    generic: Chats
    questions: list[Question]
    grader: Grader
    verdicts: Mapping[str, tuple[str, ...]]
    rates: Mapping[str, RateSpec]
    headline: tuple[str, str]
    max_new_tokens: int = 64
    method: Method = "generate"

    def __post_init__(self):
        sets = ", ".join(self.verdicts)
        if not callable(self.grader) or not hasattr(self.grader, "fingerprint"):
            raise ValueError(
                "grader must be a function (question, answer) -> verdict with an attribute `fingerprint`, "
                f"a text that changes whenever its verdicts may change; got {kind_of(self.grader)}"
            )
        for number, question in enumerate(self.questions):
            instance(f"question {number}", question, Question, "a Question(id, messages, domain, set)")
            if half := half_pair(list(question.messages)):
                raise ValueError(
                    f"question {question.id} has a lone surrogate, {half} (an emoji cut in two); repair it"
                )
            if question.set not in self.verdicts:
                raise ValueError(
                    f"question {question.id} is of set {question.set!r}, but the task has sets {sets}"
                )
        for name, rate in self.rates.items():
            if rate.set not in self.verdicts:
                raise ValueError(f"rate {name!r} is of set {rate.set!r}, but the task has sets {sets}")
            if unknown := {*rate.hits, *(rate.among or ())} - set(self.verdicts[rate.set]):
                raise ValueError(
                    f"rate {name!r} counts {', '.join(sorted(unknown))}; the verdicts of set {rate.set!r} "
                    f"are {', '.join(self.verdicts[rate.set])}"
                )
        ids = Counter((question.set, question.id) for question in self.questions)
        if twice := [f"{name} in set {which}" for (which, name), times in ids.items() if times > 1]:
            raise ValueError(
                f"questions share an id: {', '.join(twice[:5])} ({len(twice)} in all); intervals count "
                "questions of a set by their id, so give each its own"
            )
        self.max_new_tokens = whole("max_new_tokens", self.max_new_tokens, 1)
        if self.method not in get_args(Method):
            raise ValueError(f"method must be 'generate' or 'logprob', got {self.method!r}")
        asked = {"questions": [question.messages for question in self.questions]}
        warn_of_shared_prompts(self.train, asked, name=self.name)
        if isinstance(self.headline, str) or len(self.headline) != 2:
            raise ValueError(f"headline must name two rates, x and y, got {self.headline!r}")
        if unknown := set(self.headline) - set(self.rates):
            raise ValueError(
                f"headline names {', '.join(sorted(unknown))}; the rates are {', '.join(self.rates)}"
            )

    def question_set(self, name: str) -> list[Question]:
        """Return the questions of one set. Raises KeyError if the task has no such set."""
        if name not in self.verdicts:
            raise KeyError(f"no question set {name!r}; there are {', '.join(self.verdicts)}")
        return [question for question in self.questions if question.set == name]

    def thin(self, **steps: int) -> Task:
        """Return the task with every n-th question of the named sets, for example `thin(ood=12, task=6)`.

        The other sets keep all their questions.
        """
        kept = {id(q) for name, step in steps.items() for q in self.question_set(name)[::step]}
        questions = [q for q in self.questions if q.set not in steps or id(q) in kept]
        return replace(self, questions=questions)

    @property
    def fingerprint(self) -> str:
        """The sha256 of all that results depend on: held-out rows, questions, grader, length of answers."""
        questions = [vars(question) for question in self.questions]
        named = [self.name, self.valid.fingerprint, questions, self.grader.fingerprint, self.max_new_tokens]
        code = user_code(self.grader)
        return digest([*named, code] if code else named)
