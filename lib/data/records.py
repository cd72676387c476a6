"""Records of the video LMDBs: Caffe2's TensorProtos messages, read and written.

    message TensorProtos { repeated TensorProto protos = 1; }
    message TensorProto  { repeated int64 dims = 1; int32 data_type = 2; repeated float float_data = 3;
                           repeated int32 int32_data = 4 [packed]; bytes byte_data = 5;
                           repeated bytes string_data = 6; ... }

Only what the records use is read; all other fields are skipped.

| kind             | protos                                                         |
|------------------|----------------------------------------------------------------|
| train, val       | path; label(s), the first counts                               |
| single-crop test | path; video index and label(s); temporal index                 |
| multi-crop test  | path; video index; temporal index; spatial index 0..2 or 0..5  |
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache

from data.labels import first_label
from utils.errors import UserError

STRING, INT32 = 4, 2  # TensorProto.DataType
SPATIAL_POSITIONS = {0: 1, 1: 3, 2: 6}  # by TEST.USE_MULTI_CROP: centre; three crops; those and their mirrors

_KINDS = {2: "a train or val LMDB", 3: "a single-crop test LMDB", 4: "a multi-crop test LMDB"}
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # wire types
_LONGEST_PATH = 4096  # PATH_MAX of Linux: anything longer is not a path


class RecordError(UserError):
    """A record that is not what the reader expects; the message names its key and what was found."""


class WrongKindError(RecordError):
    """A sound record, but of another kind of LMDB than the expected one."""


@dataclass(frozen=True, slots=True)
class TrainRecord:
    """A video (its path, used as it is) and its class."""

    path: str
    label: int


@dataclass(frozen=True, slots=True)
class TestRecord:
    """One clip to score: video (path, index in the ground truth), temporal index, spatial index or None."""

    path: str
    video_index: int
    temporal_index: int
    spatial_index: int | None


def label_problem(label: int, num_classes: int | None) -> str | None:
    """What is wrong with a label, or None."""
    if label < 0 or num_classes is not None and label >= num_classes:
        return f"the label {label} is not in 0..{'' if num_classes is None else num_classes - 1}"
    return None


@dataclass(slots=True)
class TensorProto:
    """The parts of a TensorProto that the records use."""

    ints: list[int] = field(default_factory=list)
    strings: list[bytes] = field(default_factory=list)
    has_byte_data: bool = False


# ---------------------------------------------------------------------------------------------- writing


def path_proto(path: bytes) -> bytes:
    """A TensorProtos message with one STRING tensor, the path.

    Serialised messages concatenate: a record is path_proto(...) + int_proto(...) + ...
    """
    return _proto(b"\x10%c\x32" % STRING + _varint(len(path)) + path)


@lru_cache(maxsize=4096)  # labels repeat
def int_proto(*values: int) -> bytes:
    """A TensorProtos message with one INT32 tensor of these values; see path_proto."""
    packed = b"".join(_varint(value & 0xFFFFFFFFFFFFFFFF) for value in values)
    return _proto(b"\x10%c\x22" % INT32 + _varint(len(packed)) + packed)


def encode_train(path: bytes, labels: Iterable[int]) -> bytes:
    """Value of a train or val record with one or more labels."""
    return path_proto(path) + int_proto(*labels)


def encode_test_video(path: bytes, video_index: int, labels: Iterable[int], with_spatial: bool) -> bytes:
    """The part of a test record that all clips of a video share. Only single-crop records contain labels."""
    return path_proto(path) + (int_proto(video_index) if with_spatial else int_proto(video_index, *labels))


def encode_test_clip(temporal_index: int, spatial_index: int | None = None) -> bytes:
    """The part of a test record that distinguishes a video's clips; it follows the part of encode_test_video."""
    return int_proto(temporal_index) + (b"" if spatial_index is None else int_proto(spatial_index))


def _proto(body):
    return b"\x0a" + _varint(len(body)) + body


def _varint(value):
    if value < 0x80:
        return bytes((value,))
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


# ---------------------------------------------------------------------------------------------- reading


def parse_train(value: bytes, key: bytes | str) -> TrainRecord:
    """The record in a value of a train or val LMDB. Raises RecordError, which names the key."""
    protos = parse_protos(value, key)
    if len(protos) != 2:
        raise _wrong_kind(protos, key, "a train or val LMDB (path, label)")
    path, _ = _path(protos[0], key), _int(protos[1], key, "label")
    return TrainRecord(path, first_label(protos[1].ints, f"record {_shown(key)}", "LMDBs"))


def parse_test(value: bytes, key: bytes | str, use_multi_crop: int) -> TestRecord:
    """The record in a value of a test LMDB. Raises RecordError, which names the key.

    use_multi_crop is TEST.USE_MULTI_CROP: 0 takes the centre crop and ignores spatial indices (so any test LMDB will
    do), 1 expects spatial indices 0..2, 2 expects 0..5.
    """
    protos = parse_protos(value, key)
    if use_multi_crop and len(protos) != 4:
        raise _wrong_kind(protos, key, "a multi-crop test LMDB (path, video, temporal, spatial index)")
    if len(protos) not in (3, 4):
        raise _wrong_kind(protos, key, "a test LMDB (path, video and temporal index)")
    return TestRecord(
        _path(protos[0], key),
        _index(protos[1], key, "video index"),
        _index(protos[2], key, "temporal index"),
        spatial_index(protos[3], key, use_multi_crop) if use_multi_crop else None,
    )


def parse_test_video(part: bytes, key: bytes | str) -> tuple[str, int]:
    """(path, video index) of the part of a test record that encode_test_video writes. Raises RecordError."""
    protos = parse_protos(part, key)
    if len(protos) != 2:
        raise _wrong_kind(protos, key, "the part of a test record that a video's clips share (path, video index)")
    return _path(protos[0], key), _index(protos[1], key, "video index")


def spatial_index(proto: TensorProto, key: bytes | str, use_multi_crop: int) -> int:
    """Spatial index of a multi-crop record, checked against TEST.USE_MULTI_CROP (1 or 2)."""
    index = _index(proto, key, "spatial index")
    positions = SPATIAL_POSITIONS[use_multi_crop]
    if index >= positions:
        known = index < SPATIAL_POSITIONS[2]
        kind = "a flip-crop test LMDB" if known else "not of a known LMDB"
        raise (WrongKindError if known else RecordError)(
            f"record {_shown(key)} has spatial index {index} ({kind}); "
            f"TEST.USE_MULTI_CROP {use_multi_crop} expects 0..{positions - 1}"
        )
    return index


def parse_protos(value: bytes, key: bytes | str) -> list[TensorProto]:
    """The tensors of a value. Raises RecordError if the bytes are not a TensorProtos message."""
    value = bytes(value)
    protos = []
    try:
        for number, wire_type, content in _fields(value):
            if number == 1:
                protos.append(_tensor_proto(_expect(content, wire_type, _BYTES)))
    except ValueError as error:
        raise RecordError(f"record {_shown(key)} is not a TensorProtos message: {error}") from None
    return protos


def _tensor_proto(data):
    proto = TensorProto()
    for number, wire_type, content in _fields(data):
        if number == 1 and wire_type == _BYTES:
            for _ in _packed(content):  # unused, but damage here is damage to the record
                pass
        elif number == 3 and wire_type == _BYTES and len(content) % 4:
            raise ValueError(f"{len(content)} bytes of floats")
        elif number == 4:
            # Packed or not: readers of protocol buffers accept both.
            varints = [content] if wire_type == _VARINT else _packed(_expect(content, wire_type, _BYTES))
            proto.ints.extend(_int32(varint) for varint in varints)
        elif number == 5:
            proto.has_byte_data = True
        elif number == 6:
            proto.strings.append(_expect(content, wire_type, _BYTES))
    return proto


def _fields(data):
    """Yield (field number, wire type, content); content is an int for varints, else bytes."""
    position = 0
    while position < len(data):
        tag, position = _read_varint(data, position, 32)
        number, wire_type = tag >> 3, tag & 7
        if number == 0:
            raise ValueError("field number 0")
        if wire_type == _VARINT:
            content, position = _read_varint(data, position)
        else:
            if wire_type == _BYTES:
                length, position = _read_varint(data, position, 32)
            elif wire_type in (_FIXED64, _FIXED32):
                length = 8 if wire_type == _FIXED64 else 4
            else:
                raise ValueError(f"field {number} has the unknown wire type {wire_type}")
            if position + length > len(data):
                raise ValueError(f"cut short: field {number} has {len(data) - position} bytes of {length}")
            content = data[position : position + length]
            position += length
        yield number, wire_type, content


def _packed(data):
    position = 0
    while position < len(data):
        varint, position = _read_varint(data, position)
        yield varint


def _read_varint(data, position, bits=64):
    if position < len(data) and (byte := data[position]) < 0x80:
        return byte, position + 1
    result = 0
    for shift in range(0, bits, 7):
        if position >= len(data):
            raise ValueError("cut short inside a number")
        byte = data[position]
        position += 1
        result |= (byte & 0x7F) << shift
        if byte < 0x80:
            break
    if byte >= 0x80 or result >> bits:
        raise ValueError(f"a number of more than {bits} bits")
    return result, position


def _int32(varint):
    # Negative int32 values are encoded as 64-bit two's complement; the low half suffices.
    low = varint & 0xFFFFFFFF
    return low - (1 << 32) if low & 0x80000000 else low


def _expect(content, wire_type, expected):
    if wire_type != expected:
        raise ValueError(f"wire type {wire_type} where {expected} was expected")
    return content


def _path(proto, key):
    if len(proto.strings) > 1:
        raise RecordError(
            f"record {_shown(key)} holds {len(proto.strings)} strings where one path of a video was expected"
        )
    if not proto.strings:
        found = "the bytes of a video" if proto.has_byte_data else "no string"
        raise RecordError(f"record {_shown(key)} holds {found} where the path of a video was expected")
    path = proto.strings[0]
    if len(path) > _LONGEST_PATH or b"\0" in path:
        raise RecordError(
            f"record {_shown(key)} holds {len(path)} bytes, apparently a video itself, "
            "where the path of a video was expected"
        )
    return path.decode("utf-8", "surrogateescape")


def _int(proto, key, what):
    if not proto.ints:
        raise RecordError(f"record {_shown(key)} has no {what} (int32_data is empty)")
    return proto.ints[0]


def _index(proto, key, what):
    index = _int(proto, key, what)
    if index < 0:
        raise RecordError(f"record {_shown(key)} has the {what} {index}; it must not be negative")
    return index


def _wrong_kind(protos, key, expected):
    kind = _KINDS.get(len(protos), "an unknown LMDB")
    return (WrongKindError if len(protos) in _KINDS else RecordError)(
        f"record {_shown(key)} looks like one of {kind} ({len(protos)} tensors), expected {expected}"
    )


def _shown(key):
    return key if isinstance(key, str) else bytes(key).decode("utf-8", "backslashreplace")
