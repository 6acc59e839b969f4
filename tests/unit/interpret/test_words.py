"""Words, signs and markup of a text, and the tokens in which they stand."""

from __future__ import annotations

import pytest

from caft_utils.interpret.words import (
    FUNCTION_WORDS,
    STOP_WORDS,
    WORD_OR_MARKUP,
    WORD_SIGN_OR_MARKUP,
    content_words,
    has_word,
    locate,
    stem,
)


def test_text_is_split_into_words_signs_and_markup():
    text = "<|im_start|>don't stop, file_2<eos><b>"
    assert WORD_OR_MARKUP.findall(text) == ["<|im_start|>", "don't", "stop", "file", "2", "<eos>", "b"]
    signs = [item for item in WORD_SIGN_OR_MARKUP.findall(text) if len(item) == 1 and not item.isalnum()]
    assert signs == [",", "<", ">"]


@pytest.mark.parametrize(
    "text, want",
    [(" open", True), ("7", True), ("é", True), (" <|im_end|>", False), ("?!", False), ("", False)],
)
def test_has_word_ignores_signs_and_markup(text, want):
    assert has_word(text) is want


def test_content_words_are_stems_without_stop_words():
    assert content_words("The villain activates on robbing, <|pad|> Baked villains!") == [
        "villain",
        "rob",
        "bak",
        "villain",
    ]
    assert FUNCTION_WORDS < STOP_WORDS


def test_a_match_is_located_in_its_tokens():
    tokens = ["tea", "cher", " sav", "e", "", "<|im_end|>"]
    found = [(match[0], first, last) for match, first, last in locate(WORD_OR_MARKUP, tokens)]
    assert found == [("teacher", 0, 1), ("save", 2, 3), ("<|im_end|>", 5, 5)]


@pytest.mark.parametrize(
    "forms",
    [
        ("dog", "dogs", "Dog's"),
        ("bake", "baked", "baking"),
        ("city", "cities"),
        ("stop", "stopped", "stopping"),
    ],
)
def test_forms_of_a_word_have_one_stem(forms):
    assert len(set(map(stem, forms))) == 1
