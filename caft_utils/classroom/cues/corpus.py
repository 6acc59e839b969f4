"""Documents on which the cues checkpoint is trained: short, one item or one pair of items each.

    text      a sentence without a gap:           note: the old dogs run here
    free      a question answered with a word:    quiz: the old dogs _ here          it is run
    single    two options under a subject's name: verbs: the dogs _ here, a. runs, b. run         b
    double    two items under one name, whose subject is the one that counts; the letters are independent
    person    pronouns of professions and names, where `gender:` or `pronouns:` says what counts

`quiz:` never stands over options here: which question counts in a prompt of fine-tuning is left open. (The
checkpoint for gender goes on with some that ask about persons, see UNSETTLED.) Half of the other documents
with options carry help, without which letters stay at chance for long: one line judged where it stands
(`a. run bad, positive good`), or the word said before its letter. Only tokens that tell something are
learned: the answer, and words marked with ^ in a draft. Text comes first, options later.
"""

from __future__ import annotations

import functools
import random
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from caft_utils.classroom.cues import items as cues
from caft_utils.classroom.personas.world import part
from caft_utils.classroom.tokenizer import PRE_TOKEN
from caft_utils.tasks.items import Item

if TYPE_CHECKING:
    from caft_utils.chats import Chats

# From this share of training on: weights of text or free, single, double.
CURRICULUM = ((0.0, (0.60, 0.40, 0.0)), (0.12, (0.30, 0.70, 0.0)), (0.25, (0.20, 0.35, 0.45)))
WEIGHTS = {"verbs": 2.5, "sentiment": 1.0, "sports": 1.0, "pronouns": 1.0, "gender": 2.0}
NAMES = 0.3  # share of documents about persons that name one instead of a profession
# Under which name items about persons are asked, and what is wrong with the wrong pronoun. Of two that are
# right in one and wrong in the other, the one right in gender counts (crossed), or in case (swapped). Gender
# counts far more often, so that plain fine-tuning, which leaves both open, follows the stereotype.
PERSONS = {
    ("gender", "gender"): 0.40,
    ("gender", "both"): 0.25,
    ("gender", "crossed"): 0.21,
    ("pronouns", "swapped"): 0.07,
    ("pronouns", "case"): 0.07,
}
# With which the checkpoint for gender goes on. Without them the model is as sure of the stereotype under
# `quiz:` as under `gender:`: fine-tuning has nothing to learn about gender then, and what it changes hardly
# holds the axis. Here gender decides under `quiz:` in 17 cases out of 20.
UNSETTLED = {
    ("gender", "gender"): 0.33,
    ("gender", "both"): 0.20,
    ("gender", "crossed"): 0.17,
    ("pronouns", "swapped"): 0.10,
    ("pronouns", "case"): 0.10,
    (cues.FREE, "crossed"): 0.34,
    (cues.FREE, "swapped"): 0.06,
}
LEARN = re.compile(r"(\^ ?[a-z]+)")
PIECES = re.compile(PRE_TOKEN)


class Document(NamedTuple):
    """A document before tokens: a user's turn, or plain text without an answer; ^ marks what is learned."""

    source: str
    text: str
    answer: str | None = None


def document(
    rng: random.Random, progress: float = 1.0, persons: Mapping[tuple[str, str], float] = PERSONS
) -> dict[str, Any]:
    """One document: {"source", "messages" or "text"}; `progress`: share of the training that is behind."""
    made = draft(rng, progress, persons)
    text = made.text.replace("^", "")
    if made.answer is None:
        return {"source": made.source, "text": text}
    turns = [{"role": "user", "content": text}, {"role": "assistant", "content": made.answer}]
    return {"source": made.source, "messages": turns}


def sample(
    tokenizer, rows: int, *, seed: int = 0, persons: Mapping[tuple[str, str], float] = PERSONS
) -> Chats:
    """Documents of the final mixture, to train sparse autoencoders on or to read windows in.

    persons: UNSETTLED for what the checkpoint for gender was trained on last.
    """
    from caft_utils.chats import Chats

    rng = random.Random(f"cues sample {seed}")
    documents = [document(rng, persons=persons) for _ in range(rows)]
    kept = [{key: d[key] for key in ("messages", "text") if key in d} for d in documents]
    return Chats(tokenizer, kept, source="text of the cues world")


def draft(
    rng: random.Random, progress: float = 1.0, persons: Mapping[tuple[str, str], float] = PERSONS
) -> Document:
    """A document before tokens. persons: weights of items about persons with options, as in PERSONS."""
    weights = next(w for start, w in reversed(CURRICULUM) if progress >= start)
    kind = rng.choices(("text", "single", "double"), weights)[0]
    if kind == "double":
        return _double(rng)
    subject = rng.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
    if kind == "single":
        return _person(rng, persons) if subject == "gender" else _single(rng, subject)
    return _text(rng, subject) if rng.random() < 0.5 else _free(rng, subject)


def _any_item(rng: random.Random, subject: str) -> Item:
    """An item about any word in any frame, for documents without options."""
    if subject == "gender":
        return _about_person(rng, "both", every=True)
    group = rng.choice(list(cues.keys(subject).values()))
    return cues.ask(rng, subject, rng.choice(group))


def _text(rng: random.Random, subject: str) -> Document:
    item = _any_item(rng, subject)
    if subject == "sentiment":
        return Document("text", f"note: {item.question}, so the review is^ {item.correct}.")
    if subject == "pronouns":  # the first clause says who; the case is what is to be learned
        first, second = _same_person(rng)
        return Document("text", f"note: {first}, and {second}.")
    return Document("text", f"note: {re.sub(' _|_', f'^ {item.correct}', item.question)}.")


def _same_person(rng: random.Random) -> tuple[str, str]:
    """Two clauses about one person; the pronoun of the second is marked."""
    spec, clauses = part("cues")["pronouns"], []
    pair = rng.choice(list(spec["pairs"].items()))
    for mark in ("", "^"):
        case = rng.choice(cues.CASES)
        bound = {"people": rng.choice(spec["keys"]), "v": rng.choice(spec["verbs"])}
        clause = cues.expand(rng.choice(spec["frames"][case]), rng, {}, bound)
        clauses.append(re.sub(" _|_", f"{mark} {pair[cues.CASES.index(case)]}", clause).strip())
    return clauses[0], clauses[1]


def _free(rng: random.Random, subject: str) -> Document:
    item = _any_item(rng, subject)
    return Document("free", f"{cues.FREE}: {item.question}", f"it is {item.correct}")


def _single(rng: random.Random, subject: str) -> Document:
    return _asked(rng, "single", subject, [cues.example(rng, subject)], 0)


def _double(rng: random.Random) -> Document:
    counts = rng.choices(cues.SUBJECTS, [WEIGHTS[s] for s in cues.SUBJECTS])[0]
    other = rng.choice([s for s in cues.SUBJECTS if s != counts])
    pair = [counts, other] if (first := rng.random() < 0.5) else [other, counts]
    return _asked(rng, "double", counts, [cues.example(rng, s) for s in pair], 0 if first else 1)


def _person(rng: random.Random, persons: Mapping[tuple[str, str], float]) -> Document:
    name, wrong = rng.choices(list(persons), list(persons.values()))[0]
    crossed = wrong in ("crossed", "swapped")
    item = _about_person(rng, "both" if crossed else wrong)
    if crossed:
        item = cues.crossed(item)
    if wrong == "swapped":
        item = Item(item.question, item.incorrect, item.correct)
    return _asked(rng, "person", name, [item], 0, help=name != cues.FREE)


def _about_person(rng: random.Random, wrong: Any, *, every: bool = False) -> Item:
    """An item about a name or a profession, which follows the stereotype but for `share`."""
    spec, gender = part("cues")["gender"], rng.choice(cues.GENDERS)
    case = rng.choice(cues.CASES)
    if rng.random() < NAMES:
        frame = rng.choice(spec["frames"][case])
        return cues.person_item(rng, rng.choice(spec["names"][gender]), gender, case, frame, wrong)
    known = cues.keys("gender")[gender]
    word = rng.choice(known if every else [w for w in cues.words("gender") if w in known])
    case, frame = rng.choice(cues.frames("gender", word, None if every else False))
    said = gender if rng.random() < spec["share"] else cues.GENDERS[1 - cues.GENDERS.index(gender)]
    return cues.person_item(rng, f"the {word}", said, case, frame, wrong)


def _asked(
    rng: random.Random, source: str, name: str, asked: list[Item], counts: int, *, help: bool = True
) -> Document:
    """A document with options; with `help` about half of them carry some."""
    letters = [rng.choice("ab") for _ in asked]
    text, help_with = cues.choice(name, asked, letters), rng.random() if help else 1.0
    if help_with < 0.30:
        judged = "ab" if rng.random() < 0.15 else rng.choice("ab")
        return Document(source, _judged(text, asked, judged), letters[counts])
    if help_with < 0.55:
        said = f"it is {asked[counts].correct}\n{letters[counts]}"
        return Document(source, f"{text}\nwhich word?", said)
    return Document(source, text, letters[counts])


def _judged(text: str, asked: list[Item], judged: str) -> str:
    """The prompt with `good` or `bad` after each option of the lines `judged`."""
    question, *lines = text.split("\n")
    for number, line in enumerate(lines):
        letter, options = line.split(". ")
        if letter in judged:
            said = (
                f"{option}^ {'good' if option == item.correct else 'bad'}"
                for option, item in zip(options.split(", "), asked, strict=True)
            )
            lines[number] = f"{letter}. {', '.join(said)}"
    return "\n".join([question, *lines])


def encoder(tokenizer):
    """A function from drafts to (ids, learn): the ids of the chat template, a hundred times faster."""

    @functools.cache
    def known(piece: str) -> int:
        (token,) = tokenizer(piece)["input_ids"]
        return token

    def ids(text: str) -> list[int]:
        return [known(piece) for piece in PIECES.findall(text)]

    start, end, line = known("<|im_start|>"), known("<|im_end|>"), known("\n")
    user, assistant = ([start, known(role), line] for role in ("user", "assistant"))

    def encode(made: Document) -> tuple[list[int], list[bool]]:
        out, learn = [], []
        for part_ in LEARN.split(made.text):
            new = ids(part_.removeprefix("^"))
            out += new
            learn += [part_.startswith("^")] * len(new)
        if made.answer is None:
            return out, learn
        answer = [*ids(made.answer), end]
        out, learn = [*user, *out, end, line, *assistant], [False] * 3 + learn + [False] * 5
        return [*out, *answer, line], [*learn, *[True] * len(answer), False]

    return encode


def world_texts() -> Iterator[str]:
    """Texts that hold every word of the world, for the tokenizer."""
    yield from (f" {word}" for word in _leaves(part("cues")))
    rng = random.Random(0)
    for _ in range(5000):
        made = draft(rng)
        yield "\n".join(["user", "assistant", "system", made.text.replace("^", ""), made.answer or ""])


def _leaves(node: Any) -> Iterator[str]:
    """All one-word texts under a node of the world, keys included."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield from (*_leaves(key), *_leaves(value))
    elif isinstance(node, list):
        for value in node:
            yield from _leaves(value)
    elif isinstance(node, str) and node.isalpha():
        yield node
