"""Writing files atomically, so that a partial file never appears under the final name."""

import contextlib
import os
import re
import shutil
import socket
import stat
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, TypeAlias

from utils import stopping
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
        with _temporary(Path(path), "probe") as probe:
            probe.touch()
    except OSError as error:
        raise UserError(f"{path}: cannot be written to: {error.strerror}") from error


def check_writable(path: StrPath) -> None:
    """Raise UserError where atomic_file(path) would: before work whose result is written at its end."""
    target = _regular_target(path)
    try:
        with _temporary(target.parent, target.name) as probe:
            probe.touch()
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror}") from error


# Temporary names

_TEMPORARY = re.compile(r"\.(?P<name>.+)\.(?P<host>[^.]+)\.(?P<process>\d+)\.tmp(?:\..*)?", re.ASCII | re.DOTALL)

_in_use: set[str] = set()  # temporary paths that this process is writing


def temporary_name(name: str, suffix: str = "") -> str:
    """Name of the unfinished file or folder that is to become `name`.

    Hidden, so that nothing lists it, and meant for the same folder, so that renaming stays within one file system. It
    contains this host and process, for clear_leftovers.

    Args:
        name: the final name.
        suffix: an ending, for writers that choose the format by it.
    """
    return f".{_shortened(name)}.{_host()}.{os.getpid()}.tmp{suffix}"


def _shortened(name: str) -> str:
    """A name that leaves room for the rest of a temporary name; names have at most 255 bytes."""
    encoded = os.fsencode(name)
    return name if len(encoded) <= 150 else f"{os.fsdecode(encoded[:140])}~{zlib.crc32(encoded):08x}"


def _host() -> str:
    return re.sub(r"[^\w-]", "_", socket.gethostname(), flags=re.ASCII) or "_"


def clear_leftovers(folder: StrPath, is_wanted: Callable[[str], object]) -> None:
    """Delete the unfinished files and folders that dead processes of this host have left.

    Those of other hosts stay, as nobody knows here whether they are still written.

    Args:
        folder: where to look; one that cannot be listed has nothing to clear.
        is_wanted: is_wanted(final name) says whether to look at the unfinished files of that name.
    """
    try:
        names = os.listdir(folder)
    except OSError:
        return
    for name in names:
        match = _TEMPORARY.fullmatch(name)
        if match is None or match["host"] != _host() or not is_wanted(match["name"]):
            continue
        path = os.path.join(folder, name)
        if not _is_alive(int(match["process"]), path):
            _remove(path)


def _is_alive(process: int, path: str) -> bool:
    """Whether the process that was writing `path` may still be doing so."""
    if process == os.getpid():
        # In containers the process before this one often had the same number.
        return os.path.realpath(path) in _in_use
    return process_exists(process)


def process_exists(process: int) -> bool:
    """Whether there is a process of this number on this host."""
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass  # of another user
    return True


def _remove(path: StrPath) -> None:
    """Remove a temporary file or folder, if it is there."""
    with contextlib.suppress(OSError):  # fails as well if the disk has become read-only
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path)
        else:
            os.unlink(path)


def _remove_all_in_use() -> None:
    for path in list(_in_use):
        _remove(path)


stopping.at_last(_remove_all_in_use)


@contextmanager
def _temporary(folder: Path, name: str, suffix: str = "") -> Iterator[Path]:
    """Yield a temporary path in `folder` for the final name; whatever is there at the end is removed."""
    clear_leftovers(folder, _shortened(name).__eq__)
    path = folder / temporary_name(name, suffix)
    key = os.path.realpath(path)
    _in_use.add(key)
    try:
        yield path
    finally:
        _remove(path)
        _in_use.discard(key)


# Files


@contextmanager
def temporary_folder(folder: StrPath, name: str) -> Iterator[Path]:
    """Yield an empty temporary folder in `folder`, to become `name`; removed if it is still there at the end."""
    with _temporary(Path(folder), name) as path:
        make_folder(path)
        yield path


@contextmanager
def atomic_file(path: StrPath, suffix: str = "") -> Iterator[Path]:
    """Yield the name of a temporary file that becomes `path` when the block ends, and is removed if the block raises.

    The block writes the file. It is on disk before it gets its name. If `path` is a symlink, the file that it leads to
    is replaced.

    Args:
        path: the file to create or replace; its folder must exist.
        suffix: see temporary_name.

    Raises:
        UserError: the file cannot be written, or there is something at `path` that is not a regular file.
    """
    target = _regular_target(path)
    with _temporary(target.parent, target.name, suffix) as partial:
        try:
            yield partial
            _sync(partial)
            _regular_target(target)  # nothing else has come there meanwhile
            os.replace(partial, target)
            _sync(target.parent)
        except OSError as error:
            # A failed write (no space) names no file. Errors of other files are passed on.
            if error.filename not in (None, str(partial), str(target.parent)):
                raise
            raise UserError(f"{path}: cannot be written: {error.strerror or error}") from error


@contextmanager
def atomic_write(path: StrPath, mode: str = "wb", **kwargs: Any) -> Iterator[IO[Any]]:
    """Yield a file that becomes `path` when the block ends, and is removed if the block raises.

    An existing file at `path` is kept until the new contents are on disk. A symlink is followed. A device, FIFO or
    open file of this process (/dev/stdout) is written to as it is.

    Args:
        path: the file to create or replace; its folder must exist.
        mode, kwargs: arguments of `open` ("wb", or "w" with an encoding).

    Raises:
        UserError: the file cannot be written: no such folder, no permission, no space.
    """
    if (descriptor := _open_in_place(path)) is not None:
        try:
            with open(descriptor, mode, **kwargs) as file:
                yield file
        except BrokenPipeError:
            raise
        except OSError as error:
            if error.filename is not None:
                raise
            raise UserError(f"{path}: cannot be written: {error.strerror or error}") from error
        return
    with atomic_file(path) as partial, open(partial, mode, **kwargs) as file:
        yield file


@contextmanager
def growing_file(path: StrPath) -> Iterator[Callable[[bytes], None]]:
    """Yield a function that writes more bytes to a file, for results that count even if the work is not finished.

    An existing file at `path` is replaced at once. The file holds what whole calls have written, however the process
    ends: each is one call of the system, and one that fails (no space) is undone. Otherwise as atomic_write.
    """
    try:
        if (descriptor := _open_in_place(path)) is None:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror}") from error

    def write(content: bytes) -> None:
        is_file = stat.S_ISREG(os.fstat(descriptor).st_mode)
        before = os.lseek(descriptor, 0, os.SEEK_CUR) if is_file else 0
        rest = memoryview(content)
        try:
            while rest:
                rest = rest[os.write(descriptor, rest):]
        except BrokenPipeError:
            raise
        except OSError as error:
            if is_file:
                os.ftruncate(descriptor, before)
            raise UserError(f"{path}: cannot be written: {error.strerror}") from error

    try:
        yield write
    finally:
        os.close(descriptor)


def is_regular(path: StrPath) -> bool:
    """Whether a path leads to a file that can be opened at once: opening a FIFO would wait for a writer.

    Raises OSError if it leads nowhere.
    """
    return stat.S_ISREG(os.stat(path).st_mode)


def sync_folder(folder: StrPath) -> None:
    """Make the names in a folder durable: without this, a power failure may undo a rename."""
    _sync(Path(folder))


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _regular_target(path: StrPath) -> Path:
    """The file that `path` leads to, which may not exist yet. UserError if there is something else than a file."""
    mode = _mode(path)
    if mode is not None and stat.S_ISDIR(mode):
        raise UserError(f"{path}: cannot be written: Is a directory")
    if mode is not None and not stat.S_ISREG(mode):
        raise UserError(f"{path}: expected the name of a file to write, got a device, FIFO or socket")
    return Path(os.path.realpath(path))


def _mode(path: StrPath) -> int | None:
    try:
        return os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be written: {getattr(error, 'strerror', None) or error}") from error


def _open_in_place(path: StrPath) -> int | None:
    """A descriptor for writing to what must not be replaced (device, FIFO, open file); None for other paths."""
    try:
        if (own := _own_descriptor(path)) is not None:
            # Not opened anew: that would have a position of its own, and a socket cannot be.
            sys.stdout.flush()
            return os.dup(own)
        mode = _mode(path)
        if mode is None or stat.S_ISREG(mode) or stat.S_ISDIR(mode):
            return None
        return os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror}") from error


def _own_descriptor(path: StrPath) -> int | None:
    """The number of this process's descriptor that `path` names, as /dev/stdout and /dev/fd/3 do; else None."""
    path = os.path.abspath(path)
    for _ in range(40):  # the system's limit of links to follow
        folder, name = os.path.split(path)
        if os.path.realpath(folder) in (f"/proc/{os.getpid()}/fd", "/dev/fd") and name.isdecimal():
            return int(name)
        if not os.path.islink(path):
            return None
        path = os.path.join(folder, os.readlink(path))
    return None
