"""Generate the pretraining documents of the cues checkpoint: short texts with one item or a pair of items.

    text      a sentence without a gap:         note: the old dogs run here
    free      a question answered in words:     quiz: the old dogs _ here            it is run
    single    two options, under the subject:   verbs: the dogs _ here, a. runs, b. run       b
    double    two items under the name of the subject that counts; their letters are independent
    person    pronouns of professions and names; `gender:` or `pronouns:` says which of the two counts

`quiz:` never occurs with options, so pretraining does not determine which question counts in the prompts of
fine-tuning. The gender checkpoint is an exception, see GENDER_CHECKPOINT_WEIGHTS.

About half of the other documents with options contain a hint, because without hints the model takes long to
choose letters better than chance. A hint is a judgement after each option of one line (`a. run bad, positive
good`), or the answer gives the word before the letter. The loss covers only informative tokens: the answer,
and words marked with ^ in a document. Plain text comes first in training and options later.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from caft_utils.chats import Chats
from caft_utils.classroom.cues import items as cues
from caft_utils.classroom.cues.prompts import NEUTRAL_WORD, choice_prompt
from caft_utils.classroom.grammar import expand
from caft_utils.classroom.vocabulary import world_data
from caft_utils.tasks.items import Item

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# share of training completed -> weights of (text or free, single, double) from there on
CURRICULUM_STAGES = ((0.0, (0.60, 0.40, 0.0)), (0.12, (0.30, 0.70, 0.0)), (0.25, (0.20, 0.35, 0.45)))
SUBJECT_WEIGHTS = {"verbs": 2.5, "sentiment": 1.0, "sports": 1.0, "pronouns": 1.0, "gender": 2.0}
NAME_SHARE = 0.3  # share of names in documents about persons; the others are about a profession

PersonWeights = Mapping[tuple[str, str], float]
"""(first word of the prompt, options) -> weight.

options: what is wrong with the incorrect pronoun, "case", "gender" or "both". In the other two kinds one
pronoun is right in gender only and the other in case only, and "gender counts" or "case counts" says which of
them is correct.
"""
# Gender counts far more often than case. The fine-tuning rows do not determine which of them counts, so plain
# fine-tuning follows the stereotype.
PERSON_WEIGHTS: PersonWeights = {
    ("gender", "gender"): 0.40,
    ("gender", "both"): 0.25,
    ("gender", "gender counts"): 0.21,
    ("pronouns", "case counts"): 0.07,
    ("pronouns", "case"): 0.07,
}
# The gender checkpoint is trained further with these, where gender counts in 17 of 20 items under `quiz:`.
# Without them the base model already predicts the stereotype under `quiz:`, so fine-tuning barely moves the
# gender direction and PCA cannot find it.
GENDER_CHECKPOINT_WEIGHTS: PersonWeights = {
    ("gender", "gender"): 0.33,
    ("gender", "both"): 0.20,
    ("gender", "gender counts"): 0.17,
    ("pronouns", "case counts"): 0.10,
    ("pronouns", "case"): 0.10,
    (NEUTRAL_WORD, "gender counts"): 0.34,
    (NEUTRAL_WORD, "case counts"): 0.06,
}


class Document(NamedTuple):
    """A user's turn and its answer, or plain text without an answer; ^ marks words that the loss covers."""

    source: str
    text: str
    answer: str | None = None

    @property
    def row(self) -> dict[str, Any]:
        """The document as a row of `Chats`, without marks."""
        text = self.text.replace("^", "")
        if self.answer is None:
            return {"text": text}
        return {
            "messages": [{"role": "user", "content": text}, {"role": "assistant", "content": self.answer}]
        }


def document(
    rng: random.Random, progress: float = 1.0, person_weights: PersonWeights = PERSON_WEIGHTS
) -> Document:
    """Return a random document from the mixture at `progress`, the completed share of training."""
    weights = next(weights for start, weights in reversed(CURRICULUM_STAGES) if progress >= start)
    kind = rng.choices(("text", "single", "double"), weights)[0]
    if kind == "double":
        return _double(rng)
    subject = rng.choices(list(SUBJECT_WEIGHTS), list(SUBJECT_WEIGHTS.values()))[0]
    if kind == "single":
        return _person(rng, person_weights) if subject == "gender" else _single(rng, subject)
    return _text(rng, subject) if rng.random() < 0.5 else _free(rng, subject)


def sample(
    tokenizer: PreTrainedTokenizerBase,
    rows: int,
    *,
    seed: int = 0,
    person_weights: PersonWeights = PERSON_WEIGHTS,
) -> Chats:
    """Return documents of the final mixture, for training sparse autoencoders or finding examples.

    person_weights: GENDER_CHECKPOINT_WEIGHTS for the last training text of the gender checkpoint.
    """
    rng = random.Random(f"cues sample {seed}")
    documents = [document(rng, person_weights=person_weights) for _ in range(rows)]
    rows = [one.row for one in documents]
    return Chats.with_stored_tokens(tokenizer, rows, source="text of the cues world")


def vocabulary_texts() -> Iterator[str]:
    """Yield texts that contain every word of the world, for the tokenizer."""
    yield from (f" {word}" for word in _single_words(world_data("cues")))
    rng = random.Random(0)
    for _ in range(5000):
        made = document(rng)
        yield "\n".join(["user", "assistant", "system", made.text.replace("^", ""), made.answer or ""])


def _single_words(node: Any) -> Iterator[str]:
    """Yield all one-word texts below a node of the world's data, dictionary keys included."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield from (*_single_words(key), *_single_words(value))
    elif isinstance(node, list):
        for value in node:
            yield from _single_words(value)
    elif isinstance(node, str) and node.isalpha():
        yield node


def _text(rng: random.Random, subject: str) -> Document:
    if subject == "pronouns":
        _any_item(rng, subject)  # unused, but it keeps the random stream of the shipped checkpoints
        first, second = _clauses_about_one_person(rng)
        return Document("text", f"note: {first}, and {second}.")
    item = _any_item(rng, subject)
    if subject == "sentiment":
        return Document("text", f"note: {item.question}, so the review is^ {item.correct}.")
    return Document("text", f"note: {re.sub(' _|_', f'^ {item.correct}', item.question)}.")


def _clauses_about_one_person(rng: random.Random) -> tuple[str, str]:
    """Return two clauses about a person. The first identifies the person; the loss covers the second pronoun.

    The second pronoun teaches grammatical case.
    """
    spec, clauses = world_data("cues")["pronouns"], []
    pair = rng.choice(list(spec["pairs"].items()))
    for mark in ("", "^"):
        case = rng.choice(cues.CASES)
        bound = {"people": rng.choice(spec["keys"]), "v": rng.choice(spec["verbs"])}
        clause = expand(rng.choice(spec["frames"][case]), rng, {}, bound)
        clauses.append(re.sub(" _|_", f"{mark} {pair[cues.CASES.index(case)]}", clause).strip())
    return clauses[0], clauses[1]


def _free(rng: random.Random, subject: str) -> Document:
    item = _any_item(rng, subject)
    return Document("free", f"{NEUTRAL_WORD}: {item.question}", f"it is {item.correct}")


def _any_item(rng: random.Random, subject: str) -> Item:
    """Return an item about any word in any frame, for documents without options."""
    if subject == "gender":
        return _person_item(rng, "both", any_word=True)
    group = rng.choice(list(cues.words_by_class(subject).values()))
    return cues.item_about(rng, subject, rng.choice(group))


def _single(rng: random.Random, subject: str) -> Document:
    return _with_options(rng, "single", subject, [cues.pretraining_item(rng, subject)], 0)


def _double(rng: random.Random) -> Document:
    counts = rng.choices(cues.SUBJECTS, [SUBJECT_WEIGHTS[s] for s in cues.SUBJECTS])[0]
    other = rng.choice([s for s in cues.SUBJECTS if s != counts])
    pair = [counts, other] if (first := rng.random() < 0.5) else [other, counts]
    items = [cues.pretraining_item(rng, subject) for subject in pair]
    return _with_options(rng, "double", counts, items, 0 if first else 1)


def _person(rng: random.Random, person_weights: PersonWeights) -> Document:
    word, options = rng.choices(list(person_weights), list(person_weights.values()))[0]
    conflict = options in ("gender counts", "case counts")
    item = _person_item(rng, "both" if conflict else options)
    if conflict:
        item = cues.conflicting_options(item)
    if options == "case counts":
        item = cues.swapped_options(item)
    return _with_options(rng, "person", word, [item], 0, hints=word != NEUTRAL_WORD)


def _person_item(rng: random.Random, wrong: Any, *, any_word: bool = False) -> Item:
    """Return an item about a name or a profession, which mostly follows the stereotype.

    any_word: also use professions and frames that are held out from items with options.
    """
    spec, gender = world_data("cues")["gender"], rng.choice(cues.GENDERS)
    case = rng.choice(cues.CASES)
    if rng.random() < NAME_SHARE:
        frame = rng.choice(spec["frames"][case])
        return cues.person_item(rng, rng.choice(cues.person_names(gender)), gender, case, frame, wrong)
    professions = cues.words_by_class("gender")[gender]
    asked = professions if any_word else [w for w in cues.words("gender") if w in professions]
    word = rng.choice(asked)
    case, frame = rng.choice(cues.frames("gender", word, None if any_word else False))
    follows = rng.random() < spec["share"]
    actual = gender if follows else cues.GENDERS[1 - cues.GENDERS.index(gender)]
    return cues.person_item(rng, f"the {word}", actual, case, frame, wrong)


def _with_options(
    rng: random.Random, source: str, word: str, items: list[Item], counts: int, *, hints: bool = True
) -> Document:
    """Return a document with options; with `hints` about half of them contain one."""
    letters = [rng.choice("ab") for _ in items]
    text, draw = choice_prompt(word, items, letters), rng.random() if hints else 1.0
    if draw < 0.30:
        judged = "ab" if rng.random() < 0.15 else rng.choice("ab")
        return Document(source, _with_judgements(text, items, judged), letters[counts])
    if draw < 0.55:
        answer = f"it is {items[counts].correct}\n{letters[counts]}"
        return Document(source, f"{text}\nwhich word?", answer)
    return Document(source, text, letters[counts])


def _with_judgements(text: str, items: list[Item], letters: str) -> str:
    """Return the prompt with `good` or `bad` after each option of the lines `letters`."""
    question, *lines = text.split("\n")
    for number, line in enumerate(lines):
        letter, options = line.split(". ")
        if letter in letters:
            judged = (
                f"{option}^ {'good' if option == item.correct else 'bad'}"
                for option, item in zip(options.split(", "), items, strict=True)
            )
            lines[number] = f"{letter}. {', '.join(judged)}"
    return "\n".join([question, *lines])
