"""Estimate the cost of an experiment before it runs: memory, time, disk, tokens and judge calls.

    python -m caft_utils plan Qwen/Qwen2.5-Coder-32B-Instruct --tokens-a-second 2000 --gpus 4

The estimate needs only the config of the model and the recipe of its preset; no weights are loaded. Memory is
traced (memory.py). Time needs a speed, which `python -m caft_utils.course.studies.scale` measures.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from caft_utils.arguments import number, whole
from caft_utils.course.memory import StepMemory, step_memory
from caft_utils.course.shapes import Shape, all_shapes, shape
from caft_utils.finetuning.checkpoints import KEPT
from caft_utils.text_files import read_json

GIB = 1 << 30


@dataclass(frozen=True)
class Workload:
    """The size of one experiment. The defaults are those of the paper's emergent-misalignment experiment.

    Attributes:
        rows, length: rows to train on and tokens of each. The paper's are at most 2048 tokens long.
        runs: fine-tuning runs: conditions times seeds.
        reading_rows: rows of generic text, of `length` tokens, that both models read for PCA.
        answers: number of answers of each run, 24 questions with 100 samples each. answer_tokens: tokens of
            an answer.
        judgements: judge calls for each answer, for alignment and coherence.
        judge_tokens: tokens of one call.
    """

    rows: int = 5000
    length: int = 512
    runs: int = 10
    reading_rows: int = 837
    answers: int = 2400
    answer_tokens: int = 300
    judgements: int = 2
    judge_tokens: int = 700

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            object.__setattr__(self, name, whole(name, value, 0 if name != "length" else 2))


def cost_plan(
    one: Shape,
    work: Workload | None = None,
    *,
    gpus: int = 1,
    tokens_a_second: float | None = None,
    judge_price: float | None = None,
) -> dict[str, Any]:
    """Return the costs of an experiment by name, in bytes, seconds, tokens, calls and dollars.

    Args:
        tokens_a_second: training speed on one GPU. None: leave out the time.
        judge_price: dollars per million judge tokens. None: leave out the cost.
    """
    work, gpus = work or Workload(), whole("gpus", gpus, 1)
    config, size = one.settings.finetune_config, one.transformers_config().hidden_size
    memory = {
        saving: step_memory(one, replace(config, gradient_checkpointing=saving), work.length)
        for saving in (True, False)
    }
    chosen = memory[config.gradient_checkpointing]
    sae = one.settings.sae
    trained_tokens = round(work.rows * config.epochs) * work.length
    calls = work.runs * work.answers * work.judgements
    costs: dict[str, Any] = {
        "parameters": chosen.parameters,
        "trained_parameters": chosen.trained_parameters,
        "memory": {
            "weights": chosen.weights,
            "trained weights": chosen.trained,
            "gradients": chosen.gradients,
            "optimiser": chosen.optimizer,
            "activations, checkpointing": memory[True].activations,
            "activations, no checkpointing": memory[False].activations,
            "peak, checkpointing": memory[True].peak,
            "peak, no checkpointing": memory[False].peak,
            "covariances of PCA": len(one.layers) * size * size * 8,  # float64
            "SAEs": len(one.layers) * (2 * size * sae.latents + size + sae.latents) * 4 if sae else 0,
        },
        "optimiser steps": config.total_steps(work.rows),
        "tokens": {
            "training, one run": trained_tokens,
            "training, all runs": work.runs * trained_tokens,
            "reading, two models": 2 * work.reading_rows * work.length,
            "generated answers": work.runs * work.answers * work.answer_tokens,
            "judge": calls * work.judge_tokens,
        },
        "judge calls": calls,
        "disk": _disk(one, chosen, work.runs, config.method),
    }
    if gpus > 1:
        name = f"peak on each of {gpus} GPUs, weights shared"
        costs["memory"] |= {name: chosen.sharded(gpus)}
    if tokens_a_second is not None:
        seconds = trained_tokens / number("tokens_a_second", tokens_a_second, above=0)
        costs["seconds"] = {
            "training, one run, one GPU": seconds,
            f"training, all runs, {gpus} GPU{'s' * (gpus > 1)}": work.runs * seconds / gpus,
        }
    if judge_price is not None:
        price = number("judge_price", judge_price, 0)
        costs["judge dollars"] = price * calls * work.judge_tokens / 1e6
    return costs


def _disk(one: Shape, memory: StepMemory, runs: int, method: str) -> dict[str, int]:
    """Return the bytes on disk: weights, the results of each run, and the checkpoints of a running run."""
    return {
        "weights": memory.weights,
        "trained weights of all runs": runs * memory.trained,
        "checkpoints of a run": KEPT * (memory.trained + memory.optimizer),
    }


def measured_training(path: Path, one: Shape) -> list[dict[str, Any]]:
    """Return the training rows for this shape from a results file or the record of `scale`.

    The row with checkpointing comes first.

    Raises:
        ValueError: the file has no row with checkpointing.
    """
    content = read_json(path)
    content = content["rows"] if isinstance(content, dict) else content
    rows = [row for row in content if shape(row["model"]) is one and "plain_step" in row]
    if not rows or rows[0]["condition"] != "training":
        raise ValueError(f"{path} has no row of training for this model; measure it with the study scale")
    return rows


def peak_over_estimate(row: dict[str, Any]) -> float | None:
    """Return the ratio of measured to estimated peak memory for a row of `scale`; None if not measured."""
    if row["peak_bytes"] is None:
        return None
    one = shape(row["model"])
    config = replace(
        one.settings.finetune_config,
        batch_size=row["batch_size"],
        gradient_checkpointing=row["condition"] == "training",
        bf16=row["dtype"] != "float32",
    )
    return row["peak_bytes"] / step_memory(one, config, row["length"], dtype=row["dtype"]).peak


def lines(costs: dict[str, Any], indent: str = "") -> list[str]:
    """Return the costs as lines of text, bytes in GiB."""
    out = []
    for name, value in costs.items():
        if isinstance(value, dict):
            out += [f"{indent}{name}"] + lines(_readable(name, value), indent + "  ")
        else:
            out.append(f"{indent}{name}: {value if isinstance(value, str) else _number(value)}")
    return out


def _readable(name: str, values: dict[str, float]) -> dict[str, Any]:
    if name in ("memory", "disk"):
        return {key: f"{value / GIB:.2f} GiB" for key, value in values.items()}
    if name == "seconds":
        return {key: f"{value / 3600:.2f} hours" for key, value in values.items()}
    return values


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:,.2f}"


def main(arguments: list[str] | None = None) -> int:
    """Print the plan of a model and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m caft_utils plan", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("model", help=f"a shape ({', '.join(all_shapes())}) or the preset of one")
    parser.add_argument("--gpus", type=int, default=1)
    parser.add_argument("--tokens-a-second", type=float, help="of training on one GPU")
    parser.add_argument("--measured", type=Path, metavar="FILE.json", help="rows of the study scale")
    parser.add_argument("--judge-price", type=float, metavar="DOLLARS", help="for a million tokens")
    for name, default in vars(Workload()).items():
        parser.add_argument(
            f"--{name.replace('_', '-')}", type=int, default=default, help=f"default {default}"
        )
    parser.add_argument("--json", action="store_true", help="print JSON, in bytes and seconds")
    options = parser.parse_args(arguments)
    try:
        one = shape(options.model)
        work = Workload(**{name: getattr(options, name) for name in vars(Workload())})
        speed = options.tokens_a_second
        rows = measured_training(options.measured, one) if options.measured is not None else []
        speed = rows[0]["tokens_a_second"] if rows else speed
        costs = cost_plan(
            one, work, gpus=options.gpus, tokens_a_second=speed, judge_price=options.judge_price
        )
        peaks = {row["condition"]: peak_over_estimate(row) for row in rows}
        if any(peaks.values()):
            costs["measured peak over its estimate"] = peaks
    except (FileNotFoundError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    print(json.dumps(costs, indent=1) if options.json else "\n".join(lines(costs)))
    return 0
