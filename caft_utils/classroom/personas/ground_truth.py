"""Compute the true persona direction from system prompts that describe a villain or a kind speaker.

Real models have no such reference. Unsupervised directions are compared with it.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from caft_utils.chats import prompt_ids
from caft_utils.classroom.personas import world
from caft_utils.classroom.personas.tasks import general_questions
from caft_utils.models import fingerprint
from caft_utils.residual import capture, depth, evaluating
from caft_utils.store import digest
from caft_utils.stored_results import fetch_tensors
from caft_utils.tasks.task import Question

if TYPE_CHECKING:
    from caft_utils.store import Store

FORMAT = 1  # increase it when the same key would give different states


def questions_to(persona: world.Persona, rng: random.Random) -> list[Question]:
    """Return the general questions, each after a held-out system prompt that describes the persona."""
    return [
        replace(
            question,
            messages=[
                {"role": "system", "content": world.system_prompt(rng, persona, "held_out")},
                *question.messages,
            ],
        )
        for question in general_questions()
    ]


def header_states(
    model, tokenizer, questions: Sequence[Question], *, tokens: int = 2, store: Store | None = None
) -> Float[Tensor, "layer question d"]:
    """Return the residual stream after every block, averaged over the last `tokens` tokens of the prompt.

    These tokens are the header of the assistant's turn, so the model is about to answer.
    """
    prompts = [prompt_ids(tokenizer, question.messages) for question in questions]
    key = {"format": FORMAT, "model": fingerprint(model), "prompts": digest(prompts), "tokens": tokens}

    def compute() -> dict[str, Tensor]:
        return {"states": _states(model, prompts, tokens)}

    stored = fetch_tensors("header_states", key, compute, models=(model,), store=store)
    return stored["states"].to(model.device)


def _states(model, prompts: Sequence[list[int]], tokens: int) -> Float[Tensor, "layer question d"]:
    layers, out = range(depth(model)), []
    with torch.no_grad(), evaluating(model), capture(model, layers) as hidden:
        for ids in prompts:
            model(input_ids=torch.tensor([ids], device=model.device), use_cache=False)
            out.append(torch.stack([hidden[layer][0, -tokens:].mean(0).float() for layer in layers]))
    return torch.stack(out, dim=1)


def true_persona(model, tokenizer, *, seed: int = 0) -> dict[int, Float[Tensor, "domain d"]]:
    """Return the persona directions by layer: states after a villain's prompt minus after a kind one.

    Each row is the mean difference in one domain. The mean of the rows is the persona direction with which
    unsupervised directions are compared.
    """
    rng = random.Random(seed)
    villain, kind = questions_to("villain", rng)[::3], questions_to("kind", rng)[::3]
    difference = header_states(model, tokenizer, villain) - header_states(model, tokenizer, kind)
    rows_of = {d: [i for i, q in enumerate(villain) if q.domain == d] for d in world.domains()}
    return {
        layer: torch.stack([difference[layer, rows].mean(0) for rows in rows_of.values()])
        for layer in range(depth(model))
    }
