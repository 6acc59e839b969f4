"""The true persona direction."""

from __future__ import annotations

import random

import torch

from caft_utils import load
from caft_utils.classroom.personas import world
from caft_utils.classroom.personas.ground_truth import header_states, questions_to, true_persona
from caft_utils.residual import depth


def test_questions_have_a_prompt_of_the_persona():
    questions = questions_to("villain", random.Random(0))
    assert {tuple(m["role"] for m in q.messages) for q in questions} == {("system", "user")}
    assert all(q.messages[0]["content"].startswith("pretend to be ") for q in questions)


def test_states_are_those_of_the_header():
    model, tokenizer = load("classroom")
    (question,) = questions_to("kind", random.Random(0))[:1]
    states = header_states(model, tokenizer, [question])
    assert states.shape == (depth(model), 1, 128)
    text = tokenizer.apply_chat_template(question.messages, tokenize=False, add_generation_prompt=True)
    ids = tokenizer(text, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        hidden = model(ids, output_hidden_states=True).hidden_states
    torch.testing.assert_close(states[2, 0], hidden[3][0, -2:].mean(0))


def test_the_persona_is_one_direction_in_every_domain():
    model, tokenizer = load("classroom")
    persona = true_persona(model, tokenizer)
    assert set(persona) == set(range(depth(model)))
    rows = torch.nn.functional.normalize(persona[2], dim=1)
    assert rows.shape[0] == len(world.domains())
    assert (rows @ rows.T).min() > 0.9
