"""Pickles, judged by Python's own unpickler with the same few globals."""

import copyreg
import functools
import io
import pickle
import pickletools
import struct
import sys
import types
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from fuzzing import Area, Wrong, log_uniform, mutate_bytes

from formats.caffe2_pickle import PickleError, load

PICKLES = Path(__file__).parent.parent / "data" / "pickles"
VALUES = [
    {"blobs": {"conv1_w": np.arange(12, dtype="f4").reshape(3, 4), "lr": np.array(0.1, "f4"), "model_iter": 4}},
    OrderedDict(b=[1, -1, 255, 2**40, -(2**70), 1.5, True, None, "h\xe9\u20ac'"], a=((), (1, 2), (1, 2, 3, 4)),
                c=b"\xff'"),
    [np.asfortranarray(np.ones((2, 3))), np.arange(3, dtype=">i4"), np.float32(2), np.bool_(True), [{}] * 3, "x" * 300],
]
TEXT = "a", "blobs", "conv1_w", "", "\xe9", "\u20ac", "'\\\n\"", "x" * 300
CANARY = "fuzz_canary"


# -------------------------------------------------------------------------------------------- Python's own reading


class _Dtype:
    """A dtype in the judge's eyes. numpy's own would trust sizes and flags of the file, and crash."""

    def __init__(self, code, align=0, copy=1):
        code = code.encode("latin-1").decode() if isinstance(code, str) else code.decode()
        self.dtype = np.dtype(code)
        if self.dtype.kind not in "biufc" or self.dtype.itemsize > 16:
            raise pickle.UnpicklingError("no numeric dtype")

    def __setstate__(self, state):
        order = state[1].decode() if isinstance(state[1], (bytes, bytearray)) else state[1]
        self.dtype = self.dtype.newbyteorder(order)


class _Array:
    def __setstate__(self, state):
        version, shape, dtype, is_fortran, data = state
        data = data.encode("latin-1") if isinstance(data, str) else bytes(data)
        self.array = np.empty(0, dtype.dtype)
        self.array.__setstate__((version, shape, dtype.dtype, is_fortran, data))


def _scalar(dtype, data):
    data = data.encode("latin-1") if isinstance(data, str) else bytes(data)
    (value,) = np.frombuffer(data, dtype.dtype)
    return value.astype(value.dtype.newbyteorder("="))


def _frombuffer(data, dtype, shape, order, axis_order=None):
    data = data.encode("latin-1") if isinstance(data, str) else bytes(data)
    if axis_order:
        return np.frombuffer(data, dtype.dtype).reshape(shape).transpose(axis_order)
    return np.frombuffer(data, dtype.dtype).reshape(shape, order=order)


def _encode(text, encoding):
    return text.encode(encoding)


ADMITTED = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): _Dtype,
    ("collections", "OrderedDict"): OrderedDict,
    ("_codecs", "encode"): _encode,
    ("__builtin__", "bytes"): lambda: b"",
    ("builtins", "bytes"): lambda: b"",
}
for _package in ("numpy.core", "numpy._core"):
    ADMITTED[f"{_package}.multiarray", "_reconstruct"] = lambda kind, shape, code: _Array()
    ADMITTED[f"{_package}.multiarray", "scalar"] = _scalar
    ADMITTED[f"{_package}.numeric", "_frombuffer"] = _frombuffer


def _find_class(self, module, name):
    if (module, name) not in ADMITTED:
        raise pickle.UnpicklingError(f"global {module}.{name}")
    return ADMITTED[module, name]


class _Unpickler(pickle.Unpickler):
    find_class = _find_class


class _PythonUnpickler(pickle._Unpickler):
    find_class = _find_class


def judged(data):
    """What Python's own unpickler makes of the bytes, as plain values. Raises whatever it raises."""
    data = _simplified(data)
    try:
        value = _Unpickler(io.BytesIO(data), encoding="latin1").load()
    except MemoryError:
        # The C version's memo is an array up to the highest index.
        value = _PythonUnpickler(io.BytesIO(data), encoding="latin1").load()
    return _plain(value, {})


def _simplified(data):
    """The stream without frames, which only group reads (the C version trips over wrong ones), and with bytes for
    bytearrays, which may be keys here."""
    if b"\x95" not in data and b"\x96" not in data:
        return data
    try:
        places = opcode_places(data)
    except ValueError:
        return data
    out = bytearray()
    for start, end in zip(places, places[1:], strict=False):
        part = data[start:end]
        out += {0x95: b"", 0x96: b"\x8e" + part[1:]}.get(part[0], part)
    return bytes(out)


def _plain(value, done):
    if id(value) in done:
        return done[id(value)]
    if isinstance(value, (bytes, bytearray)):
        plain = value.decode("latin-1")
    elif isinstance(value, _Array):
        plain = value.array.astype(value.array.dtype.newbyteorder("="))
    elif isinstance(value, np.ndarray):
        plain = value.astype(value.dtype.newbyteorder("="))
    elif isinstance(value, dict):
        plain = {_plain(key, done): _plain(item, done) for key, item in value.items()}
    elif isinstance(value, (list, tuple)):
        plain = type(value)([_plain(item, done) for item in value])
    else:
        plain = value
    done[id(value)] = plain
    return plain


def same(one, other, done):
    """Equal in value and type, containers included. Pairs in `done` have been compared."""
    if type(one) is not type(other):
        return False
    if (id(one), id(other)) in done:
        return True
    if isinstance(one, dict):
        equal = list(one) == list(other) and all(same(one[key], other[key], done) for key in one)
    elif isinstance(one, (list, tuple)):
        equal = len(one) == len(other) and all(same(a, b, done) for a, b in zip(one, other, strict=True))
    elif isinstance(one, (np.ndarray, np.generic)):
        equal = one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()
    else:
        equal = one == other or one != one and other != other
    if equal:
        done.add((id(one), id(other)))
    return equal


# ------------------------------------------------------------------------------------------------- well-formed ones


class Writer:
    """Writes a random value, each part of it in any of the ways that an opcode allows."""

    def __init__(self, rng):
        self.rng = rng
        self.memo = []  # opcodes that get what was put
        self.indices = set()
        self.names = 0

    def stream(self):
        body = self.value(self.rng.choice((1, 2, 3, 4))) + b"."
        start = self.rng.choice((b"", b"\x80" + bytes([self.rng.randrange(6)])))
        if self.rng.random() < 0.2:
            return b"\x80\x04\x95" + struct.pack("<Q", len(body)) + body
        return start + body

    def value(self, depth):
        rng = self.rng
        if self.memo and rng.random() < 0.1:
            return rng.choice(self.memo)
        kinds = [self.atom, self.text, self.bytes]
        if depth:
            kinds += [self.list, self.tuple, self.dict, self.dict, self.array, self.scalar]
        out = rng.choice(kinds)(depth - 1)
        if rng.random() < 0.05:
            out += rng.choice((b"N0", b"(NK\x011", b"20", b"(0"))
        return out + self.put() if rng.random() < 0.3 else out

    def put(self):
        index = self.rng.choice((len(self.indices), self.rng.randrange(256), self.rng.randrange(5000)))
        if index == len(self.indices) and index not in self.indices and self.rng.random() < 0.5:
            put = b"\x94"
        elif index < 256 and self.rng.random() < 0.7:
            put = b"q" + bytes([index])
        else:
            put = self.rng.choice((b"p%d\n" % index, b"r" + struct.pack("<I", index)))
        if index in self.indices:
            return b""  # another value may be meant by it
        self.indices.add(index)
        self.memo += [b"g%d\n" % index, b"j" + struct.pack("<I", index)]
        self.memo += [b"h" + bytes([index])] if index < 256 else []
        return put

    def atom(self, _=0):
        rng = self.rng
        number = rng.choice((0, 1, 7, 255, 256, 65535, 2**31 - 1, 2**40, 2**70)) * rng.choice((1, 1, -1))
        kinds = [b"N", b"\x88", b"\x89", b"I01\n", b"I00\n", b"I%d\n" % number, b"L%dL\n" % number, self.long1(number),
                 b"G" + struct.pack(">d", number / 3), b"F%r\n" % (number / 3,), b"Finf\n"]
        if 0 <= number < 256:
            kinds.append(b"K" + bytes([number]))
        if 0 <= number < 65536:
            kinds.append(b"M" + struct.pack("<H", number))
        if abs(number) < 2**31:
            kinds.append(b"J" + struct.pack("<i", number))
        return rng.choice(kinds)

    def long1(self, number):
        size = number.bit_length() // 8 + 1
        return b"\x8a" + bytes([size]) + number.to_bytes(size, "little", signed=True)

    def text(self, _=0, text=None):
        text = self.rng.choice(TEXT) if text is None else text
        data = text.encode()
        kinds = [b"X" + struct.pack("<I", len(data)) + data, b"\x8d" + struct.pack("<Q", len(data)) + data,
                 b"V" + text.replace("\\", "\\u005c").replace("\n", "\\u000a").encode("raw-unicode-escape") + b"\n"]
        if len(data) < 256:
            kinds.append(b"\x8c" + bytes([len(data)]) + data)
        return self.rng.choice(kinds)

    def bytes(self, _=0, data=None):
        data = self.rng.choice((b"", b"a", b"\xff\x00'", b"conv1_w", b"y" * 300)) if data is None else data
        counted = [(b"T", "<i"), (b"B", "<I"), (b"\x8e", "<Q"), (b"\x96", "<Q")]
        counted += [(b"U", "<B"), (b"C", "<B")] if len(data) < 256 else []
        opcode, size = self.rng.choice(counted)
        kinds = [opcode + struct.pack(size, len(data)) + data, b"S" + repr(data)[1:].encode() + b"\n"]
        if self.rng.random() < 0.2:
            text = self.text(text=data.decode("latin-1"))
            kinds = [b"c_codecs\nencode\n(" + text + self.text(text=self.rng.choice(("latin1", "latin-1"))) + b"tR"]
        return self.rng.choice(kinds)

    def values(self, depth, most=4):
        return [self.value(depth) for _ in range(self.rng.randrange(most + 1))]

    def list(self, depth):
        items = self.values(depth)
        return self.rng.choice((b"(" + b"".join(items) + b"l", b"](" + b"".join(items) + b"e",
                                b"]" + b"".join(item + b"a" for item in items)))

    def tuple(self, depth):
        items = self.values(depth)
        short = {0: b")", 1: b"\x85", 2: b"\x86", 3: b"\x87"}.get(len(items))
        whole = b"(" + b"".join(items) + b"t"
        return self.rng.choice((whole, b"".join(items) + short)) if short else whole

    def dict(self, depth):
        pairs = [self.key() + self.value(depth) for _ in range(self.rng.randrange(4))]
        start = self.rng.choice((b"}", self.name("collections", "OrderedDict") + b")R"))
        return self.rng.choice((b"(" + b"".join(pairs) + b"d", start + b"(" + b"".join(pairs) + b"u",
                                start + b"".join(pair + b"s" for pair in pairs)))

    def key(self):
        self.names += 1
        text = f"k{self.names}"
        return self.rng.choice((self.text(text=text), self.bytes(data=text.encode())))

    def name(self, module, name):
        if self.rng.random() < 0.5:
            return f"c{module}\n{name}\n".encode()
        return self.text(text=module) + self.text(text=name) + b"\x93"

    def multiarray(self, name):
        return self.name(self.rng.choice(("numpy.core.multiarray", "numpy._core.multiarray")), name)

    def dtype(self):
        code = self.rng.choice(("f4", "f4", "f4", "f8", "i8", "i4", "u1", "b1", "c8", "f2"))
        self.itemsize = np.dtype(code).itemsize
        order = self.rng.choice("<>") if self.itemsize > 1 else "|"
        built = b"(K\x03" + self.text(text=order) + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        return self.name("numpy", "dtype") + b"(" + self.text(text=code) + b"\x89\x88tR" + built

    def data(self, elements):
        data = self.rng.randbytes(elements * self.itemsize)
        return self.bytes(data=bytes(byte & 1 for byte in data) if self.itemsize == 1 else data)

    def array(self, _=0):
        shape = [self.rng.choice((0, 1, 2, 3)) for _ in range(self.rng.randrange(4))]
        numbers = b"(" + b"".join(b"K" + bytes([size]) for size in shape) + b"t"
        dtype, elements = self.dtype(), int(np.prod(shape, dtype=int))
        if self.rng.random() < 0.2:
            module = self.rng.choice(("numpy.core.numeric", "numpy._core.numeric"))
            arguments = self.data(elements) + dtype + numbers + self.text(text=self.rng.choice("CF"))
            return self.name(module, "_frombuffer") + b"(" + arguments + b"tR"
        arguments = self.name("numpy", "ndarray") + b"(K\x00t" + self.text(text="b")
        state = numbers + dtype + self.rng.choice((b"\x88", b"\x89")) + self.data(elements)
        return self.multiarray("_reconstruct") + b"(" + arguments + b"tR(K\x01" + state + b"tb"

    def scalar(self, _=0):
        dtype = self.dtype()
        return self.multiarray("scalar") + b"(" + dtype + self.data(1) + b"tR"


# -------------------------------------------------------------------------------------------------- hostile ones

FOREIGN = """os system|posix system|nt system|os popen|subprocess Popen|subprocess run|os.path os.system
builtins eval|builtins exec|builtins __import__|builtins open|builtins getattr|builtins setattr|builtins print
__builtin__ eval|__builtin__ file|__builtin__ apply|__builtin__ execfile|builtins object|builtins bytearray
copyreg _reconstructor|copy_reg _reconstructor|copyreg __newobj__|copyreg __newobj_ex__|copyreg add_extension
operator attrgetter|operator methodcaller|functools partial|types CodeType|types FunctionType|pickle loads|_pickle loads
numpy load|numpy save|numpy fromfile|numpy memmap|numpy frombuffer|numpy ndarray.tofile|numpy ndarray.__reduce__
numpy.core.multiarray _reconstruct.__globals__|numpy.core.multiarray fromfile|numpy.testing._private.utils runstring
_codecs decode|_codecs encode.__call__|_codecs lookup|collections OrderedDict.__init__|collections namedtuple
torch load|torch._utils _rebuild_tensor_v2|webbrowser open|ctypes CDLL|sys exit|sys modules|importlib import_module
fuzz_canary fire|fuzz_canary Trap|fuzz_canary Trap.fire|fuzz_canary|__main__ main|numpy.core.multiarray.os system
builtins bytes.fromhex|builtins.bytes |numpy dtype.type|nt.system |os path.os.system"""
FOREIGN = [(*entry.split(" "), "")[:2] for entry in FOREIGN.replace("\n", "|").split("|")]

OTHER_DTYPES = "O", "|O8", "O,O", "V8", "object", "M8[s]", "S8", "f4,O"
OTHER_CODECS = "hex", "rot13", "zlib", "utf-8", "latin_1"


def hostile_call(rng, writer):
    """A stream that calls, makes or alters what is not admitted, in one of the ways that there are."""
    module, name = rng.choice(FOREIGN)
    if rng.random() < 0.2:  # admitted parts that do not belong together
        module, name = rng.choice(list(ADMITTED))[0], rng.choice([*ADMITTED, *FOREIGN])[1]
    if rng.random() < 0.1:
        module, name = rng.choice([
            (f" {module}", name), (module.upper(), name), (f"{module}.", name), (f".{module}", name),
            (module, f"{name}\0"), (module, f"{name}\r"), (module, f"{name}.__call__"),
        ])  # fmt: skip
    lines = f"{module}\n{name}\n".encode()
    spelt = rng.choice((b"c" + lines, writer.text(text=module) + writer.text(text=name) + b"\x93",
                        writer.bytes(data=module.encode()) + writer.bytes(data=name.encode()) + b"\x93"))
    command = writer.text(text=rng.choice(("touch executed", "open('executed', 'w')", "executed")))
    trap = b"cfuzz_canary\nTrap\n"
    return rng.choice([
        spelt + b"(" + command + b"tR",
        spelt + command + b"\x85R",
        spelt + b")R",
        spelt + b")\x81",
        spelt + b"(" + command + b"t\x81",
        spelt + b"(" + command + b"t}\x92",
        b"(" + command + b"i" + lines,
        b"(" + spelt + command + b"o",
        spelt + b"p5\n0" + b"g5\n(" + command + b"tR",
        b"\x82\x01", b"\x83\x01\x00", b"\x84\x01\x00\x00\x00", b"\x82\x01(" + command + b"tR",
        b"P" + command.strip(b"\n") + b"\n", command + b"Q",
        trap + b")\x81}" + writer.text(text="__setstate__") + spelt + b"sb",
        b"}" + writer.text(text="__setstate__") + spelt + b"sb",
        b"](N}" + writer.text(text="__class__") + spelt + b"s\x86b",
        spelt + b"}" + writer.text(text="a") + b"Nsb",
        trap + command + b"a", trap + command + command + b"s", trap + b"(" + command + b"e",
        writer.multiarray("_reconstruct") + b"(" + spelt + b"(K\x00tC\x01btR",
        writer.multiarray("scalar") + b"(" + spelt + command + b"tR",
        writer.name("collections", "OrderedDict") + b"(" + spelt + b"tR",
        writer.name("numpy", "ndarray") + b"((J\x00\x00\x00\x7ftt" + rng.choice((b"R", b"\x81")),
        writer.name("numpy", "ndarray") + b"}" + writer.text(text="fire") + spelt + b"sb",
        writer.name("numpy", "dtype") + b"(" + writer.text(text=rng.choice(OTHER_DTYPES)) + b"\x89\x88tR",
        writer.name("numpy", "dtype") + b"(" + spelt + b"\x89\x88tR",
        writer.name("_codecs", "encode") + b"(" + command + writer.text(text=rng.choice(OTHER_CODECS)) + b"tR",
        writer.name("builtins", "bytes") + b"J\xff\xff\xff\x7f\x85R",
    ])


def bomb(rng, writer):
    """A stream that asks for much more than its size in time or memory."""
    n = log_uniform(rng, 10, 100_000)
    size = rng.choice((2**31 - 1, 2**32 - 1, 2**40, 2**63 - 1, 2**64 - 1))
    block = b"T" + struct.pack("<i", n) + bytes(n)
    huge = rng.choice((b"J\xff\xff\xff\x7f", b"\x8a\x09" + b"\xff" * 8 + b"\x00", b"\x8a\xff" + b"\x7f" * 255))
    array = writer.multiarray("_reconstruct") + b"(" + writer.name("numpy", "ndarray") + b"(K\x00tC\x01btR"
    return rng.choice([
        rng.choice((b"X", b"B", b"r", b"j")) + struct.pack("<I", size & 0xFFFFFFFF) + b"ab",
        rng.choice((b"\x8d", b"\x8e", b"\x96", b"\x95")) + struct.pack("<Q", size) + b"ab",
        b"\x8b" + struct.pack("<i", 2**31 - 1) + b"1",
        b"Nr" + struct.pack("<I", size & 0xFFFFFFFF),
        b"(" * n, b"(" * n + b"l" * n, b"]" * n + b"a" * (n - 1), b"]" + b"2a" * n, b"]" * n, b"}" * n,
        b")" + b"\x85" * n, b")" + b"2\x86" * n, b"})" + b"2\x86" * n + b"Ns", b"]q\x00" + b"0]h\x00ah\x00aq\x00" * n,
        b"](" + b"N" * n + b"e", b"](" + b"2" * n + b"e", b"N" + b"\x94" * n,
        block + b"q\x000]" + b"}h\x00Nsa" * (n // 8),
        block + b"q\x000](" + b"h\x00" * n + b"e",
        rng.choice((b"I", b"L", b"F", b"p", b"g", b"c")) + b"9" * n + b"\n",
        b"](" + (b"L" + b"9" * 4200 + b"L\n") * (n // 4000 + 1) + b"e",
        b"](" + (b"\x8a\xff" + b"\x7f" * 255) * (n // 250 + 1) + b"e",
        b"}(" + b"".join(b"I%d\nN" % (i * (2**61 - 1)) for i in range(n // 10)) + b"u",
        b"V" + b"\\u0041" * n + b"\n", b"S'" + b"\\x41" * n + b"'\n", b"S'" + b"a" * n,
        array + b"(K\x01(" + huge * rng.randint(1, 40) + b"K\x00t" + writer.dtype() + b"\x89U\x00tb",
        array + b"(K\x01(" + huge + b"t" + writer.dtype() + b"\x89U\x00tb",
        array + b"(K\x01(" + b"K\x01" * n + b"t" + writer.dtype() + b"\x89U\x01\x00tb",
        array + b"(K\x01)" + b"2\x86" * n + writer.dtype() + b"\x89U\x01\x00tb",
    ])  # fmt: skip


FRAGMENTS = [op.code.encode("latin-1") for op in pickletools.opcodes] * 2 + [
    b"K\x01", b"U\x01a", b"X\x01\x00\x00\x00b", b"q\x00", b"h\x00", b"(K\x01K\x02t", b"J\xff\xff\xff\xff", b"C\x04abcd",
    b"cnumpy\nndarray\n", b"cnumpy\ndtype\n", b"ccollections\nOrderedDict\n", b"c_codecs\nencode\n", b"I12\n",
    b"F1.5\n",
    b"cnumpy.core.multiarray\nscalar\n", b"cnumpy.core.numeric\n_frombuffer\n", b"cfuzz_canary\nfire\n",
]  # fmt: skip


# By itself pickletools takes ASCII alone in the strings of protocol 0.
pickletools.stringnl.reader = functools.partial(pickletools.read_stringnl, decode=False, stripquotes=False)


def opcode_places(data):
    """Where the opcodes of a pickle begin, and where the last of them ends."""
    return [place for _, _, place in pickletools.genops(data)] + [len(data)]


def mutate_opcodes(rng, data, places, writer):
    """The stream with opcodes, arguments included, left out, doubled, swapped or put in."""
    parts = [data[start:end] for start, end in zip(places, places[1:], strict=False)]
    if rng.random() < 0.8:  # a frame that does not fit is all that anybody would see
        parts = [part for part in parts if part[:1] != b"\x95"]
    for _ in range(rng.choice((1, 1, 2, 4))):
        at, other = rng.randrange(len(parts)), rng.randrange(len(parts))
        kind = rng.randrange(5)
        if kind == 0:
            del parts[at]
        elif kind == 1:
            parts.insert(at, parts[other % len(parts)])
        elif kind == 2:
            parts[at], parts[other] = parts[other], parts[at]
        elif kind == 3:
            parts.insert(at, rng.choice(FRAGMENTS))
        else:
            parts[at] = writer.value(1)
        if not parts:
            break
    return b"".join(parts)


def bait(fire):
    """A module that pickles name: whatever is called, made or set there fires."""
    def fired(name):
        return lambda *arguments, **options: fire(f"{CANARY}.{name}")

    names = ("__init__", "__setstate__", "__reduce__", "__reduce_ex__", "__setattr__", "__setitem__", "__call__",
             "append", "extend", "__hash__", "__eq__", "fire", "__array__", "__index__", "__iter__", "__len__",
             "__del__", "__repr__")
    module = types.ModuleType(CANARY)
    module.fire = fired("fire")
    module.Trap = type("Trap", (), {name: fired(name) for name in names})
    module.Trap.__module__ = CANARY
    return module


# ---------------------------------------------------------------------------------------------------------- the area


@dataclass
class Case:
    path: Path
    data: bytes
    kind: str

    @property
    def size(self):
        return len(self.data) + 1

    def __str__(self):
        shown = self.data if len(self.data) < 160 else self.data[:80] + b"..." + self.data[-60:]
        return f"{self.kind}, {len(self.data)} bytes: {shown!r}"


class Pickles(Area):
    name = "pickles"
    error = PickleError
    kinds = {"bytes": 24, "opcodes": 24, "well-formed": 18, "almost": 8, "noise": 8, "hostile": 15, "bombs": 3}

    def __init__(self, folder):
        self.path = folder / "case.pkl"
        self.seeds = [path.read_bytes() for path in sorted(PICKLES.glob("*.pkl"))]
        made = [pickle.dumps(value, protocol) for value in VALUES for protocol in range(6)]
        self.seeds += made * 2  # the small ones more often: more of them is structure
        self.places = [opcode_places(seed) for seed in self.seeds]
        # Also imports what codecs are needed, before imports are watched.
        for seed in self.seeds:
            self.path.write_bytes(seed)
            if not same(load(self.path), judged(seed), set()):
                raise RuntimeError("the judge disagrees about a sound pickle")
        sys.modules[CANARY] = bait(lambda event: self.fire(event))
        copyreg.add_extension(CANARY, "fire", 1)

    def make(self, rng):
        (kind,) = rng.choices(list(self.kinds), list(self.kinds.values()))
        data = self._data(rng, kind)
        with open(self.path, "wb") as file:
            file.write(data)
        return Case(self.path, data, kind)

    def _data(self, rng, kind):
        writer, which = Writer(rng), rng.randrange(len(self.seeds))
        if kind == "bytes":
            return mutate_bytes(rng, self.seeds[which], self.seeds)
        if kind == "opcodes":
            return mutate_opcodes(rng, self.seeds[which], self.places[which], writer)
        if kind == "well-formed":
            return writer.stream()
        if kind == "almost":
            return mutate_bytes(rng, writer.stream())
        if kind == "noise":
            return b"".join(rng.choices(FRAGMENTS, k=rng.randrange(30))) + b"."
        if kind == "bombs":
            return bomb(rng, writer) + b"."
        call = hostile_call(rng, writer)
        where = rng.randrange(4)
        if where == 0:
            return call + b"."
        if where == 1:
            return b"\x80\x02}" + writer.text(text="blobs") + call + b"s."
        if where == 2:
            return b"(" + writer.value(2) + call + b"0" + writer.value(1) + b"t."
        seed, place = self.seeds[which], rng.choice(self.places[which])
        return seed[:place] + call + rng.choice((b"", b"0")) + seed[place:]

    def load(self, case):
        return load(case.path)

    def check(self, case, result):
        try:
            expected = judged(case.data)
        except Exception as error:
            raise Wrong(f"read, though Python refuses it: {type(error).__name__}: {error!s:.100}") from None
        if not same(result, expected, set()):
            raise Wrong(f"{result!r:.100} where {expected!r:.100} was expected")

    def check_refusal(self, case, error):
        message = str(error)
        if not message.startswith(f"{case.path}: ") or "\n" in message or len(message) > 1000:
            raise Wrong(f"a message that is not one line about the file: {message:.200}")
        if case.kind == "well-formed":
            raise Wrong(f"refused, though well-formed: {message:.200}")
