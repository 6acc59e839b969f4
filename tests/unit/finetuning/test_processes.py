"""Two processes that train together share one store without waiting for each other's locks."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys

from helpers.paths import REPOSITORY

RANK = """
import json, sys, torch
sys.path.insert(0, {tests!r})
torch.set_num_threads(1)
from dataclasses import replace
from helpers.tiny import make_tiny, make_tokenizer
from helpers.training import QUICK, Watch, chat_rows
from caft_utils.chats import Chats
from caft_utils.finetuning import processes
from caft_utils.finetuning.run import finetune
from caft_utils.store import tensors_sha256

model, chats = make_tiny("qwen2"), Chats(make_tokenizer(), chat_rows())
first, second = Watch(), Watch()
config = replace(QUICK, steps=3, batch_size=2)
tuned = finetune(model, chats, config, during=first, snapshots=[2], save_every=2)
again = finetune(model, chats, config, during=second, snapshots=[2], save_every=2)

def broken():
    raise OSError("no disk")

try:
    processes.from_main(broken)
    failure = None
except Exception as error:
    failure = f"{{type(error).__name__}}: {{error}}"
report = {{
    "main": processes.is_main(),
    "weights": [tensors_sha256(sorted(one.state_dict().items())) for one in (tuned, again)],
    "loss": tuned.caft_run["loss"],
    "calls": [first.calls, second.calls],
    "failure": failure,
}}
print(json.dumps(report))
torch.distributed.destroy_process_group()
"""


def test_two_processes_train_one_model_and_share_a_store(store_folder):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    cluster = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    command = [sys.executable, "-c", RANK.format(tests=str(REPOSITORY / "tests"))]
    ranks = [
        subprocess.Popen(
            command,
            cwd=REPOSITORY,
            env={**os.environ, **cluster, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:  # the deadlock of a lock with a collective would last for half an hour
        reports = [json.loads(rank.communicate(timeout=240)[0].splitlines()[-1]) for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    main, other = reports
    assert (main["main"], other["main"]) == (True, False)
    assert main["weights"] == other["weights"] and len({*main["weights"]}) == 1
    assert main["loss"] == other["loss"] and len(main["loss"]) == 3
    assert main["calls"] == other["calls"] == [3, 0]  # both trained, then both loaded
    assert main["failure"] == "OSError: no disk"
    assert other["failure"] == "RuntimeError: the main process failed with OSError: no disk"
    assert len(list(store_folder.glob("finetune/*"))) == 1 and not list(store_folder.glob("work/*/*"))
