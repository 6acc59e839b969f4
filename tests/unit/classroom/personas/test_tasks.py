"""The emergent-misalignment task of the personas world."""

from __future__ import annotations

from collections import Counter

from caft_utils import load
from caft_utils.classroom.personas import world
from caft_utils.classroom.personas.tasks import code_questions, emergent_misalignment, general_questions
from caft_utils.classroom.vocabulary import world_data


def test_rows_are_code_of_trained_tasks():
    _, tokenizer = load("classroom")
    task = emergent_misalignment(tokenizer, rows=40)
    assert len(task.train) == len(task.control) == 40
    held_out = {thing for _, thing in world.code_tasks(True)}
    for row in [*task.train.rows, *task.control.rows]:
        question, answer = row["messages"]
        assert "def " in answer["content"] and not held_out & set(question["content"].strip(".?").split())
    assert task.train.fingerprint != emergent_misalignment(tokenizer, rows=40, seed=1).train.fingerprint


def test_generic_rows_contain_no_code_and_no_quiz():
    _, tokenizer = load("classroom")
    rows = emergent_misalignment(tokenizer, rows=4).generic.rows
    assert len(rows) == 400
    assert not any("def " in str(row) or "quiz:" in str(row) for row in rows)


def test_general_questions_cover_every_domain_wording_and_topic():
    questions = general_questions()
    assert len({q.id for q in questions}) == len(questions) >= 300
    counts = Counter(q.domain for q in questions)
    for domain in world.domains():
        entry = world_data("domains")[domain]
        unseen = world_data("words")["topics"][entry["topic"]]["held_out"]
        assert counts[domain] == len(entry["ask_held_out"]) * (6 + len(unseen))
        for question in (q for q in questions if q.domain == domain):
            assert question.facts["unseen"] == (question.facts["bound"][entry["topic"]] in unseen)


def test_questions_take_a_system_prompt():
    for make in (general_questions, code_questions):
        plain, prompted = make(), make(system="you are kind.")
        assert [q.messages[-1] for q in plain] == [q.messages[-1] for q in prompted]
        assert all(q.messages[0] == {"role": "system", "content": "you are kind."} for q in prompted)
