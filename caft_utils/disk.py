"""Write safely to disks that may be full, read-only, or shared by several processes.

Every writer of the package uses these functions. They write a new file beside the old one, flush it and then
rename it. They lock a file that is read, changed and written back, and explain the errors of a disk.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path

from filelock import FileLock

FULL = (errno.ENOSPC, errno.EDQUOT)
NOT_WRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS)
# torch's writer hides the system's error number. These are its messages when the disk refuses a write.
TORCH_WRITER = re.compile(r"PytorchStreamWriter failed|inline_container\.cc.* unexpected pos", re.DOTALL)


def write_atomically(path: str | Path, data: str | bytes, *, flushed: bool = True) -> Path:
    """Write a file so that a reader finds the old content, the new content or no file, but never a part.

    The data are written beside `path`, flushed to disk and renamed. A missing folder is created.

    Args:
        flushed: False skips the flush, for a file that a power failure may destroy.

    Raises:
        OSError: the disk is full or not writable. The old content remains.
    """
    path = Path(path)
    with disk_errors_explained(path.absolute().parent, "free some space, or write to another folder"):
        make_folder(path.parent)
        temporary = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.part")
        try:
            with temporary.open("wb") as file:
                file.write(data.encode("utf-8") if isinstance(data, str) else data)
                file.flush()
                if flushed:
                    os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        if flushed:
            with suppress(OSError):  # some file systems flush no folders; the content is flushed already
                flush(path.parent)
    return path


def flush(path: Path) -> None:
    """Flush a file's content, or a folder's list of names, so that it survives a power failure."""
    if os.name == "nt":  # Windows flushes no folders, and files only through the handle that wrote them
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def flush_tree(folder: Path) -> None:
    """Flush a folder with all files and folders in it."""
    for path in (*folder.rglob("*"), folder):
        if path.is_file() or path.is_dir():
            flush(path)


def make_folder(folder: Path) -> Path:
    """Create a folder and its parents where they are missing.

    Raises:
        NotADirectoryError: something else has the name of the folder or of a parent.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError, FileNotFoundError) as error:
        for path in (*reversed(folder.absolute().parents), folder.absolute()):
            if os.path.lexists(path) and not path.is_dir():
                what = "a link that leads nowhere" if path.is_symlink() else "a file"
                message = f"{path} is {what} where a folder is needed; move it away"
                raise NotADirectoryError(errno.ENOTDIR, message) from error
        raise
    return folder


def remove(path: Path) -> None:
    """Remove the file, link (not its target) or folder at `path`, if there is one."""
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
        return
    try:
        shutil.rmtree(path)
    except PermissionError:  # a folder inside may be closed to its owner
        path.chmod(0o700)
        for parent, folders, _ in os.walk(path):
            for folder in (Path(parent, name) for name in folders):
                if not folder.is_symlink():
                    folder.chmod(0o700)
        shutil.rmtree(path)


@contextmanager
def file_lock(path: Path) -> Iterator[None]:
    """Hold the lock of a file for a change that reads it and writes it back.

    The lock lies in the system's folder of temporary files, so that the folder of `path` stays clean.
    """
    user = os.getuid() if hasattr(os, "getuid") else "user"
    locks = Path(tempfile.gettempdir(), f"caft-locks-{user}")
    locks.mkdir(mode=0o700, exist_ok=True)
    name = sha256(str(path.resolve()).encode()).hexdigest()
    with FileLock(locks / f"{name}.lock"):
        yield


@contextmanager
def disk_errors_explained(folder: Path, remedy: str) -> Iterator[None]:
    """Add the folder and a remedy to the message of an error that the disk causes in this block."""
    try:
        yield
    except Exception as error:
        found = disk_problem(error, folder)
        if found is None or remedy in str(error):  # an inner block has already explained it
            raise
        number, problem = found
        raise OSError(number, f"{problem}; {remedy}") from error


def disk_problem(error: BaseException, folder: Path) -> tuple[int, str] | None:
    """Return (errno, description) of a failed write in `folder`, or None if the error has another cause."""
    number, text = getattr(error, "errno", None), str(error)
    # Errors of libraries in other languages name the system's error in their text only.
    if number is None and (named := re.search(r"\(os error (\d+)\)", text)):
        number = int(named[1])
    elif number is None and "No space left on device" in text:
        number = errno.ENOSPC
    elsewhere = _folder_elsewhere(error, folder)
    if number in FULL:
        return number, f"the disk that holds {elsewhere or folder} is full"
    if number == errno.EFBIG:
        return number, f"a file in {elsewhere or folder} exceeds the largest size that the system allows"
    network = isinstance(error, OSError) and error.filename is None and number != errno.EROFS
    if number in NOT_WRITABLE and elsewhere is None and not network:
        return number, f"{folder} is not writable ({error})"
    if isinstance(error, RuntimeError) and TORCH_WRITER.search(text):
        return errno.ENOSPC, f"torch could not write a file; the disk that holds {folder} is probably full"
    return None


def _folder_elsewhere(error: BaseException, folder: Path) -> Path | None:
    """Return the folder of the file that the error names, if it lies outside `folder`."""
    name = getattr(error, "filename", None)
    if not isinstance(name, (str, os.PathLike)):
        return None
    path = Path(name).absolute()
    return None if path.is_relative_to(folder) or folder.is_relative_to(path) else path.parent
