"""Measure the cost of CAFT at full size: training steps under ablation, and reading a model by PCA.

    python -m caft_utils.course.studies.scale --shape 0.5B 7B 32B --device cuda --out results.json

measures models of full shape with random weights (course/shapes.py), because time and memory do not depend on
the values of the weights. Three conditions:

    training                      steps of `finetune`'s trainer by the recipe of the shape's preset, with
                                  gradient checkpointing; plain and ablated steps take turns in one run
    training, no checkpointing    the same without it
    reading                       `pca_of_difference` of a fine-tuned model and its base, beside the forward
                                  passes that it needs, which end at the last layer that is read

Every shape runs in its own process, so a shape that does not fit into memory does not affect the others.
"""

from __future__ import annotations

import argparse
import gc
import json
import platform
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from statistics import median

import torch

from caft_utils.arguments import refuse_unknown, whole
from caft_utils.course.shapes import Shape, random_chats, random_model, shape, shapes
from caft_utils.course.studies.experiment import Row, chosen_conditions
from caft_utils.directions import Directions, pca_of_difference
from caft_utils.directions.pca import principal_axes
from caft_utils.disk import write_atomically
from caft_utils.finetune_config import FinetuneConfig
from caft_utils.finetuning.adapters import trainable_copy
from caft_utils.interventions import ablate
from caft_utils.models import name_model
from caft_utils.residual import capture, stream_activations, width
from caft_utils.store import Store

CONDITIONS = ("training", "training, no checkpointing", "reading")
WARM_UP = 3  # steps of each kind that are not counted
RANK = 2  # ablated directions per layer, as in the paper's run on Qwen2.5-Coder-32B
COMPONENTS = 8


def scale_rows(
    model: str,
    seeds: Sequence[int],
    conditions: tuple[str, ...] | None,
    *,
    device: str | None = None,
    dtype: str | None = None,
    batch_size: int | None = None,
    accumulate: int = 1,
    length: int | None = None,
    steps: int | None = None,
    reading_batch_size: int | None = None,
    tokens: int | None = None,
) -> list[Row]:
    """Measure one shape and return a row for each condition.

    Args:
        model: the name of a shape (shapes.yaml).
        seeds: only the first one is used, for the random weights and tokens.
        device: default: a GPU if there is one.
        dtype: dtype of the weights; default: from the preset. "float32" also disables bfloat16 computation.
        batch_size, accumulate, length: rows of a forward pass, forward passes of an optimiser step, and
            tokens of a row, in training. The recipe of the presets has 2 and 8.
        steps: optimiser steps of each kind that are timed.
        reading_batch_size, tokens: rows of a forward pass and tokens in all, in reading.

    Returns:
        Rows with the times in seconds, their ratio, tokens a second, and on a GPU the peak memory in bytes.

    Raises:
        ValueError: the shape or a condition is unknown, or there are fewer than 2 steps.
        torch.cuda.OutOfMemoryError: the GPU is too small.
    """
    one = shape(model)
    given = {
        "batch_size": batch_size,
        "length": length,
        "steps": steps,
        "reading_batch_size": reading_batch_size,
        "tokens": tokens,
    }
    size = {name: one.check[name] if value is None else value for name, value in given.items()}
    whole("steps", size["steps"], 2)  # the times of equal steps are compared too
    where = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    dtype = dtype or one.settings.dtype
    rows = []
    for condition in chosen_conditions(conditions or one.check.get("conditions"), CONDITIONS):
        _free(where)
        if condition == "reading":
            measured = _reading(one, where, dtype, seeds[0], size)
        else:
            config = replace(
                one.settings.finetune_config,
                batch_size=size["batch_size"],
                accumulate=accumulate,
                gradient_checkpointing=condition == "training",
                bf16=dtype != "float32",
                steps=2 * (WARM_UP + size["steps"]) + 1,  # the last one only ends the one before
            )
            measured = _training(one, config, where, dtype, seeds[0], size["length"])
        rows.append({"model": model, "condition": condition, **_setting(where, dtype), **measured})
    return rows


def _training(
    one: Shape, config: FinetuneConfig, device: torch.device, dtype: str, seed: int, length: int
) -> Row:
    """Time plain and ablated optimiser steps of one run, in turns."""
    from caft_utils.finetuning.trainer import train

    base = random_model(one, device, dtype=dtype, seed=seed)
    rows_a_step = config.batch_size * config.accumulate
    chats = random_chats(4 * rows_a_step, length, base.config.vocab_size, seed=seed)
    tuned = trainable_copy(base, config, seed)
    during = ablate(random_directions(one, width(base), seed))
    with tempfile.TemporaryDirectory() as work, ExitStack() as stack:
        turns = _turns(tuned, during, device, stack)
        train(
            tuned,
            chats,
            config,
            during=None,
            objective=None,
            prefix=None,
            seed=seed,
            snapshots=(),
            save=lambda folder: None,
            work=Path(work),
            progress=False,
            save_every=config.steps + 1,
            callbacks=[turns],
        )
    plain, ablated = (turns.seconds[name][WARM_UP:] for name in ("plain", "ablated"))
    trained = [value for value in tuned.parameters() if value.requires_grad]
    return {
        "batch_size": config.batch_size,
        "accumulate": config.accumulate,
        "length": length,
        "steps": len(plain),
        "plain_step": median(plain),
        "ablated_step": median(ablated),
        "ratio": median(ablated) / median(plain),
        # ratio of two medians of equal steps: a ratio that is closer to 1 than this shows no difference
        "ratio_of_equal_steps": median(plain[::2]) / median(plain[1::2]),
        "tokens_a_second": rows_a_step * length / median(ablated),
        "parameters": sum(value.numel() for value in base.parameters()),
        "trained_parameters": sum(value.numel() for value in trained),
        "trained_bytes": sum(value.numel() * value.element_size() for value in trained),
        "weights_bytes": sum(value.numel() * value.element_size() for value in base.parameters()),
        "peak_bytes": _peak(device),
        "seconds_of_steps": {name: _rounded(turns.seconds[name]) for name in turns.seconds},
    }


def _turns(model, during, device: torch.device, stack: ExitStack):
    """Return a Trainer callback that switches the ablation on in every second step and times the steps.

    A step lasts until the next one begins, so it includes the batch, the update and the logging. Switching is
    not included, because a real run switches once.
    """
    from transformers import TrainerCallback

    class Turns(TrainerCallback):
        def __init__(self):
            self.seconds: dict[str, list[float]] = {"plain": [], "ablated": []}
            self.open: tuple[str, float] | None = None

        def on_step_begin(self, args, state, control, **_):
            _synchronise(device)
            if self.open is not None:
                name, started = self.open
                self.seconds[name].append(time.perf_counter() - started)
            stack.close()
            name = ("plain", "ablated")[state.global_step % 2]
            if name == "ablated":
                stack.enter_context(during.on(model))
            _synchronise(device)
            self.open = (name, time.perf_counter())

    return Turns()


def _reading(one: Shape, device: torch.device, dtype: str, seed: int, size: dict[str, int]) -> Row:
    """Time the forward passes of two models up to the last layer, streams of them, and PCA."""
    base = random_model(one, device, dtype=dtype, seed=seed)
    tuned = _perturbed(trainable_copy(base, one.settings.finetune_config, seed), seed)
    name_model(base, f"random {one.preset}, seed {seed}")
    name_model(tuned, f"random adapter on {base.caft_id}")
    batch_size, length = size["reading_batch_size"], 512
    length = min(length, size["tokens"] // batch_size)
    chats = random_chats(-(-size["tokens"] // length), length, base.config.vocab_size, seed=seed)
    few, layers = chats[: 2 * batch_size], list(one.layers)

    def forward(rows) -> None:
        for batch in rows.batches(batch_size, device=device):
            for model in (base, tuned):
                with torch.no_grad(), capture(model, layers[-1:]):
                    model(input_ids=batch.input_ids, attention_mask=batch.attention_mask, use_cache=False)

    def record(rows) -> None:
        for model in (base, tuned):
            for _ in stream_activations(model, rows, layers, batch_size=batch_size):
                pass

    def pca(rows, store: Store) -> None:
        pca_of_difference(tuned, base, rows, layers, k=COMPONENTS, batch_size=batch_size, store=store)

    with tempfile.TemporaryDirectory() as folder:
        warm, timed = (Store(Path(folder) / name) for name in ("warm-up", "timed"))
        forward(few), record(few), pca(few, warm)
        first = _seconds(device, lambda: forward(chats))
        recorded = _seconds(device, lambda: record(chats))
        components = _seconds(device, lambda: pca(chats, timed))
        second = _seconds(device, lambda: forward(chats))
    plain = (first + second) / 2
    return {
        "tokens": sum(chats.lengths),
        "layers": layers,
        "batch_size": batch_size,
        "length": length,
        "forward": plain,
        "recording": recorded,
        "pca": components,
        "ratio_of_recording": recorded / plain,
        "ratio": components / plain,
        "ratio_of_equal_forwards": second / first,
        "eigenvectors_of_one_layer": _eigenvector_seconds(width(base), device),
        "tokens_a_second": sum(chats.lengths) / components,
        "peak_bytes": _peak(device),
    }


def random_directions(one: Shape, size: int, seed: int, rank: int = RANK) -> Directions:
    """Return `rank` random directions at each layer of a shape."""
    generator = torch.Generator().manual_seed(seed)
    return Directions({layer: torch.randn(rank, size, generator=generator) for layer in one.layers})


def _perturbed(tuned: torch.nn.Module, seed: int) -> torch.nn.Module:
    """Give the zero matrices of a new adapter random entries, so that it changes the model's output."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in tuned.named_parameters():
            if "lora_B" in name:
                value.copy_(0.01 * torch.randn(value.shape, generator=generator))
    return tuned.eval()


def _eigenvector_seconds(size: int, device: torch.device) -> float:
    """Return the seconds that computing the components of one layer takes, given its covariance."""
    x = torch.randn(2 * size, size, device=device)
    scatter = (x.T @ x).double()
    return _seconds(device, lambda: principal_axes(scatter, COMPONENTS))


def _seconds(device: torch.device, work: Callable[[], object]) -> float:
    _synchronise(device)
    started = time.perf_counter()
    work()
    _synchronise(device)
    return time.perf_counter() - started


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _free(device: torch.device) -> None:
    """Free the memory of earlier conditions, and reset the peak counter."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def _peak(device: torch.device) -> int | None:
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None


def _setting(device: torch.device, dtype: str) -> Row:
    on_gpu = device.type == "cuda"
    machine = torch.cuda.get_device_name(device) if on_gpu else f"{platform.machine()} CPU"
    packages = {name: version(name) for name in ("torch", "transformers", "peft")}
    return {"machine": machine, "dtype": dtype, "weights": "random", **packages}


def _rounded(values: Sequence[float]) -> list[float]:
    return [round(value, 6) for value in values]


def measured_rows(options: argparse.Namespace) -> Iterator[Row]:
    """Yield one row or error for each shape and condition. Each of several shapes gets its own process."""
    names = ("device", "dtype", "batch_size", "accumulate", "length", "steps", "reading_batch_size", "tokens")
    sizes = {name: value for name in names if (value := getattr(options, name)) is not None}
    if len(options.shape) > 1:
        for name in options.shape:
            yield from _in_own_process(name, sizes, options.conditions)
        return
    one = options.shape[0]
    conditions = options.conditions or shape(one).check.get("conditions", CONDITIONS)
    for condition in conditions:
        started = time.monotonic()
        try:
            (row,) = scale_rows(one, [0], (condition,), **sizes)
        except Exception as error:  # any failure costs only this row
            traceback.print_exc()
            row = {"model": one, "condition": condition, "error": f"{type(error).__name__}: {error}"}
        yield {**row, "seconds": round(time.monotonic() - started, 1)}


def _in_own_process(name: str, sizes: Row, conditions: Sequence[str] | None) -> Iterator[Row]:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "rows.json"
        command = [sys.executable, "-m", __spec__.name, "--shape", name, "--out", str(out)]
        for option, value in sizes.items():
            command += [f"--{option.replace('_', '-')}", str(value)]
        if conditions:
            command += ["--conditions", *conditions]
        status = subprocess.run(command).returncode
        rows = json.loads(out.read_text()) if out.exists() else []
        yield from rows
        if status and not any("error" in row for row in rows):
            yield {"model": name, "error": f"its process ended with status {status}"}


def main(arguments: list[str] | None = None) -> int:
    """Measure shapes, print a line for each row, and return the exit status: 1 if a row is an error."""
    parser = argparse.ArgumentParser(prog="python -m caft_utils.course.studies.scale", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--shape", nargs="+", required=True, metavar="NAME", help=", ".join(shapes()))
    parser.add_argument("--conditions", nargs="+", choices=CONDITIONS, help="default: those of the shape")
    parser.add_argument("--device", help="default: cuda if there is a GPU, else cpu")
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), help="default: that of the preset")
    for name in ("batch-size", "accumulate", "length", "steps", "reading-batch-size", "tokens"):
        parser.add_argument(f"--{name}", type=int, help="see scale_rows; default: that of the shape")
    parser.add_argument("--out", type=Path, metavar="FILE.json", help="write the rows to this file")
    options = parser.parse_args(arguments)
    try:
        refuse_unknown("shapes", options.shape, shapes())
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    rows: list[Row] = []
    for row in measured_rows(options):
        rows.append(row)
        if len(options.shape) == 1 or "condition" not in row:  # the process of a shape has printed its rows
            print(json.dumps({k: v for k, v in row.items() if k != "seconds_of_steps"}), flush=True)
        if options.out:  # after every row, so that a kill loses one
            write_atomically(options.out, json.dumps(rows, indent=1) + "\n")
    return int(any("error" in row for row in rows))


if __name__ == "__main__":
    sys.exit(main())
