"""The same ablated training step in several engines: do they agree, and what does each cost?

One LoRA adapter, one batch of rows, random directions at the layers of the preset. Each engine runs the
same forward and backward pass under the ablation, and AdamW at a learning rate of zero, so that all see the
same weights.

    plain hooks             a forward hook that subtracts the component, as in a script of one's own
    intervention            `ablate(...).on(model)`
    NNsight                 the same edit as a statement of a trace
    NNsight, serialised     the same with remote="local": the block is pickled and read back at each step

The engines are compared pairwise with the same treatment of attention sinks. They take turns in short rounds,
so that a disturbance of the machine meets all of them, and a row holds the median over rounds. Agreement is
measured in float32: the largest difference of logits and of LoRA gradients, and equal greedy answers.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from caft_utils import ablate, load, preset
from caft_utils.backends import nnsight as traces
from caft_utils.chats import Batch
from caft_utils.course.lessons import lesson_recipe, lesson_task
from caft_utils.course.studies.study_rows import Row, chosen_conditions
from caft_utils.directions import Directions
from caft_utils.evaluation.generation import generate
from caft_utils.finetuning.adapters import trainable_copy
from caft_utils.interventions.base import Intervention
from caft_utils.losses import answer_nats
from caft_utils.residual import edit, width

REFERENCES = {  # condition -> the one that it must agree with
    "no ablation": None,
    "plain hooks": None,
    "intervention": "plain hooks",
    "NNsight": "intervention",
    "NNsight, serialised": "intervention",
    "intervention, sinks spared": None,
    "NNsight, sinks spared": "intervention, sinks spared",
}
ROWS, RANK, NEW_TOKENS, PROMPTS = 8, 2, 24, 8


def engine_rows(
    model: str,
    seeds: Sequence[int],
    conditions: tuple[str, ...] | None = None,
    *,
    rounds: int = 9,
    steps: int = 5,
    batch_size: int = ROWS,
    checkpointing: bool = False,
    fast: bool = False,
) -> list[Row]:
    """Return one row for each engine.

    `milliseconds` is that of a step, the median over rounds, with the quartiles beside it. `times_plain` is
    the median over rounds of its time over that of plain hooks in the same round. `logits` and `gradients`
    are the largest absolute differences from the engine in `against`; `same_answers` counts equal answers.

    Args:
        rounds, steps: rounds of all engines, and the steps of each engine in a round.
        batch_size: rows of a step.
        checkpointing: recompute activations in the backward pass.
        fast: 2 rounds of one step, for tests.
    """
    rounds, steps = (2, 1) if fast else (rounds, steps)
    names = chosen_conditions(conditions, REFERENCES)
    base, tokenizer = load(model, dtype="float32")
    config, seed = lesson_recipe("emergent", model), seeds[0]
    task = lesson_task("emergent", model, tokenizer, seed=seed)
    # Two models of equal weights: NNsight replaces `forward` for good, which would slow the hooks down, too.
    tuned, wrapped = (_adapted(base, config, seed, checkpointing) for _ in range(2))
    batch = next(task.train.batches(batch_size, device=next(tuned.parameters()).device))
    prompts = [question.messages for question in task.questions[:PROMPTS]]
    engines = _engines(tuned, wrapped, tokenizer, _directions(base, model, seed))
    needed = {*names, *(REFERENCES[name] for name in names), "plain hooks"}
    engines = {name: engine for name, engine in engines.items() if name in needed}
    outcomes = {name: _outcome(engine, batch, prompts) for name, engine in engines.items()}
    spent = _times(engines, batch, rounds, steps)
    rows = []
    for name in names:
        times, against = spent[name], REFERENCES[name]
        low, middle, high = statistics.quantiles(times, n=4, method="inclusive")
        row: Row = {"model": model, "condition": name, "seeds": [seed], "checkpointing": checkpointing}
        row |= {"milliseconds": round(1e3 * middle, 2), "quartiles": [round(1e3 * t, 2) for t in (low, high)]}
        relative = [own / plain for own, plain in zip(times, spent["plain hooks"])]
        row |= {"times_plain": round(statistics.median(relative), 3), "rounds": rounds, "steps": steps}
        row |= {} if batch_size == ROWS else {"batch_size": batch_size}
        if against is not None:
            row |= {"against": against} | _differences(outcomes[name], outcomes[against])
        rows.append(row)
    return rows


class _Engine:
    """One way to compute under an ablation: logits, with gradients kept on the weights, and answers."""

    def __init__(
        self, model: nn.Module, logits: Callable[[Batch], Tensor], answers: Callable[[list], list[str]]
    ):
        self.model, self.logits, self.answers = model, logits, answers
        self.trained = [value for value in model.parameters() if value.requires_grad]


def _engines(
    tuned: nn.Module, wrapped: nn.Module, tokenizer: Any, directions: Directions
) -> dict[str, _Engine]:
    greedy = {"temperature": 0, "max_new_tokens": NEW_TOKENS}
    traced = traces.trace_model(wrapped, tokenizer)

    def hooked(context: Callable[[], Any]) -> _Engine:
        def logits(batch: Batch) -> Tensor:
            with context():
                out = _forward(tuned, batch)
                _loss(out, batch).backward()
            return out

        def answers(prompts: list) -> list[str]:
            with context():
                return generate(tuned, tokenizer, prompts, **greedy)

        return _Engine(tuned, logits, answers)

    def traced_by(during: Intervention, remote: traces.Where) -> _Engine:
        nnsight, edit_here = traces.import_nnsight(), traces.trace_edit(traced, during)

        def logits(batch: Batch) -> Tensor:
            rows = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}
            with traced.trace(**rows, use_cache=False, remote=remote):
                edit_here()
                out = nnsight.save(traced.output.logits)
                _loss(out, batch).backward()
            return out

        answers = partial(traces.generate, traced, tokenizer, during=during, remote=remote, **greedy)
        return _Engine(wrapped, logits, answers)

    spared, included = ablate(directions), ablate(directions, sinks="include")
    return {
        "no ablation": hooked(nullcontext),
        "plain hooks": hooked(partial(_plain_hooks, tuned, directions)),
        "intervention": hooked(partial(included.on, tuned)),
        "NNsight": traced_by(included, False),
        "NNsight, serialised": traced_by(included, "local"),
        "intervention, sinks spared": hooked(partial(spared.on, tuned)),
        "NNsight, sinks spared": traced_by(spared, False),
    }


@contextmanager
def _plain_hooks(model: nn.Module, directions: Directions) -> Iterator[None]:
    device = next(model.parameters()).device
    bases = {layer: directions[layer].to(device) for layer in directions.layers}
    with edit(model, {layer: partial(_without, basis) for layer, basis in bases.items()}):
        yield


def _without(basis: Tensor, hidden: Tensor) -> Tensor:
    return hidden - (hidden @ basis.T) @ basis


def _forward(model: nn.Module, batch: Batch) -> Tensor:
    return model(input_ids=batch.input_ids, attention_mask=batch.attention_mask, use_cache=False).logits


def _loss(logits: Tensor, batch: Batch) -> Tensor:
    return answer_nats(logits, batch).sum() / batch.answer[:, 1:].sum()


def _outcome(engine: _Engine, batch: Batch, prompts: list) -> dict[str, Any]:
    engine.model.zero_grad()
    logits = engine.logits(batch).detach()
    gradients = [value.grad.clone() for value in engine.trained]
    return {"logits": logits, "gradients": gradients, "answers": engine.answers(prompts)}


def _differences(one: dict[str, Any], other: dict[str, Any]) -> Row:
    pairs = zip(one["gradients"], other["gradients"], strict=True)
    return {
        "logits": (one["logits"] - other["logits"]).abs().max().item(),
        "gradients": max((a - b).abs().max().item() for a, b in pairs),
        "same_answers": sum(a == b for a, b in zip(one["answers"], other["answers"], strict=True)),
        "answers": len(one["answers"]),
    }


def _times(engines: dict[str, _Engine], batch: Batch, rounds: int, steps: int) -> dict[str, list[float]]:
    """Return the seconds of a step in each round, after one round that is not counted."""
    optimizers = {name: torch.optim.AdamW(engine.trained, lr=0.0) for name, engine in engines.items()}
    spent: dict[str, list[float]] = {name: [] for name in engines}
    for turn in range(rounds + 1):
        for name, engine in engines.items():
            optimizer, started = optimizers[name], time.perf_counter()
            for _ in range(steps):
                optimizer.zero_grad()
                engine.logits(batch)
                optimizer.step()
            if batch.input_ids.is_cuda:
                torch.cuda.synchronize()
            if turn:
                spent[name].append((time.perf_counter() - started) / steps)
    return spent


def _directions(base: nn.Module, model: str, seed: int) -> Directions:
    generator = torch.Generator().manual_seed(seed)
    return Directions(
        {layer: torch.randn(RANK, width(base), generator=generator) for layer in preset(model).layers}
    )


def _adapted(base: nn.Module, config: Any, seed: int, checkpointing: bool) -> nn.Module:
    """Return the model with an adapter that changes its output, in training mode."""
    tuned, generator = trainable_copy(base, config, seed), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in tuned.named_parameters():
            if "lora_B" in name:
                value += 0.01 * torch.randn(value.shape, generator=generator).to(value.device)
    if checkpointing:
        tuned.gradient_checkpointing_enable()
    return tuned.train()
