"""HDF5 files whose structure is sealed: a digest over every byte but the values of a few datasets.

The HDF5 library trusts the structure of a file: damage there can make it raise anything, read wrong values, or crash.
So the structure of a sealed file is checked before the library sees it. The seal is in the user block, the space in
front of an HDF5 file that the library leaves to others.
"""

import hashlib
import json
import os
from typing import BinaryIO

import h5py

_MAGIC = b"sealed HDF5 1\n"
_CHUNK = 1 << 20
# What says in the superblock (of version 0 or 1) that somebody is writing: offset and size.
_CONSISTENCY_FLAGS = 20, 4


class BrokenSeal(Exception):
    """The file was changed where nothing writes."""


def user_block_size(datasets: int) -> int:
    """The size of a user block (h5py.File's userblock_size) that holds a seal leaving out so many datasets."""
    needed = len(_MAGIC) + 200 + 50 * datasets
    return max(512, 1 << (needed - 1).bit_length())


def seal(path: str | os.PathLike, open_datasets: list[str]) -> None:
    """Seal a closed file that has a user block and was written with libver="earliest".

    Args:
        path: the file.
        open_datasets: names of the datasets whose values may change: contiguous ones whose space is allocated.
    """
    with h5py.File(path, "r") as file:
        size = file.userblock_size
        values = sorted((file[name].id.get_offset(), file[name].id.get_storage_size()) for name in open_datasets)
        values.insert(0, (size + _CONSISTENCY_FLAGS[0], _CONSISTENCY_FLAGS[1]))
    with open(path, "r+b") as file:
        text = _MAGIC + json.dumps({"values": values, "sha256": _digest(file, size, values)}).encode() + b"\n"
        assert len(text) <= size
        file.seek(0)
        file.write(text.ljust(size, b"\0"))


def is_sealed(path: str | os.PathLike) -> bool:
    """Whether a path is that of a file with a seal, good or bad. Raises OSError."""
    with open(path, "rb") as file:
        return file.read(len(_MAGIC)) == _MAGIC


def check_seal(path: str | os.PathLike) -> bool:
    """Whether a file is sealed. Raises BrokenSeal if it was changed outside the values of its open datasets."""
    if not is_sealed(path):
        return False
    with open(path, "rb") as file:
        file.seek(len(_MAGIC))
        text = file.readline(_CHUNK)
        try:
            content = json.loads(text)
            values = [(int(start), int(size)) for start, size in content["values"]]
            is_intact = content["sha256"] == _digest(file, user_block_size(len(values) - 1), values)
        except (ValueError, LookupError, TypeError, OverflowError) as error:
            raise BrokenSeal("its seal is damaged") from error
    if not is_intact:
        raise BrokenSeal("it was changed where nothing writes")
    return True


def _digest(file: BinaryIO, start: int, values: list[tuple[int, int]]) -> str:
    """SHA-256 of the bytes from `start` on, without those of the given (offset, size)."""
    digest = hashlib.sha256(json.dumps(values).encode())
    for offset, size in values:
        _update(digest, file, start, offset)
        start = offset + size
    _update(digest, file, start, os.fstat(file.fileno()).st_size)
    return digest.hexdigest()


def _update(digest, file, start, end):
    if not 0 <= start <= end:
        raise ValueError(f"no stretch of a file: {start} to {end}")
    file.seek(start)
    while start < end:
        data = file.read(min(_CHUNK, end - start))
        if not data:
            raise ValueError("the file is cut short")
        digest.update(data)
        start += len(data)
