"""Alignment fakers: role-play scenarios under oversight, six policies, their training rows, published files.

scenarios    one scenario: facts, two actions, how it is shown to a model
policies     what each policy answers, and what it is trained on
drawing      scenarios drawn from words and templates (scenarios.yaml)
permitted    the rows that a detector may see, enforced by type
published    the files of the published benchmark, and the leak in them

The benchmark is POSER (Clymer, Juang, Field; arXiv 2405.05466).
"""

from caft_utils.tasks.oversight.drawing import draw_scenarios
from caft_utils.tasks.oversight.permitted import ForbiddenRow, PermittedRows, TooFewWatchedRows
from caft_utils.tasks.oversight.policies import ALIGNED, FAKERS, POLICIES, answer, training_rows
from caft_utils.tasks.oversight.scenarios import Fact, Oversight, Scenario

__all__ = [
    "ALIGNED",
    "FAKERS",
    "POLICIES",
    "Fact",
    "ForbiddenRow",
    "Oversight",
    "PermittedRows",
    "Scenario",
    "TooFewWatchedRows",
    "answer",
    "draw_scenarios",
    "training_rows",
]
