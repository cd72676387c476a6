"""Results written row by row as they are computed, so that an interrupted run can be resumed."""

import hashlib
import json
import math
import os
from pathlib import Path

import h5py
import numpy as np

from utils.errors import UserError
from utils.files import atomic_file

TODO, SCORED, UNREADABLE = 0, 1, 2


class ResultFile:
    """An HDF5 file with a row for every record of a job.

    Datasets: `status` (rows,) uint8, 0 not done yet, 1 scored, 2 video unreadable; the columns, each (rows, *shape)
    float32, zero where not scored; the constants. Attributes: what the rows were computed from, as given in `identity`.
    The file has its full size from the start, and its structure never changes: whenever the process dies, the rows
    marked as scored are complete.

    Args:
        path: created if it does not exist. A file with another identity is an error, but replaced if it is complete
            and `replace_finished` is set, or has no rows yet.
        content: what the rows are, for messages ("scores of a test").
        identity: {name: text} that must be equal for existing rows to be kept, e.g. a digest of the weights.
        rows: number of rows.
        columns: {name: shape of a row}.
        constants: {name: array or list of byte strings}, written when the file is created.
        attributes: {name: value} further attributes of the file, written when it is created.
        replace_finished: see path.

    Raises:
        UserError: the file has another identity or is not a ResultFile, or cannot be written.
    """

    def __init__(self, path: str | os.PathLike, content: str, identity: dict[str, str], rows: int,
                 columns: dict[str, tuple[int, ...]], constants: dict[str, np.ndarray | list[bytes]],
                 attributes: dict | None = None, replace_finished: bool = False):
        self.path, self.content = Path(path), content
        if self.path.exists() and not self._continues(identity, rows, columns, replace_finished):
            self.path.unlink()
        if not self.path.exists():
            self._create(identity | (attributes or {}), rows, columns, constants)
        self._file = open_result_file(self.path, content, "r+")
        self.columns = {name: self._file[name] for name in columns}
        self.status = self._file["status"][:]
        self._splits = np.cumsum([math.prod(shape) for shape in columns.values()])[:-1]

    def _continues(self, identity, rows, columns, replace_finished):
        with open_result_file(self.path, self.content, "r") as file:
            differing = [name for name in identity if file.attrs.get(name) != identity[name]]
            if not differing and all(name in file and file[name].shape == (rows, *shape)
                                     for name, shape in columns.items()):
                return True
            status = file["status"][:]
        finished = bool((status != TODO).all())
        if (finished and replace_finished) or (status == TODO).all():
            return False
        advice = "remove the file to start over" if finished else "finish that run, or remove the file to start over"
        raise UserError(f"{self.path}: holds the {self.content} {'' if finished else 'of an unfinished run '}with "
                        f"another {' and '.join(differing) or 'size'}: {advice}")

    def _create(self, attributes, rows, columns, constants):
        with atomic_file(self.path) as temporary, h5py.File(temporary, "w") as file:
            file.attrs.update(attributes)
            for name, values in constants.items():
                dtype = None if isinstance(values, np.ndarray) else h5py.string_dtype()
                file.create_dataset(name, data=values, dtype=dtype)
            for name, shape in columns.items():
                _allocate(file, name, (rows, *shape), np.float32)
            _allocate(file, "status", (rows,), np.uint8)

    def write(self, rows: np.ndarray, values: np.ndarray | None, status: int) -> None:
        """Set the rows (ascending array) of one status.

        values are (rows, sum of the columns' sizes), the columns one after another, each flattened; None for
        unreadable rows.
        """
        if not len(rows):
            return
        try:
            if values is not None:
                parts = np.split(values, self._splits, axis=1)
                for column, part in zip(self.columns.values(), parts, strict=True):
                    column[rows] = part.reshape(len(rows), *column.shape[1:])
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
    space, kind = h5py.h5s.create_simple(shape), h5py.h5t.py_create(np.dtype(dtype))
    h5py.h5d.create(file.id, name.encode(), kind, space, layout)


def open_result_file(path: str | os.PathLike, content: str, mode: str = "r") -> h5py.File:
    """The h5py.File of a ResultFile. Raises UserError if it is something else, or another process is writing it."""
    try:
        file = h5py.File(path, mode)
    except BlockingIOError as error:
        raise UserError(f"{path}: another process is writing it") from error
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error).splitlines()[0]
        raise UserError(f"{path}: expected an HDF5 file, the {content}, got what cannot be opened as one "
                        f"({reason})") from error
    if "status" not in file:
        file.close()
        raise UserError(f"{path}: expected the {content}, got another HDF5 file")
    return file


def file_digest(path: str | os.PathLike) -> str:
    """SHA-256 of a file's bytes, hexadecimal. Raises UserError if it cannot be read."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error


def value_digest(*values) -> str:
    """SHA-256 over arrays and JSON-able values, hexadecimal."""
    digest = hashlib.sha256()
    for value in values:
        data = value.tobytes() if isinstance(value, np.ndarray) else json.dumps(value, sort_keys=True).encode()
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()
