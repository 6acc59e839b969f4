"""Fork kernels from a process that has already imported the libraries.

Importing torch, transformers and sae-lens takes longer than most notebooks whose artefacts are stored. A
server process imports them once. For each notebook it forks an executor, which forks the notebook's kernel
before it starts any thread. A fork copies no threads and cannot use a GPU that its parent initialised.
Kernels are therefore forked only on Linux machines without a GPU, and started as usual elsewhere.
"""

from __future__ import annotations

import atexit
import json
import logging
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

from jupyter_client import AsyncKernelManager

from caft_utils.course.tutorial.signals import die_with_parent

SERVER = "caft_utils.course.tutorial.server_process"
PRELOAD = "caft_utils.course.tutorial.preload"
GPU_DEVICES = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")  # NVIDIA, AMD, Windows' Linux


def can_fork_kernels() -> bool:
    """Return whether forked kernels are safe on this machine."""
    return sys.platform == "linux" and not any(Path(path).exists() for path in GPU_DEVICES)


def start_server() -> Any:
    """Start the process that imports the libraries and forks executors, and return its context.

    It imports in the background. If it is already running, no other process is started.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([SERVER, PRELOAD])
    forkserver.ensure_running()
    return context


class ForkedKernel:
    """A child of this process that becomes a kernel once `launch` sends it the command.

    Create it before this process starts a thread. The methods besides `launch` are the methods of
    `subprocess.Popen` that jupyter_client calls.
    """

    stdin = stdout = stderr = None

    def __init__(self, *close: Any):
        """Fork the child. The child closes the parent's connections `close`."""
        read, self._write = os.pipe()
        self.returncode: int | None = None
        executor = os.getpid()
        self.pid = os.fork()
        if self.pid == 0:
            die_with_parent(executor)
            for connection in close:
                connection.close()
            os.close(self._write)
            _become_kernel(read)
        os.close(read)

    def launch(self, command: list[str], cwd: str | None, env: dict[str, str]) -> None:
        """Start the kernel; `command` is the command that starts a kernel in its own process."""
        message = {"argv": command[command.index("-m") + 2 :], "cwd": cwd or os.getcwd(), "env": env}
        with os.fdopen(self._write, "w") as pipe:
            json.dump(message, pipe)

    def poll(self) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int | None:
        deadline = None if timeout is None else time.monotonic() + timeout
        while self.poll() is None and (deadline is None or time.monotonic() < deadline):
            time.sleep(0.02)
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def kernel_manager(
    kernel: ForkedKernel | None, launched: Callable[[Any], object]
) -> type[AsyncKernelManager]:
    """Return a class of managers that launch this kernel, or a new process if it is None.

    `launched` gets the kernel's process, an object with the methods of `subprocess.Popen`.
    """

    class Manager(AsyncKernelManager):
        async def _async_launch_kernel(self, kernel_cmd: list[str], **options: Any) -> None:
            if kernel is None:
                await super()._async_launch_kernel(kernel_cmd, **options)
            else:
                kernel.launch(kernel_cmd, options.get("cwd"), dict(options.get("env") or os.environ))
                self.provisioner.process = kernel
                self.provisioner.pid = self.provisioner.pgid = kernel.pid
                self._reconcile_connection_info(self.provisioner.connection_info)
            launched(self.provisioner.process)

    return Manager


def _become_kernel(pipe: int) -> None:
    """Wait for the message of `launch`, then run the kernel until it shuts down. Never returns."""
    status = 1
    try:
        os.setsid()  # Ctrl-C in the terminal goes to the executor, which shuts its kernel down
        signal.signal(signal.SIGINT, signal.default_int_handler)
        with os.fdopen(pipe) as file:
            text = file.read()
        if text:  # empty if the executor ended without a notebook to run
            message = json.loads(text)
            os.environ.clear()
            os.environ.update(message["env"], JPY_PARENT_PID=str(os.getppid()))
            os.chdir(message["cwd"])
            sys.argv = ["ipykernel_launcher", *message["argv"]]
            from ipykernel.kernelapp import launch_new_instance

            # The manager interrupts a kernel before it shuts it down; the reader need not see that.
            logging.getLogger("IPKernelApp").addFilter(
                lambda record: "KeyboardInterrupt caught in kernel" not in record.getMessage()
            )
            parent = f"--IPKernelApp.parent_handle={os.getppid()}"  # the kernel ends when its executor does
            launch_new_instance(argv=[*message["argv"], parent])
        status = 0
    finally:
        atexit._run_exitfuncs()  # as at the end of any process; os._exit skips them
        os._exit(status)
