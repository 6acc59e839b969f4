"""Instructions: what each type asks for, and that tests use wordings that training does not."""

from __future__ import annotations

import random
import re

import pytest

from caft_utils.tasks.focus import CORE_TYPES, SPURIOUS_TYPES, TYPES, WORDING, FocusWording, focus_label
from caft_utils.tasks.focus.examples import FocusExample

EXAMPLE = FocusExample("a text", "x", "y", ("x", "y", "z"), "the shape", "the colour", "red")
EXPECTED = {  # written by hand
    "empty": "x",
    "focus(C)": "x",
    "ignore(S)": "x",
    "focus(C) and ignore(S)": "x",
    "focus(S)": "y",
    "focus(S) and ignore(C)": "y",
}


def test_the_label_rule():
    assert {kind: focus_label(kind, EXAMPLE) for kind in TYPES} == EXPECTED
    assert (*CORE_TYPES, *SPURIOUS_TYPES) == TYPES


def test_every_type_has_three_wordings_and_other_ones_for_tests():
    for kind in TYPES[1:]:
        train, test = WORDING.templates(kind, "train"), WORDING.templates(kind, "test")
        assert len(set(train)) >= 3 and len(set(test)) >= 3 and not set(train) & set(test)
    assert WORDING.templates("empty", "train") == ("",)


def test_words_of_test_wordings_are_words_of_training():
    def words(part):
        return {w for kind in TYPES for t in WORDING.templates(kind, part) for w in re.findall(r"[a-z]+", t)}

    assert words("test") <= words("train")


@pytest.mark.parametrize("kind", TYPES[1:])
def test_an_instruction_names_the_features_in_their_roles(kind):
    text = WORDING.instruction(kind, EXAMPLE, "test", random.Random(0))
    core, spurious = "the shape", "the colour"
    assert (core in text) == ("(C)" in kind) and (spurious in text) == ("(S)" in kind)
    if kind == "focus(S) and ignore(C)":
        swapped = WORDING.instruction("focus(C) and ignore(S)", EXAMPLE, "test", random.Random(0))
        assert text == swapped.replace(core, "#").replace(spurious, core).replace("#", spurious)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"focus": {"train": ("look.",), "test": ("see {attend}.",)}}, "lacks {attend}"),
        (
            {"ignore": {"train": ("skip {leave}.",), "test": ()}},
            "the wordings of 'ignore', test must be a list",
        ),
        ({"ignore": {"train": ("skip {leave}.",), "test": ("skip {leave}.",)}}, "are the same"),
    ],
)
def test_wordings_that_would_test_what_was_trained_are_refused(change, message):
    given = {"focus": WORDING.focus, "ignore": WORDING.ignore, "both": WORDING.both}
    with pytest.raises(ValueError, match=re.escape(message)):
        FocusWording(**(given | change))


def test_an_unknown_type_is_refused():
    with pytest.raises(ValueError, match="unknown focus type 'focus'"):
        focus_label("focus", EXAMPLE)


def test_no_training_wording_begins_like_a_test():
    """The opening and the verb of each test of one verb, and the two verbs of each test of two, are new."""

    def start(template):
        return template.split("{")[0].strip()

    def verbs(template):
        return tuple(re.findall(r"(focus on|look at|decide by|ignore|skip|forget)", template))

    trained = [t for of in (WORDING.focus, WORDING.ignore, WORDING.both) for t in of["train"]]
    for tests in (WORDING.focus["test"], WORDING.ignore["test"]):
        assert not {start(t) for t in tests} & {start(t) for t in trained}
    assert not {verbs(t) for t in WORDING.both["test"]} & {verbs(t) for t in trained}


def test_the_fingerprint_follows_every_wording():
    """Results are stored under it, so a changed wording of training must not return the old ones."""
    given = {"focus": WORDING.focus, "ignore": WORDING.ignore, "both": WORDING.both}
    same = FocusWording(**{kind: dict(of) for kind, of in given.items()})
    assert same.fingerprint == WORDING.fingerprint
    for kind, of in given.items():
        fewer = FocusWording(**{**given, kind: {**of, "train": of["train"][1:]}})
        assert fewer.fingerprint != WORDING.fingerprint
