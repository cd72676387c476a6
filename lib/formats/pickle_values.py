"""The values that a pickle of numbers may build: numbers, text, numpy arrays and plain containers.

A global in a pickle is a name that is compared with a short list, under the module names of Python 2, Python 3, numpy 1
and numpy 2. It stands for one of the methods of ValueBuilder, and nothing is imported.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from math import prod

import numpy as np

MAX_DEPTH = 100  # of containers within containers
MAX_DIMENSIONS = 32  # of an array: numpy 1's own limit
# A file may use the same bytes several times (as keys of several dictionaries), but a small file must not fill the
# memory by using them over and over.
MAX_COPIES = 16

# Byte order, and bool, integers, floats and complex numbers of fixed size: no objects, records, text, dates.
NUMERIC_DTYPE = re.compile(r"[<>|=]?(b1|[iu][1248]|f[248]|c8|c16)")


class Refusal(Exception):
    """Something in the file that does not occur in a pickle of numbers."""


@dataclass(frozen=True)
class Global:
    """A known function or class, while it is being read. name: without its module."""

    name: str


_MODULES = {
    "ndarray": ("numpy",),
    "dtype": ("numpy",),
    "_reconstruct": ("numpy.core.multiarray", "numpy._core.multiarray"),
    "scalar": ("numpy.core.multiarray", "numpy._core.multiarray"),
    "_frombuffer": ("numpy.core.numeric", "numpy._core.numeric"),
    "OrderedDict": ("collections",),
    "encode": ("_codecs",),
    "bytes": ("__builtin__", "builtins"),
}
GLOBALS = {(module, name): Global(name) for name, modules in _MODULES.items() for module in modules}


class _Dtype:
    """A numpy dtype while it is being read: REDUCE makes it from a type string, BUILD gives it a byte order."""

    def __init__(self, code):
        if not NUMERIC_DTYPE.fullmatch(code):
            raise Refusal(f"dtype {show(code)} is not numeric")
        self.dtype = np.dtype(code)
        self.is_built = False


class _Array:
    """A numpy array while it is being read: made empty by REDUCE, filled by BUILD."""

    def __init__(self):
        self.array = None


def as_text(value):
    """Bytes as the text that Python 2 stored in them; anything else unchanged."""
    return value.decode("latin-1") if type(value) in (bytes, bytearray) else value


def show(value: object) -> str:
    """A value for error messages."""
    # For a container only its type: spelling out tuples within tuples can take forever.
    return f"{value!a:.200}" if type(value) in (str, bytes, bytearray) else type(value).__name__


class ValueBuilder:
    """Does what a pickle may ask for: calls known globals, and sets the states of the objects that they return.

    Args:
        size: of the file in bytes; limits how much data may be copied.
    """

    def __init__(self, size: int) -> None:
        self.copies_left = MAX_COPIES * size

    def call(self, function: object, arguments: object) -> object:
        """What REDUCE makes of a global and a tuple of arguments."""
        if type(function) is not Global or type(arguments) is not tuple or function.name not in _FUNCTIONS:
            raise Refusal("a call of something that is not a function")
        return _FUNCTIONS[function.name](self, *arguments)

    def set_state(self, target: object, state: tuple) -> None:
        """What BUILD does to an array or dtype."""
        if type(target) is _Array and target.array is None:
            self._build_array(target, *state)
        elif type(target) is _Dtype and not target.is_built:
            self._build_dtype(target, *state)
        else:
            raise Refusal("a state for something that takes none")

    def count_copy(self, data) -> None:
        """Count that bytes of the file were copied. Raises Refusal for more than MAX_COPIES times the file."""
        self.copies_left -= len(data)
        if self.copies_left < 0:
            raise Refusal("the same data used over and over")

    def key(self, value: object) -> str:
        """A dictionary key as text."""
        # Nothing but text: hashing nested tuples, or integers chosen to collide, can take forever.
        if type(value) is str:
            return value
        if type(value) not in (bytes, bytearray):
            raise Refusal(f"a dictionary key of type {type(value).__name__}")
        self.count_copy(value)
        return as_text(value)

    def _reconstruct(self, kind, _shape, _code):
        if kind is not GLOBALS["numpy", "ndarray"]:
            raise Refusal("an array of another class than numpy.ndarray")
        return _Array()

    def _build_array(self, target, version, shape, dtype, is_fortran, data):
        if version != 1 or type(is_fortran) not in (bool, int) or is_fortran not in (0, 1):
            raise Refusal("an array in an unknown form")
        target.array = self._array(data, dtype, shape, "F" if is_fortran else "C")

    def _dtype(self, code, _align, _copy):
        return _Dtype(as_text(code))

    def _build_dtype(self, target, version, byte_order, subarray, names, fields, _size, _alignment, _flags):
        if version != 3 or (subarray, names, fields) != (None, None, None):
            raise Refusal("a dtype in a form that no numeric dtype has")
        target.dtype = target.dtype.newbyteorder(as_text(byte_order))
        target.is_built = True

    def _scalar(self, dtype, data):
        return self._array(data, dtype, (), "C")[()]

    def _frombuffer(self, data, dtype, shape, order, axis_order=None):
        array = self._array(data, dtype, shape, "C" if axis_order else order)
        return array.transpose(axis_order) if axis_order else array

    def _array(self, data, dtype, shape, order):
        """Raw bytes -> array in the machine's byte order, sharing the memory where possible."""
        if type(dtype) is not _Dtype or type(data) not in (bytes, bytearray) or type(shape) is not tuple:
            raise Refusal("an array that is not made of a shape, a dtype and bytes")
        if len(shape) > MAX_DIMENSIONS or any(type(n) is not int or n < 0 for n in shape):
            raise Refusal(f"an array whose shape is not made of up to {MAX_DIMENSIONS} sizes")
        if prod(shape) * dtype.dtype.itemsize != len(data):
            raise Refusal(f"an array of shape {str(shape):.200}, {dtype.dtype}, in {len(data)} bytes")
        if type(data) is bytes or not dtype.dtype.isnative:
            self.count_copy(data)
        flat = np.frombuffer(bytearray(data) if type(data) is bytes else data, dtype.dtype)
        return flat.astype(flat.dtype.newbyteorder("="), copy=False).reshape(shape, order=order)

    def _encode(self, text, encoding):
        # How Python 3 writes bytes in protocols 0 to 2.
        if encoding not in ("latin1", "latin-1", b"latin1", b"latin-1"):
            raise Refusal(f"bytes in encoding {show(encoding)}")
        self.count_copy(text)
        return bytearray(text.encode("latin-1"))

    def _empty_bytes(self):
        return b""

    def _ordered_dict(self, pairs=()):
        return {self.key(key): value for key, value in pairs}


_FUNCTIONS: dict[str, Callable[..., object]] = {
    "dtype": ValueBuilder._dtype,
    "_reconstruct": ValueBuilder._reconstruct,
    "scalar": ValueBuilder._scalar,
    "_frombuffer": ValueBuilder._frombuffer,
    "OrderedDict": ValueBuilder._ordered_dict,
    "encode": ValueBuilder._encode,
    "bytes": ValueBuilder._empty_bytes,
}


def plain(root: object) -> object:
    """The result of a pickle as plain values: stand-ins become arrays, byte strings text.

    Objects that occur twice stay shared. Depth is counted from the inside, so that sharing cannot hide it.
    """
    done: dict = {}  # id -> (value, depth); every object whose id is here lives as long as root

    def convert(value, levels_left):
        kind = type(value)
        if kind in (str, int, float, bool, type(None), np.ndarray) or isinstance(value, np.generic):
            return value, 0
        if id(value) not in done:
            depth = 0
            if kind in (bytes, bytearray):
                result = as_text(value)
            elif kind is _Array and value.array is not None:
                result = value.array
            elif kind in (list, tuple, dict):
                if levels_left == 0:
                    raise Refusal(f"containers nested more than {MAX_DEPTH} deep")
                items = value.values() if kind is dict else value
                parts = [convert(item, levels_left - 1) for item in items]
                depth = 1 + max((part_depth for _, part_depth in parts), default=0)
                plain_items = (part for part, _ in parts)
                result = dict(zip(value, plain_items, strict=True)) if kind is dict else kind(plain_items)
            else:
                raise Refusal(f"{kind.__name__.strip('_').lower()} where data should be")
            done[id(value)] = result, depth
        result, depth = done[id(value)]
        if depth > MAX_DEPTH:
            raise Refusal(f"containers nested more than {MAX_DEPTH} deep")
        return result, depth

    return convert(root, MAX_DEPTH)[0]
