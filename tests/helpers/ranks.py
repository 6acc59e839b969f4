"""Run a function in several processes that train together, with the environment that accelerate would set."""

from __future__ import annotations

import multiprocessing
import os
import socket
import traceback
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from typing import Any

import torch
from accelerate.utils import PrepareForLaunch  # noqa: F401 - imports of the ranks, made once
from transformers import Trainer  # noqa: F401

import caft_utils.finetuning.trainer  # noqa: F401
from caft_utils.paths import data_path

# A rank is forked from a server that has imported this module, so it starts at once.
FORKSERVER = multiprocessing.get_context("forkserver")


def environment_of(config: str) -> dict[str, str]:
    """Return what `accelerate launch --config_file data/accelerate/CONFIG.yaml` adds to the environment."""
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser
    from accelerate.utils.launch import prepare_multi_gpu_env

    file = data_path("accelerate", f"{config}.yaml")
    options, *_ = _validate_launch_command(
        launch_command_parser().parse_args(["--config_file", str(file), "script.py"])
    )
    assert options.use_fsdp or options.multi_gpu  # the cases in which the launcher uses torchrun
    before = dict(os.environ)
    return {
        name: value for name, value in prepare_multi_gpu_env(options).items() if before.get(name) != value
    }


def run_ranks(
    function: Callable[..., Any], *arguments: Any, environment: Mapping[str, str], ranks: int = 2
) -> list[Any]:
    """Return what `function(*arguments)` returns in each of the processes.

    Raises:
        RuntimeError: the function raised in one of them; the message holds its traceback.
        TimeoutError: there was no result within two minutes. A deadlock of a lock with a collective would
            last for half an hour.
    """
    FORKSERVER.set_forkserver_preload([__name__])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    cluster = {"WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    connections, children = [], []
    for rank in range(ranks):
        own = {**environment, **cluster, "RANK": str(rank), "LOCAL_RANK": str(rank)}
        own["CAFT_STORE"] = os.environ["CAFT_STORE"]
        here, there = FORKSERVER.Pipe(duplex=False)
        child = FORKSERVER.Process(target=_rank, args=(there, own, function, arguments))
        child.start()
        there.close()
        connections.append(here)
        children.append(child)
    try:
        answers = []
        for connection in connections:
            if not connection.poll(120):
                raise TimeoutError("a rank gave no result within two minutes")
            answers.append(connection.recv())
    finally:
        for child in children:
            child.kill()
            child.join()
    if failures := [text for text, _ in answers if text]:
        raise RuntimeError(failures[0])
    return [value for _, value in answers]


def _rank(connection: Connection, environment: Mapping[str, str], function, arguments) -> None:
    os.environ.update(environment)
    torch.set_num_threads(1)
    try:
        connection.send((None, function(*arguments)))
    except BaseException:
        connection.send((traceback.format_exc(), None))
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
