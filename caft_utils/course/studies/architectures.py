"""The emergent-misalignment experiment on each architecture of the paper, with random weights of small width.

An experiment fine-tunes, reads the change by PCA, loads SAEs from files in the layout of Gemma Scope, ranks
their latents, fine-tunes again under the ablation of both kinds of directions, writes greedy answers and
grades them. Random weights learn nothing from a few steps. So a row says nothing about CAFT, but that a
setting which must not change the result changes nothing but the rounding:

    gradient checkpointing    the experiment with it against the experiment without it
    bfloat16                  against float32; its rounding shows, so the losses are compared
    DDP, FSDP2                the ablated fine-tuning in two processes, as `accelerate launch` starts them,
                              against the one of a single process

The two processes of DDP and FSDP2 start once and train all architectures (architecture_processes.py).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from caft_utils import ablate, finetune, measure, preset
from caft_utils.course.studies.architecture_models import (
    ARCHITECTURES,
    LAYERS,
    WIDTH,
    random_architecture,
    small_task,
    write_gemma_scope,
)
from caft_utils.course.studies.study_rows import Row, chosen_conditions
from caft_utils.directions import Directions, pca_of_difference
from caft_utils.paths import data_path
from caft_utils.saes import latent_difference, published_saes, sae_directions
from caft_utils.store import Store

if TYPE_CHECKING:
    from torch import nn

DTYPES = ("float32", "bfloat16")
LAUNCHES = {"DDP": False, "FSDP2": True}  # name -> are the frozen weights shared?
CONDITIONS = (
    "gradient checkpointing, float32",
    "gradient checkpointing, bfloat16",
    "bfloat16 against float32",
    *(f"{launch}, {dtype}" for launch in LAUNCHES for dtype in DTYPES),
)
# The recipe of the paper's models, with fewer steps and a rate at which random weights move.
RECIPE = replace(
    preset("Qwen/Qwen2.5-Coder-32B-Instruct").finetune_config,
    r=4, lr=1e-3, steps=3, warmup_steps=0, batch_size=2, accumulate=2, gradient_checkpointing=False,
    bf16=False,
)  # fmt: skip


@dataclass
class Outcome:
    """What an experiment leaves: the ablated model, its losses by step, its answers and their verdicts."""

    tuned: nn.Module
    losses: list[float]
    answers: list[str]
    verdicts: list[str]


def architecture_rows(
    model: str, seeds: Sequence[int], conditions: tuple[str, ...] | None = None
) -> list[Row]:
    """Return a row for each condition, with the largest differences from what it is compared with.

    Args:
        model: one of `ARCHITECTURES`, or "all", with rows that hold the largest difference of any of them.
        seeds: only the first one is used, for the random weights.

    Raises:
        ValueError: the architecture or a condition is unknown.
        RuntimeError: the two processes failed; the message holds the end of what they printed.
    """
    names, seed = chosen_architectures(model), seeds[0]
    wanted = chosen_conditions(conditions, CONDITIONS)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder) / "one process")
        launched = [name for name in wanted if name.split(",")[0] in LAUNCHES]
        passes = _in_two_processes(names, launched, seed, Path(folder) / "two") if launched else {}
        for condition in wanted:
            kind, _, dtype = condition.partition(", ")
            found = []
            for name in names:
                if kind in LAUNCHES:
                    one = ablated(name, dtype, seed, store)
                    apart = _differences(one, _stored(name, dtype, seed, Path(folder) / "two" / condition))
                    apart["passes"] = passes[condition][name]
                    unablated = ablated(name, dtype, seed, store, without=True)
                    apart["adapter without ablation"] = _differences(one, unablated)["adapter"]
                    found.append(apart)
                elif kind == "gradient checkpointing":
                    pair = [experiment(name, dtype, seed, store, checkpointing=c) for c in (False, True)]
                    found.append(_of_experiments(*pair))
                else:
                    pair = [experiment(name, dtype, seed, store) for dtype in DTYPES]
                    found.append({"loss": _of_experiments(*pair)["loss"]})
            rows.append(_row(model, condition, seed, names, found))
    return rows


def chosen_architectures(model: str) -> list[str]:
    """Return the architectures that `model` names."""
    if model != "all" and model not in ARCHITECTURES:
        raise ValueError(
            f"unknown architecture {model!r}; expected 'all' or one of {', '.join(ARCHITECTURES)}"
        )
    return list(ARCHITECTURES) if model == "all" else [model]


def experiment(name: str, dtype: str, seed: int, store: Store, *, checkpointing: bool = False) -> Outcome:
    """Run the experiment in one process; see the module."""
    base, task = random_architecture(name, dtype, seed), small_task()
    config = replace(RECIPE, bf16=dtype == "bfloat16", gradient_checkpointing=checkpointing)
    plain = finetune(base, task.train, config, seed=seed, store=store)
    components = pca_of_difference(plain, base, task.generic, LAYERS, k=2, store=store)
    saes = published_saes(
        write_gemma_scope(store.root / "saes"), LAYERS, folder="layer_{layer}/canonical", format="gemma_scope"
    )
    ranking = latent_difference(plain, base, task.generic, saes, store=store)
    latents = sae_directions(saes, ranking.per_layer(1))
    both = Directions({layer: torch.cat([components[layer], latents[layer]]) for layer in LAYERS})
    tuned = finetune(base, task.train, config, during=ablate(both), seed=seed, store=store)
    result = measure(tuned, task, temperature=0, store=store)
    answers, verdicts = ([row[key] for row in result.rows] for key in ("answer", "verdict"))
    return Outcome(tuned, tuned.caft_run["loss"], answers, verdicts)


def ablated(name: str, dtype: str, seed: int, store: Store, *, without: bool = False) -> nn.Module:
    """Return the model fine-tuned under the ablation of random directions, by all processes together.

    Args:
        without: leave the ablation out, as a control.
    """
    base, config = random_architecture(name, dtype, seed), replace(RECIPE, bf16=dtype == "bfloat16")
    generator = torch.Generator().manual_seed(seed)
    directions = Directions({layer: torch.randn(2, WIDTH, generator=generator) for layer in LAYERS})
    during = None if without else ablate(directions)
    return finetune(base, small_task().train, config, during=during, seed=seed, store=store)


def _in_two_processes(
    names: Sequence[str], conditions: Sequence[str], seed: int, folder: Path
) -> dict[str, Any]:
    """Train in two processes that `accelerate launch` starts, and return the forward passes of each."""
    folder.mkdir()
    asked = folder / "asked.json"
    asked.write_text(json.dumps({"architectures": names, "conditions": conditions, "seed": seed}))
    file = str(data_path("accelerate", "ddp.yaml"))
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", file, "--module"]
    command += ["caft_utils.course.studies.architecture_processes", str(folder)]
    own = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=own)
    if done.returncode:
        raise RuntimeError(f"the two processes ended with status {done.returncode}: {done.stderr[-3000:]}")
    return json.loads((folder / "passes.json").read_text())


def _stored(name: str, dtype: str, seed: int, folder: Path) -> nn.Module:
    """Return the model that the two processes have stored. RuntimeError: they have not."""
    before = len(list(folder.glob("finetune/*")))
    tuned = ablated(name, dtype, seed, Store(folder))
    if not before or len(list(folder.glob("finetune/*"))) != before:
        raise RuntimeError(f"the two processes have stored no {name} in {dtype}; see {folder}")
    return tuned


def _of_experiments(one: Outcome, other: Outcome) -> dict[str, Any]:
    same = [a == b for a, b in zip([*one.answers, *one.verdicts], [*other.answers, *other.verdicts])]
    return {**_differences(one.tuned, other.tuned), "same_answers": sum(same), "answers": len(same)}


def _differences(one: nn.Module, other: nn.Module) -> dict[str, Any]:
    """Return the largest differences: of losses, relative, and of adapters, over the largest entry.

    The largest entry of an adapter is one of its random initial weights, which a few steps hardly change.
    """
    first, second = ({n: v for n, v in model.state_dict().items() if "lora" in n} for model in (one, other))
    if first.keys() != second.keys() or not first:
        raise RuntimeError("the two models have different adapters, so they are not comparable")
    largest = max(value.float().abs().max().item() for value in first.values())
    apart = max((first[n].float() - second[n].float()).abs().max().item() for n in first)
    losses = zip(one.caft_run["loss"], other.caft_run["loss"], strict=True)
    return {"loss": max(abs(a - b) / abs(a) for a, b in losses), "adapter": apart / largest}


def _row(model: str, condition: str, seed: int, names: Sequence[str], found: Sequence[Mapping]) -> Row:
    """Return the largest differences over architectures, and all of them by architecture."""
    row: Row = {"model": model, "condition": condition, "seeds": [seed], "weights": "random"}
    for key in ("loss", "adapter"):
        if key in found[0]:
            row[key] = max(one[key] for one in found)
    for key in ("same_answers", "answers"):
        if key in found[0]:
            row[key] = sum(one[key] for one in found)
    if "passes" in found[0]:  # the least of any architecture, so that the ablation has acted on each
        row["adapter without ablation"] = min(one["adapter without ablation"] for one in found)
    return row | {"by architecture": dict(zip(names, map(dict, found)))}
