"""Time and memory of CAFT at full size: training steps under ablation, and reading a model by PCA.

Models of full shape have random weights (course/shapes.py), because time and memory do not depend on the
values of the weights. Three conditions:

    training                      steps of `finetune`'s trainer by the recipe of the shape's preset, with
                                  gradient checkpointing; plain and ablated steps take turns in one run
    training, no checkpointing    the same without it
    reading                       `pca_of_difference` of a fine-tuned model and its base, beside the forward
                                  passes that it needs, which end at the last layer that is read
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from statistics import median

import torch

from caft_utils.arguments import whole
from caft_utils.course.shapes import Shape, random_chats, random_model, shape
from caft_utils.course.studies.device_timing import (
    alternating_steps,
    device_facts,
    free_memory,
    peak_memory,
    seconds_of,
)
from caft_utils.course.studies.study_rows import Row, chosen_conditions
from caft_utils.directions import Directions, pca_of_difference
from caft_utils.directions.pca import principal_axes
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
        free_memory(where)
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
        rows.append({"model": model, "condition": condition, **device_facts(where, dtype), **measured})
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
        turns = alternating_steps(tuned, during, device, stack)
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
        "peak_bytes": peak_memory(device),
        "seconds_of_steps": {name: _rounded(turns.seconds[name]) for name in turns.seconds},
    }


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
        first = seconds_of(device, lambda: forward(chats))
        recorded = seconds_of(device, lambda: record(chats))
        components = seconds_of(device, lambda: pca(chats, timed))
        second = seconds_of(device, lambda: forward(chats))
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
        "peak_bytes": peak_memory(device),
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
    return seconds_of(device, lambda: principal_axes(scatter, COMPONENTS))


def _rounded(values: Sequence[float]) -> list[float]:
    return [round(value, 6) for value in values]
