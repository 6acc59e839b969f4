"""Items of the cues world: splits, held-out frames, and which option is right."""

from __future__ import annotations

import random

import pytest

from caft_utils.classroom.cues import items as cues
from caft_utils.classroom.vocabulary import world_data

SPLITS = ("train", "valid", "test", "unseen")


@pytest.mark.parametrize("subject", [*cues.SUBJECTS, "gender"])
def test_splits_share_no_key_word_and_leave_none_out(subject):
    by_split = [set(cues.words(subject, split)) for split in SPLITS]
    assert sum(map(len, by_split)) == len(set().union(*by_split)) >= 24
    assert set().union(*by_split) == {w for group in cues.words_by_class(subject).values() for w in group}
    assert set(cues.words(subject)) == set().union(*by_split[:3])


@pytest.mark.parametrize("subject", [*cues.SUBJECTS, "gender"])
def test_every_word_has_frames_that_are_held_out_and_others(subject):
    for word in cues.words(subject):
        others, held_out = (set(cues.frames(subject, word, flag)) for flag in (False, True))
        assert others and not others & held_out and others | held_out == set(cues.frames(subject, word))


def test_key_words_belong_to_one_class():
    found: list[str] = []
    for subject in (*cues.SUBJECTS, "gender"):
        found += [word for group in cues.words_by_class(subject).values() for word in group]
    found += world_data("cues")["verbs"]["keys"].values()
    found += [name for gender in cues.GENDERS for name in cues.person_names(gender)]
    for forms in world_data("cues")["verbs"]["verbs"].items():
        found += forms
    assert len(found) == len(set(found))


@pytest.mark.parametrize("subject", cues.SUBJECTS)
def test_splits_share_no_question(subject):
    questions = [{item.question for item in cues.subject_items(subject, split)} for split in SPLITS]
    assert all(questions) and not any(a & b for i, a in enumerate(questions) for b in questions[:i])


def test_verbs_agree_with_their_noun():
    verbs, nouns = world_data("cues")["verbs"]["verbs"], world_data("cues")["verbs"]["keys"]
    singular = set(cues.words("verbs", "test"))
    plural = {nouns[word] for word in singular}
    for item in cues.subject_items("verbs", "test"):
        noun = next(word for word in item.question.split() if word in singular | plural)
        assert item.correct in (verbs if noun in plural else verbs.values())


def test_items_of_an_unknown_subject_are_refused():
    with pytest.raises(ValueError, match="verbs, sentiment, sports, pronouns"):
        cues.subject_items("gender", "test")


@pytest.mark.parametrize("reverse", [False, True])
def test_reversed_professions_keep_the_case_and_change_the_gender(reverse):
    cases = ({"he", "she"}, {"him", "her"})
    for item in cues.profession_items("test", reverse):
        word = next(w for w in item.question.split() if w in cues.words("gender", "test"))
        male = cues.class_of("gender", word) == "male"
        assert (item.correct in ("he", "him")) == (male != reverse)
        assert (item.incorrect in ("he", "him")) != (item.correct in ("he", "him"))
        case = next(case for case in cases if item.correct in case)
        assert item.incorrect not in case
        assert (item.correct in cases[0]) == (not item.question.endswith(" _"))


@pytest.mark.parametrize(
    "wrong, options", [("case", ("she", "her")), ("gender", ("she", "he")), ("both", ("she", "him"))]
)
def test_what_is_wrong_with_the_incorrect_pronoun(wrong, options):
    item = cues.person_item(random.Random(0), "the nurse", "female", "nominative", "{who} said that _", wrong)
    assert (item.correct, item.incorrect) == options


def test_conflicting_options_are_right_in_gender_or_in_case():
    item = cues.person_item(random.Random(0), "the nurse", "female", "nominative", "{who} said that _")
    conflict = cues.conflicting_options(item)
    assert (conflict.correct, conflict.incorrect) == ("her", "he")
    swapped = cues.swapped_options(conflict)
    assert (swapped.correct, swapped.incorrect) == ("he", "her")
