"""Artefacts are whole or not there: damage, a full disk, kills and races."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from hashlib import sha256
from pathlib import Path

import pytest

from caft_utils.store import (
    Store,
    default_store,
    digest,
    file_sha256,
    tensors_sha256,
)

KEY = {"model": "m", "layers": [1, 2]}


def text(value):
    return lambda folder: (folder / "value.txt").write_text(value)


def replaced(path, make):
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    make(path)


def everything(store):
    """All files and folders of a store but the locks."""
    return {
        p.relative_to(store.root).as_posix()
        for p in store.root.rglob("*")
        if "locks" not in p.relative_to(store.root).parts
    }


def test_round_trip_and_key_order():
    store = Store()
    assert store.get("toy", KEY) is None
    folder = store.put("toy", KEY, text("one"))
    assert store.get("toy", {"layers": [1, 2], "model": "m"}) == folder
    assert json.loads((folder / "key.json").read_text()) == KEY
    assert store.get("toy", KEY | {"layers": [2, 1]}) is None and store.get("other", KEY) is None


@pytest.mark.parametrize("other", [{"model": "n"}, KEY | {"more": None}, {}, {"model": "m", "layers": [2]}])
def test_an_artefact_of_another_key_is_not_taken(other):
    store = Store()
    mine, foreign = store.put("toy", KEY, text("mine")), store.put("toy", other, text("foreign"))
    shutil.rmtree(mine)
    foreign.rename(mine)
    with pytest.warns(UserWarning, match="another artefact"):
        assert store.get("toy", KEY) is None
    assert (store.fetch("toy", KEY, text("mine")) / "value.txt").read_text() == "mine"


def test_keys_with_numbers_and_tuples_find_their_artefact():
    key = {"by layer": {9: (1, 2.5), 10: None}, "é": True}
    store = Store()
    assert store.put("toy", key, text("one")) == store.get("toy", key)


def test_keys_of_a_kind():
    store, keys = Store(), [{"model": "m"}, {"model": "n", "layers": [1, 2]}]
    assert list(store.keys("toy")) == []
    for key in keys:
        store.put("toy", key, text("one"))
    broken = store.put("toy", {"model": "o"}, text("one"))
    (broken / "key.json").write_text("{")
    assert sorted(store.keys("toy"), key=len) == keys and list(store.keys("other")) == []


def test_fetch_writes_once_and_put_replaces():
    store, calls = Store(), []
    for _ in range(2):
        folder = store.fetch("toy", KEY, lambda part: (calls.append(1), text("one")(part)))
    assert calls == [1]
    store.put("toy", KEY, text("two"))
    assert (folder / "value.txt").read_text() == "two"


def test_root_from_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("CAFT_STORE", str(tmp_path / "elsewhere"))
    assert default_store().root == tmp_path / "elsewhere"
    monkeypatch.delenv("CAFT_STORE")
    assert default_store().root == Path.home() / ".cache" / "caft_utils"


@pytest.mark.parametrize(
    "spoil, complaint",
    [
        (lambda folder: (folder / "value.txt").write_text("onE"), "checksum of value.txt"),
        (lambda folder: (folder / "value.txt").unlink(), "files are missing"),
        (lambda folder: (folder / "more.txt").write_text("x"), "were added"),
        (lambda folder: (folder / "manifest.json").write_text("{"), "manifest"),
        (lambda folder: (folder / "manifest.json").unlink(), "manifest"),
        (lambda folder: (folder / "manifest.json").write_bytes(b"\xff\xfe"), "manifest"),
        *[
            (lambda folder, content=content: (folder / "manifest.json").write_text(content), "manifest")
            for content in ("null", "5", "true", '"text"', "[1, 2]", '["key.json", "value.txt"]', "[" * 99999)
        ],
        (lambda f: (f / "manifest.json").write_text('{"key.json": 1, "value.txt": {}}'), "checksum"),
        (lambda folder: (folder / "manifest.json").write_text('{"../../outside": ""}'), "files are missing"),
        (lambda folder: replaced(folder / "value.txt", os.mkdir), "files are missing"),
        (lambda folder: replaced(folder / "value.txt", os.mkfifo), "files are missing"),
        (lambda folder: replaced(folder / "manifest.json", os.mkfifo), "manifest"),
        (lambda folder: replaced(folder / "manifest.json", lambda path: path.symlink_to(path)), "manifest"),
        (lambda folder: replaced(folder, os.mkdir), "manifest"),
        (lambda folder: replaced(folder, Path.touch), "not a folder"),
        (lambda folder: replaced(folder, lambda path: path.symlink_to("/nowhere/x")), "not a folder"),
        (lambda folder: replaced(folder, lambda path: path.symlink_to(path)), "not a folder"),
    ],
)
def test_damage_is_noticed_and_rebuilt(spoil, complaint):
    store = Store()
    spoil(store.put("toy", KEY, text("one")))
    with pytest.warns(UserWarning, match=complaint):
        folder = store.fetch("toy", KEY, text("one"))
    assert (folder / "value.txt").read_text() == "one" and store.get("toy", KEY) == folder


def test_a_link_in_an_artefacts_place_is_removed_and_what_it_leads_to_is_not(tmp_path):
    store = Store()
    folder = store.put("toy", KEY, text("one"))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "value.txt").write_text("mine")
    replaced(folder, lambda path: path.symlink_to(tmp_path / "mine"))
    with pytest.warns(UserWarning, match="manifest"):
        store.fetch("toy", KEY, text("one"))
    assert (folder / "value.txt").read_text() == "one" and not folder.is_symlink()
    assert (tmp_path / "mine" / "value.txt").read_text() == "mine"


def make_link(path):
    path.symlink_to("/nowhere/x")


@pytest.mark.parametrize("make", [Path.touch, make_link, os.mkdir], ids=["file", "link", "folder"])
@pytest.mark.parametrize("place", ["part", "work", "lock"])
def test_what_stands_in_the_way_of_its_own_files_is_replaced(place, make):
    store, name = Store(), digest(KEY)
    path = {
        "part": store.root / "toy" / f"{name}.part",
        "work": store.root / "work" / "toy" / name,
        "lock": store.root / "locks" / f"toy-{name}.lock",
    }[place]
    path.parent.mkdir(parents=True)
    make(path)
    with store.work("toy", KEY) as work:
        (work / "half").touch()
        folder = store.fetch("toy", KEY, text("one"))
    assert (folder / "value.txt").read_text() == "one" and not work.exists()


@pytest.mark.parametrize("make", [Path.touch, make_link])
@pytest.mark.parametrize("place", ["", "toy", "locks"])
def test_what_stands_in_the_way_of_folders_is_named_and_kept(place, make):
    store = Store()
    path = store.root / place
    path.parent.mkdir(parents=True, exist_ok=True)
    make(path)
    for _ in range(2):
        with pytest.raises(OSError, match="move it away") as caught:
            store.fetch("toy", KEY, text("one"))
        assert str(path) in str(caught.value) and os.path.lexists(path)


def test_a_lock_that_is_a_folder_with_content_is_named_and_kept():
    store = Store()
    lock = store.root / "locks" / f"toy-{digest(KEY)}.lock"
    (lock / "mine").mkdir(parents=True)
    with pytest.raises(OSError, match="move it away"):
        store.fetch("toy", KEY, text("one"))
    assert (lock / "mine").is_dir()


def test_a_writer_that_fails_leaves_nothing():
    store = Store()

    def write(folder):
        text("half")(folder)
        raise RuntimeError("halfway")

    with pytest.raises(RuntimeError, match="halfway"):
        store.put("toy", KEY, write)
    assert everything(store) == {"toy"}
    assert store.get("toy", KEY) is None


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"),
    ],
)
def test_full_disk_is_a_clear_error_and_keeps_the_old_artefact(error):
    store = Store()
    folder = store.put("toy", KEY, text("old"))

    def write(part):
        text("half")(part)
        raise error

    with pytest.raises(OSError, match="is full; free some space or let CAFT_STORE") as caught:
        store.put("toy", KEY, write)
    assert caught.value.errno == errno.ENOSPC and str(caught.value).count("CAFT_STORE") == 1
    assert store.get("toy", KEY) == folder and (folder / "value.txt").read_text() == "old"
    assert not list(store.root.rglob("*.part"))


def test_really_full_disk(tmp_path):
    mount = tmp_path / "small"
    mount.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", mount], capture_output=True
    ).returncode:
        pytest.skip("mounting a tmpfs is not permitted here")
    try:
        store = Store(mount / "store")
        kept = store.put("toy", KEY, text("small"))
        with pytest.raises(OSError, match="is full; free some space"):
            store.put("toy", {"big": 1}, lambda part: (part / "big").write_bytes(bytes(10**6)))
        from safetensors.torch import save_file
        from torch import zeros

        with pytest.raises(OSError, match="is full; free some space"):
            store.fetch(
                "toy", {"big": 2}, lambda part: save_file({"w": zeros(10**6)}, part / "w.safetensors")
            )
        assert [p.name for p in (store.root / "toy").iterdir()] == [kept.name]
        assert store.get("toy", KEY) == kept
    finally:
        subprocess.run(["umount", mount], check=True)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_folder_that_is_not_writable(tmp_path):
    (tmp_path / "closed").mkdir(mode=0o500)
    with pytest.raises(OSError, match="is not writable.*CAFT_STORE"):
        Store(tmp_path / "closed").put("toy", KEY, text("one"))


def test_work_stays_after_an_error_and_goes_after_success():
    store = Store()
    with pytest.raises(KeyboardInterrupt):
        with store.work("toy", KEY) as folder:
            (folder / "half").touch()
            raise KeyboardInterrupt
    with store.work("toy", KEY) as folder:
        assert (folder / "half").exists()
        store.put("toy", KEY, text("done"))  # the lock is re-entrant
    assert not folder.exists() and store.get("toy", KEY)


def run(code, **environment):
    return subprocess.Popen(
        [sys.executable, "-c", code], env=os.environ | environment, stdout=subprocess.PIPE, text=True
    )


def test_a_killed_writer_leaves_nothing_to_read_and_no_lock():
    writer = run(
        "import time\nfrom caft_utils.store import Store\n"
        "def write(part):\n"
        "    (part / 'value.txt').write_text('half'); print('in', flush=True); time.sleep(60)\n"
        f"Store().put('toy', {KEY!r}, write)"
    )
    assert writer.stdout.readline() == "in\n"
    store = Store()
    assert store.get("toy", KEY) is None
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    folder = store.put("toy", KEY, text("whole"))
    assert (folder / "value.txt").read_text() == "whole"
    assert [p.name for p in (store.root / "toy").iterdir()] == [digest(KEY)]


def test_of_two_processes_one_writes_and_both_read():
    code = (
        "import os, time\nfrom caft_utils.store import Store\n"
        "def write(part):\n time.sleep(0.5); (part / 'value.txt').write_text(str(os.getpid()))\n"
        "while time.time() < float(os.environ['START']): pass\n"
        f"print((Store().fetch('toy', {KEY!r}, write) / 'value.txt').read_text(), os.getpid())"
    )
    start = str(time.time() + 1.5)
    racers = [run(code, START=start) for _ in range(2)]
    said = [racer.communicate(timeout=60)[0].split() for racer in racers]
    writers, pids = {writer for writer, _ in said}, {pid for _, pid in said}
    assert len(writers) == 1 and writers < pids


def test_processes_that_go_through_the_same_items_share_them():
    """The second process starts in the middle of the first item, whose lock it therefore finds taken."""
    code = (
        "import os, time\nfrom caft_utils.store import Store\n"
        "def write(part):\n time.sleep(0.4); (part / 'value.txt').write_text(str(os.getpid()))\n"
        "while time.time() < float(os.environ['START']): pass\n"
        "store, key = Store(), lambda item: {'item': item}\n"
        "for item in store.shared(range(5), 'toy', key):\n"
        "    print(item, (store.fetch('toy', key(item), write) / 'value.txt').read_text(), flush=True)"
    )
    start = time.time() + 1.5
    both = [run(code, START=str(start + late)) for late in (0, 0.2)]
    said = [[line.split() for line in one.communicate(timeout=60)[0].splitlines()] for one in both]
    assert [sorted(item for item, _ in one) for one in said] == [list("01234")] * 2  # both have every item
    assert dict(said[0]) == dict(said[1])
    wrote = [list(dict(said[0]).values()).count(str(one.pid)) for one in both]
    assert sum(wrote) == 5 and min(wrote) >= 2


def test_items_in_hand_of_a_process_that_died_are_taken_over():
    first = run(
        "import time\nfrom caft_utils.store import Store\n"
        "for item in Store().shared('ab', 'toy', lambda item: {'item': item}):\n"
        "    print(item, flush=True); time.sleep(60)"
    )
    assert first.stdout.readline() == "a\n"
    items = Store().shared("ab", "toy", lambda item: {"item": item})
    assert next(items) == "b"
    first.send_signal(signal.SIGKILL)
    first.wait()
    assert list(items) == ["a"]


def test_checksums_are_those_of_hashlib(tmp_path):
    import torch

    (tmp_path / "file").write_bytes(b"content")
    assert file_sha256(tmp_path / "file") == sha256(b"content").hexdigest()
    matrix = torch.arange(6.0).reshape(2, 3)
    expected = sha256(b"start" + b"a" + matrix.numpy().tobytes() + b"b" + matrix.T.numpy().tobytes())
    assert tensors_sha256([("a", matrix), ("b", matrix.T)], start="start") == expected.hexdigest()
    halves = matrix.to(torch.bfloat16)
    assert tensors_sha256([("", halves)]) == sha256(halves.view(torch.int16).numpy().tobytes()).hexdigest()
