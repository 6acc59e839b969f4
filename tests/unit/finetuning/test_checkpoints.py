"""A checkpoint is resumed from only if it is as it was sealed; otherwise an older whole one is."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace

import pytest
from helpers.training import QUICK, Watch, chat_rows, same, weights

from caft_utils.chats import Chats
from caft_utils.finetuning.checkpoints import newest_whole, rotate, seal_step
from caft_utils.finetuning.run import at_step, finetune
from caft_utils.store import Store


@pytest.fixture
def work(tmp_path):
    """A work folder with the sealed checkpoints 2, 10 and a sealed snapshot of step 3."""
    work = tmp_path / "work"
    for name in ("checkpoint-2", "checkpoint-10", "step-3"):
        (work / name / "inside").mkdir(parents=True)
        (work / name / "optimizer.pt").write_bytes(bytes(1000))
        (work / name / "inside" / "weights").write_bytes(bytes(100))
        seal_step(work / name, work, int(name.split("-")[1]))
    return work


def flip(path):
    content = bytearray(path.read_bytes())
    content[-9] ^= 0x40
    path.write_bytes(content)


DAMAGE = {
    "a flipped bit": lambda folder: flip(folder / "optimizer.pt"),
    "a flipped bit in a folder": lambda folder: flip(folder / "inside" / "weights"),
    "a cut file": lambda folder: os.truncate(folder / "optimizer.pt", 500),
    "an empty file": lambda folder: os.truncate(folder / "optimizer.pt", 0),
    "a missing file": lambda folder: (folder / "optimizer.pt").unlink(),
    "a missing folder": lambda folder: shutil.rmtree(folder / "inside"),
    "a further file": lambda folder: (folder / "optimizer.bin").touch(),
    "a manifest of an older version": lambda folder: (folder / "complete").write_text(""),
    "a manifest that is none": lambda folder: (folder / "complete").write_text("[1]"),
    "a file in its place": lambda folder: (shutil.rmtree(folder), folder.touch()),
    "a link in its place": lambda folder: (shutil.rmtree(folder), folder.symlink_to("/nowhere/x")),
}
UNSEALED = ("a file in its place", "a link in its place")


@pytest.mark.parametrize("spoil", DAMAGE)
def test_the_older_whole_checkpoint_is_used(work, spoil, recwarn):
    DAMAGE[spoil](work / "checkpoint-10")
    assert newest_whole(work, [3]) == str(work / "checkpoint-2")
    told = [str(each.message) for each in recwarn]
    assert [each for each in told if "checkpoint-10 is damaged" in each] or spoil in UNSEALED
    assert not os.path.lexists(work / "checkpoint-10") and len(told) <= 1


def test_a_checkpoint_that_was_never_sealed_is_removed_without_a_word(work, recwarn):
    (work / "checkpoint-10" / "complete").unlink()
    assert newest_whole(work) == str(work / "checkpoint-2") and not recwarn.list
    assert not (work / "checkpoint-10").exists()


@pytest.mark.parametrize("spoil", ["a flipped bit", "a missing file", "a file in its place"])
def test_a_run_goes_back_to_before_a_damaged_snapshot(work, spoil):
    DAMAGE[spoil](work / "step-3")
    with pytest.warns(UserWarning, match="step-3 is damaged"):
        assert newest_whole(work, [3]) == str(work / "checkpoint-2")


def test_a_checkpoint_of_another_step_or_run_is_not_used(work, tmp_path):
    shutil.copytree(work / "checkpoint-10", work / "checkpoint-12")
    shutil.copytree(work, tmp_path / "other")
    with pytest.warns(UserWarning, match="checkpoint-12 is damaged .it belongs to another"):
        assert newest_whole(work) == str(work / "checkpoint-10")
    with pytest.warns(UserWarning, match="belongs to another run"):
        assert newest_whole(tmp_path / "other") is None


def test_no_clock_decides_which_is_the_newest(work):
    for name, time in (("checkpoint-2", 4e9), ("checkpoint-10", 1e9)):
        os.utime(work / name, (time, time))
    assert newest_whole(work) == str(work / "checkpoint-10")
    seal_step(shutil.copytree(work / "checkpoint-2", work / "checkpoint-12"), work, 12)
    (work / "checkpoint-notes").mkdir()
    rotate(work)
    names = {path.name for path in work.glob("checkpoint-*")}
    assert names == {"checkpoint-10", "checkpoint-12", "checkpoint-notes"}


def test_a_run_resumes_past_damage_to_the_same_weights(model, tokenizer, tmp_path, monkeypatch):
    chats, config = Chats(tokenizer, chat_rows()), replace(QUICK, dropout=0.1)
    options = {"save_every": 2, "snapshots": [3]}
    whole = finetune(model, chats, config, during=Watch(), store=Store(tmp_path / "other"), **options)
    with pytest.raises(RuntimeError, match="on purpose"):
        finetune(model, chats, config, during=Watch(breaks_at=6), **options)
    (work,) = Store().root.glob("work/*/*")
    flip(work / "checkpoint-4" / "adapter_model.safetensors")
    watch = Watch()
    with pytest.warns(UserWarning, match="checkpoint-4 is damaged"):
        resumed = finetune(model, chats, config, during=watch, **options)
    assert watch.calls == 4 and same(weights(resumed), weights(whole))
    assert same(weights(at_step(resumed, model, 3)), weights(at_step(whole, model, 3)))
    names = {path.name for path in (Store().root / "finetune").glob("*/step-3/*")}
    assert names and not {"complete", "belongs_to.json"} & names
