"""Windows: `make claims CLAIM=windows` measures what one streaming pass costs, and what it spares.

16,384 random unit directions at one layer of the classroom model. The alternative is to store all projections
first and to search them then, in six ways (windows_ways.py).

All have the same directions, model, tokens and outputs, histograms too. Each measurement runs in a process
of its own with one thread, so that its peak memory is its own; times are seconds of processor time, which
other programs on the machine change little, and seconds on the clock, which count a wait for the disk.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import random
import resource
import time
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import torch
from windows_ways import (
    COUNT,
    LAYER,
    WIDTH,
    N,
    hidden_by_64,
    hidden_one_by_one,
    in_memory,
    listed,
    on_disk,
    padded,
)

from caft_utils import load
from caft_utils.chats import Chats
from caft_utils.course.records import save_record
from caft_utils.interpret.examples.max_activating import extreme_windows
from caft_utils.residual import stream_activations

TOKENS = int(os.environ.get("CAFT_WINDOWS_TOKENS", 100_000))  # what storing needs 6.5 GB of memory for
SOME = TOKENS // 10  # for the ways that need many times more
FEW, MANY = 200_000, 1_000_000


class Frame:
    """Random unit vectors, many more than the residual stream has dimensions."""

    noun, signed, layers = "direction", True, [LAYER]

    def __init__(self, width: int):
        rows = torch.randn(COUNT, width, generator=torch.Generator().manual_seed(0))
        self.rows = rows / rows.norm(dim=1, keepdim=True)

    def indices(self, layer):
        return list(range(COUNT))

    def values(self, layer, hidden):
        return hidden @ self.rows.T

    def projection_rows(self, layer):
        return self.rows

    def vector(self, layer, i):
        return self.rows[i]


def setting(tokens: int):
    """The model, documents of its corpus of so many tokens in all, and the directions."""
    from caft_utils.classroom.personas.corpus import document

    torch.set_num_threads(1)
    model, tokenizer = load("classroom")
    rng, rows, total = random.Random(0), [], 0
    while total < tokens:
        part = Chats(tokenizer, [document(rng) for _ in range(500)])
        rows += part._examples
        total += sum(len(example.input_ids) for example in part)
    chats = Chats(tokenizer, [])
    total = 0
    for example in rows:
        total += len(example.input_ids)
        if total > tokens:
            break
        chats._examples.append(example)
    chats.rows = [{}] * len(chats._examples)
    return model, chats, Frame(model.config.hidden_size)


def measured(how, tokens: int, of: int) -> dict:
    """What `how(model, chats, frame)` finds, with its seconds and its memory; runs in a new process."""
    model, chats, frame = setting(of)
    ends = itertools.accumulate(len(example.input_ids) for example in chats)
    chats = chats[: sum(end <= tokens for end in ends)]
    for _ in stream_activations(model, chats[:4], [LAYER]):  # what the first forward pass allocates once
        pass
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    wall, cpu = time.perf_counter(), time.process_time()
    found = how(model, chats, frame)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    count = sum(len(example.input_ids) for example in chats)
    more = {"tokens": count, "rows": len(chats), "cpu": cpu, "wall": wall}
    return {"found": found, **more, "peak": peak / 1024, "grown": (peak - before) / 1024}


def apart(how, tokens: int, of: int | None = None) -> dict:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(measured, how, tokens, of or tokens).result()


def streaming(model, chats, frame):
    return extreme_windows(model, chats, frame, n=N, width=WIDTH).layers[LAYER]


def arrays(kept):
    """Rows and positions [COUNT, 2, N], values [COUNT, 2, N, WIDTH], counts [COUNT, BINS]."""
    places = np.zeros((2, COUNT, 2, N), dtype=np.int64)
    values = np.zeros((COUNT, 2, N, WIDTH), dtype=np.float32)
    for side, best in enumerate(kept.ends):
        for i in range(COUNT):
            for rank, (row, position, _, window) in enumerate(best.windows(i)):
                places[:, i, side, rank] = row, position
                values[i, side, rank, : len(window)] = window
    return *places, values, kept.histogram.counts.numpy()


def say(name: str, got: dict) -> dict:
    """Print a measurement, and give it as a row of the record."""
    speed = got["tokens"] / got["cpu"]
    print(
        f"{name:>50}: {got['tokens']:>9,} tokens, {got['cpu']:7.1f} s of processor, "
        f"{got['wall']:7.1f} s wall, {speed:6.0f} tokens/s, peak {got['peak']:6.0f} MiB "
        f"(+{got['grown']:.0f})",
        flush=True,
    )
    row = {"model": "classroom-qwen", "condition": name, "directions": COUNT, "tokens": got["tokens"]}
    return row | {
        "processor_seconds": round(got["cpu"], 1),
        "wall_seconds": round(got["wall"], 1),
        "tokens_per_second": round(speed),
        "peak_mib": round(got["peak"]),
        "grown_mib": round(got["grown"]),
    }


def differences(streamed, stored) -> dict[str, float]:
    """Share of windows at the same place, the largest difference of a value there, tokens in another bin."""
    same = (streamed[0] == stored[0]) & (streamed[1] == stored[1])
    apart = np.abs(streamed[2] - stored[2])[same].max()
    moved = np.abs(streamed[3] - stored[3]).sum() / 2
    return {"same": float(same.mean()), "apart": float(apart), "moved": float(moved / stored[3].sum())}


STORING = {
    "all projections in memory": (in_memory, TOKENS),
    "all projections on disk": (on_disk, TOKENS),
    "hidden states, projected 64 at a time": (hidden_by_64, TOKENS),
    "hidden states, projected one by one": (hidden_one_by_one, TOKENS),
    "all projections in a padded tensor": (padded, SOME),
    "all projections in a list with locations": (listed, SOME),
}


def test_windows_of_one_pass_are_those_of_storing_first():
    started, rows, passes, slower = time.time(), [], {}, {}
    for tokens in (TOKENS, SOME):
        passes[tokens] = apart(streaming, tokens)
        rows.append(say(f"one pass over {tokens:,} tokens", passes[tokens]))
        passes[tokens]["found"] = arrays(passes[tokens]["found"])
    for name, (how, tokens) in STORING.items():
        got, stored = passes[tokens], apart(how, tokens)
        assert got["tokens"] == stored["tokens"]
        ratios = {f"slower_{clock}": round(stored[clock] / got[clock], 2) for clock in ("cpu", "wall")}
        other = differences(got["found"], stored["found"])
        rows.append(say(name, stored) | ratios | other)
        print(
            f"{'':>50}  {ratios['slower_cpu']} times one pass, {ratios['slower_wall']} on the clock; {other}"
        )
        slower[name] = ratios["slower_cpu"]
        if how not in (hidden_by_64, hidden_one_by_one):
            assert other == {"same": 1.0, "apart": 0.0, "moved": 0.0}
        else:  # a product of other shape rounds otherwise: a near tie may then fall the other way
            assert other["same"] > 0.999 and other["apart"] < 1e-3 and other["moved"] < 1e-5
    save_record("windows", rows, seconds=time.time() - started)
    assert min(slower.values()) > 1
    published = ("all projections in a padded tensor", "all projections in a list with locations")
    assert min(slower[name] for name in published) > 5


def test_windows_memory_does_not_grow_with_the_text():
    started, rows, grown = time.time(), [], []
    for tokens in (FEW, MANY):
        got = apart(streaming, tokens, of=MANY)
        rows.append(say(f"one pass over {tokens:,} tokens", got) | {"model": "classroom-qwen, memory"})
        grown.append(got["grown"])
    save_record("windows", rows, seconds=time.time() - started)
    assert grown[1] - grown[0] < 32, f"{FEW} tokens took {grown[0]:.0f} MiB, {MANY} took {grown[1]:.0f}"
