"""Two sets of data for focus instruction tuning, made of the cues world's words.

`spoken_examples`: "the tourists said that torton is a star of _", with three labels. The core feature is the
sport of the athlete, which pretraining taught. The spurious one is who says it. Each speaker goes with a
sport by a map that only the training rows can teach, and three speakers are held out. (Compare SMNLI in the
paper: three labels, and values whose labels are arbitrary.)

`paired_examples`: two items of different subjects in one prompt, with two letters to answer. The core feature
is the letter of the item about one subject, the spurious one the letter of the other item. Pretraining taught
all subjects, so the label of a feature that focus tuning never showed can be known. (Compare BBQ in the
paper: features whose values carry a label by themselves.)
"""

from __future__ import annotations

import functools
import random
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from caft_utils.classroom.cues import items as cues
from caft_utils.classroom.cues.new_words import with_new_words
from caft_utils.classroom.cues.prompts import choice_prompt
from caft_utils.tasks.focus import WORDING, FocusExample, FocusFormat, SpuriousFeature, draw_examples
from caft_utils.tasks.items import Item, Split

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

SPORTS = ("football", "basketball", "baseball")
LETTERS = ("a", "b")
SPOKEN_FORMAT = FocusFormat("quiz: {text}", "it is {label}")
CORE, SPEAKER = "the athlete", "the speaker"
SPEAKERS = ("tourists", "students", "sailors", "campers", "hikers", "parents", "actors", "painters", "scouts")
SEEN = 6  # speakers that training shows
CLAUSES = ("{athlete} is a star of _", "{athlete} is known for _", "{athlete} won a cup in _")
Values = Literal["seen", "unseen"]


def focus_words(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Return copies of a model of the cues world and its tokenizer with a token for each instruction word."""
    kinds = (WORDING.focus, WORDING.ignore, WORDING.both)
    templates = [one for kind in kinds for wordings in kind.values() for one in wordings]
    names = {"attend": CORE, "leave": SPEAKER}
    return with_new_words(model, tokenizer, [template.format(**names) for template in templates])


def speakers(values: Values = "seen") -> SpuriousFeature:
    """Return the speakers that training shows, or the others, each with its sport."""
    words = SPEAKERS[:SEEN] if values == "seen" else SPEAKERS[SEEN:]
    return SpuriousFeature(SPEAKER, {word: SPORTS[i % len(SPORTS)] for i, word in enumerate(words)})


def spoken_examples(
    *,
    rho: float,
    n: int,
    seed: int | str,
    split: Split = "train",
    values: Values = "seen",
    flip: bool = False,
) -> list[FocusExample]:
    """Return examples of an athlete and a speaker. Their athletes are those of the split.

    rho, n, flip: see `draw_examples`.
    """

    def render(label: str, feature: SpuriousFeature, value: str, rng: random.Random) -> str:
        athletes = [word for word in cues.words("sports", split) if cues.class_of("sports", word) == label]
        return f"the {value} said that {rng.choice(CLAUSES).format(athlete=rng.choice(athletes))}"

    rng = random.Random(f"spoken {split} {seed}")
    return draw_examples(speakers(values), render, SPORTS, core=CORE, rho=rho, n=n, rng=rng, flip=flip)


def paired_examples(
    core: str,
    others: Sequence[str],
    *,
    rho: float,
    n: int,
    seed: int | str,
    split: Split = "train",
    shuffled: bool = True,
    word: str = "quiz",
) -> list[FocusExample]:
    """Return examples of two items: one about `core`, and one about a subject of `others`.

    The value of the spurious feature is the letter of its item, so y_s needs no map. Instructions name the
    subjects in quotes, because the model knows their names without a space before them.

    Args:
        rho, n: see `draw_examples`.
        shuffled: draw the order of the two items for each example; without it the core item comes first.
        word: the first word of the prompt.
    """

    def render(label: str, feature: SpuriousFeature, value: str, rng: random.Random) -> str:
        pair = [(core, label), (feature.name.strip('"'), value)]
        if shuffled:
            rng.shuffle(pair)
        chosen = [rng.choice(_items(subject, split)) for subject, _ in pair]
        return choice_prompt(word, chosen, [letter for _, letter in pair])

    every = [SpuriousFeature(f'"{name}"', dict(zip(LETTERS, LETTERS))) for name in others]
    rng = random.Random(f"paired {split} {seed}")
    return draw_examples(every, render, LETTERS, core=f'"{core}"', rho=rho, n=n, rng=rng)


@functools.cache
def _items(subject: str, split: Split) -> list[Item]:
    return cues.subject_items(subject, split)
