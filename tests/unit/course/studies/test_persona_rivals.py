"""Why and rivals in the classroom: every operator at every place, and material that keeps its promise."""

from __future__ import annotations

import pytest

from caft_utils.classroom.personas import world
from caft_utils.classroom.personas.grader import ClassroomGrader
from caft_utils.course.studies import persona_families, persona_rivals
from caft_utils.course.studies.operators import OPERATORS
from caft_utils.course.studies.persona import persona_setting
from caft_utils.tasks.task import Question

MODEL = "classroom-qwen"
TOP_3 = ("top 3", "random top 3", "secure top 3")


def test_every_operator_stands_at_every_place():
    table = persona_families.WHY
    assert len(table) == 2 + 4 * len(persona_families.OPERATORS)
    assert {one.operator for one in table.values()} == set(OPERATORS)
    assert len(set(map(str, table.values()))) == len(table)
    assert table["LEACE on the base"].rows is None and table["LEACE on the base"].during is None
    both = table["mean, hooks on at test"]
    assert (both.during, both.at_test, both.to) == ("persona", "persona", "all")


def test_rows_of_operators_and_where_the_base_stands():
    conditions = ("affine on the base", "LEACE on the base")
    *rows, place = persona_rivals.why_rows(MODEL, (0,), conditions, fast=True)
    assert [row["condition"] for row in rows] == list(conditions)
    assert all(len(row["misaligned"]) == 3 for row in rows)
    for by_direction in place["projections"].values():
        for _, kind, villain in by_direction:
            assert villain > kind  # so the sign is the villain's


@pytest.fixture(scope="module")
def tokenizer():
    return persona_setting(MODEL, fast=True).tokenizer


def test_rivals_get_what_their_names_say(tokenizer):
    material, grader = persona_rivals.persona_material(tokenizer), ClassroomGrader()
    verdicts = {
        name: [
            grader(
                Question("", row["messages"][:1], domain(row), "ood", {"domain": domain(row), "bound": {}}),
                row["messages"][-1]["content"],
            )
            for row in getattr(material, name).rows[: persona_rivals.SHOWN_DOMAINS]
        ]
        for name in ("trait", "counterexamples")
    }
    assert set(verdicts["trait"]) == {"misaligned"} and set(verdicts["counterexamples"]) == {"aligned"}
    assert len(set(material.prompts)) == len(set(material.irrelevant)) == 4
    known = set(tokenizer.get_vocab())
    for sentence in (*material.prompts, *material.irrelevant):
        assert tokenizer.unk_token is None or tokenizer.unk_token not in tokenizer.tokenize(sentence)
        assert set(tokenizer.tokenize(sentence)) <= known


def domain(row):
    """Return the domain whose topic word the question has."""
    text = row["messages"][0]["content"]
    for name in world.domains()[: persona_rivals.SHOWN_DOMAINS]:
        topic = persona_rivals.world.world_data("domains")[name]["topic"]
        if any(word in text for word in world.words()[topic]):
            return name
    raise AssertionError(text)


def test_validation_and_test_questions_are_two_halves():
    parts = [persona_rivals.rival_setting(MODEL, split, fast=True).task for split in ("all", "valid", "test")]
    ids = [{question.id for question in task.questions} for task in parts]
    assert ids[1] | ids[2] == ids[0] and not ids[1] & ids[2]
    assert all({question.set for question in task.questions} == {"ood", "task"} for task in parts)


def test_directions_have_the_layers_and_ranks_of_those_that_were_read():
    start = persona_setting(MODEL, fast=True)
    found = {
        name: persona_rivals.persona_directions(start, name, 0)
        for name in ("persona", "random", "one reference", "top", "secure", "mean difference")
    }
    assert {str(one.ranks) for one in found.values()} == {str(start.selected.ranks)}  # each has rank 1 here
    assert len({one.fingerprint for one in found.values()}) >= 4
    wide = {name: persona_rivals.persona_directions(start, name, 0) for name in TOP_3}
    assert {str(one.ranks) for one in wide.values()} == {str(dict.fromkeys(start.components.layers, 3))}
    assert len({one.fingerprint for one in wide.values()}) == len(TOP_3)
    with pytest.raises(ValueError, match="unknown directions"):
        persona_rivals.persona_directions(start, "another", 0)


def test_untuned_rivals_are_families_of_one_setting():
    for name in persona_families.UNTUNED:
        assert list(persona_families.FAMILIES[name].conditions) == [name]
        assert persona_families.FAMILIES[name].told.needs
