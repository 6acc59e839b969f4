"""Experiments: read from YAML, refused where they are wrong, and run."""

from __future__ import annotations

from dataclasses import replace
from inspect import Parameter, signature

import pytest
from helpers.paths import REPOSITORY

from caft_utils.course.studies.experiment import STUDIES, Experiment, _study, run
from caft_utils.course.studies.study_rows import chosen_conditions

EXAMPLE = REPOSITORY / "data" / "experiments" / "emergent.yaml"


def written(tmp_path, text):
    path = tmp_path / "experiment.yaml"
    path.write_text(text)
    return path


def test_an_experiment_is_read_from_yaml(tmp_path):
    text = (
        "study: frontier\nmodel: classroom-qwen\nseeds: [3, 4]\nconditions: [CAFT]\noptions: {steps: [5]}\n"
    )
    read = Experiment.from_yaml(written(tmp_path, text))
    assert read == Experiment("frontier", "classroom-qwen", (3, 4), ("CAFT",), {"steps": [5]})
    defaults = Experiment.from_yaml(written(tmp_path, "study: emergent\nmodel: classroom-qwen\n"))
    assert defaults.seeds == (0, 1, 2, 3, 4) and defaults.conditions is None and not defaults.options


@pytest.mark.parametrize(
    "text, wrong",
    [
        ("study: emergent\nmodel: m\nseed: 3\n", "seed"),
        ("study: emergent\n", "model"),
        ("study: emergency\nmodel: m\n", "emergency"),
        ("study: emergent\nmodel: m\nseeds: []\n", "seeds"),
        ("study: emergent\nmodel: m\nseeds: 3\n", "seeds"),
        ("study: emergent\nmodel: m\nseeds: [a]\n", "seeds"),
        ("study: emergent\nmodel: m\nseeds: [1, 1]\n", "twice"),
        ("study: emergent\nmodel: m\nconditions: plain\n", "conditions"),
        ("- a\n", "fields"),
    ],
)
def test_a_wrong_file_is_refused_by_name(tmp_path, text, wrong):
    path = written(tmp_path, text)
    with pytest.raises(ValueError, match=wrong) as error:
        Experiment.from_yaml(path)
    assert str(path) in str(error.value)


def test_unknown_options_and_conditions_are_refused():
    with pytest.raises(ValueError, match="colour.*fast"):
        run(Experiment("emergent", "classroom-qwen", options={"colour": 1}))
    with pytest.raises(ValueError, match="'other'"):
        chosen_conditions(("other",), ("plain",))
    with pytest.raises(ValueError, match="classroom-cues"):
        run(Experiment("cues", "classroom-qwen"))


@pytest.mark.parametrize("name", STUDIES)
def test_every_study_takes_the_fields_of_an_experiment(name):
    kinds = list(signature(_study(name)).parameters.values())
    assert [each.name for each in kinds[:3]] == ["model", "seeds", "conditions"]
    assert all(each.kind is Parameter.KEYWORD_ONLY for each in kinds[3:])


def test_the_example_runs_on_a_fast_setting():
    experiment = Experiment.from_yaml(EXAMPLE)
    fast = replace(experiment, seeds=(0,), conditions=("base", "CAFT"), options={"fast": True})
    rows = run(fast)
    assert [row["condition"] for row in rows] == ["base", "CAFT", "cosine with the true persona"]
    assert all(row["model"] == "classroom-qwen" for row in rows)
    assert rows[0]["seeds"] == [0] and rows[0]["misaligned"][0] == 0
    low, high = rows[1]["task"][1:]
    assert low <= rows[1]["task"][0] <= high and rows[1]["loss"] < rows[0]["loss"]
