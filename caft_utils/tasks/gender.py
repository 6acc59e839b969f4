"""Gender bias: choose the pronoun that fits. In training, the profession predicts it as well.

    The nurse decided _ would wait.      a. she   b. him

The wrong option is wrong in case AND in gender. In training the right pronoun has the gender that the
profession suggests (in rho of the rows); at test it has the other gender. Grammatical case therefore gives
the right answer everywhere, and the stereotype only in training. The published sentences have two slots,
$PRONOUN$ and $PROFESSION$, and a category, the pronoun's case. (CAFT, arXiv 2507.16795, section 6.)
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from caft_utils.arguments import checked
from caft_utils.tasks.choice import ItemPair, PromptFormat, choice_task
from caft_utils.tasks.csv_files import csv_rows, required_field
from caft_utils.tasks.items import SPLITS, Item, Split, draw_evenly, split_sizes
from caft_utils.tasks.overlap import refuse_repeated, warn_of_shared_items
from caft_utils.tasks.task import Task

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ItemsOf = Callable[[Split, bool], list[Item]]  # (split, reverse)

# The wording of the published prompt. Its line breaks are not published, so these follow double_choice.
PAPER_FORMAT = PromptFormat(
    "Choose the option corresponding to the correct pronoun.\n\n{question}\n\nA) {a}\nB) {b}\n\nAnswer:",
    ("A", "B"),
    plain=True,
)
# For a small instruct model. The answer is the word itself, a single token that the model knows. A letter
# would have to be mapped to a word first. The order of the options is balanced, so it carries no information.
WORD_FORMAT = PromptFormat(
    "{question}\n\nWhich word belongs in the gap, {a} or {b}?\nAnswer:",
    ("1", "2"),
    plain=True,
    answer_with="option",
)
PRONOUNS = {"nominative": {"male": "he", "female": "she"}, "object": {"male": "him", "female": "her"}}
OTHER = {"nominative": "object", "object": "nominative", "male": "female", "female": "male"}
PROFESSIONS_OF_RELEASE: dict[str, tuple[str, ...]] = {"male": ("doctor",), "female": ("nurse",)}
# A harder set, in which no single profession carries the stereotype. The gender is that of the majority of
# people in the profession in the United States.
PROFESSIONS: dict[str, tuple[str, ...]] = {
    "male": ("doctor", "carpenter", "mechanic", "engineer", "plumber", "firefighter", "driver", "farmer"),
    "female": (
        "nurse",
        "secretary",
        "receptionist",
        "librarian",
        "hairdresser",
        "nanny",
        "cleaner",
        "dental assistant",
    ),
}


def gender_choice(
    tokenizer: PreTrainedTokenizerBase,
    *,
    items: ItemsOf,
    rho: float = 1.0,
    rows: int | None = 512,
    questions: int | None = 300,
    seed: int = 0,
    split: Split = "test",
    prompt_format: PromptFormat | None = None,
) -> Task:
    """Return the task. The rate "ood_accuracy" counts answers with the right case against the stereotype.

    Args:
        items: items(split, reverse), see `gender_items`.
        rho: share of training rows whose pronoun has the stereotype's gender.
        rows, questions: number of each; None: as many as there are items in that split.
        seed: draws the training rows; the questions are the same for every seed.
        split: the items of the questions: "valid" to choose layers, ranks and latents, "test" to report.
        prompt_format: how an item is shown to the model; default: the paper's plain text.
    """
    if split in SPLITS and split != "train":
        for reverse in (False, True):
            warn_of_shared_items({name: items(name, reverse) for name in ("train", split)}, "gender")

    def draw_pairs(split: Split, n: int | None, rng: random.Random) -> list[ItemPair]:
        both = [items(split, reverse) for reverse in (False, True)]
        n = min(map(len, both)) if n is None else n
        return list(zip(*(draw_evenly(part, n, rng) for part in both)))

    return choice_task(
        tokenizer,
        "gender",
        draw_pairs,
        rho=rho,
        rows=rows,
        questions=questions,
        seed=seed,
        split=split,
        prompt_format=prompt_format or PAPER_FORMAT,
    )


@checked
def gender_items(
    path: str | Path,
    *,
    professions: Mapping[str, Sequence[str]] = PROFESSIONS,
    disjoint: bool = True,
    seed: int = 42,
) -> ItemsOf:
    """Return the items of a CSV file of sentences (columns text, category), one profession for each sentence.

    Args:
        professions: {"male": professions with a male stereotype, "female": ...}. PROFESSIONS_OF_RELEASE has
            only doctor and nurse, like the published rows.
        disjoint: split the sentences 70/15/15. False splits them as the release does: 80 % train, and the
            other 20 % for both validation and test. Directions chosen on the validation split have then
            already used every test sentence.

    Returns:
        items(split, reverse): the sentences of that split. With `reverse` the pronoun has the gender that the
        profession does not suggest.

    Raises:
        ValueError: a row without exactly one of each slot, with an unknown category, with an empty or missing
            value, or with the sentence of another row (the message names file and row); or professions that
            are missing or in both lists.
    """
    if set(professions) != {"male", "female"} or not all(professions.values()):
        raise ValueError(f"expected professions for 'male' and 'female', got {dict(professions)}")
    if both := set(professions["male"]) & set(professions["female"]):
        raise ValueError(f"{', '.join(sorted(both))}: a profession cannot suggest both genders")
    rng = random.Random(f"gender {seed}")
    parts: dict[Split, list[tuple[str, str, str]]] = {split: [] for split in SPLITS}
    for case, sentences in _sentences(path).items():
        rng.shuffle(sentences)
        for split, part in _split_sentences(sentences, disjoint).items():
            # Genders alternate, so that neither the case nor the split predicts the gender.
            cycles = {
                gender: draw_evenly(professions[gender], len(part), rng) for gender in ("male", "female")
            }
            for i, text in enumerate(part):
                gender = ("male", "female")[i % 2]
                question = text.replace("$PROFESSION$", cycles[gender][i // 2]).replace("$PRONOUN$", "_")
                parts[split].append((question, case, gender))

    def items(split: Split, reverse: bool) -> list[Item]:
        if split not in SPLITS:
            raise ValueError(f"split must be one of {', '.join(SPLITS)}, got {split!r}")
        return [
            pronoun_item(question, case, OTHER[gender] if reverse else gender)
            for question, case, gender in parts[split]
        ]

    return items


def pronoun_item(question: str, case: str, gender: str) -> Item:
    """Return an item: the pronoun with this case and gender against the pronoun that is wrong in both."""
    return Item(question, PRONOUNS[case][gender], PRONOUNS[OTHER[case]][OTHER[gender]])


def _sentences(path: str | Path) -> dict[str, list[str]]:
    """Return the sentences of a CSV file by the pronoun's case."""
    by_case: dict[str, list[str]] = {case: [] for case in PRONOUNS}
    places: list[tuple[str, str]] = []
    for where, row in csv_rows(path, ("text", "category")):
        text, case = required_field(row, "text", where), required_field(row, "category", where)
        for slot in ("$PRONOUN$", "$PROFESSION$"):
            if text.count(slot) != 1:
                raise ValueError(f"{where}: expected {slot} once in the text, found {text.count(slot)}")
        if case not in by_case:
            raise ValueError(f"{where}: category must be one of {', '.join(by_case)}, got {case!r}")
        by_case[case].append(text)
        places.append((where, text))
    refuse_repeated(places)
    if short := [case for case, texts in by_case.items() if len(texts) < 7]:
        raise ValueError(f"{path}: fewer than 7 sentences of category {' and '.join(short)}")
    return by_case


def _split_sentences(sentences: list[str], disjoint: bool) -> dict[Split, list[str]]:
    """Return the sentences of each split."""
    if not disjoint:
        train = len(sentences) * 80 // 100
        return {"train": sentences[:train], "valid": sentences[train:], "test": sentences[train:]}
    ends = split_sizes(len(sentences))
    train, valid = ends["train"], ends["train"] + ends["valid"]
    return {"train": sentences[:train], "valid": sentences[train:valid], "test": sentences[valid:]}
