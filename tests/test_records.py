import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.records import (
    RecordError,
    TestRecord,
    TrainRecord,
    encode_test_clip,
    encode_test_video,
    encode_train,
    int_proto,
    parse_test,
    parse_train,
    path_proto,
)
from utils.errors import UserError

# Values that the Caffe2 scripts wrote.
TRAIN = b'\n\x13\x10\x042\x0fvideos/test.mp4\n\x06\x10\x02"\x02\xad\x02'
SINGLE = b'\n\x13\x10\x042\x0fvideos/test.avi\n\x07\x10\x02"\x03\x04\x8f\x03\n\x05\x10\x02"\x01\x02'
FLIP = (
    b'\n\x13\x10\x042\x0fvideos/test.mp4\n\x05\x10\x02"\x01\x01\n\x05\x10\x02"\x01\x00\n\x05\x10\x02"\x01\x04'
)
CROP = FLIP[:-1] + b"\x02"


def tensor(body):
    return b"\n" + bytes([len(body)]) + body


def test_reads_what_caffe2_wrote():
    assert parse_train(TRAIN, b"1") == TrainRecord("videos/test.mp4", 301)
    assert parse_test(SINGLE, b"42", 0) == TestRecord("videos/test.avi", 4, 2, None)
    assert parse_test(CROP, b"7", 1) == TestRecord("videos/test.mp4", 1, 0, 2)
    assert parse_test(FLIP, b"7", 2) == TestRecord("videos/test.mp4", 1, 0, 4)


def test_writes_what_caffe2_wrote():
    assert encode_train(b"videos/test.mp4", [301]) == TRAIN
    assert encode_test_video(b"videos/test.avi", 4, [399], with_spatial=False) + encode_test_clip(2) == SINGLE
    assert encode_test_video(b"videos/test.mp4", 1, [301], with_spatial=True) + encode_test_clip(0, 4) == FLIP


def test_centre_crop_mode_reads_no_spatial_index():
    assert parse_test(FLIP, b"7", 0) == TestRecord("videos/test.mp4", 1, 0, None)


@pytest.mark.parametrize(
    ("value", "mode", "came", "expected"),
    [
        (SINGLE, "train", "single-crop test LMDB", "train or val LMDB"),
        (CROP, "train", "multi-crop test LMDB", "train or val LMDB"),
        (TRAIN, 0, "train or val LMDB", "test LMDB"),
        (TRAIN, 1, "train or val LMDB", "multi-crop test LMDB"),
        (SINGLE, 1, "single-crop test LMDB", "multi-crop test LMDB"),
        (SINGLE, 2, "single-crop test LMDB", "multi-crop test LMDB"),
        (FLIP, 1, "flip-crop test LMDB", "0..2"),
        (TRAIN[:21], "train", "an unknown LMDB (1 tensors)", "train or val LMDB"),
    ],
)
def test_the_wrong_kind_is_named(value, mode, came, expected):
    with pytest.raises(RecordError) as caught:
        parse_train(value, b"k1") if mode == "train" else parse_test(value, b"k1", mode)
    message = str(caught.value)
    assert isinstance(caught.value, UserError)
    assert "k1" in message and came in message and expected in message.replace(came, "", 1)
    assert "\n" not in message


@pytest.mark.parametrize(
    ("value", "part"),
    [
        (TRAIN[:-1], "cut short"),
        (TRAIN[:10], "cut short"),
        (b"\n", "cut short"),
        (b"\xff" * 12, "more than 32 bits"),
        (b"\xfa\xff\xff\xff\x10\x00", "more than 32 bits"),
        (b"\x0a\x80\x80\x80\x80\x80\x00" + TRAIN, "more than 32 bits"),
        (path_proto(b"a") + tensor(b'"\x0a' + b"\xff" * 9 + b"\x02"), "more than 64 bits"),
        (path_proto(b"a") + tensor(b'"\x01\x01\x0a\x01\x80'), "cut short"),
        (path_proto(b"a") + tensor(b'"\x01\x01\x1a\x03abc'), "3 bytes of floats"),
        (tensor(b"2\x01a2\x01b") + int_proto(1), "2 strings"),
        (tensor(b"*\x01a") + int_proto(1), "bytes of a video"),
        (path_proto(b"\0\0\0\x20ftypisom" * 9) + int_proto(1), "a video itself"),
        (path_proto(b"a" * 5000) + int_proto(1), "a video itself"),
        (int_proto(1) + int_proto(1), "no string"),
        (path_proto(b"a") + tensor(b"\x10\x02"), "no label"),
        (path_proto(b"a") + tensor(b'"\x01\x80'), "cut short"),
        (path_proto(b"a") + tensor(b"%\0\0\0\0"), "wire type"),
        (path_proto(b"a") + b"\x0b\x0c", "wire type"),
        (b"\x00\x00", "field number 0"),
        (b"just text, nothing else", "record k1"),
    ],
)
def test_what_is_not_a_record_is_reported_with_its_key(value, part):
    with pytest.raises(RecordError) as caught:
        parse_train(value, b"k1")
    assert "record k1" in str(caught.value) and part in str(caught.value)


def test_negative_indices_are_refused():
    value = path_proto(b"a") + int_proto(-1) + int_proto(0)
    with pytest.raises(RecordError, match="video index -1"):
        parse_test(value, b"k", 0)


def test_unknown_fields_are_skipped():
    unknown = b"\x78\x01" + b"\x79" + bytes(8) + b"\x7a\x02ab" + b"\x7d" + bytes(4)
    dims, name, device = b"\x08\x01", b":\x04path", b"B\x02\x08\x01"
    path = tensor(dims + b"\x10\x04" + unknown + b"2\x05a.avi" + name + device)
    label = tensor(unknown + b'\x10\x02"\x02\x05\x06')
    assert parse_train(unknown + path + label + unknown, b"k") == TrainRecord("a.avi", 5)


def test_unpacked_and_split_integers():
    unpacked = tensor(b"\x10\x02 \xad\x02 \x07")
    split = tensor(b'"\x01\x09"\x01\x08')
    assert parse_train(path_proto(b"a") + unpacked, b"k").label == 301
    assert parse_train(path_proto(b"a") + split, b"k").label == 9


@given(st.binary(min_size=1, max_size=300), st.lists(st.integers(-(2**31), 2**31 - 1), min_size=1))
def test_what_is_written_is_read(path, labels):
    path = path.replace(b"\0", b"0")
    record = parse_train(encode_train(path, labels), b"k")
    assert record.path.encode("utf-8", "surrogateescape") == path
    assert record.label == labels[0]


@given(st.binary(max_size=60))
def test_any_bytes_give_a_record_or_a_record_error(value):
    try:
        assert isinstance(parse_train(value, b"k"), TrainRecord)
    except RecordError as error:
        assert str(error).startswith("record k ")


def test_negative_label_takes_ten_bytes():
    # protobuf writes a negative int32 as a 64-bit two's complement.
    assert int_proto(-1) == b'\n\x0e\x10\x02"\n' + b"\xff" * 9 + b"\x01"
