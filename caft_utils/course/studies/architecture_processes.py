"""What each of two processes does for the study of architectures: train every cell, and count forward passes.

`accelerate launch` starts it with data/accelerate/ddp.yaml. FSDP2 differs by a variable of the environment
alone, which is set here, so that one pair of processes is enough for both.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch

from caft_utils.course.studies.architectures import LAUNCHES, ablated
from caft_utils.disk import write_atomically
from caft_utils.finetuning import processes, sharding
from caft_utils.store import Store


def main(folder: Path) -> None:
    """Train the cells that `folder`/asked.json names; results go to a store for each condition."""
    asked = json.loads((folder / "asked.json").read_text())
    processes.connect(torch.device("cpu"))
    passes: dict[str, dict[str, list[int]]] = {}
    for condition in asked["conditions"]:
        launch, _, dtype = condition.partition(", ")
        os.environ[sharding.ASKED] = str(LAUNCHES[launch]).lower()
        store = Store(folder / condition)
        passes[condition] = {
            name: _counted(name, dtype, asked["seed"], store) for name in asked["architectures"]
        }
    if processes.is_main():
        write_atomically(folder / "passes.json", json.dumps(passes))
    processes.barrier()
    torch.distributed.destroy_process_group()


def _counted(name: str, dtype: str, seed: int, store: Store) -> list[int]:
    """Train one cell and return the forward passes of each process."""
    seen: list[str] = []
    hook = torch.nn.modules.module.register_module_forward_pre_hook(
        lambda module, args: seen.append(type(module).__name__)
    )
    try:
        ablated(name, dtype, seed, store)
    finally:
        hook.remove()
    whole = [kind for kind in seen if kind.endswith(("ForCausalLM", "ForConditionalGeneration"))]
    own = sum(not kind.startswith("Peft") for kind in whole)  # PEFT's wrapper calls the model
    every: list[Any] = [None] * processes.count()
    torch.distributed.all_gather_object(every, own)
    return every


if __name__ == "__main__":
    main(Path(sys.argv[1]))
