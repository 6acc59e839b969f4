"""Single files are written whole or not at all, and what the disk refuses is told in words."""

from __future__ import annotations

import errno
import subprocess
import sys

import pytest

from caft_utils.disk import disk_errors_explained, file_lock, remove, write_atomically


def test_an_atomic_write_replaces_the_file_or_leaves_it(tmp_path, monkeypatch):
    path = tmp_path / "new folder" / "value.txt"
    assert write_atomically(path, "ünï") == path and path.read_bytes() == "ünï".encode()
    write_atomically(path, b"two")
    assert path.read_bytes() == b"two"

    def full(handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError):
        write_atomically(path, b"three")
    assert [p.name for p in path.parent.iterdir()] == ["value.txt"] and path.read_bytes() == b"two"


@pytest.mark.parametrize(
    "error, words",
    [
        (OSError(errno.ENOSPC, "No space left on device"), "is full"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "is full"),
        (OSError(errno.EFBIG, "File too large"), "largest size"),
        (OSError(errno.EROFS, "Read-only file system"), "not writable"),
        (RuntimeError("I/O error: No space left on device (os error 28)"), "is full"),
        (RuntimeError("I/O error: Read-only file system (os error 30)"), "not writable"),
        (RuntimeError("[enforce fail at inline_container.cc:685] . unexpected pos 64 vs 0"), "probably full"),
        (OSError(errno.ENOSPC, "No space left on device", "/elsewhere/file"), "holds /elsewhere is full"),
    ],
)
def test_what_the_disk_refused_is_told_in_words(tmp_path, error, words):
    with pytest.raises(OSError, match=words) as caught, disk_errors_explained(tmp_path, "do this"):
        raise error
    assert str(caught.value).endswith("; do this") and caught.value.__cause__ is error


@pytest.mark.parametrize(
    "error",
    [
        ValueError("no row"),
        FileNotFoundError(2, "none", "x"),
        PermissionError(13, "denied", "/elsewhere/x"),
        PermissionError(13, "denied"),  # of a socket
    ],
)
def test_other_errors_pass_as_they_are(tmp_path, error):
    with pytest.raises(type(error)) as caught, disk_errors_explained(tmp_path, "do this"):
        raise error
    assert caught.value is error


def test_a_link_is_removed_and_a_closed_folder_too(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "mine")
    (tmp_path / "closed" / "inside").mkdir(parents=True)
    (tmp_path / "closed" / "inside").chmod(0)
    for name in ("link", "closed", "nothing"):
        remove(tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_a_file_where_the_folder_should_be_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file is a file where a folder is needed"):
        write_atomically(tmp_path / "file" / "more" / "value.txt", "x")


def test_of_two_processes_one_holds_the_lock_of_a_file(tmp_path):
    path = tmp_path / "value.txt"
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom caft_utils.disk import file_lock\n"
        "with file_lock(Path(sys.argv[1])):\n"
        " print('held', flush=True); time.sleep(0.3); Path(sys.argv[1]).write_text('theirs')"
    )
    other = subprocess.Popen([sys.executable, "-c", code, path], stdout=subprocess.PIPE)
    assert other.stdout.readline() == b"held\n"
    with file_lock(path):
        assert path.read_text() == "theirs"
    other.communicate()
    assert [path.name for path in tmp_path.iterdir()] == ["value.txt"]
