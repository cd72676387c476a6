"""The scores of a test, kept as they come, so that a test that was ended goes on from there."""

import hashlib
import json
import os
from pathlib import Path

import h5py
import numpy as np

from utils.errors import UserError
from utils.files import temporary_beside

TODO, SCORED, UNREADABLE = 0, 1, 2


class ScoresFile:
    """An HDF5 file with a row for every record of a test.

    Datasets: `scores` (records, K) float32; `status` (records,) uint8, 0 still to do, 1 scored, 2 its video could not
    be read. Attributes: what the scores were computed from, as given in `identity`. The file has its full size from
    the start and no structure changes afterwards: whenever the process dies, the rows whose status says so are whole.

    Args:
        path: made if it is not there. If it is there with another identity, it is replaced when it is complete (that
            test is over) or holds nothing yet, and else refused.
        identity: {name: text} that must be equal for rows to be taken over, e.g. a digest of the weights.

    Raises:
        UserError: the file is of another identity and not complete, is none of ours, or cannot be written.
    """

    def __init__(self, path, identity, records, num_classes):
        self.path = Path(path)
        if self.path.exists() and not self._continues(identity, records, num_classes):
            self.path.unlink()
        if not self.path.exists():
            self._create(identity, records, num_classes)
        self._file = _open(self.path, "r+")
        self.scores, self.status = self._file["scores"], self._file["status"][:]

    def _continues(self, identity, records, num_classes):
        with _open(self.path, "r") as file:
            if "status" not in file or "scores" not in file:
                raise UserError(f"{self.path}: expected the scores of a test, got another HDF5 file: remove it")
            differing = [name for name in identity if file.attrs.get(name) != identity[name]]
            if not differing and file["scores"].shape == (records, num_classes):
                return True
            status = file["status"][:]
            if (status != TODO).all() or (status == TODO).all():
                return False
        raise UserError(f"{self.path}: holds the scores of an unfinished test with another "
                        f"{' and '.join(differing) or 'size'}: finish that test, or remove the file to start anew")

    def _create(self, identity, records, num_classes):
        with temporary_beside(self.path) as temporary:
            with h5py.File(temporary, "w") as file:
                file.attrs.update(identity)
                _allocate(file, "scores", (records, num_classes), np.float32)
                _allocate(file, "status", (records,), np.uint8)
            os.replace(temporary, self.path)

    def write(self, rows, scores, status):
        """Set the rows (ascending array) of one status; scores (rows, K), or None for unreadable ones."""
        if not len(rows):
            return
        try:
            if scores is not None:
                self.scores[rows] = scores
                self._sync()  # a status must not reach the disk before its scores
            self.status[rows] = status
            self._file["status"][rows] = self.status[rows]
            self._file.flush()
        except OSError as error:
            raise UserError(f"{self.path}: cannot be written: {error}") from error

    def _sync(self):
        self._file.flush()
        os.fdatasync(self._file.id.get_vfd_handle())

    def close(self):
        self._file.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def _allocate(file, name, shape, dtype):
    layout = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    layout.set_layout(h5py.h5d.CONTIGUOUS)
    layout.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)  # all structure is there before the first row
    space, kind = h5py.h5s.create_simple(shape), h5py.h5t.py_create(np.dtype(dtype))
    h5py.h5d.create(file.id, name.encode(), kind, space, layout)


def _open(path, mode):
    try:
        return h5py.File(path, mode)
    except BlockingIOError as error:
        raise UserError(f"{path}: another test is writing it") from error
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error).splitlines()[0]
        raise UserError(f"{path}: expected an HDF5 file of scores, got what cannot be opened as one "
                        f"({reason}): remove it") from error


def file_digest(path):
    """SHA-256 of a file's bytes, hexadecimal. Raises UserError if it cannot be read."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error


def value_digest(*values):
    """SHA-256 over arrays and JSON-able values, hexadecimal."""
    digest = hashlib.sha256()
    for value in values:
        data = value.tobytes() if isinstance(value, np.ndarray) else json.dumps(value, sort_keys=True).encode()
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()
