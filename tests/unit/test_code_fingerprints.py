"""The hash of a user's code: what changes it, what does not, and what is left out."""

from __future__ import annotations

import subprocess
import sys
from types import ModuleType

import pytest
import torch

from caft_utils.code_fingerprints import user_code
from caft_utils.evaluation.graders import ThresholdGrader
from caft_utils.interventions import Ablate
from caft_utils.tasks.choice import ChoiceGrader

SOURCE = """
from functools import cache, partial

LIMIT = 0.5
WORDS = {"a", "b", "c"}

def helper(x):
    return x + 1

@cache
def kept(x):
    return x - 5

def power(base, x):
    return base**x

square = partial(power, 6)

class Own:
    '''Text.'''

    share = 2

    def __init__(self, weight):
        self.weight = weight

    def edit(self, x):
        if x > LIMIT and x not in WORDS:
            return helper(x) * self.share + kept(x) + square(x)
        return [y - 1 for y in x]
"""


def code_of(source: str, name: str = "Own") -> str:
    space: dict = {"__name__": "__main__"}
    exec(source, space)
    return user_code(space[name](1)) if name == "Own" else user_code(space[name])


@pytest.mark.parametrize(
    "old, new",
    [
        ("* self.share", "- self.share"),
        ("y - 1", "y - 2"),  # inside a comprehension
        ("share = 2", "share = 3"),
        ("x + 1", "x + 2"),  # in a function that it calls
        ("LIMIT = 0.5", "LIMIT = 0.6"),
        ('"c"}', '"d"}'),
        ("x - 5", "x - 6"),  # in a cached function
        ("base**x", "base * x"),  # in a partial one
        ("partial(power, 6)", "partial(power, 7)"),
    ],
)
def test_a_change_of_what_runs_changes_it(old, new):
    assert old in SOURCE and code_of(SOURCE.replace(old, new)) != code_of(SOURCE)


@pytest.mark.parametrize(
    "old, new", [("'''Text.'''", "'''Other.'''"), ("\ndef helper", "\n# why\n\n\ndef helper")]
)
def test_comments_places_and_the_text_of_a_class_do_not(old, new):
    assert code_of(SOURCE.replace(old, new)) == code_of(SOURCE)


def test_it_is_the_same_in_every_process(tmp_path):
    (tmp_path / "own.py").write_text(
        SOURCE + "\nfrom caft_utils.code_fingerprints import user_code\nprint(user_code(Own(1)))"
    )
    run = [sys.executable, str(tmp_path / "own.py")]
    seen = {
        subprocess.run(
            run,
            capture_output=True,
            text=True,
            check=True,
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(seen) == 1


def test_functions_and_constants_of_an_imported_module_count():
    import torch.nn.functional

    def of_module(text):
        module = ModuleType("own_module")
        exec(text, vars(module))
        space = {"__name__": "__main__", "own_module": module, "F": torch.nn.functional}
        exec("def score(x):\n    return own_module.scaled(F.relu(x)) > own_module.LIMIT", space)
        return user_code(space["score"])

    text = "LIMIT = 1\nOTHER = 1\ndef scaled(x):\n    return 2 * x"
    assert of_module(text) == of_module(text.replace("OTHER = 1", "OTHER = 2"))
    assert (
        len(
            {
                of_module(text),
                of_module(text.replace("2 *", "3 *")),
                of_module(text.replace("LIMIT = 1", "LIMIT = 2")),
            }
        )
        == 3
    )


def test_settings_are_left_out_and_functions_among_them_are_not():
    space: dict = {"__name__": "__main__"}
    exec(SOURCE, space)
    assert user_code(space["Own"](1)) == user_code(space["Own"](2))
    scored = [
        user_code(ThresholdGrader(score, name="mine"))
        for score in (lambda question, answer: 1.0, lambda question, answer: 2.0)
    ]
    assert scored[0] != scored[1]


@pytest.mark.parametrize("thing", [ChoiceGrader(), torch.nn.Linear(2, 2), Ablate, print, 3, sys.path])
def test_the_package_and_installed_ones_have_no_user_code(thing):
    assert user_code(thing) == ""
