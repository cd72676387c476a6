"""A pickle machine that can build numbers, text, numpy arrays and plain containers, and do nothing else.

A pickle is a program: Python's own unpickler imports and calls whatever the file names. Here nothing is imported: only
the globals of pickle_values are known. Every opcode that Python 2 or 3 writes for numbers, arrays and containers in
protocols 0 to 5 is known; any other ends the reading.

The machine hashes nothing but text and memo indices, recurses no deeper than MAX_DEPTH, and allocates only for bytes
that the file has, so time and memory are bounded by multiples of the file's size.
"""

import codecs
import pickle
import re
import struct
from math import isinf
from pickletools import opcodes
from typing import BinaryIO

from formats.pickle_values import GLOBALS, Refusal, ValueBuilder, plain, show

MAX_LINE = 4400  # bytes of a number, memo index or name in text form; Python does not read longer numbers either

# Numbers in text form, as picklers write them.
_INT = re.compile(rb"0|-?[1-9][0-9]*")
_FLOAT = re.compile(rb"nan|-?inf|-?[0-9]+(\.[0-9]*)?(e[+-]?[0-9]+)?")


# Raised by damaged files, since operations trust the stack, the memo and their arguments to be what a pickler leaves
# there. EOFError (the file ends too early) is separate.
DAMAGE = (ArithmeticError, AttributeError, LookupError, MemoryError, TypeError, ValueError, struct.error)


_OPCODE_NAMES = {opcode.code: opcode.name for opcode in opcodes}


def unpickle(file: BinaryIO, size: int) -> object:
    """Execute the pickle in a binary file of `size` bytes and return plain values (see caffe2_pickle.load).

    Raises:
        Refusal, EOFError, or one of DAMAGE.
    """
    return plain(_Machine(file, size).run())


def _int(line):
    # Other spellings (010, 0x10, 1_0) are another number to another reader.
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
        self.values = ValueBuilder(size)
        self.stack = []
        self.outer_stacks = []  # what was on the stack below each open MARK
        self.memo = {}

    def run(self):
        while (opcode := self.read(1)) != pickle.STOP:
            if opcode not in _OPERATIONS:
                raise Refusal(f"opcode {_OPCODE_NAMES.get(opcode.decode('latin-1'), opcode)} is not admitted")
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
        """A counted string in separate memory, which an array can use without another copy."""
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
        # Frames only group reads, but one longer than the rest of the file shows that the end is missing.
        if self.unpack("<Q") > self.size - self.file.tell():
            raise EOFError

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
            raise Refusal("items appended to something that is not a list")
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
            raise Refusal("items set in something that is not a dictionary")
        for key, value in zip(items[::2], items[1::2], strict=True):
            self.stack[-1][self.values.key(key)] = value

    def put(self, index):
        if not 0 <= index < 2**32:
            raise Refusal("a memo index out of range")
        self.memo[index] = self.stack[-1]

    # Globals and what may be done with them

    def find_global(self, module, name):
        if (module, name) not in GLOBALS:
            raise Refusal(f"global {show(f'{module}.{name}')} is not admitted")
        return GLOBALS[module, name]

    def global_lines(self):
        module, name = self.read_line(), self.read_line()
        self.push(self.find_global(module.decode(), name.decode()))

    def instance_lines(self):
        # INST makes objects of Python 2's old classes. None is admitted; reading on names the class.
        self.global_lines()
        raise Refusal("opcode INST is not admitted")

    def stack_global(self):
        name, module = self.stack.pop(), self.stack.pop()
        if type(name) is not str or type(module) is not str:
            raise Refusal("a global without a name")
        self.push(self.find_global(module, name))

    def reduce(self):
        arguments, function = self.stack.pop(), self.stack.pop()
        self.push(self.values.call(function, arguments))

    def build(self):
        state = self.stack.pop()
        self.values.set_state(self.stack[-1], state)


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


