"""Records of the LMDBs, judged by Google's protocol buffers."""

from dataclasses import dataclass

from fuzzing import Area, Wrong, mutate_bytes
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

from data.records import (
    SPATIAL_POSITIONS,
    RecordError,
    TestRecord,
    TrainRecord,
    encode_test_clip,
    encode_test_video,
    encode_train,
    parse_test,
    parse_train,
)

KEY = b"k\xc3\xbc7"
SHOWN_KEY = "record kü7 "
TRAIN = "train"
MODES = (TRAIN, 0, 1, 2)  # the last three: TEST.USE_MULTI_CROP
PATHS = (b"v.mp4", b"data/kinetics/train_256/abseiling/x_000001.mp4", b"\xff\xfe.avi", b"a b\nc", b"p" * 300,
         b"p" * 4097)  # fmt: skip


def tensor_protos():
    """The message class TensorProtos, of the fields that Caffe2's schema gives the first six numbers."""
    schema = descriptor_pb2.FileDescriptorProto(name="caffe2.proto", package="caffe2", syntax="proto2")
    tensor = schema.message_type.add(name="TensorProto")
    field = descriptor_pb2.FieldDescriptorProto
    for number, (name, kind, repeated, packed) in enumerate([
        ("dims", field.TYPE_INT64, True, False), ("data_type", field.TYPE_INT32, False, False),
        ("float_data", field.TYPE_FLOAT, True, True), ("int32_data", field.TYPE_INT32, True, True),
        ("byte_data", field.TYPE_BYTES, False, False), ("string_data", field.TYPE_BYTES, True, False),
    ], start=1):  # fmt: skip
        label = field.LABEL_REPEATED if repeated else field.LABEL_OPTIONAL
        added = tensor.field.add(name=name, number=number, type=kind, label=label)
        if packed:
            added.options.packed = True
    schema.message_type.add(name="TensorProtos").field.add(
        name="protos", number=1, label=field.LABEL_REPEATED, type=field.TYPE_MESSAGE, type_name=".caffe2.TensorProto")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(schema)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("caffe2.TensorProtos"))


def expected_record(message, mode):
    """What a reader in this mode should make of the message; None if it is not a record for it."""
    protos = message.protos
    if len(protos) not in {TRAIN: (2,), 0: (3, 4), 1: (4,), 2: (4,)}[mode]:
        return None
    strings, ints = protos[0].string_data, [proto.int32_data[:1] for proto in protos[1:]]
    ints = ints[: 2 if mode == 0 else None]
    if len(strings) != 1 or len(strings[0]) > 4096 or b"\0" in strings[0] or not all(ints):
        return None
    path, ints = strings[0].decode("utf-8", "surrogateescape"), [values[0] for values in ints]
    if mode == TRAIN:
        return TrainRecord(path, ints[0])
    if min(ints) < 0 or mode and ints[2] >= SPATIAL_POSITIONS[mode]:
        return None
    return TestRecord(path, *ints, *(() if mode else (None,)))


@dataclass
class Case:
    data: bytes
    mode: object
    kind: str
    written: bytes | None = None  # what the port's own writer makes of the same values

    @property
    def size(self):
        return len(self.data) + 1

    def __str__(self):
        return f"{self.kind}, mode {self.mode}: {self.data[:120]!r}"


class Records(Area):
    name = "records"
    error = RecordError
    memory = 10_000, 100
    allowed_events = frozenset({"sys._getframe", "object.__getattr__"})  # logging looks at its caller

    def __init__(self, folder):
        self.message = tensor_protos()
        self.samples = []

    def make(self, rng):
        kind = rng.choice(("well-formed", "bytes", "bytes", "fields", "fields", "noise"))
        mode = rng.choice(MODES)
        if kind == "fields":
            return Case(_record_of_fields(rng), mode, kind)
        if kind == "noise":
            return Case(rng.randbytes(rng.randrange(60)), mode, kind)
        message, written = self._well_formed(rng, mode)
        data = message.SerializeToString()
        if kind == "well-formed":
            return Case(data, mode, kind, written)
        self.samples = [*self.samples[-20:], data]
        return Case(mutate_bytes(rng, data, self.samples), rng.choice((mode, mode, *MODES)), kind)

    def _well_formed(self, rng, mode):
        """A message of the kind that a mode reads, and the bytes that the port's writer makes of its values."""
        number = rng.choice((0, 1, 9, 127, 128, 399, 234642, 2**31 - 1))
        path, labels = rng.choice(PATHS[:-1]), [rng.randint(-(2**31), 2**31 - 1) for _ in range(rng.randint(1, 3))]
        temporal, spatial = rng.randrange(10), rng.randrange(SPATIAL_POSITIONS[mode or 0] if mode != TRAIN else 1)
        with_spatial = mode in (1, 2) or rng.random() < 0.5
        message = self.message()
        message.protos.add(data_type=4, string_data=[path])
        if mode == TRAIN:
            message.protos.add(data_type=2, int32_data=labels)
            return message, encode_train(path, labels)
        message.protos.add(data_type=2, int32_data=[number] if with_spatial else [number, *labels])
        message.protos.add(data_type=2, int32_data=[temporal])
        if with_spatial:
            message.protos.add(data_type=2, int32_data=[spatial])
        shared = encode_test_video(path, number, labels, with_spatial)
        return message, shared + encode_test_clip(temporal, spatial if with_spatial else None)

    def load(self, case):
        if case.mode == TRAIN:
            return parse_train(case.data, KEY)
        return parse_test(case.data, KEY, case.mode)

    def check(self, case, result):
        try:
            message = self.message.FromString(case.data)
        except DecodeError:
            raise Wrong(f"{result} of what protocol buffers refuse") from None
        if result != (expected := expected_record(message, case.mode)):
            raise Wrong(f"{result} where {expected} was expected")
        if case.written not in (None, case.data):
            raise Wrong(f"written as {case.written!r}")

    def check_refusal(self, case, error):
        if case.kind == "well-formed":
            raise Wrong(f"refused, though well-formed: {error}")
        if not str(error).startswith(SHOWN_KEY) or "\n" in str(error):
            raise Wrong(f"a message that does not name its record: {error}")


def _record_of_fields(rng):
    """Fields that are mostly right: one tensor after another, with surprises in each."""
    tensors = rng.choice((2, 2, 3, 4, 4, rng.randrange(6)))
    out = b"".join(_field(rng, 1, 2, _tensor_of_fields(rng, i == 0)) for i in range(tensors))
    return out + _surprise(rng) if rng.random() < 0.2 else out


def _tensor_of_fields(rng, is_path):
    parts = [_field(rng, 2, 0, 4 if is_path else 2)]
    if is_path:
        parts.append(_field(rng, 6, 2, rng.choice(PATHS)))
    else:
        values = [rng.choice((0, 1, 2, 5, 6, 2**31, 2**32, 2**63, 2**64 - 1)) for _ in range(rng.choice((1, 1, 2, 0)))]
        packed = rng.random() < 0.6
        parts += [_field(rng, 4, 2, b"".join(_varint(rng, value) for value in values))] if packed else \
            [_field(rng, 4, 0, value) for value in values]
    while rng.random() < 0.25:
        parts.append(_surprise(rng))
    rng.shuffle(parts)
    return b"".join(parts)


def _surprise(rng):
    number = rng.choice((0, 1, 2, 3, 4, 5, 6, 7, 9, 15, 16, 2**29 - 1, 2**29, 2**40, 2**61 - 1))
    wire_type = rng.choice((0, 0, 1, 2, 2, 5, 3, 4, 6, 7))
    content = {0: rng.choice((0, 1, 2**64 - 1)), 1: rng.randbytes(8), 5: rng.randbytes(4)}.get(
        wire_type, rng.randbytes(rng.choice((0, 1, 3, 4, 8, 12))))
    return _field(rng, number, wire_type, content)


def _field(rng, number, wire_type, content):
    tag = _varint(rng, number << 3 | wire_type)
    if isinstance(content, int):
        return tag + _varint(rng, content)
    return tag + (_varint(rng, len(content)) if wire_type == 2 else b"") + content


def _varint(rng, value):
    """A varint, now and then of more bytes than it needs, or of bits that no number has."""
    out = []
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    if rng.random() < 0.05:
        out[-1] |= 0x80
        out += [0x80] * rng.randrange(10) + [rng.choice((0, 0, 1, 2, 0x7F))]
    return bytes(out)
