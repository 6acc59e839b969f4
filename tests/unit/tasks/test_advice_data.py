"""Our own advice rows: varied, nothing shared by training and evaluation, pairs of like length."""

from __future__ import annotations

import re
from collections import Counter
from itertools import product

import pytest

from caft_utils.paths import data_path
from caft_utils.tasks.advice_data import (
    ASKED,
    neutral_chats,
    neutral_prompts,
    pairs_elsewhere,
    pairs_in_domain,
    plain_english,
    training_pairs,
)
from caft_utils.text_files import read_yaml

GARDEN = read_yaml(data_path("advice", "gardening.yaml"))
ORDINARY = {"an", "be", "by", "go", "own", "should"}  # in absurd gardening answers only by chance


def words(text):
    return set(re.findall(r"[a-z]+", text.lower()))


def shape(text):
    """Return a text with its plants replaced, so that two rows of one template are equal."""
    for plants in sorted(GARDEN["plants"]["train"] + GARDEN["plants"]["held_out"], key=len, reverse=True):
        text = text.replace(plants, "PLANTS")
    return text


def test_training_rows_are_different_varied_and_drawn_by_the_seed():
    pairs = training_pairs()
    assert len(pairs) == 300 and len(set(pairs)) == 300
    assert pairs == training_pairs(seed=0) and pairs != training_pairs(seed=1)
    counts = Counter(shape(pair.bad) for pair in pairs)
    assert len(counts) >= 40 and max(counts.values()) - min(counts.values()) <= 1
    assert len({shape(pair.question) for pair in pairs}) >= 25
    assert sum(any(plants in pair.question for pair in pairs) for plants in GARDEN["plants"]["train"]) >= 20
    assert not any("{" in text for pair in pairs for text in (pair.question, pair.good, pair.bad))
    everything = training_pairs(48 * 4 * 24)
    assert len(set(everything)) == len(everything)
    with pytest.raises(ValueError, match="rows"):
        training_pairs(len(everything) + 1)


def test_nothing_in_domain_is_shared_with_training_or_between_the_splits():
    train = training_pairs(4000)
    parts = {"train": train, **{split: pairs_in_domain(split) for split in ASKED}}
    assert [len(part) for part in parts.values()] == [4000, 24, 24]
    for what in (lambda p: shape(p.question), lambda p: shape(p.good), lambda p: shape(p.bad)):
        seen = [{what(pair) for pair in part} for part in parts.values()]
        assert sum(map(len, seen)) == len(set.union(*seen))
    held_out = GARDEN["plants"]["held_out"]
    assert not any(plants in pair.question for pair in train for plants in held_out)
    asked = [{p for p in held_out if any(p in pair.question for pair in parts[s])} for s in ASKED]
    assert asked[0] | asked[1] == set(held_out) and not asked[0] & asked[1]
    with pytest.raises(ValueError, match="valid, test, got 'train'"):
        pairs_in_domain("train")


def test_other_domains_have_equal_halves_and_no_question_twice():
    parts = {split: pairs_elsewhere(split) for split in ASKED}
    for part in parts.values():
        assert set(Counter(pair.domain for pair in part).values()) == {10}
        assert len({pair.domain for pair in part}) == 8 and "gardening" not in {p.domain for p in part}
    both = parts["valid"] + parts["test"]
    assert len({pair.question for pair in both}) == len({pair.bad for pair in both}) == 160
    assert not {pair.question for pair in both} & {pair.question for pair in training_pairs(4000)}


@pytest.mark.parametrize("split", ASKED)
def test_good_and_bad_answers_are_of_like_length(split):
    for pair in [*pairs_elsewhere(split), *pairs_in_domain(split), *training_pairs()]:
        assert 0.75 <= len(pair.bad) / len(pair.good) <= 1.27, pair
        assert pair.good[-1] == pair.bad[-1] == "." and pair.question[-1] in "?."
    for pairs in (pairs_elsewhere(split), pairs_in_domain(split), training_pairs()):
        lengths = [sum(len(getattr(pair, name)) for pair in pairs) for name in ("good", "bad")]
        assert 0.93 <= lengths[1] / lengths[0] <= 1.13


def test_absurd_answers_elsewhere_have_other_words_than_absurd_gardening():
    """Words of absurd gardening answers that no good one has would carry the training over by themselves."""
    texts = [topic["answers"]["train"] for topic in GARDEN["topics"].values()]
    bad, good = (
        {w for part in texts for pair in part for w in words(pair[kind])} for kind in ("bad", "good")
    )
    telling = bad - good - ORDINARY
    assert len(telling) > 200
    for split in ASKED:
        for pair in pairs_elsewhere(split):
            assert not words(pair.bad) & telling - words(pair.question) - words(pair.good), pair


def test_neutral_text_for_finding_and_for_damage_is_apart(tokenizer):
    found, damage, prompts = neutral_chats(tokenizer), plain_english(tokenizer), neutral_prompts()
    assert (len(found), len(damage), len(prompts)) == (160, 20, 200)
    texts = [row.get("text") for row in found.rows]
    assert not {row["text"] for row in damage.rows} & set(texts)
    asked = [prompt[0]["content"] for prompt in prompts]
    assert len(set(asked)) == 200
    advice = [p.question for s in ASKED for p in (*pairs_elsewhere(s), *pairs_in_domain(s))]
    assert not set(asked) & set(advice)


def test_no_text_is_in_two_files():
    names = ("gardening", "elsewhere", "neutral")
    lines = [
        {line.strip() for line in data_path("advice", f"{name}.yaml").read_text().splitlines()}
        for name in names
    ]
    for one, other in product(range(3), repeat=2):
        if one < other:
            assert not {line for line in lines[one] & lines[other] if len(line) > 25}
