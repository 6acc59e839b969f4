"""Training in several processes (torchrun, accelerate): the main process alone decides, locks and writes.

    accelerate launch --config_file data/accelerate/ddp.yaml my_script.py

The processes share the batches of each optimiser step, so a run has the recipe, the key and, up to rounding
and dropout, the result of the same run in one process.

File locks and collectives must not wait for each other. If every rank took the store's lock, rank 0 would
hold it and wait in the first collective for rank 1, which waits for the lock. So only rank 0 touches the
store, and the others receive what it found. All ranks need to see the store's folder.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import torch

if TYPE_CHECKING:
    from caft_utils.finetune_config import FinetuneConfig

Value = TypeVar("Value")


def connect(device: torch.device) -> None:
    """Join the process group if a launcher started several processes and this one has not joined yet."""
    if count() > 1 and not _connected():
        from accelerate import PartialState

        PartialState(cpu=device.type == "cpu")


def is_alone() -> bool:
    """Return whether this is the only process of the run."""
    return not _connected() and count() == 1


def count() -> int:
    """Return the number of processes of this run."""
    return torch.distributed.get_world_size() if _connected() else int(os.environ.get("WORLD_SIZE", 1))


def share_of_step(config: FinetuneConfig) -> tuple[int, int]:
    """Return the rows of a batch and the batches of an optimiser step that each process computes.

    The processes take the batches of a step in turn. If there are too few, they share the rows of each batch.

    Raises:
        ValueError: neither can be divided by the number of processes.
    """
    batch, accumulate, n = config.batch_size, config.accumulate, count()
    if accumulate % n == 0:
        return batch, accumulate // n
    if batch % n == 0:
        return batch // n, accumulate
    raise ValueError(
        f"{n} processes cannot share optimiser steps of {accumulate} batches of {batch} rows evenly; choose "
        f"an `accumulate` or a `batch_size` that {n} divides, or start another number of processes"
    )


def is_main() -> bool:
    """Return whether this is rank 0, or the only process."""
    return torch.distributed.get_rank() == 0 if _connected() else int(os.environ.get("RANK", 0)) == 0


def barrier() -> None:
    """Wait until every process is here. In a single process, return at once."""
    if _connected():
        torch.distributed.barrier()


def mean(value: float) -> float:
    """Return the mean of a number over all processes."""
    if not _connected():
        return value
    values: list[Any] = [None] * count()
    torch.distributed.all_gather_object(values, value)
    return sum(values) / len(values)


def from_main(compute: Callable[[], Value]) -> Value:
    """Run `compute` in the main process only and return its result in every process.

    Raises:
        RuntimeError: in the other processes, when `compute` raised in the main one, which raises its own
            error.
    """
    if not _connected():
        return compute()
    value, failure = None, None
    if is_main():
        try:
            value = compute()
        except BaseException as error:
            failure = error  # raised below, after the other processes were notified
    message = [value, failure and f"{type(failure).__name__}: {failure}"]
    torch.distributed.broadcast_object_list(message, src=0)
    if failure is not None:
        raise failure
    value, failure = message
    if failure is not None:
        raise RuntimeError(f"the main process failed with {failure}")
    return value


def _connected() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()
