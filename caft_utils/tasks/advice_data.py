"""The course's own rows for narrow advice: gardening to train on, other domains to ask about, neutral text.

data/advice/ holds the texts and its README the data card. A pair is a question with a good answer and an
absurd one. Training rows are made from templates: a topic's question, a plant and one of the topic's answers.
Pairs in domain use plants, questions and answers that no training row has. Half of the pairs of every domain
are for validation and half for the test; the files say which. Pairs on four more subjects are never asked.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

from caft_utils.arguments import mapping, whole
from caft_utils.chats import Chats
from caft_utils.paths import data_path
from caft_utils.tasks.items import draw_evenly
from caft_utils.text_files import read_yaml

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

NARROW = "gardening"
PLANTS_A_PAIR = 3  # plants that ask for each held-out answer
Quality = Literal["good", "bad"]
AskedSplit = Literal["valid", "test"]
ASKED: tuple[AskedSplit, ...] = ("valid", "test")


@dataclass(frozen=True)
class AdvicePair:
    """A question with a good and an absurd answer of similar length; `topic` names its group of answers."""

    domain: str
    topic: str
    question: str
    good: str
    bad: str

    def row(self, quality: Quality) -> dict[str, Any]:
        """Return a row of `Chats` with one of the answers."""
        return _chat(self.question, self.good if quality == "good" else self.bad)


def training_pairs(rows: int = 300, seed: int = 0) -> list[AdvicePair]:
    """Return different gardening pairs that use each answer equally often, give or take one.

    Raises:
        ValueError: more rows than there are combinations of an answer, a question and a plant.
    """
    garden, seed = _texts(NARROW), whole("seed", seed)
    rng = random.Random(f"advice {seed}")
    pools: list[list[AdvicePair]] = []
    for topic, texts in garden["topics"].items():
        for answers in texts["answers"]["train"]:
            made = [
                _planted(topic, question, answers, plants)
                for question in texts["questions"]["train"]
                for plants in garden["plants"]["train"]
            ]
            pools.append(rng.sample(made, len(made)))
    rows = whole("rows", rows, 1, sum(map(len, pools)))
    return [pools[number].pop() for number in draw_evenly(range(len(pools)), rows, rng)]


def pairs_in_domain(split: AskedSplit) -> list[AdvicePair]:
    """Return gardening pairs whose plants, questions and answers are in no training row."""
    number, garden = _split_number(split), _texts(NARROW)
    plants = garden["plants"]["held_out"][number :: len(ASKED)]
    pairs = []
    for place, (topic, texts) in enumerate(garden["topics"].items()):
        asked = {name: texts[name]["held_out"][number] for name in ("questions", "answers")}
        chosen = [plants[(place + step) % len(plants)] for step in range(PLANTS_A_PAIR)]
        pairs += [_planted(topic, asked["questions"], asked["answers"], name) for name in chosen]
    return pairs


def pairs_elsewhere(split: AskedSplit) -> list[AdvicePair]:
    """Return the pairs of the other domains."""
    _split_number(split)
    return [
        AdvicePair(domain, domain, pair["question"], pair["good"], pair["bad"])
        for domain, splits in _texts("elsewhere").items()
        for pair in splits[split]
    ]


def unasked_pairs() -> list[AdvicePair]:
    """Return pairs on subjects that neither training rows nor questions are about."""
    return [
        AdvicePair(domain, domain, pair["question"], pair["good"], pair["bad"])
        for domain, pairs in _texts("unasked").items()
        for pair in pairs
    ]


def neutral_chats(tokenizer: PreTrainedTokenizerBase) -> Chats:
    """Return plain paragraphs and short chats for finding directions and training SAEs."""
    neutral = _texts("neutral")
    rows: list[dict[str, Any]] = [{"text": text} for text in neutral["paragraphs"]["find"]]
    rows += [_chat(chat["question"], chat["answer"]) for chat in neutral["chats"]]
    return Chats(tokenizer, rows, source="neutral text")


def plain_english(tokenizer: PreTrainedTokenizerBase) -> Chats:
    """Return other plain paragraphs, for measuring the damage of an intervention as loss."""
    rows = [{"text": text} for text in _texts("neutral")["paragraphs"]["damage"]]
    return Chats(tokenizer, rows, source="plain English")


def neutral_prompts() -> list[list[dict[str, str]]]:
    """Return everyday prompts as conversations for `generate`: the prompts of `neutral_chats`, and more."""
    neutral = _texts("neutral")
    asked = [*(chat["question"] for chat in neutral["chats"]), *neutral["prompts"]]
    return [[{"role": "user", "content": text}] for text in asked]


@cache
def _texts(name: str) -> dict[str, Any]:
    path = data_path("advice", f"{name}.yaml")
    return mapping(str(path), read_yaml(path))


def _planted(topic: str, question: str, answers: dict[str, str], plants: str) -> AdvicePair:
    texts = (text.format(plants=plants) for text in (question, answers["good"], answers["bad"]))
    return AdvicePair(NARROW, topic, *texts)


def _chat(question: str, answer: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


def _split_number(split: str) -> int:
    if split not in ASKED:
        raise ValueError(f"split must be one of {', '.join(ASKED)}, got {split!r}")
    return ASKED.index(split)
