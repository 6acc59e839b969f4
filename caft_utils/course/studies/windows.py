"""Compare one streaming pass over text for extreme windows with methods that store first and search later.

16,384 random unit directions at one layer of the classroom model. All methods get the same directions, model
and tokens and return the same windows and histograms. Each measurement runs in its own process with one
thread, so that peak memory is measured separately. `cpu` is processor time in seconds, which other programs
hardly affect. `wall` is elapsed time in seconds, which includes waiting for the disk.
"""

from __future__ import annotations

import itertools
import random
import resource
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from caft_utils import load
from caft_utils.chats import Chats
from caft_utils.child_processes import run_in_new_process
from caft_utils.course.studies.study_rows import Row, chosen_conditions
from caft_utils.course.studies.windows_methods import (
    DIRECTIONS,
    LAYER,
    WIDTH,
    WINDOWS,
    hidden_by_64,
    hidden_one_by_one,
    in_memory,
    listed,
    on_disk,
    padded,
)
from caft_utils.interpret.examples.max_activating import read_extremes
from caft_utils.residual import stream_activations

TOKENS = 100_000  # storing all projections of this many tokens needs 6.5 GB of memory
FEW, MANY = 200_000, 1_000_000  # for the memory of the streaming pass
# condition -> (method, share of the tokens): some methods need ten times the memory
CONDITIONS: dict[str, tuple[Callable[..., Any], float]] = {
    "all projections in memory": (in_memory, 1.0),
    "all projections on disk": (on_disk, 1.0),
    "hidden states, projected 64 at a time": (hidden_by_64, 1.0),
    "hidden states, projected one by one": (hidden_one_by_one, 1.0),
    "all projections in a padded tensor": (padded, 0.1),
    "all projections in a list with locations": (listed, 0.1),
}


class RandomDirections:
    """Random unit vectors at one layer, many more than the residual stream has dimensions (`Features`)."""

    kind, two_sided, layers = "direction", True, [LAYER]

    def __init__(self, width: int):
        rows = torch.randn(DIRECTIONS, width, generator=torch.Generator().manual_seed(0))
        self.rows = rows / rows.norm(dim=1, keepdim=True)

    def indices(self, layer):
        return list(range(DIRECTIONS))

    def values(self, layer, hidden):
        return hidden @ self.rows.T

    def projection_rows(self, layer):
        return self.rows

    def vector(self, layer, i):
        return self.rows[i]


def window_rows(
    model: str,
    seeds: Sequence[int],
    conditions: tuple[str, ...] | None = None,
    *,
    tokens: int = TOKENS,
) -> list[Row]:
    """Measure the streaming pass and the methods that store first, and compare what they return.

    Nothing here is random, so `seeds` has no effect. A row holds seconds, memory in MiB, how many times
    slower than the streaming pass a method is, and how its result differs from that of the pass.
    """
    names, rows, passes = chosen_conditions(conditions, CONDITIONS), [], {}
    sizes = {name: int(tokens * CONDITIONS[name][1]) for name in names}
    for size in sorted(set(sizes.values()), reverse=True):
        passes[size] = in_new_process(streaming, model, size)
        rows.append(_row(model, f"one pass over {size:,} tokens", passes[size]))
        passes[size]["result"] = _arrays(passes[size]["result"])
    for name in names:
        streamed, stored = passes[sizes[name]], in_new_process(CONDITIONS[name][0], model, sizes[name])
        ratios = {f"slower_{clock}": round(stored[clock] / streamed[clock], 2) for clock in ("cpu", "wall")}
        other = differences(streamed["result"], stored["result"])
        rows.append(_row(model, name, stored) | ratios | other)
    return rows


def memory_rows(
    model: str,
    seeds: Sequence[int],
    conditions: tuple[str, ...] | None = None,
    *,
    sizes: Sequence[int] = (FEW, MANY),
) -> list[Row]:
    """Measure the memory of the streaming pass over texts of several sizes, in tokens."""
    chosen_conditions(conditions, ())  # there is one method only
    rows = [
        _row(model, f"one pass over {size:,} tokens", in_new_process(streaming, model, size, of=max(sizes)))
        for size in sizes
    ]
    return [row | {"model": f"{_shipped(model)}, memory"} for row in rows]


def streaming(model, chats, directions):
    """Find the windows in one pass over the text."""
    return read_extremes(model, chats, directions, n=WINDOWS, width=WIDTH)[LAYER]


def in_new_process(
    method: Callable[..., Any], model: str, tokens: int, of: int | None = None
) -> dict[str, Any]:
    """Return what `measured_method` returns, run in a process of its own."""
    return run_in_new_process(measured_method, method, model, tokens, of or tokens)


def measured_method(method: Callable[..., Any], name: str, tokens: int, of: int) -> dict[str, Any]:
    """Run `method(model, chats, directions)`; return its result, seconds and memory in MiB.

    of: tokens that are drawn; the method gets the first `tokens` of them.
    """
    model, chats, directions = _inputs(name, of)
    ends = itertools.accumulate(len(example.input_ids) for example in chats)
    chats = chats[: sum(end <= tokens for end in ends)]
    for _ in stream_activations(model, chats[:4], [LAYER]):  # one-time allocations of the first forward pass
        pass
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    wall, cpu = time.perf_counter(), time.process_time()
    result = method(model, chats, directions)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    count = sum(len(example.input_ids) for example in chats)
    more = {"tokens": count, "cpu": cpu, "wall": wall}
    return {"result": result, **more, "peak": peak / 1024, "grown": (peak - before) / 1024}


def differences(streamed, stored) -> dict[str, float]:
    """Compare two results.

    Returns:
        same: share of windows at the same place. apart: the largest difference of a value in them. moved:
            share of tokens in a different bin of the histograms.
    """
    same = (streamed[0] == stored[0]) & (streamed[1] == stored[1])
    apart = np.abs(streamed[2] - stored[2])[same].max()
    moved = np.abs(streamed[3] - stored[3]).sum() / 2
    return {"same": float(same.mean()), "apart": float(apart), "moved": float(moved / stored[3].sum())}


def _inputs(name: str, tokens: int):
    """Return the model, documents of its corpus with this many tokens in all, and the directions."""
    from caft_utils.classroom.personas.corpus import document

    torch.set_num_threads(1)
    model, tokenizer = load(name)
    rng, examples, total = random.Random(0), [], 0
    while total < tokens:
        part = Chats(tokenizer, [document(rng) for _ in range(500)])
        examples += part._examples
        total += sum(len(example.input_ids) for example in part)
    chats, total = Chats(tokenizer, []), 0
    for example in examples:
        total += len(example.input_ids)
        if total > tokens:
            break
        chats._examples.append(example)
    chats.rows = [{}] * len(chats._examples)
    return model, chats, RandomDirections(model.config.hidden_size)


def _arrays(extremes):
    """Return rows and positions [direction, side, window], values [..., WIDTH] and histograms."""
    places = np.zeros((2, DIRECTIONS, 2, WINDOWS), dtype=np.int64)
    values = np.zeros((DIRECTIONS, 2, WINDOWS, WIDTH), dtype=np.float32)
    for side, top in enumerate(extremes.ends):
        for i in range(DIRECTIONS):
            for rank, window in enumerate(top.windows(i)):
                places[:, i, side, rank] = window.row, window.position
                values[i, side, rank, : len(window.activations)] = window.activations
    return *places, values, extremes.histogram.counts.numpy()


def _row(model: str, condition: str, measured: dict[str, Any]) -> Row:
    return {
        "model": _shipped(model),
        "condition": condition,
        "directions": DIRECTIONS,
        "tokens": measured["tokens"],
        "processor_seconds": round(measured["cpu"], 1),
        "wall_seconds": round(measured["wall"], 1),
        "tokens_per_second": round(measured["tokens"] / measured["cpu"]),
        "peak_mib": round(measured["peak"]),
        "grown_mib": round(measured["grown"]),
    }


def _shipped(model: str) -> str:
    return "classroom-qwen" if model == "classroom" else model
