"""Writing files atomically, so that a partial file never appears under the final name."""

import contextlib
import os
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


@contextmanager
def temporary_beside(path: StrPath) -> Iterator[Path]:
    """Yield the name of a temporary file in the folder of `path`, to be renamed to it; removed if it still exists.

    Raises UserError if the block cannot write the temporary file.
    """
    path = Path(path)
    # In the same folder, so that os.replace is a rename within one file system.
    partial = path.with_name(f".{path.name}.{os.getpid()}.tmp")
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
