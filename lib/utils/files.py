"""Writing files atomically, so that a partial file never appears under the final name."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, TypeAlias

from utils.errors import UserError

StrPath: TypeAlias = str | os.PathLike[str]


def make_folder(path: StrPath) -> None:
    """Create a folder and its parents if it does not exist. Raises UserError."""
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{path}: cannot be created: {error.strerror}") from error


def make_writable_folder(path: StrPath) -> None:
    """Create a folder if it does not exist, and check that files can be created in it. Raises UserError."""
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
def temporary_folder_beside(path: StrPath) -> Iterator[Path]:
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
def temporary_beside(path: StrPath, suffix: str = "") -> Iterator[Path]:
    """Yield the name of a temporary file next to `path`, to be renamed to it; removed if it is still there at the end.

    suffix: see temporary_name. Raises UserError if the file cannot be written.
    """
    path = Path(path)
    partial = path.with_name(temporary_name(path.name, suffix=suffix))
    try:
        yield partial
    except OSError as error:
        # A failed write (no space) names no file. Errors of other files are passed on.
        if error.filename not in (None, str(partial)):
            raise
        raise UserError(f"{path}: cannot be written: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(OSError):  # fails as well if the disk has become read-only
            partial.unlink()


@contextmanager
def atomic_write(path: StrPath, mode: str = "wb", **kwargs: Any) -> Iterator[IO[Any]]:
    """Yield a file that becomes `path` when the block ends, and is removed if the block raises.

    An existing file at `path` is kept until the new contents are on disk.

    Args:
        path: the file to create or replace; its folder must exist.
        mode, kwargs: arguments of `open` ("wb", or "w" with an encoding).

    Raises:
        UserError: the file cannot be written: no such folder, no permission, no space.
    """
    with temporary_beside(path) as partial:
        with open(partial, mode, **kwargs) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
        _sync_folder(Path(path).parent)


def _sync_folder(folder: Path) -> None:
    # Without this, a power failure may undo the rename.
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
