"""Results written row by row as they are computed, so that an interrupted run can be resumed."""

import contextlib
import hashlib
import json
import logging
import math
import os
import stat
import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from formats.sealed_hdf5 import BrokenSeal, check_seal, is_sealed, seal, user_block_size
from utils.errors import UserError
from utils.files import atomic_file

logger = logging.getLogger(__name__)

TODO, SCORED, UNREADABLE = 0, 1, 2

_ROWS_AT_ONCE = 4096


class ResultFile:
    """An HDF5 file with a row for every record of a job.

    Datasets: `status` (rows,) uint8, 0 not done yet, 1 scored, 2 video unreadable; the columns, each (rows, *shape)
    float32, zero where not scored; `checksums` (rows,) uint32 of the rows that are done (row_checksum); the constants.
    Attributes: what the rows were computed from, as given in `identity`. The file has its full size from the start, and
    its structure never changes: it is sealed (sealed_hdf5.py). Whenever the process dies, the rows marked as done are
    complete. Rows that do not have their checksum are computed again.

    Args:
        path: created if it does not exist.
        content: what the rows are, for messages ("scores of a test").
        identity: {name: text} that must be equal for existing rows to be kept, e.g. a digest of the weights.
        rows: number of rows.
        columns: {name: shape of a row}.
        constants: {name: array or list of byte strings}, written when the file is created.
        attributes: {name: value} further attributes of the file, written when it is created.
        make_way: what becomes of a file with another identity: if set, one that is complete is replaced, and one that
            is not is kept under a name of its own, from which its run goes on when it is started again. Otherwise it
            is an error. One without rows is always replaced.

    Raises:
        UserError: see make_way; or the file is damaged or not a ResultFile, or cannot be written.
    """

    def __init__(self, path: str | os.PathLike, content: str, identity: dict[str, str], rows: int,
                 columns: dict[str, tuple[int, ...]], constants: dict[str, np.ndarray | list[bytes]],
                 attributes: dict | None = None, make_way: bool = False):
        self.path, self.content = Path(path), content
        shapes = {name: (rows, *shape) for name, shape in columns.items()}
        if self.path.exists():
            found = _Summary.read(self.path, content)
            difference = found.difference(identity, shapes)
            if difference and make_way and found.is_unfinished:
                _keep(self.path, found, f"of an unfinished run with another {difference}")
            elif difference and found.is_begun and not make_way:
                raise UserError(f"{path}: holds the {content} {'of an unfinished run ' if found.is_unfinished else ''}"
                                f"with another {difference}: {'finish that run, or ' if found.is_unfinished else ''}"
                                "remove the file to start over")
            elif difference:
                self.path.unlink()
        if make_way and not self.path.exists():
            _fetch(self.path, content, identity, shapes)
        if not self.path.exists():
            self._create(identity | (attributes or {}), shapes, constants)
        with reading(self.path, content):
            self._file = h5py.File(self.path, "r+")
            self.columns = {name: self._file[name] for name in columns}
            self.status, damaged = verified_status(self._file, list(columns))
        if len(damaged):
            logger.warning("%s: damaged: %d of the %d rows are computed again", path, len(damaged), rows)
            self.status[damaged] = TODO
            self._file["status"][damaged] = TODO
        self._splits = np.cumsum([math.prod(shape) for shape in columns.values()])[:-1]

    def _create(self, attributes, shapes, constants):
        growing = [*shapes, "status", "checksums"]
        with atomic_file(self.path) as temporary:
            with h5py.File(temporary, "w", libver="earliest", userblock_size=user_block_size(len(growing))) as file:
                file.attrs.update(attributes)
                for name, values in constants.items():
                    dtype = None if isinstance(values, np.ndarray) else h5py.string_dtype()
                    file.create_dataset(name, data=values, dtype=dtype)
                for name, shape in shapes.items():
                    _allocate(file, name, shape, np.float32)
                rows = next(iter(shapes.values()))[:1]
                _allocate(file, "status", rows, np.uint8)
                _allocate(file, "checksums", rows, np.uint32)
            seal(temporary, growing)

    def write(self, rows: np.ndarray, values: np.ndarray | None, status: int) -> None:
        """Set the rows (ascending array) of one status.

        values are (rows, sum of the columns' sizes), the columns one after another, each flattened; None for
        unreadable rows.
        """
        if not len(rows):
            return
        stored = np.asarray(np.empty((len(rows), 0)) if values is None else values, np.float32)
        checksums = [row_checksum(row, status, vector) for row, vector in zip(rows.tolist(), stored, strict=True)]
        try:
            if values is not None:
                parts = np.split(stored, self._splits, axis=1)
                for column, part in zip(self.columns.values(), parts, strict=True):
                    column[rows] = part.reshape(len(rows), *column.shape[1:])
            self._file["checksums"][rows] = checksums
            self._sync()  # a status must not reach the disk before its values
            self.status[rows] = status
            self._file["status"][rows] = self.status[rows]
            self._file.flush()
        except OSError as error:
            raise UserError(f"{self.path}: cannot be written: {error}") from error

    def _sync(self):
        self._file.flush()
        os.fdatasync(self._file.id.get_vfd_handle())

    def close(self) -> None:
        self._file.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def _allocate(file, name, shape, dtype):
    layout = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    layout.set_layout(h5py.h5d.CONTIGUOUS)
    layout.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)  # the structure is complete before the first row
    layout.set_obj_track_times(False)  # and no time in it changes
    space, kind = h5py.h5s.create_simple(shape), h5py.h5t.py_create(np.dtype(dtype))
    h5py.h5d.create(file.id, name.encode(), kind, space, layout)


# What is there already


@dataclass(frozen=True)
class _Summary:
    """What an existing file is. version: '' unless it was written by an earlier version of this program."""

    identity: dict[str, object]
    shapes: dict[str, tuple[int, ...]]
    status: np.ndarray
    version: str

    @classmethod
    def read(cls, path: Path, content: str) -> "_Summary":
        with open_result_file(path, content) as file:
            return cls(dict(file.attrs), {name: file[name].shape for name in file}, file["status"][:],
                       "" if "checksums" in file else "version of the program")

    @property
    def is_begun(self) -> bool:
        return bool((self.status != TODO).any())

    @property
    def is_unfinished(self) -> bool:
        return self.is_begun and bool((self.status == TODO).any())

    def difference(self, identity: dict[str, str], shapes: dict[str, tuple[int, ...]]) -> str:
        """What of the file is not as given; '' if its rows can be kept."""
        differing = " and ".join(name for name in identity if self.identity.get(name) != identity[name])
        size = "" if all(self.shapes.get(name) == shape for name, shape in shapes.items()) else "size"
        return differing or size or self.version


def keep_unfinished(path: str | os.PathLike, content: str, reason: str) -> None:
    """Keep an unfinished file of the name under one of its own, see ResultFile. Raises UserError if it is damaged."""
    path = Path(path)
    if path.exists() and (found := _Summary.read(path, content)).is_unfinished:
        _keep(path, found, reason)


def _keep(path: Path, found: _Summary, reason: str) -> None:
    own = _own_name(path, found.identity)
    logger.warning("%s: %d of %d rows done, %s: kept as %s", path, (found.status != TODO).sum(), len(found.status),
                   reason, own.name)
    path.rename(own)


def _fetch(path: Path, content: str, identity: dict[str, str], shapes: dict[str, tuple[int, ...]]) -> None:
    """Give a file that was kept for its own run its name back."""
    own = _own_name(path, identity)
    if not own.exists():
        return
    try:
        if _Summary.read(own, content).difference(identity, shapes):
            return
    except UserError as error:
        logger.warning("Not used: %s", error)
        return
    logger.info("%s: going on with %s", path, own.name)
    own.rename(path)


def _own_name(path: Path, identity: Mapping[str, object]) -> Path:
    text = sorted((name, str(value)) for name, value in identity.items())
    return path.with_name(f"{path.stem}.{value_digest(text)[:12]}{path.suffix}")


# Reading and checking


def is_result_file(path: str | os.PathLike) -> bool:
    """Whether a file may be a ResultFile, however damaged."""
    return os.path.isfile(path) and (is_sealed(path) or h5py.is_hdf5(path))


@contextlib.contextmanager
def open_result_file(path: str | os.PathLike, content: str) -> Iterator[h5py.File]:
    """Yield the h5py.File of a ResultFile, for reading.

    Raises UserError if it is something else or damaged, or another process is writing it; and for whatever the library
    raises in the block.
    """
    with reading(path, content), h5py.File(path, "r") as file:
        if "status" not in file:
            raise UserError(f"{path}: expected the {content}, got another HDF5 file")
        if (size := os.path.getsize(path)) < max(file[name].nbytes for name in file):
            raise ValueError(f"more values than its {size} bytes")
        yield file


@contextlib.contextmanager
def reading(path: str | os.PathLike, content: str) -> Iterator[None]:
    """Check the seal of a file that the block opens, and report whatever goes wrong as a UserError."""
    try:
        if stat.S_ISFIFO(os.stat(path).st_mode):  # opening it would wait for a writer
            raise UserError(f"{path}: expected an HDF5 file, the {content}, got a FIFO")
        check_seal(path)
        yield
    except UserError:
        raise
    except BrokenSeal as error:
        raise UserError(f"{path}: damaged: {error}; remove the file to start over") from error
    except BlockingIOError as error:
        raise UserError(f"{path}: another process is writing it") from error
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error).splitlines()[0]
        raise UserError(f"{path}: expected an HDF5 file, the {content}, got what cannot be opened as one "
                        f"({reason})") from error
    except Exception as error:
        # An unsealed file that is damaged can make the library raise anything.
        raise UserError(f"{path}: expected the {content}, got a damaged file ({type(error).__name__})") from error


def verified_status(file: h5py.File, columns: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """The status of each row, and the numbers of the damaged rows. Without checksums, only a status can be wrong."""
    status = file["status"][:]
    damaged = ~np.isin(status, (TODO, SCORED, UNREADABLE))
    if "checksums" in file:
        checksums = file["checksums"][:]
        for start in range(0, len(status), _ROWS_AT_ONCE):
            rows = slice(start, start + _ROWS_AT_ONCE)
            values = np.concatenate([file[name][rows].reshape(len(status[rows]), -1) for name in columns], axis=1)
            for row, vector in enumerate(values, start):
                if status[row] != TODO:
                    stored = vector if status[row] == SCORED else vector[:0]
                    damaged[row] |= checksums[row] != row_checksum(row, int(status[row]), stored)
    return status, np.flatnonzero(damaged)


def row_checksum(row: int, status: int, values: np.ndarray) -> int:
    """CRC-32 of a row: its number (uint64), its status (uint8) and its float32 values, little-endian."""
    return zlib.crc32(values.astype("<f4").tobytes(), zlib.crc32(struct.pack("<QB", row, status)))


def value_digest(*values) -> str:
    """SHA-256 over arrays and JSON-able values, hexadecimal."""
    digest = hashlib.sha256()
    for value in values:
        data = value.tobytes() if isinstance(value, np.ndarray) else json.dumps(value, sort_keys=True).encode()
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()


def file_digest(path: str | os.PathLike) -> str:
    """SHA-256 of a file's bytes, hexadecimal. Raises UserError if it cannot be read."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
