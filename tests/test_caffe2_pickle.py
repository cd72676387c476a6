import json
import os
import pickle
import pickletools
import stat
import struct
import subprocess
import sys
import tracemalloc
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from formats.caffe2_pickle import PickleError, dump, load
from utils.errors import UserError

PICKLES = Path(__file__).parent / "data" / "pickles"
SMALL = sorted(PICKLES.glob("small_*.pkl"))
ARRAY_GLOBALS = {"numpy.core.multiarray _reconstruct", "numpy ndarray", "numpy dtype"}


def write(folder, data):
    path = folder / "file.pkl"
    path.write_bytes(data)
    return path


def same(a, b):
    """Equal in value and type, containers included."""
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, (np.ndarray, np.generic)):
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    return a == b or a != a and b != b


# Files of Python 2


@pytest.mark.parametrize("path", SMALL, ids=lambda path: path.stem)
def test_reads_the_legacy_programs_pickles(path):
    blobs = load(path)
    assert ("blobs" in blobs) == ("blobs" in path.name)
    blobs = blobs.get("blobs", blobs)
    expected = json.loads((PICKLES / "small_values.json").read_text())
    assert set(expected) <= set(blobs)
    for name, values in expected.items():
        if name == "model_iter":
            assert type(blobs[name]) is int
        else:
            assert blobs[name].dtype == np.float32 and blobs[name].flags.writeable
        assert np.ravel(blobs[name]).tolist()[: len(values)] == values
    assert blobs["lr"].shape == ()
    assert blobs["res2_0_branch2a_w"].shape == (4, 64, 3, 1, 1)


def test_reads_a_whole_checkpoint(shared):
    path = shared / "reference/pickles/c2_model_iter4.pkl"
    blobs = load(path)["blobs"]
    assert len(blobs) == 430
    with open(path, "rb") as file:
        assert same(blobs, pickle.load(file, encoding="latin1")["blobs"])


# Files of this Python

CONTENTS = {
    "c": np.arange(6, dtype="f4").reshape(2, 3),
    "fortran": np.asfortranarray(np.arange(300, dtype="f8").reshape(20, 15)),
    "transposed": np.arange(24, dtype="f4").reshape(2, 3, 4).transpose(2, 0, 1),
    "big_endian": np.arange(4, dtype=">i4"),
    "empty": np.zeros((0, 3), "f4"),
    "rate": np.array(1e-4, "f4"),
    "flags": np.array([True, False]),
    "scalars": [np.float32(2.5), np.int32(-7), np.float64(1.5), np.bool_(True)],
    "numbers": [
        1,
        -1,
        255,
        65535,
        2**31 - 1,
        -(2**31),
        2**40,
        -(2**100),
        1.5,
        float("inf"),
        True,
        False,
        None,
    ],
    "tuples": ((), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)),
    "ordered": OrderedDict(b=1, a=2),
    "text": "h\xe9\u20ac\n\\'\"",
    "long": "x" * 1000,
    "nothing": [{}, [], ""],
}


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_reads_every_protocol_of_this_python(tmp_path, protocol):
    found = load(write(tmp_path, pickle.dumps({**CONTENTS, "bytes": b"\x00\xff'"}, protocol)))
    expected = {**CONTENTS, "ordered": {"b": 1, "a": 2}, "bytes": "\x00\xff'"}
    expected["big_endian"] = np.arange(4, dtype="i4")
    assert same(found, expected)
    assert found["big_endian"].dtype.isnative
    assert found["fortran"].flags.f_contiguous


@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_reads_the_module_names_of_numpy_1_and_2(tmp_path, protocol):
    data = pickle.dumps({"a": np.arange(3.0), "s": np.float32(1)}, protocol)
    names = {b"numpy.core.": b"numpy._core.", b"numpy._core.": b"numpy.core."}
    old, new = next((old, new) for old, new in names.items() if old in data)
    if protocol < 4:  # where names are lines: not counted
        other = data.replace(old, new)
        assert same(load(write(tmp_path, data)), load(write(tmp_path, other)))
    assert same(load(write(tmp_path, data))["a"], np.arange(3.0))


def test_numpy_2_3_writes_arrays_of_any_axis_order():
    # numpy._core.numeric._frombuffer(data, dtype, shape, "K", axis_order) came with numpy 2.3.
    base = np.arange(24, dtype="f4").reshape(2, 3, 4)

    class AsNumpy23:
        def __reduce__(self):
            from numpy._core.numeric import _frombuffer

            return _frombuffer, (base.tobytes(), base.dtype, base.shape, "K", (2, 0, 1))

    path = Path(os.environ.get("TMPDIR", "/tmp")) / f"axis_order_{os.getpid()}.pkl"
    try:
        path.write_bytes(pickle.dumps(AsNumpy23(), 5))
        assert same(load(path), base.transpose(2, 0, 1))
    finally:
        path.unlink()


def test_what_occurs_twice_stays_shared(tmp_path):
    array, items = np.zeros(3), [1]
    found = load(write(tmp_path, pickle.dumps([array, array, items, items], 2)))
    assert found[0] is found[1] and found[2] is found[3]


# Writing

plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text()
    | npst.arrays(
        st.sampled_from(["f4", ">f4", "f8", "i8", "u1", "?", "c8"]), npst.array_shapes(min_dims=0, min_side=0)
    )
    | npst.arrays("f4", ()).map(lambda array: array[()]),
    lambda items: (
        st.lists(items, max_size=4)
        | st.lists(items, max_size=4).map(tuple)
        | st.dictionaries(st.text(max_size=8), items, max_size=4)
    ),
    max_leaves=12,
)


def native(value):
    if isinstance(value, dict):
        return {key: native(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(map(native, value))
    return value.astype(value.dtype.newbyteorder("=")) if isinstance(value, np.ndarray) else value


@settings(max_examples=100, deadline=None)
@given(plain)
def test_what_is_written_is_read(tmp_path_factory, value):
    path = tmp_path_factory.mktemp("dump") / "file.pkl"
    dump(value, path)
    assert same(load(path), native(value))
    with open(path, "rb") as file:
        assert same(native(pickle.load(file, encoding="latin1")), native(value))


def test_writes_what_python_2_knows(tmp_path):
    dump({"blobs": {"conv1_w": np.ones((2, 3), "f4"), "model_iter": 4}}, tmp_path / "file.pkl")
    operations = [(op, arg) for op, arg, _ in pickletools.genops((tmp_path / "file.pkl").read_bytes())]
    assert operations[0] == (pickletools.code2op["\x80"], 2)
    assert max(op.proto for op, _ in operations) == 2
    assert {arg for op, arg in operations if op.name == "GLOBAL"} == ARRAY_GLOBALS
    strings = [arg for op, arg in operations if op.name == "BINSTRING"]
    assert {"blobs", "conv1_w", "model_iter"} <= set(strings)
    assert np.ones((2, 3), "f4").tobytes().decode("latin-1") in strings
    assert not any("UNICODE" in op.name for op, _ in operations)


def test_a_strided_array_is_written_in_c_order(tmp_path):
    dump(np.asfortranarray(np.arange(6.0).reshape(2, 3)), tmp_path / "file.pkl")
    assert load(tmp_path / "file.pkl").flags.c_contiguous
    assert load(tmp_path / "file.pkl").tolist() == [[0, 1, 2], [3, 4, 5]]


def test_writing_and_reading_take_little_more_memory_than_the_arrays(tmp_path):
    array = np.ones(2**22, "f4")
    tracemalloc.start()
    try:
        dump({"a": array}, tmp_path / "file.pkl")
        assert tracemalloc.get_traced_memory()[1] < 0.1 * array.nbytes
        load(tmp_path / "file.pkl")
        assert tracemalloc.get_traced_memory()[1] < 1.1 * array.nbytes
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "value",
    [
        {1: 2},
        b"bytes",
        {1},
        object(),
        np.array([object()]),
        np.array(["text"]),
        np.zeros(2, "datetime64[s]"),
        np.zeros(2, [("a", "f4")]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, value):
    path = tmp_path / "file.pkl"
    dump("old", path)
    with pytest.raises(TypeError):
        dump({"new": np.zeros(100), "bad": value}, path)
    assert load(path) == "old"
    assert os.listdir(tmp_path) == ["file.pkl"]


def test_a_full_disk_is_one_line(tmp_path, monkeypatch):
    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="file.pkl: cannot be written: No space left on device"):
        dump({}, tmp_path / "file.pkl")
    assert os.listdir(tmp_path) == []


def test_a_missing_folder_is_one_line(tmp_path):
    with pytest.raises(UserError, match="file.pkl: cannot be written: No such file"):
        dump({}, tmp_path / "missing" / "file.pkl")


def test_the_file_has_the_users_usual_mode(tmp_path):
    old = os.umask(0o027)
    try:
        dump({}, tmp_path / "file.pkl")
    finally:
        os.umask(old)
    assert stat.S_IMODE(os.stat(tmp_path / "file.pkl").st_mode) == 0o640


# Python 2 itself

PYTHON2_READ = """
import cPickle, pickle, sys
import numpy as np
for module in (cPickle, pickle):
    blobs = module.load(open(sys.argv[1]))
    if 'blobs' in blobs:
        blobs = blobs['blobs']
    assert sorted(map(type, blobs)) == [str] * 5, blobs.keys()
    assert type(blobs['model_iter']) is int and blobs['model_iter'] == 400000
    assert type(blobs['large']) is int and blobs['large'] == 2 ** 40
    assert type(blobs['scalar']) is np.float32 and blobs['scalar'] == 2.5
    assert blobs['lr'].shape == () and blobs['lr'].dtype == np.float32
    weight = blobs['conv1_w']
    assert weight.dtype == np.float32 and weight.flags.c_contiguous and weight.flags.writeable
    assert (weight == np.arange(24).reshape(2, 3, 4).transpose(2, 0, 1)).all()
"""

PYTHON2_WRITE = """
import cPickle, pickle, sys
import numpy as np
contents = {'blobs': {'c': np.arange(6, dtype='f4').reshape(2, 3), u'unicode': u'h\\xe9',
                      'fortran': np.asfortranarray(np.arange(300, dtype='f8').reshape(20, 15)),
                      'be': np.arange(4, dtype='>i4'), 'lr': np.array(1e-4, 'f4'),
                      'long': 2 ** 40, 'very': 2 ** 70, 'scalars': [np.float32(2.5), np.int32(-7)],
                      'tuple': (True, None, 1.5), 'text': 'a\\n\\'"\\xff'}}
for module in (cPickle, pickle):
    for protocol in (0, 1, 2):
        path = '%s/%s_%d.pkl' % (sys.argv[1], module.__name__, protocol)
        module.dump(contents, open(path, 'wb'), protocol)
"""


def test_python_2_reads_what_is_written(tmp_path, python2):
    weight = np.arange(24, dtype="f4").reshape(2, 3, 4).transpose(2, 0, 1)
    blobs = {
        "conv1_w": weight,
        "lr": np.array(0.1, "f4"),
        "model_iter": 400000,
        "large": 2**40,
        "scalar": np.float32(2.5),
    }
    for contents in ({"blobs": blobs, "state": {"best": [1.5, "x"]}}, blobs):
        dump(contents, tmp_path / "file.pkl")
        subprocess.run([python2, "-c", PYTHON2_READ, tmp_path / "file.pkl"], check=True)


def test_what_python_2_writes_is_read(tmp_path, python2):
    subprocess.run([python2, "-c", PYTHON2_WRITE, tmp_path], check=True)
    expected = {
        "c": np.arange(6, dtype="f4").reshape(2, 3),
        "unicode": "h\xe9",
        "fortran": np.arange(300, dtype="f8").reshape(20, 15),
        "be": np.arange(4, dtype="i4"),
        "lr": np.array(1e-4, "f4"),
        "long": 2**40,
        "very": 2**70,
        "scalars": [np.float32(2.5), np.int32(-7)],
        "tuple": (True, None, 1.5),
        "text": "a\n'\"\xff",
    }
    files = list(tmp_path.iterdir())
    assert len(files) == 6
    for path in files:
        found = load(path)["blobs"]
        assert same({key: found[key] for key in expected}, expected) and len(found) == len(expected)


# Files that are not to be read


def refuse(folder, data, match):
    with pytest.raises(PickleError, match=match) as error:
        load(write(folder, data))
    assert "\n" not in str(error.value) and "file.pkl" in str(error.value) and len(str(error.value)) < 1000


@pytest.mark.parametrize("path", SMALL, ids=lambda path: path.stem)
def test_a_truncated_file_is_refused_wherever_it_ends(tmp_path, path):
    data = path.read_bytes()
    for end in [*range(400), *range(400, len(data), 97), len(data) - 1]:
        refuse(tmp_path, data[:end], "truncated or empty")


@pytest.mark.parametrize(
    "data",
    [
        b"hello\n",
        b"PK\x03\x04" + bytes(50),
        b"\x89HDF\r\n\x1a\n",
        bytes(100),
        b"\xff" * 50,
        b"I1\nI2\n.",
        b"0.",
        b".",
        b"a.",
        b"s.",
        b"u.",
        b"t.",
        b"R.",
        b"b.",
        b"l.",
        b"K\x01K\x02K\x03s.",
        b"]K\x01s.",
        b"}K\x01a.",
        b"](K\x01u.",
        b"}(K\x01u.",
        b"K\x01K\x01R.",
        b"K\x01K\x01b.",
        b"g5\n.",
        b"p1\n.",
        b"K\x01p-1\n.",
        b"Iabc\n.",
        b"I" + b"1" * 9000 + b"\n.",
        b"Fabc\n.",
        b"Sabc\n.",
        b"S'\n.",
        b"U\x05ab",
        b"T\xff\xff\xff\xffab.",
        b"X\x02\x00\x00\x00\xff\xff.",
        b"V\\u12\n.",
        b"(.",
        b"cnumpy\nndarray\n.",
    ],
)
def test_a_wrong_file_is_refused(tmp_path, data):
    refuse(tmp_path, data, "truncated|refused|not a valid pickle")


def test_a_missing_file_a_folder_and_a_pipe_are_refused(tmp_path):
    with pytest.raises(PickleError, match="missing.pkl: cannot read: No such file"):
        load(tmp_path / "missing.pkl")
    with pytest.raises(PickleError, match="expected a pickle file, got a (folder|device)"):
        load(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(PickleError, match="pipe: expected a pickle file"):
        load(tmp_path / "pipe")


FOREIGN = """os system|posix system|subprocess Popen|builtins eval|builtins exec|__builtin__ eval
__builtin__ getattr|builtins getattr|builtins __import__|builtins open|builtins object|builtins bytearray
operator attrgetter
operator methodcaller|functools partial|copyreg _reconstructor|copy_reg _reconstructor|copyreg __newobj__
numpy load|numpy fromfile|numpy frombuffer|numpy.core.multiarray fromfile|numpy matrix|numpy void|numpy memmap
numpy.core.multiarray _reconstruct.__globals__|numpy ndarray.tofile|numpy.core.numeric load
numpy.testing._private.utils runstring|numpy.f2py.crackfortran myeval|numpy.lib.format descr_to_dtype
numpy.ma.core _mareconstruct|numpy._core._multiarray_umath _reconstruct|_codecs decode
_codecs encode.__call__|codecs encode|collections defaultdict|collections OrderedDict.__reduce__
torch._utils _rebuild_tensor_v2
torch load|pickle loads|_pickle loads|pip main|webbrowser open|ctypes CDLL|sys exit
types CodeType|nt system"""
FOREIGN = [tuple(entry.split(" ")) for entry in FOREIGN.replace("\n", "|").split("|")]


def spellings(module, name):
    """Streams that call a global with a command that would leave a trace."""
    call = b"(X\x0e\x00\x00\x00touch executedtR."
    text = [b"\x8c" + bytes([len(part)]) + part.encode() for part in (module, name)]
    yield b"c" + f"{module}\n{name}\n".encode() + call
    yield b"\x80\x04" + text[0] + b"\x94" + text[1] + b"\x94\x93" + call
    yield b"(X\x0e\x00\x00\x00touch executedi" + f"{module}\n{name}\n.".encode()
    yield b"(c" + f"{module}\n{name}\n".encode() + b"X\x0e\x00\x00\x00touch executedo."
    yield b"c" + f"{module}\n{name}\n".encode() + b"(X\x0e\x00\x00\x00touch executedt\x81."


@pytest.mark.parametrize(("module", "name"), FOREIGN, ids=[".".join(entry) for entry in FOREIGN])
def test_foreign_globals_are_refused_by_name(tmp_path, monkeypatch, module, name):
    monkeypatch.chdir(tmp_path)
    for data in spellings(module, name):
        refuse(tmp_path, data, f"global '{module}.{name}' is not admitted")
    assert os.listdir(tmp_path) == ["file.pkl"]


def test_reading_imports_nothing(tmp_path):
    (tmp_path / "trap.py").write_text("raise SystemExit('imported')")
    program = (
        "import sys; from formats.caffe2_pickle import load, PickleError\n"
        "try: load('file.pkl')\nexcept PickleError as error: print(error)"
    )
    write(tmp_path, b"ctrap\nanything\n.")
    lib = Path(__file__).parent.parent / "lib"
    result = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": f"{lib}:{tmp_path}"},
    )
    assert "global 'trap.anything' is not admitted" in result.stdout


def test_a_name_made_to_spoil_the_terminal_is_escaped(tmp_path):
    refuse(tmp_path, b"\x8c\x02os\x8c\x08a\n\x1b[2Jmb\x93.", r"global 'os\.a\\n\\x1b\[2Jmb' is not admitted")
    refuse(tmp_path, b"cos\n" + b"x" * 4000 + b"\n.", "global 'os.xxx")


ARRAY = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tU\x01btR"
FLOAT32 = b"cnumpy\ndtype\n(U\x02f4K\x00K\x01tR(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"


def state(shape=b"(K\x02t", dtype=FLOAT32, order=b"\x89", data=b"U\x08" + bytes(8), version=b"K\x01"):
    return b"(" + version + shape + dtype + order + data + b"tb"


def test_the_streams_made_here_are_right(tmp_path):
    assert load(write(tmp_path, ARRAY + state() + b".")).tolist() == [0, 0]


BAD_SHAPE, BAD_PARTS = "whose shape is not made of up to 32 sizes", "not made of a shape, a dtype and bytes"
HUGE = b"J\xff\xff\xff\x7f"
HOSTILE = {
    "no state": (ARRAY, "array where data should be"),
    "huge, no state": (ARRAY.replace(b"K\x00", HUGE), "array where data should be"),
    "two states": (ARRAY + state() + state(), "a state for something that takes none"),
    "too little data": (ARRAY + state(shape=b"(K\x03t"), r"shape \(3,\), float32, in 8 bytes"),
    "huge": (
        ARRAY + state(shape=b"(" + HUGE * 2 + b"t"),
        r"shape \(2147483647, 2147483647\), float32, in 8 bytes",
    ),
    "overflow to the right size": (
        ARRAY + state(shape=b"(\x8a\x09\x01\x00\x00\x00\x00\x00\x00\x40\x00K\x02t"),
        r"shape \(4611686018427387905, 2\)",
    ),
    "huge and empty": (
        ARRAY + state(shape=b"(K\x00\x8a\x1f" + b"\x7f" * 31 + b"t", data=b"U\x00"),
        "ValueError",
    ),
    "endless sizes": (ARRAY + state(shape=b"(" + b"\x8a\xff" + b"\x7f" * 255 + b"K\x02t"), "shape"),
    "negative": (ARRAY + state(shape=b"(J\xff\xff\xff\xffJ\xfe\xff\xff\xfft"), BAD_SHAPE),
    "too many dimensions": (ARRAY + state(shape=b"(" + b"K\x01" * 33 + b"K\x02t"), BAD_SHAPE),
    "shape of floats": (ARRAY + state(shape=b"(G@\x00\x00\x00\x00\x00\x00\x00t"), BAD_SHAPE),
    "shape a list": (ARRAY + state(shape=b"](K\x02e"), BAD_PARTS),
    "objects": (ARRAY + state(data=b"]"), BAD_PARTS),
    "text as data": (ARRAY + state(data=b"X\x08\x00\x00\x00abcdefgh"), BAD_PARTS),
    "dtype by name": (ARRAY + state(dtype=b"U\x02f4"), BAD_PARTS),
    "dtype is an array": (ARRAY + state(dtype=ARRAY), BAD_PARTS),
    "version 0": (ARRAY + state(version=b"K\x00"), "an array in an unknown form"),
    "order 2": (ARRAY + state(order=b"K\x02"), "an array in an unknown form"),
    "order a float": (ARRAY + state(order=b"F0.5\n"), "an array in an unknown form"),
    "not ndarray": (ARRAY.replace(b"ndarray", b"dtype"), "another class than numpy.ndarray"),
    "state of a dictionary": (b"}" + state(), "a state for something that takes none"),
    "state of a global": (b"cnumpy\nndarray\n" + state(), "a state for something that takes none"),
    "ndarray called": (b"cnumpy\nndarray\n((K\x02ttR", "a call of something that is not a function"),
    "text called": (b"U\x01a(K\x02tR", "a call of something that is not a function"),
    "scalar too short": (
        b"cnumpy.core.multiarray\nscalar\n(" + FLOAT32 + b"U\x02abtR",
        r"shape \(\), float32, in 2",
    ),
    "scalar object": (
        b"cnumpy.core.multiarray\nscalar\n(cnumpy\ndtype\n(U\x01OK\x00K\x01tRU\x08abcdefghtR",
        "dtype 'O' is not numeric",
    ),
    "scalar without data": (b"cnumpy.core.multiarray\nscalar\n(" + FLOAT32 + b"tR", "TypeError"),
    "frombuffer too short": (
        b"cnumpy.core.numeric\n_frombuffer\n(U\x04abcd" + FLOAT32 + b"(K\x02tU\x01CtR",
        r"shape \(2,\), float32, in 4",
    ),
    "frombuffer out of band": (
        b"cnumpy.core.numeric\n_frombuffer\n(\x97" + FLOAT32 + b"(K\x02tU\x01CtR",
        "NEXT_BUFFER is not admitted",
    ),
    "frombuffer axes": (
        b"cnumpy.core.numeric\n_frombuffer\n(U\x04abcd" + FLOAT32 + b"(K\x01tU\x01K(K\x07ttR",
        "AxisError",
    ),
    "dtype alone": (FLOAT32, "dtype where data should be"),
    "dtype with two states": (FLOAT32 + FLOAT32[FLOAT32.index(b"R") + 1 :], "a state for something that takes none"),
    "dtype of a dtype": (b"cnumpy\ndtype\n(" + FLOAT32 + b"K\x00K\x01tR", "TypeError"),
    "dtype with fields": (
        b"cnumpy\ndtype\n(U\x02f4K\x00K\x01tR(K\x03U\x01|N(U\x01at}U\x01aNsK\x08K\x01K\x00tb",
        "no numeric dtype has",
    ),
    "dtype with metadata": (
        b"cnumpy\ndtype\n(U\x02f4K\x00K\x01tR(K\x04U\x01|NNNK\x08K\x01K\x00}tb",
        "TypeError",
    ),
    "dtype of a wrong order": (FLOAT32.replace(b"<", b"x"), "ValueError"),
    "bytes of a codec": (
        b"c_codecs\nencode\n(X\x03\x00\x00\x00abcX\x03\x00\x00\x00hextR",
        "bytes in encoding 'hex'",
    ),
    "bytes of a number": (b"c__builtin__\nbytes\n(" + HUGE + b"tR", "TypeError"),
    "ordered dictionary of a number": (b"ccollections\nOrderedDict\n(K\x05tR", "TypeError"),
    "global as data": (b"cnumpy\nndarray\n", "global where data should be"),
}


@pytest.mark.parametrize(("data", "match"), HOSTILE.values(), ids=HOSTILE)
def test_hostile_objects_are_refused(tmp_path, data, match):
    refuse(tmp_path, data + b".", match)
    refuse(tmp_path, b"}U\x01a" + data + b"s.", match)


@pytest.mark.parametrize(
    "code",
    [
        "O",
        "O8",
        "|O8",
        "V8",
        "S8",
        "U2",
        "M8",
        "m8[s]",
        "f4,f4",
        "(2,)f4",
        "f16",
        "g",
        "p",
        "object",
        "float32\n",
        "f4\x00",
        "",
        "i3",
        "<<f4",
        "b2",
    ],
)
def test_only_numeric_dtypes_are_admitted(tmp_path, code):
    data = b"cnumpy\ndtype\n(U" + bytes([len(code)]) + code.encode() + b"K\x00K\x01tR."
    refuse(tmp_path, data, "is not numeric")


@pytest.mark.parametrize(
    "array",
    [
        np.array([object()], object),
        np.array(["a"]),
        np.array([b"a"]),
        np.zeros(2, "M8[s]"),
        np.zeros(2, [("a", "f4"), ("b", object)]),
    ],
    ids=lambda array: str(array.dtype),
)
@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_arrays_of_other_things_are_refused(tmp_path, array, protocol):
    refuse(
        tmp_path,
        pickle.dumps({"a": array}, protocol)
        if array.dtype != object
        else pickle.dumps(np.array([None]), protocol),
        "dtype|global",
    )


@pytest.mark.parametrize(
    ("data", "opcode"),
    [
        (b"P1\n.", "PERSID"),
        (b"K\x01Q.", "BINPERSID"),
        (b"\x82\x01.", "EXT1"),
        (b"\x83\x01\x00.", "EXT2"),
        (b"\x84\x01\x00\x00\x00.", "EXT4"),
        (b"\x97.", "NEXT_BUFFER"),
        (b"\x8b\xff\xff\xff\x7f1.", "LONG4"),
        (b"\x8f.", "EMPTY_SET"),
        (b"(\x91.", "FROZENSET"),
    ],
)
def test_other_opcodes_are_refused_by_name(tmp_path, data, opcode):
    refuse(tmp_path, data, f"opcode {opcode} is not admitted")


@pytest.mark.parametrize(
    "number", ["I010", "I0x10", "I1_0", "I 1", "I+1", "I-0", "L1LL", "F1_0.5", "F 1.5", "F1e999", "F"]
)
def test_a_number_that_no_pickler_writes_is_refused(tmp_path, number):
    refuse(tmp_path, f"{number}\n.".encode(), "written as one|not a valid pickle|got a text file")


def test_a_protocol_of_the_future_is_refused(tmp_path):
    refuse(tmp_path, b"\x80\x06N.", "protocol 6 is not known")


def test_a_frame_longer_than_the_file_is_a_truncated_file(tmp_path):
    assert load(write(tmp_path, b"\x80\x04\x95\x02" + bytes(7) + b"N.")) is None
    refuse(tmp_path, b"\x80\x04\x95\x03" + bytes(7) + b"N.", "truncated")


MEGABYTE = b"T\x00\x00\x10\x00" + bytes(2**20)
DOUBLED_TUPLE = b")" + b"2\x86" * 100
BOMBS = {
    "string of 2 GiB": (b"T\xff\xff\xff\x7fab.", "truncated"),
    "bytes of 2**63": (b"\x8e\xff\xff\xff\xff\xff\xff\xff\x7fab.", "truncated"),
    "bytearray of 2**63": (b"\x96\xff\xff\xff\xff\xff\xff\xff\x7fab.", "truncated"),
    "text of 4 GiB": (b"X\xff\xff\xff\xffab.", "truncated"),
    "memo index of 2**32": (b"Nr\xff\xff\xff\xff0", "truncated"),
    "marks": (b"(" * 100_000, "truncated"),
    "lists": (b"]" * 30_000 + b"a" * 29_999 + b".", "nested more than 100 deep"),
    "tuples": (b")" + b"\x85" * 30_000 + b".", "nested more than 100 deep"),
    "tuple as a key": (b"})" + b"\x85" * 30_000 + b"Ns.", "key of type tuple"),
    "doubled tuple as a key": (b"}" + DOUBLED_TUPLE + b"Ns.", "key of type tuple"),
    "doubled tuple as a shape": (ARRAY + state(shape=DOUBLED_TUPLE) + b".", "whose shape is not"),
    "doubled tuple as a dtype": (b"cnumpy\ndtype\n(" + DOUBLED_TUPLE + b"K\x00K\x01tR.", "TypeError"),
    "doubled tuple as an encoding": (
        b"c_codecs\nencode\n(X\x01\x00\x00\x00a" + DOUBLED_TUPLE + b"tR.",
        "encoding tuple",
    ),
    "doubled list": (b"]q\x00" + b"0]h\x00ah\x00aq\x00" * 200 + b".", "nested more than 100 deep"),
    "list in itself": (b"]2a.", "nested more than 100 deep"),
    "colliding keys": (
        b"}(" + b"".join(b"I%d\nN" % (i * (2**61 - 1)) for i in range(5000)) + b"u.",
        "key of type int",
    ),
    "a key over and over": (MEGABYTE + b"q\x000]" + b"}h\x00Nsa" * 1000 + b".", "over and over"),
    "big-endian data over and over": (
        FLOAT32.replace(b"<", b">")
        + b"q\x010"
        + MEGABYTE
        + b"q\x000]"
        + (ARRAY + state(shape=b"(J\x00\x00\x04\x00t", dtype=b"h\x01", data=b"h\x00") + b"a") * 1000
        + b".",
        "over and over",
    ),
    "text to bytes over and over": (
        b"X"
        + MEGABYTE[1:]
        + b"q\x000]"
        + b"c_codecs\nencode\n(h\x00X\x06\x00\x00\x00latin1tRa" * 1000
        + b".",
        "over and over",
    ),
    "long number": (b"L" + b"9" * 10**6 + b"\n.", "too long"),
}


@pytest.mark.parametrize(("data", "match"), BOMBS.values(), ids=BOMBS)
def test_bombs_neither_hang_nor_fill_the_memory(tmp_path, data, match):
    tracemalloc.start()
    try:
        refuse(tmp_path, data, match)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # The calls for 100 levels, whose size depends on what Python has in its free lists; 64 bytes for each list that
    # costs one byte of the file, 16 copies of data that are used again.
    assert peak < 300_000 + 150 * min(len(data), 2**17) + 30 * len(data)


def test_containers_may_be_nested_but_not_without_end(tmp_path):
    def nested(depth):
        return b"]" * depth + b"a" * (depth - 1) + b"."

    assert len(load(write(tmp_path, nested(100)))) == 1
    refuse(tmp_path, nested(101), "nested more than 100 deep")
    # Sharing must not hide depth: each list of the chain holds the one before it below 60 more.
    links = b"".join(b"]" * 60 + b"g0\n" + b"a" * 60 + b"p0\n" for _ in range(5))
    stream = b"](K\x01p0\n0" + b"]p0\n" + links + b"e."
    refuse(tmp_path, stream, "nested more than 100 deep")


# Noise: no crash, no hang, and either the one exception or a value of plain types


def check_noise(folder, data):
    try:
        value = load(write(folder, data))
    except PickleError as error:
        assert "file.pkl" in str(error)
        return

    def check(value):
        assert type(value) in (
            dict,
            list,
            tuple,
            str,
            int,
            float,
            bool,
            type(None),
            np.ndarray,
        ) or isinstance(value, (np.number, np.bool_))
        for item in value.values() if type(value) is dict else value if type(value) in (list, tuple) else ():
            check(item)

    check(value)


changes = st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=8)


@pytest.mark.filterwarnings("ignore:invalid .*escape sequence:DeprecationWarning")
@settings(max_examples=200, deadline=None)
@given(st.sampled_from(SMALL), changes, st.booleans())
def test_damaged_checkpoints(tmp_path_factory, path, changes, head_only):
    data = bytearray(path.read_bytes())
    for position, byte in changes:
        data[position % (300 if head_only else len(data))] = byte
    check_noise(tmp_path_factory.mktemp("noise"), bytes(data))


FRAGMENTS = [op.code.encode("latin-1") for op in pickletools.opcodes] + [
    FLOAT32,
    ARRAY,
    state(),
    b"cnumpy\nndarray\n",
    b"ccollections\nOrderedDict\n",
    b"c_codecs\nencode\n",
    b"K\x01",
    b"U\x01a",
    b"X\x01\x00\x00\x00b",
    b"q\x00",
    b"h\x00",
    b"(K\x01K\x02t",
    struct.pack("<i", -1),
]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(FRAGMENTS), max_size=30))
def test_streams_of_opcodes(tmp_path_factory, fragments):
    check_noise(tmp_path_factory.mktemp("noise"), b"".join(fragments) + b".")
