"""Writing a file so that its name never stands for half of it."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from utils.errors import UserError


def make_folder(path):
    """Make a folder with its parents, if it is not there. Raises UserError."""
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{path}: cannot be made: {error.strerror}") from error


def make_writable_folder(path):
    """Make a folder, if it is not there, in which a file can be made: it is tried. Raises UserError."""
    make_folder(path)
    try:
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise UserError(f"{path}: cannot be written to: {error.strerror}") from error


def temporary_name(name: str, owner: str | int | None = None, suffix: str = "") -> str:
    """Name of the unfinished file or folder that is to become `name`.

    Hidden, so that nothing lists it, and meant for the same folder, so that renaming stays within one file system.

    Args:
        name: the final name.
        owner: what makes the name unique; default: the number of this process. "*" gives a glob pattern for all.
        suffix: an ending, for writers that choose the format by it.
    """
    return f".{name}.{os.getpid() if owner is None else owner}.tmp{suffix}"


@contextmanager
def temporary_folder_beside(path: str | os.PathLike) -> Iterator[Path]:
    """Yield an empty temporary folder next to `path`, to be renamed to it; removed if it is still there at the end."""
    path = Path(path)
    partial = path.with_name(temporary_name(path.name))
    # A killed process may have left one and have had the same number, as in containers.
    shutil.rmtree(partial, ignore_errors=True)
    make_folder(partial)
    try:
        yield partial
    finally:
        shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def temporary_beside(path: str | os.PathLike, suffix: str = "") -> Iterator[Path]:
    """Yield the name of a temporary file next to `path`, to be renamed to it; removed if it is still there at the end.

    suffix: see temporary_name. Raises UserError if the file cannot be written.
    """
    path = Path(path)
    partial = path.with_name(temporary_name(path.name, suffix=suffix))
    try:
        yield partial
    except OSError as error:
        # A write that fails (no space) names no file; another file's error passes.
        if error.filename not in (None, str(partial)):
            raise
        raise UserError(f"{path}: cannot be written: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(OSError):  # on a disk that has become read-only that fails, too
            partial.unlink()


@contextmanager
def atomic_write(path, mode="wb", **kwargs):
    """Yield a file that becomes `path` when the block ends, and leaves no trace when the block raises.

    What was at `path` stays there until the new contents are on disk.

    Args:
        path: the file to make or replace; its folder must exist.
        mode, kwargs: as of `open` ("wb", or "w" with an encoding).

    Raises:
        UserError: it cannot be written: no such folder, no permission, no space.
    """
    with temporary_beside(path) as partial:
        with open(partial, mode, **kwargs) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
        _sync_folder(Path(path).parent)


def _sync_folder(folder):
    # Without it a power cut may take back the rename.
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
