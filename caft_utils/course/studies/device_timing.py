"""Time functions and training steps on a device, and describe the device and its memory."""

from __future__ import annotations

import gc
import platform
import time
from collections.abc import Callable
from contextlib import ExitStack
from importlib.metadata import version
from typing import TYPE_CHECKING

import torch
from torch import nn

from caft_utils.course.studies.study_rows import Row

if TYPE_CHECKING:
    from transformers import TrainerCallback

    from caft_utils.interventions import Intervention


def seconds_of(device: torch.device, work: Callable[[], object]) -> float:
    """Return the seconds that `work` takes on the device."""
    synchronise(device)
    started = time.perf_counter()
    work()
    synchronise(device)
    return time.perf_counter() - started


def alternating_steps(
    model: nn.Module, during: Intervention, device: torch.device, stack: ExitStack
) -> TrainerCallback:
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
            synchronise(device)
            if self.open is not None:
                name, started = self.open
                self.seconds[name].append(time.perf_counter() - started)
            stack.close()
            name = ("plain", "ablated")[state.global_step % 2]
            if name == "ablated":
                stack.enter_context(during.on(model))
            synchronise(device)
            self.open = (name, time.perf_counter())

    return Turns()


def synchronise(device: torch.device) -> None:
    """Wait until the device has finished all queued work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def free_memory(device: torch.device) -> None:
    """Free the memory of earlier conditions, and reset the peak counter."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory(device: torch.device) -> int | None:
    """Return the peak of allocated bytes since `free_memory`, None without a GPU."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None


def device_facts(device: torch.device, dtype: str) -> Row:
    """Return the machine, the dtype and the packages of a measurement with random weights."""
    on_gpu = device.type == "cuda"
    machine = torch.cuda.get_device_name(device) if on_gpu else f"{platform.machine()} CPU"
    packages = {name: version(name) for name in ("torch", "transformers", "peft")}
    return {"machine": machine, "dtype": dtype, "weights": "random", **packages}
