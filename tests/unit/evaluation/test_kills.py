"""kill -9 in the middle of generating answers, twice: nothing half-written stays, and no answer changes."""

from __future__ import annotations

import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from faults.running import Child, ChildError
from helpers.tasks import small_task
from helpers.tiny import make_tiny, make_tokenizer

from caft_utils.evaluation.measurement import measure
from caft_utils.store import Store


class SlowPasses:
    """An intervention that edits nothing: it marks each forward pass in a file, and takes its time."""

    fingerprint = "slow passes"

    def __init__(self, mark: Path):
        self.mark = mark

    @contextmanager
    def on(self, model):
        handle = model.model.layers[0].register_forward_hook(self.hook)
        try:
            yield model
        finally:
            handle.remove()

    def hook(self, *_):
        time.sleep(0.01)
        with self.mark.open("a") as file:
            file.write(".")


def answers(folder: str, mark: str) -> list[str]:
    model, task = make_tiny("qwen2"), small_task(make_tokenizer())
    during = SlowPasses(Path(mark))
    result = measure(model, task, during=during, batch_size=2, store=Store(folder))
    return [row["answer"] for row in result.rows]


def test_two_kills_change_no_answer(tmp_path):
    mark = tmp_path / "passes"
    unbroken = answers(str(tmp_path / "unbroken"), str(mark))
    passes, killed = len(mark.read_text()), tmp_path / "killed"
    for round_ in range(2):
        mark.unlink()
        child = Child(answers, str(killed), str(mark), folder=tmp_path / f"killed {round_}")
        while not mark.exists() or len(mark.read_text()) < (round_ + 1) * passes // 3:
            assert child.process.is_alive()
            time.sleep(0.002)
        child.kill()
        with pytest.raises(ChildError, match="status -9"):
            child.result(1)
        assert not list(killed.glob("measure/*")) and not list(killed.glob("answers/*/value.json"))
    again = Child(answers, str(killed), str(mark), folder=tmp_path / "again").result(60)
    assert again == unbroken and len(set(unbroken)) > 1
