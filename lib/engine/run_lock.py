"""One run for each folder: a lock that says who holds it.

The lock is a file in the folder, held with flock, which ends with its process. Some network file systems do not pass
flock on to other machines, so the holder also touches the file again and again: from another machine, that is how a
living run is told from one that has died without removing its file.
"""

import contextlib
import datetime
import fcntl
import json
import logging
import os
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from utils import stopping
from utils.errors import UserError
from utils.files import StrPath, clear_leftovers, process_exists

logger = logging.getLogger(__name__)

LOCK_NAME = "run.lock"
TOUCH_SECONDS = 10.0
# Without a touch for so long, a run on another machine is taken for dead.
SILENCE_SECONDS = 60.0

# Real path of a folder whose lock this process has -> the lock's path and descriptor.
_held: dict[str, tuple[Path, int]] = {}


def _release_all() -> None:
    for held in list(_held.values()):
        _release(*held)


stopping.at_last(_release_all)


@dataclass(frozen=True)
class Holder:
    """Who holds a lock, or has left it behind. machine: what tells machines apart, also after a restart."""

    host: str
    process: int
    since: str
    machine: str

    def __str__(self) -> str:
        return f"process {self.process} on {self.host}, since {self.since}"

    @classmethod
    def this_process(cls) -> "Holder":
        now = datetime.datetime.now().astimezone().isoformat(" ", "seconds")
        return cls(socket.gethostname(), os.getpid(), now, _machine())


def _machine() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return socket.gethostname()


@contextlib.contextmanager
def only_run_in(folder: StrPath, *subfolders: str) -> Iterator[None]:
    """Hold the lock of an existing folder, as long as the block lasts; a run that holds it already goes on.

    Args:
        folder: where the lock is. What dead runs have left unfinished there is removed.
        subfolders: names of further folders in it where that is done.

    Raises:
        UserError: another run holds it, or the file cannot be written.
    """
    path, real = Path(folder, LOCK_NAME), os.path.realpath(folder)
    if real in _held:
        yield
        return
    try:
        descriptor = _acquire(path, real)
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror}") from error
    for place in (folder, *(Path(folder, name) for name in subfolders)):
        clear_leftovers(place, lambda name: True)
    ended = threading.Event()
    touching = threading.Thread(target=_keep_touching, args=(descriptor, ended), daemon=True)
    touching.start()
    try:
        yield
    finally:
        ended.set()
        touching.join()
        _release(path, descriptor)
        del _held[real]


def _acquire(path: Path, real: str) -> int:
    """A descriptor of the locked file, which names this process; it is in _held."""
    dead = None  # the holder that has given no sign of life
    while True:
        with stopping.held():  # between the making of the file and the note of it
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            try:
                stranger = _lock(descriptor, path)
                if stranger == dead and _is_at(path, descriptor):
                    _write_holder(path, descriptor)
                    _held[real] = path, descriptor
                    return descriptor
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)  # perhaps its holder has removed it meanwhile
        if stranger is not None:
            _await_sign_of_life(path, stranger)
        dead = stranger


def _write_holder(path: Path, descriptor: int) -> None:
    """Name this process in its lock; a file that cannot be written is removed."""
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(asdict(Holder.this_process())).encode(), 0)
        os.fsync(descriptor)
    except OSError:
        path.unlink()
        raise


def _lock(descriptor: int, path: Path) -> Holder | None:
    """Lock an open file. Returns whom it names if nobody can tell from here whether that one is alive.

    Raises UserError if another run has the lock.
    """
    flock_works = True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise _occupied(path, _read_holder(descriptor, patience=1)) from None
    except OSError as error:
        logger.warning("%s: cannot be locked (%s): make sure that no other run uses this folder", path, error.strerror)
        flock_works = False
    holder = _read_holder(descriptor)
    if holder is None or holder.machine != _machine():
        return holder
    if not flock_works and process_exists(holder.process):
        raise _occupied(path, holder)
    logger.info("%s: left behind by %s, which has ended", path, holder)
    return None


def _await_sign_of_life(path: Path, holder: Holder) -> None:
    """Raise UserError if the holder of a lock, on another machine, is alive."""
    logger.warning("%s: names %s, a machine whose processes are not seen from here: waiting up to %.0f seconds for a "
                   "sign of life", path, holder, SILENCE_SECONDS)
    if _is_touched(path, SILENCE_SECONDS):
        raise _occupied(path, holder)
    logger.info("%s: no sign of life: left behind by a run that has ended", path)


def _is_touched(path: Path, seconds: float) -> bool:
    """Whether a file is touched within some seconds. Its times are not compared with the clock of this machine."""
    deadline = time.monotonic() + seconds
    first = _touched_at(path)
    while time.monotonic() < deadline:
        time.sleep(min(1.0, seconds / 20))
        if (now := _touched_at(path)) != first:
            return now is not None
    return False


def _touched_at(path: Path) -> int | None:
    """Time of the last change of a file; None if it has been removed."""
    try:
        with open(path, "rb") as file:  # opened each time: NFS asks the server anew only then
            return os.fstat(file.fileno()).st_mtime_ns
    except FileNotFoundError:
        return None


def _read_holder(descriptor: int, patience: float = 0) -> Holder | None:
    """Whom a file names; None if it names nobody. It may be that its holder is just writing it."""
    deadline = time.monotonic() + patience
    while True:
        try:
            holder = Holder(**json.loads(os.pread(descriptor, 10_000, 0)))
            if isinstance(holder.process, int) and holder.process > 0:
                return holder
        except (ValueError, TypeError):
            pass
        if time.monotonic() >= deadline:
            return None
        time.sleep(0.05)


def _occupied(path: Path, holder: Holder | None) -> UserError:
    who = "a process that it does not name" if holder is None else str(holder)
    return UserError(f"{path}: another run uses this folder: {who}; wait for its end, or use another CHECKPOINT.DIR")


def _keep_touching(descriptor: int, ended: threading.Event) -> None:
    while not ended.wait(TOUCH_SECONDS):
        with contextlib.suppress(OSError):
            os.utime(descriptor)


def _is_at(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _release(path: Path, descriptor: int) -> None:
    with contextlib.suppress(OSError):  # the disk may have become read-only
        if _is_at(path, descriptor):
            os.unlink(path)
    os.close(descriptor)
