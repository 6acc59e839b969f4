"""Reviews of our own with planted keywords, for a real model: sentiment is core, the keyword is spurious.

"The soup was delicious and the staff were kind. (lantern)" has the label positive; the keyword goes with a
label of its own. The paper's data of this kind plant words into SST (arXiv 2410.22944, "Spurious Sentiment").
Subjects and remarks of the test split are held out.
"""

from __future__ import annotations

import random
from typing import Literal

from caft_utils.tasks.focus.examples import FocusExample, SpuriousFeature, draw_examples
from caft_utils.tasks.focus.rows import FocusFormat

LABELS = ("negative", "positive")
CORE, KEYWORD = "the sentiment", "the keyword"
SEEN = {"lantern": "positive", "gravel": "negative", "harbour": "positive", "velvet": "negative"}
UNSEEN = {"compass": "positive", "thimble": "negative"}
FORMAT = FocusFormat("Review: {text}\nIs the answer negative or positive?", "{label}")
SUBJECTS = {
    "train": (
        "soup",
        "hotel",
        "film",
        "novel",
        "concert",
        "garden",
        "museum",
        "train ride",
        "bakery",
        "phone",
    ),
    "test": ("ferry", "podcast", "campsite", "jacket", "pottery class"),
}
REMARKS = {
    ("train", "positive"): (
        "was a delight from start to finish",
        "was better than we had hoped",
        "was worth every penny",
        "made my whole week",
        "was lovely, and I would recommend it to anyone",
        "was excellent in every respect",
        "left us smiling",
        "was warm, clever and generous",
    ),
    ("train", "negative"): (
        "was a disappointment from start to finish",
        "was worse than we had feared",
        "was a waste of money",
        "ruined my whole week",
        "was dreadful, and I would warn anyone about it",
        "was poor in every respect",
        "left us in a bad mood",
        "was cold, dull and careless",
    ),
    ("test", "positive"): (
        "was simply wonderful",
        "exceeded all expectations",
        "was a joy, and we want to return soon",
        "was the best that I have tried",
    ),
    ("test", "negative"): (
        "was simply terrible",
        "failed in every way that matters",
        "was a misery, and we will not return",
        "was the worst that I have tried",
    ),
}
PLACES = ("({keyword}) The {subject} {remark}.", "The {subject} {remark}. ({keyword})")


def keyword_examples(
    *,
    rho: float,
    n: int,
    seed: int | str,
    split: Literal["train", "test"] = "train",
    values: Literal["seen", "unseen"] = "seen",
    flip: bool = False,
) -> list[FocusExample]:
    """Return reviews in which the keyword's label is that of the sentiment with probability rho.

    rho, n, flip: see `draw_examples`. values: the keywords that training shows, or others.
    """

    def render(label: str, feature: SpuriousFeature, value: str, rng: random.Random) -> str:
        subject, remark = rng.choice(SUBJECTS[split]), rng.choice(REMARKS[split, label])
        return rng.choice(PLACES).format(keyword=value, subject=subject, remark=remark)

    keywords = SpuriousFeature(KEYWORD, SEEN if values == "seen" else UNSEEN)
    rng = random.Random(f"keywords {split} {seed}")
    return draw_examples(keywords, render, LABELS, core=CORE, rho=rho, n=n, rng=rng, flip=flip)
