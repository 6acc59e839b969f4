"""Run a function in a process that is forked from one with the slow imports already made."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Mapping
from multiprocessing.process import BaseProcess

FORKSERVER = multiprocessing.get_context("forkserver")


def forked(function: Callable[[], object], *, environment: Mapping[str, str]) -> BaseProcess:
    """Start `function()` in a process of its own and return it. `function` belongs to a module of `helpers`.

    The server is one for all tests of this process, and lives on with the environment of its start. So what
    matters of the environment is passed.
    """
    FORKSERVER.set_forkserver_preload(["caft_utils.finetuning.trainer"])
    process = FORKSERVER.Process(target=_call, args=(function, dict(environment)))
    process.start()
    return process


def _call(function: Callable[[], object], environment: dict[str, str]) -> None:
    os.environ.update(environment)
    function()
