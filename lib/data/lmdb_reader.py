"""A read-only LMDB."""

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from weakref import WeakValueDictionary

import lmdb

from utils.errors import UserError


class Lmdb:
    """A read-only LMDB. A process opens it once, however many use it (LMDB forbids opening it twice)."""

    _opened: WeakValueDictionary[Path, "Lmdb"] = WeakValueDictionary()
    _lock = threading.Lock()

    @classmethod
    def open(cls, folder: Path) -> "Lmdb":
        """The LMDB in a folder, shared. Raises UserError if it cannot be read or is empty."""
        real = Path(folder).resolve()
        with cls._lock:
            reader = cls._opened.get(real)
            if reader is None:
                reader = cls._opened[real] = cls(folder)
            return reader

    def __init__(self, folder: Path):
        data = folder / "data.mdb"
        if not data.is_file():
            raise UserError(f"{folder} is not an LMDB: it has no data.mdb")
        try:
            self._env = lmdb.open(os.fsencode(folder), readonly=True, lock=False, readahead=False, max_spare_txns=32)
        except lmdb.Error as error:
            raise UserError(f"{folder} is not a readable LMDB: {error}") from None
        # Kept open: if another file takes the name, this one is still the one that is read.
        self._file = open(data, "rb")  # noqa: SIM115
        self._state = self._file_state()
        self.entries = self._env.stat()["entries"]
        # LMDB maps the file: touching a page beyond a truncated file's end would kill the process.
        needed = (self._env.info()["last_pgno"] + 1) * self._env.stat()["psize"]
        size = self._state.st_size
        if size < needed:
            raise UserError(f"{data} is cut short: {size} bytes of at least {needed}")
        if not self.entries:
            raise UserError(f"the LMDB {folder} has no records")

    def _file_state(self):
        return os.fstat(self._file.fileno())

    def _check_unchanged(self):
        """Raise UserError if the file was written to: touching a page that is gone kills the process."""
        now = self._file_state()
        if (now.st_size, now.st_mtime_ns) != (self._state.st_size, self._state.st_mtime_ns):
            raise UserError(f"{self._file.name} was changed while it was being read: write another LMDB and rename it")

    def get(self, key: bytes) -> bytes | None:
        """The value of a key, or None. Raises UserError if the file was changed."""
        self._check_unchanged()
        # A transaction per call, as threads cannot share one.
        with self._env.begin() as transaction:
            return transaction.get(key)

    def ends(self) -> tuple[bytes, bytes]:
        """First and last key."""
        with self._env.begin() as transaction, transaction.cursor() as cursor:
            cursor.first()
            first = cursor.key()
            cursor.last()
            return first, cursor.key()

    def keys(self) -> Iterator[bytes]:
        """Yield every key in order."""
        with self._env.begin() as transaction, transaction.cursor() as cursor:
            yield from cursor.iternext(keys=True, values=False)

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """Yield (key, value) of every record in key order."""
        with self._env.begin() as transaction, transaction.cursor() as cursor:
            yield from cursor.iternext()
