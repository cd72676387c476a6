"""A pickle machine that can build numbers, text, numpy arrays and plain containers, and do nothing else.

A pickle is a program: Python's own unpickler imports and calls whatever the file names. Here there is no
import: a global is a name that is compared with a short list, under the module names of Python 2, Python 3,
numpy 1 and numpy 2, and what it stands for is one of the methods below. Every opcode that Python 2 or 3
writes for such data in protocols 0 to 5 is known; any other ends the reading.

The machine hashes nothing but text and memo indices, recurses no further than MAX_DEPTH, and allocates only
for bytes that the file has, so time and memory are bounded by multiples of the file's size.
"""

import codecs
import pickle
import re
import struct
from dataclasses import dataclass
from math import isinf, prod
from pickletools import code2op

import numpy as np

MAX_DEPTH = 100  # of containers within containers
MAX_DIMENSIONS = 32  # of an array: numpy 1's own limit
MAX_LINE = 4400  # bytes of a number, memo index or name in text form; Python reads no longer numbers either
# A file may use the same bytes several times (as keys of several dictionaries), but a small one must not fill
# the memory by using them over and over.
MAX_COPIES = 16

# Byte order, and bool, integers, floats and complex numbers of fixed size: no objects, records, text, dates.
NUMERIC_DTYPE = re.compile(r"[<>|=]?(b1|[iu][1248]|f[248]|c8|c16)")

# Numbers in text form, as picklers write them.
_INT = re.compile(rb"0|-?[1-9][0-9]*")
_FLOAT = re.compile(rb"nan|-?inf|-?[0-9]+(\.[0-9]*)?(e[+-]?[0-9]+)?")


class Refusal(Exception):
    """Something in the file that no pickle of numbers holds."""


# What damage raises below, where operations trust the stack, the memo and their arguments to be what a
# pickler leaves there. EOFError (the file ends too early) is for itself.
DAMAGE = (ArithmeticError, AttributeError, LookupError, MemoryError, TypeError, ValueError, struct.error)


def unpickle(file, size):
    """Execute the pickle in a binary file of `size` bytes and return plain values (see caffe2_pickle.load).

    Raises: Refusal, EOFError, or one of DAMAGE.
    """
    return _plain(_Machine(file, size).run())


@dataclass(frozen=True)
class _Global:
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
_GLOBALS = {(module, name): _Global(name) for name, modules in _MODULES.items() for module in modules}


class _Dtype:
    """A numpy dtype while it is being read: REDUCE makes it of a type string, BUILD gives it a byte order."""

    def __init__(self, code):
        if not NUMERIC_DTYPE.fullmatch(code):
            raise Refusal(f"dtype {_show(code)} is not numeric")
        self.dtype = np.dtype(code)
        self.is_built = False


class _Array:
    """A numpy array while it is being read: made empty by REDUCE, filled by BUILD."""

    def __init__(self):
        self.array = None


def _text(value):
    return value.decode("latin-1") if type(value) in (bytes, bytearray) else value


def _show(value):
    # Of a container only the type: spelling out tuples within tuples can take for ever.
    return f"{value!a:.200}" if type(value) in (str, bytes, bytearray) else type(value).__name__


def _int(line):
    # Spelt otherwise (010, 0x10, 1_0) it is another number to another reader.
    if not _INT.fullmatch(line):
        raise Refusal("an integer that is not written as one")
    return int(line)


def _float(line):
    value = float(line)
    if not _FLOAT.fullmatch(line) or isinf(value) and b"inf" not in line:
        raise Refusal("a number that is not written as one, or too large")
    return value


class _Machine:
    """The stack machine. `run` executes the opcodes up to STOP and returns what is on the stack."""

    def __init__(self, file, size):
        self.file = file
        self.size = size
        self.copies_left = MAX_COPIES * size
        self.stack = []
        self.outer_stacks = []  # what was on the stack below each open MARK
        self.memo = {}

    def run(self):
        while (opcode := self.read(1)) != pickle.STOP:
            if opcode not in _OPERATIONS:
                known = code2op.get(opcode.decode("latin-1"))
                raise Refusal(f"opcode {known.name if known else opcode} is not admitted")
            _OPERATIONS[opcode](self)
        (value,) = self.stack
        return value

    # Reading

    def read(self, count):
        data = self.file.read(count)
        if len(data) < count:
            raise EOFError
        return data

    def read_long(self, code):
        """A counted string in memory of its own, so that an array can stand on it without another copy."""
        count = self.unpack(code)
        if count < 0:
            raise Refusal("a string of negative length")
        if count > self.size - self.file.tell():
            raise EOFError
        data = bytearray(count)
        if self.file.readinto(data) < count:
            raise EOFError
        return data

    def read_line(self, limit=MAX_LINE):
        line = self.file.readline(limit)
        if line.endswith(b"\n"):
            return line[:-1]
        if len(line) == limit:
            raise Refusal("a number or name that is too long")
        raise EOFError

    def unpack(self, code):
        return struct.unpack(code, self.read(struct.calcsize(code)))[0]

    def protocol(self):
        version = self.unpack("<B")
        if version > 5:
            raise Refusal(f"protocol {version} is not known")

    def frame(self):
        # Frames only group reads, but one that is longer than the rest of the file tells that an end is missing.
        if self.unpack("<Q") > self.size - self.file.tell():
            raise EOFError

    def count_copy(self, data):
        self.copies_left -= len(data)
        if self.copies_left < 0:
            raise Refusal("the same data used over and over")

    # Numbers and strings

    def push(self, value):
        self.stack.append(value)

    def int_line(self):
        line = self.read_line()
        self.push(line == b"01" if line in (b"00", b"01") else _int(line))

    def string_line(self):
        literal = self.read_line(self.size).strip()
        if len(literal) < 2 or literal[:1] not in (b"'", b'"') or literal[:1] != literal[-1:]:
            raise Refusal("a string without quotes")
        self.push(bytearray(codecs.escape_decode(memoryview(literal)[1:-1])[0]))

    # Containers

    def mark(self):
        self.outer_stacks.append(self.stack)
        self.stack = []

    def pop_mark(self):
        items, self.stack = self.stack, self.outer_stacks.pop()
        return items

    def pop(self):
        if self.stack:
            self.stack.pop()
        else:
            self.pop_mark()

    def tuple_of(self, count):
        items = [self.stack.pop() for _ in range(count)]
        self.push(tuple(reversed(items)))

    def append(self):
        self.extend_list([self.stack.pop()])

    def extend_list(self, values):
        if type(self.stack[-1]) is not list:
            raise Refusal("items appended to what is not a list")
        self.stack[-1].extend(values)

    def set_item(self):
        value, key = self.stack.pop(), self.stack.pop()
        self.update_dict([key, value])

    def new_dict(self):
        items = self.pop_mark()
        self.push({})
        self.update_dict(items)

    def update_dict(self, items):
        if type(self.stack[-1]) is not dict:
            raise Refusal("items set in what is not a dictionary")
        for key, value in zip(items[::2], items[1::2], strict=True):
            self.stack[-1][self.key(key)] = value

    def key(self, value):
        # Text only: hashing nested tuples, or integers chosen to collide, can take for ever.
        if type(value) is str:
            return value
        if type(value) not in (bytes, bytearray):
            raise Refusal(f"a dictionary key of type {type(value).__name__}")
        self.count_copy(value)
        return _text(value)

    def put(self, index):
        if not 0 <= index < 2**32:
            raise Refusal("a memo index out of range")
        self.memo[index] = self.stack[-1]

    # Globals and what may be done with them

    def find_global(self, module, name):
        if (module, name) not in _GLOBALS:
            raise Refusal(f"global {_show(f'{module}.{name}')} is not admitted")
        return _GLOBALS[module, name]

    def global_lines(self):
        module, name = self.read_line(), self.read_line()
        self.push(self.find_global(module.decode(), name.decode()))

    def instance_lines(self):
        # INST makes objects of Python 2's old classes. None is admitted: this is to name the class.
        self.global_lines()
        raise Refusal("opcode INST is not admitted")

    def stack_global(self):
        name, module = self.stack.pop(), self.stack.pop()
        if type(name) is not str or type(module) is not str:
            raise Refusal("a global without a name")
        self.push(self.find_global(module, name))

    def reduce(self):
        arguments, function = self.stack.pop(), self.stack.pop()
        if type(function) is not _Global or type(arguments) is not tuple or function.name not in _FUNCTIONS:
            raise Refusal("a call of what is not a function")
        self.push(_FUNCTIONS[function.name](self, *arguments))

    def build(self):
        state = self.stack.pop()
        target = self.stack[-1]
        if type(target) is _Array and target.array is None:
            self.build_array(target, *state)
        elif type(target) is _Dtype and not target.is_built:
            self.build_dtype(target, *state)
        else:
            raise Refusal("a state set on what takes none")

    def reconstruct(self, kind, _shape, _code):
        if kind is not _GLOBALS["numpy", "ndarray"]:
            raise Refusal("an array of another class than numpy.ndarray")
        return _Array()

    def build_array(self, target, version, shape, dtype, is_fortran, data):
        if version != 1 or type(is_fortran) not in (bool, int) or is_fortran not in (0, 1):
            raise Refusal("an array in an unknown form")
        target.array = self.array(data, dtype, shape, "F" if is_fortran else "C")

    def dtype(self, code, _align, _copy):
        return _Dtype(_text(code))

    def build_dtype(self, target, version, byte_order, subarray, names, fields, _size, _alignment, _flags):
        if version != 3 or (subarray, names, fields) != (None, None, None):
            raise Refusal("a dtype in a form that no numeric dtype has")
        target.dtype = target.dtype.newbyteorder(_text(byte_order))
        target.is_built = True

    def scalar(self, dtype, data):
        return self.array(data, dtype, (), "C")[()]

    def frombuffer(self, data, dtype, shape, order, axis_order=None):
        array = self.array(data, dtype, shape, "C" if axis_order else order)
        return array.transpose(axis_order) if axis_order else array

    def array(self, data, dtype, shape, order):
        """Raw bytes -> array in the machine's byte order, on the same memory where that can be."""
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

    def encode(self, text, encoding):
        # How Python 3 spells bytes in protocols 0 to 2.
        if encoding not in ("latin1", "latin-1", b"latin1", b"latin-1"):
            raise Refusal(f"bytes in encoding {_show(encoding)}")
        self.count_copy(text)
        return bytearray(text.encode("latin-1"))

    def empty_bytes(self):
        return b""

    def ordered_dict(self, pairs=()):
        return {self.key(key): value for key, value in pairs}


_FUNCTIONS = {
    "dtype": _Machine.dtype,
    "_reconstruct": _Machine.reconstruct,
    "scalar": _Machine.scalar,
    "_frombuffer": _Machine.frombuffer,
    "OrderedDict": _Machine.ordered_dict,
    "encode": _Machine.encode,
    "bytes": _Machine.empty_bytes,
}

_OPERATIONS = {
    pickle.PROTO: _Machine.protocol,
    pickle.FRAME: _Machine.frame,
    pickle.MARK: _Machine.mark,
    pickle.POP: _Machine.pop,
    pickle.POP_MARK: _Machine.pop_mark,
    pickle.DUP: lambda m: m.push(m.stack[-1]),
    pickle.NONE: lambda m: m.push(None),
    pickle.NEWTRUE: lambda m: m.push(True),
    pickle.NEWFALSE: lambda m: m.push(False),
    pickle.INT: _Machine.int_line,
    pickle.LONG: lambda m: m.push(_int(m.read_line().removesuffix(b"L"))),
    pickle.LONG1: lambda m: m.push(int.from_bytes(m.read(m.unpack("<B")), "little", signed=True)),
    pickle.BININT: lambda m: m.push(m.unpack("<i")),
    pickle.BININT1: lambda m: m.push(m.unpack("<B")),
    pickle.BININT2: lambda m: m.push(m.unpack("<H")),
    pickle.FLOAT: lambda m: m.push(_float(m.read_line())),
    pickle.BINFLOAT: lambda m: m.push(m.unpack(">d")),
    pickle.STRING: _Machine.string_line,
    pickle.SHORT_BINSTRING: lambda m: m.push(m.read(m.unpack("<B"))),
    pickle.BINSTRING: lambda m: m.push(m.read_long("<i")),
    pickle.SHORT_BINBYTES: lambda m: m.push(m.read(m.unpack("<B"))),
    pickle.BINBYTES: lambda m: m.push(m.read_long("<I")),
    pickle.BINBYTES8: lambda m: m.push(m.read_long("<Q")),
    pickle.BYTEARRAY8: lambda m: m.push(m.read_long("<Q")),
    pickle.UNICODE: lambda m: m.push(m.read_line(m.size).decode("raw-unicode-escape")),
    pickle.SHORT_BINUNICODE: lambda m: m.push(m.read(m.unpack("<B")).decode()),
    pickle.BINUNICODE: lambda m: m.push(m.read_long("<I").decode()),
    pickle.BINUNICODE8: lambda m: m.push(m.read_long("<Q").decode()),
    pickle.EMPTY_TUPLE: lambda m: m.push(()),
    pickle.TUPLE1: lambda m: m.tuple_of(1),
    pickle.TUPLE2: lambda m: m.tuple_of(2),
    pickle.TUPLE3: lambda m: m.tuple_of(3),
    pickle.TUPLE: lambda m: m.push(tuple(m.pop_mark())),
    pickle.EMPTY_LIST: lambda m: m.push([]),
    pickle.LIST: lambda m: m.push(m.pop_mark()),
    pickle.APPEND: _Machine.append,
    pickle.APPENDS: lambda m: m.extend_list(m.pop_mark()),
    pickle.EMPTY_DICT: lambda m: m.push({}),
    pickle.DICT: _Machine.new_dict,
    pickle.SETITEM: _Machine.set_item,
    pickle.SETITEMS: lambda m: m.update_dict(m.pop_mark()),
    pickle.PUT: lambda m: m.put(_int(m.read_line())),
    pickle.BINPUT: lambda m: m.put(m.unpack("<B")),
    pickle.LONG_BINPUT: lambda m: m.put(m.unpack("<I")),
    pickle.MEMOIZE: lambda m: m.put(len(m.memo)),
    pickle.GET: lambda m: m.push(m.memo[_int(m.read_line())]),
    pickle.BINGET: lambda m: m.push(m.memo[m.unpack("<B")]),
    pickle.LONG_BINGET: lambda m: m.push(m.memo[m.unpack("<I")]),
    pickle.GLOBAL: _Machine.global_lines,
    pickle.STACK_GLOBAL: _Machine.stack_global,
    pickle.INST: _Machine.instance_lines,
    pickle.REDUCE: _Machine.reduce,
    pickle.BUILD: _Machine.build,
}


def _plain(root):
    """What the machine left -> plain values: stand-ins to arrays, byte strings to text.

    What occurs twice stays shared. Depth is counted from the inside, so that sharing cannot hide it.
    """
    done = {}  # id -> (value, depth); every object that has an id here lives as long as root

    def convert(value, levels_left):
        kind = type(value)
        if kind in (str, int, float, bool, type(None), np.ndarray) or isinstance(value, np.generic):
            return value, 0
        if id(value) not in done:
            depth = 0
            if kind in (bytes, bytearray):
                result = _text(value)
            elif kind is _Array and value.array is not None:
                result = value.array
            elif kind in (list, tuple, dict):
                if levels_left == 0:
                    raise Refusal(f"containers nested more than {MAX_DEPTH} deep")
                items = value.values() if kind is dict else value
                parts = [convert(item, levels_left - 1) for item in items]
                depth = 1 + max((part_depth for _, part_depth in parts), default=0)
                plain = (part for part, _ in parts)
                result = dict(zip(value, plain, strict=True)) if kind is dict else kind(plain)
            else:
                raise Refusal(f"{kind.__name__.strip('_').lower()} where data should be")
            done[id(value)] = result, depth
        result, depth = done[id(value)]
        if depth > MAX_DEPTH:
            raise Refusal(f"containers nested more than {MAX_DEPTH} deep")
        return result, depth

    return convert(root, MAX_DEPTH)[0]
