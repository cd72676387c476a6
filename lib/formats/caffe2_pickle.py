"""Reading pickles of numbers without running code from them, and writing pickles that Python 2 reads."""

import hashlib
import io
import os
import pickle
import struct
from typing import Any

import numpy as np

from formats.file_signatures import foreign_kind, is_text
from formats.pickle_values import NUMERIC_DTYPE, Refusal
from formats.safe_unpickler import DAMAGE, unpickle
from utils.errors import UserError
from utils.files import atomic_write, is_regular


class PickleError(UserError):
    """A file that cannot be read as a pickle of numbers. The message names the file."""


class _Digesting(io.FileIO):
    """A file to read, and the SHA-256 of what has been read of it."""

    def __init__(self, path):
        super().__init__(path)
        self.digest = hashlib.sha256()

    def readinto(self, buffer):
        count = super().readinto(buffer)
        self.digest.update(memoryview(buffer)[:count])
        return count


def load(path: str | os.PathLike) -> Any:
    """Read a pickle of any protocol, of Python 2 or 3, numpy 1 or 2, without running code from it.

    Args:
        path: a regular file.

    Returns:
        What was pickled: dict, list, tuple, str, int, float, bool, None, numpy arrays and numpy scalars. Byte strings
        (Python 2's `str`) become `str`, decoded as latin-1; an OrderedDict becomes a dict. Arrays are writable, in the
        machine's byte order, and in the layout (C or Fortran) that they had.

    Raises:
        PickleError: the file is missing, truncated, not a pickle, or holds anything else (foreign globals, dtypes that
            are not numeric, persistent ids, dictionary keys that are not text).
    """
    return _load(path, io.FileIO)[0]


def load_with_digest(path: str | os.PathLike) -> tuple[Any, str]:
    """As load(), and the SHA-256 (hexadecimal) of the file: of the very bytes that were read."""
    value, file = _load(path, _Digesting)
    return value, file.digest.hexdigest()


def _load(path, kind):
    """(what was pickled, the unbuffered file, closed). All bytes of the file have been read through `kind`."""
    head = b""
    try:
        if not is_regular(path):
            raise PickleError(f"{path}: expected a pickle file, got a {'folder' if os.path.isdir(path) else 'device'}")
        raw = kind(path)
        with io.BufferedReader(raw) as file:
            head = file.peek(500)[:500]
            if foreign := foreign_kind(head):
                raise PickleError(f"{path}: expected a pickle of weights, got {foreign}")
            value = unpickle(file, os.fstat(file.fileno()).st_size)
            while file.read(1 << 16):
                pass  # what follows a pickle belongs to the file
            return value, raw
    except OSError as error:
        raise PickleError(f"{path}: cannot read: {error.strerror}") from error
    except (EOFError, Refusal, *DAMAGE) as error:
        raise PickleError(f"{path}: {_reason(error, head)}") from error


def _reason(error, head):
    """Why a file that begins with `head` cannot be read."""
    if is_text(head):
        return "expected a pickle of weights, got a text file"
    if isinstance(error, EOFError):
        return "the pickle is truncated or empty"
    if isinstance(error, Refusal):
        return f"refused to unpickle: {error}"
    return f"not a valid pickle ({type(error).__name__})"


def dump(obj: object, path: str | os.PathLike) -> None:
    """Write a pickle in protocol 2, which Python 3 reads and Python 2 with numpy 1 (pickle and cPickle).

    ASCII text becomes Python 2's `str`, other text its `unicode`. Arrays are written C-contiguous and little-endian,
    directly from their memory: only arrays of another layout are copied, one at a time. The conversion scripts of the
    Caffe2 program wrote protocol 0; any program that reads protocol 0 reads protocol 2.

    Args:
        obj: dict (with text keys), list, tuple, str, int, float, bool, None, numpy arrays and numpy scalars of numeric
            dtypes, in any combination.
        path: the file to create or replace, in one step; its folder must exist.

    Raises:
        UserError: the file cannot be written.
        TypeError: any other kind of object.
    """
    with atomic_write(path) as file:
        file.write(pickle.PROTO + b"\x02")
        _write(file.write, obj)
        file.write(pickle.STOP)


def _write(write, value):
    kind = type(value)
    if value is None:
        write(pickle.NONE)
    elif kind is bool:
        write(pickle.NEWTRUE if value else pickle.NEWFALSE)
    elif kind is int:
        # Beyond 32 bits, Python 2 reads the text form as an int and not as a long.
        write(pickle.BININT + struct.pack("<i", value) if -(2**31) <= value < 2**31 else b"I%d\n" % value)
    elif kind is float:
        write(pickle.BINFLOAT + struct.pack(">d", value))
    elif kind is str:
        data = value.encode()
        opcode = pickle.BINSTRING if value.isascii() else pickle.BINUNICODE
        write(opcode + struct.pack("<i", len(data)) + data)
    elif kind is np.ndarray:
        _write_array(write, value)
    elif isinstance(value, np.generic):
        _write_scalar(write, value)
    elif kind is list:
        write(pickle.EMPTY_LIST + pickle.MARK)
        for item in value:
            _write(write, item)
        write(pickle.APPENDS)
    elif kind is tuple:
        write(pickle.MARK)
        for item in value:
            _write(write, item)
        write(pickle.TUPLE)
    elif kind is dict:
        write(pickle.EMPTY_DICT + pickle.MARK)
        for key, item in value.items():
            if type(key) is not str:
                raise TypeError(f"dictionary keys must be text, not {key!r}")
            _write(write, key)
            _write(write, item)
        write(pickle.SETITEMS)
    else:
        raise TypeError(f"cannot pickle a {kind.__name__}")


def _write_array(write, array):
    # As ndarray.__reduce__: _reconstruct(ndarray, (0,), "b"), then the state.
    write(_global("numpy.core.multiarray", "_reconstruct") + pickle.MARK + _global("numpy", "ndarray"))
    _write(write, (0,))
    _write(write, "b")
    write(pickle.TUPLE + pickle.REDUCE + pickle.MARK)
    _write(write, 1)
    _write(write, array.shape)
    array = _write_dtype(write, array)
    write(pickle.NEWFALSE)
    _write_data(write, array)
    write(pickle.TUPLE + pickle.BUILD)


def _write_scalar(write, value):
    write(_global("numpy.core.multiarray", "scalar") + pickle.MARK)
    _write_data(write, _write_dtype(write, np.asarray(value)))
    write(pickle.TUPLE + pickle.REDUCE)


def _write_dtype(write, array):
    """Write the little-endian dtype of an array, and return the array in that dtype and C-contiguous."""
    array = np.asarray(array, array.dtype.newbyteorder("<"), order="C")
    code = array.dtype.str  # as in '<f4'
    if not NUMERIC_DTYPE.fullmatch(code):
        raise TypeError(f"cannot pickle an array of type {array.dtype}")
    write(_global("numpy", "dtype"))
    _write(write, (code[1:], 0, 1))
    write(pickle.REDUCE)
    _write(write, (3, code[0], None, None, None, -1, -1, 0))
    write(pickle.BUILD)
    return array


def _write_data(write, array):
    if array.nbytes >= 2**31:
        raise TypeError(f"cannot pickle an array of {array.nbytes} bytes: protocol 2 ends at 2 GiB")
    write(pickle.BINSTRING + struct.pack("<i", array.nbytes))
    write(array.reshape(-1).view(np.uint8).data)


def _global(module, name):
    return pickle.GLOBAL + f"{module}\n{name}\n".encode()
