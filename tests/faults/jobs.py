"""The long commands, small: each leaves its work in a folder and returns a digest of its result.

A job may be killed and started again in the same folder. It must end with the digest of an undisturbed run.
`finished` says what of a job's work was complete when it was killed and must still be there.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import time
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

import torch
from helpers.texts import random_chats
from helpers.tiny import make_tiny, make_tokenizer
from helpers.training import chat_rows

from caft_utils.chats import Chats
from caft_utils.course.grid import run_grid
from caft_utils.course.records import load_record, save_record
from caft_utils.directions import Directions
from caft_utils.evaluation.measurement import Result
from caft_utils.finetune_config import FinetuneConfig
from caft_utils.finetuning import at_step, finetune
from caft_utils.interpret.examples import collect_examples
from caft_utils.saes import SAETrainingConfig, train_saes
from caft_utils.store import Store, tensors_sha256
from caft_utils.tasks.choice import RATES

RUN = FinetuneConfig(lr=3e-3, r=4, alpha=8, steps=10, batch_size=2, accumulate=1, warmup_steps=1, dropout=0.1)
RECORD_ROWS = 10
LAZY = (
    "accelerate", "pandas", "peft", "sae_lens", "sae_lens.training.mixing_buffer", "transformers.trainer",
    "transformers.models.qwen2.modeling_qwen2", "transformers.integrations", "safetensors.torch",
    "caft_utils.finetuning.trainer",
)  # fmt: skip


def adapter_training(folder: Path) -> str:
    """Fine-tune an adapter with dropout, checkpoints and a snapshot."""
    return _trained(folder, RUN)


def full_training(folder: Path) -> str:
    """Fine-tune all weights."""
    return _trained(folder, FinetuneConfig(method="full", lr=1e-3, steps=8, batch_size=2, accumulate=1))


def sae_training(folder: Path) -> str:
    """Train the SAEs of two layers."""
    config = SAETrainingConfig(width=16, k=4, steps=12, batch_tokens=32, buffer_tokens=128, warmup=2)
    saes = train_saes(make_tiny("qwen2"), _chats(40), [0, 1], config, store=Store(folder))
    return saes.fingerprint


def collection(folder: Path) -> str:
    """Stream the examples of components over text."""
    features = Directions({layer: torch.eye(64)[:8] for layer in (0, 1, 2)})
    chats = random_chats(make_tokenizer(), 150)
    found = collect_examples(
        make_tiny("qwen2"), chats, features, n=4, width=6, batch_size=4, store=Store(folder)
    )
    return _digest(found)


def grid(folder: Path) -> str:
    """Measure a grid, cell by cell."""

    def measured(method: str, seed: int) -> Result:
        time.sleep(0.02)
        row = {"set": "ood", "question": "q", "run": f"{method} {seed}", "verdict": "right"}
        return Result([row] * (seed + 1), f"{method} {seed}", float(seed), RATES)

    cells = [(method, seed) for method in ("plain", "CAFT") for seed in range(4)]
    made = run_grid(cells, measured, key={"model": "m"}, store=Store(folder), progress=False)
    return _digest(made.results)


def artefacts(folder: Path) -> str:
    """Store several artefacts of many files."""
    store, digests = Store(folder), []

    def write(part: Path, n: int) -> None:
        for i in range(6):
            (part / f"{i}.bin").write_bytes(bytes([n]) * 200_000)

    for n in range(5):
        made = store.fetch("blob", {"n": n}, lambda part, n=n: write(part, n))
        digests += [hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(made.glob("*.bin"))]
    return _digest(digests)


def tokens(folder: Path) -> str:
    """Tokenise rows into the store."""
    return Chats.with_stored_tokens(make_tokenizer(), chat_rows(300), store=Store(folder)).fingerprint


def record(folder: Path) -> str:
    """Save the rows of one model after the other into one record, as the claims do."""
    for n in range(RECORD_ROWS):
        there = load_record("claim", folder)["rows"] if (folder / "claim.json").exists() else []
        if f"m{n}" not in [row["model"] for row in there]:
            save_record(
                "claim", [{"model": f"m{n}", "condition": "c", "value": n / 7}], seconds=1, folder=folder
            )
        _mark(folder / f"done-m{n}")
    rows = load_record("claim", folder)["rows"]
    return _digest(sorted((row["model"], row["value"]) for row in rows))


def selection(folder: Path) -> str:
    """Export directions again and again into one folder."""
    for n in range(12):
        rows = torch.roll(torch.eye(256)[:64], n, 1)
        Directions({1: rows, 2: rows}, {"n": n}).save(folder / "picked")
        _mark(folder / "done")
    found = Directions.load(folder / "picked")
    return _digest([found.about, found.fingerprint])


def finished(name: str, folder: Path) -> str | None:
    """Return what is missing of the work that was complete, or what is half-written and yet visible."""
    if name == "record":
        rows = load_record("claim", folder)["rows"] if (folder / "claim.json").exists() else []
        done = {path.name.removeprefix("done-") for path in folder.glob("done-m*")}
        lost = done - {row["model"] for row in rows}
        return f"rows of {sorted(lost)} are lost" if lost else None
    if name == "selection":
        if (folder / "done").exists():
            Directions.load(folder / "picked")  # the old pair or the new one
        return None
    store = Store(folder)
    for key in folder.glob("*/*/key.json"):
        kind = key.parent.parent.name
        if kind in ("work", "locks") or key.parent.suffix == ".part":
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            if store.get(kind, json.loads(key.read_text())) != key.parent:
                return f"{kind}: {key.parent.name} is visible and cannot be read"
    return None


JOBS: dict[str, Callable[[Path], str]] = {
    job.__name__: job
    for job in (
        adapter_training, full_training, sae_training, collection, grid, artefacts, tokens, record, selection,
    )
}  # fmt: skip


def run_job(name: str, folder: str) -> str:
    """Run a job in a process of its own, in a folder that is made where it is missing."""
    torch.set_num_threads(1)
    Path(folder).mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return JOBS[name](Path(folder))


def preload() -> None:
    """Import what the jobs import on demand, so that their processes, which are forks, need not."""
    for name in LAZY:
        importlib.import_module(name)


def _trained(folder: Path, config: FinetuneConfig) -> str:
    base, chats = make_tiny("qwen2"), _chats(8)
    tuned = finetune(base, chats, config, seed=3, snapshots=[3], store=Store(folder), save_every=2)
    early = at_step(tuned, base, 3)
    weights = [
        (f"{n} {name}", value)
        for n, m in enumerate((tuned, early))
        for name, value in sorted(m.state_dict().items())
    ]
    return _digest([tensors_sha256(weights), tuned.caft_run["loss"]])


def _mark(path: Path) -> None:
    with suppress(OSError):  # a full disk strikes the package, not the harness
        path.touch()


def _chats(rows: int) -> Chats:
    return Chats(make_tokenizer(), chat_rows(rows))


def _digest(value: Any) -> str:
    def plain(each: Any) -> Any:
        return asdict(each) if is_dataclass(each) else str(each)

    if isinstance(value, Mapping):
        value = {str(key): each for key, each in value.items()}
    return hashlib.sha256(json.dumps(value, default=plain, sort_keys=True).encode()).hexdigest()
