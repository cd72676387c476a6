import numpy as np
import pytest
from video_files import read_items, write_items, write_list

from data.lists import read_list
from data.lmdb_writer import clip_items, train_items
from data.records import TestRecord, TrainRecord, encode_train, int_proto, path_proto
from data.sources import open_test_source, open_train_source
from utils.errors import UserError

ENTRIES = [(b"a.mp4", [3]), (b"b c.mp4", [1, 2]), (b"a.mp4", [0])]


def records(source, n):
    return [source.record(slot) for slot in range(n)]


# ------------------------------------------------------------------------------------------------- lists


def test_list_lines(tmp_path):
    (tmp_path / "l.txt").write_bytes(b"/x/a.mp4 5\r\n/x/b c.mp4   7,8\nd\xff.avi\t-1\n\n\n")
    videos = read_list(tmp_path / "l.txt")
    found = [(videos.path(i), videos.label(i)) for i in range(len(videos))]
    assert found == [("/x/a.mp4", 5), ("/x/b c.mp4", 7), ("d\udcff.avi", -1)]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a 1\nb\n", 2),
        ("a 1\nb x\n", 2),
        ("a 1\n\nb 2\n", 2),
        (" 5\n", 1),
        ("a 1\nb 1,\n", 2),
        ("a 1\nb 1.0\n", 2),
        ("a 99999999999\n", 1),
    ],
)
def test_a_bad_line_is_named(tmp_path, text, line):
    path = tmp_path / "l.txt"
    path.write_text(text)
    with pytest.raises(UserError, match=f"l.txt:{line}: "):
        read_list(path)


def test_empty_and_missing_lists(tmp_path):
    (tmp_path / "l.txt").write_text("\n")
    with pytest.raises(UserError, match="l.txt: the list is empty"):
        read_list(tmp_path / "l.txt")
    with pytest.raises(UserError, match="gone.txt: No such file"):
        read_list(tmp_path / "gone.txt")


# ------------------------------------------------------------------------------------------------- train


def test_lmdb_is_read_in_order_repeatedly(tmp_path):
    write_items(tmp_path / "train", train_items(ENTRIES))
    source = open_train_source(tmp_path, "train", seed=1, shuffle=True)
    expected = [TrainRecord("a.mp4", 3), TrainRecord("b c.mp4", 1), TrainRecord("a.mp4", 0)]
    assert len(source) == 3
    assert records(source, 7) == [*expected, *expected, expected[0]]
    assert source.name(4) == f"000000001 of {tmp_path / 'train'}"


def test_lmdb_with_other_keys(tmp_path):
    # As many as their last number says, but not consecutive; and unpadded ones, in bytewise order.
    for name, keys in (
        ("odd", [b"000000000", b"0000000005", b"000000002"]),
        ("plain", [b"0", b"1", b"10", b"2"]),
    ):
        write_items(tmp_path / name, [(key, encode_train(key, [i])) for i, key in enumerate(keys)])
    source = open_train_source(tmp_path, "plain", 0, False)
    assert [record.path for record in records(source, 5)] == ["0", "1", "10", "2", "0"]
    assert source.name(2).startswith("10 of ")
    with pytest.raises(UserError, match="000000001 of .* is missing"):
        open_train_source(tmp_path, "odd", 0, False).record(1)


def test_list_is_reshuffled_every_pass(tmp_path):
    n = 50
    write_list(tmp_path / "train.txt", [f"v{i}" for i in range(n)], range(n))
    labels = [record.label for record in records(open_train_source(tmp_path, "train", 7, True), 3 * n)]
    passes = [labels[:n], labels[n : 2 * n], labels[2 * n :]]
    assert all(sorted(one) == list(range(n)) for one in passes)
    assert passes[0] != passes[1] != passes[2] != list(range(n))
    again = open_train_source(tmp_path, "train", 7, True)
    # Any slot by itself, in any order.
    assert [again.record(slot).label for slot in (120, 3, 77)] == [labels[120], labels[3], labels[77]]
    other = open_train_source(tmp_path, "train", 8, True)
    assert [record.label for record in records(other, n)] != passes[0]
    assert again.name(120) == f"{tmp_path / 'train.txt'}:{labels[120] + 1}"


def test_val_list_is_read_as_it_stands(tmp_path):
    write_list(tmp_path / "val.txt", "abc", [5, 6, 7])
    source = open_train_source(tmp_path, "val", 7, shuffle=False)
    assert [record.label for record in records(source, 5)] == [5, 6, 7, 5, 6]


def test_lmdb_goes_before_the_list(tmp_path):
    write_list(tmp_path / "train.txt", ["x"], [9])
    write_items(tmp_path / "train", train_items(ENTRIES))
    assert open_train_source(tmp_path, "train", 0, False).record(0).label == 3


def test_an_lmdb_may_be_opened_twice(tmp_path):
    write_items(tmp_path / "val", train_items(ENTRIES))
    sources = [open_train_source(tmp_path, "val", 0, False) for _ in range(2)]
    assert sources[0].record(1) == sources[1].record(1)


def test_an_lmdb_is_closed_with_its_last_source(tmp_path):
    write_items(tmp_path / "val", train_items(ENTRIES))
    source = open_train_source(tmp_path, "val", 0, False)
    assert source.record(0).label == 3
    del source
    assert len(read_items(tmp_path / "val")) == 3  # LMDB refuses to open what this process has open


def broken(tmp_path, kind):
    folder = tmp_path / "train"
    if kind == "no data.mdb":
        folder.mkdir()
    elif kind == "no records":
        write_items(folder, [])
    elif kind != "missing":
        write_items(folder, train_items([(b"x" * 500, [0])] * 100))
        data = folder / "data.mdb"
        content = data.read_bytes()
        data.write_bytes({"foreign": b"x" * 9000, "cut short": content[:-8192], "empty file": b""}[kind])


@pytest.mark.parametrize(
    ("kind", "part"),
    [
        ("missing", "no LMDB .*train and no list .*train.txt"),
        ("no data.mdb", "no data.mdb"),
        ("foreign", "train is not a(n| readable) LMDB"),
        ("empty file", "train is not a(n| readable) LMDB"),
        ("cut short", "data.mdb is cut short"),
        ("no records", "has no records"),
    ],
)
def test_what_is_not_an_lmdb_is_reported(tmp_path, kind, part):
    broken(tmp_path, kind)
    for opened in (
        lambda: open_train_source(tmp_path, "train", 0, True),
        lambda: open_test_source(tmp_path, "train", 0, 10),
    ):
        with pytest.raises(UserError, match=part):
            opened()


def test_a_bad_record_is_named_with_key_and_lmdb(tmp_path):
    write_items(tmp_path / "train", clip_items(ENTRIES, None))
    with pytest.raises(UserError, match="record 0 of .*/train looks like one of a single-crop test LMDB"):
        open_train_source(tmp_path, "train", 0, True)
    write_items(tmp_path / "test", train_items(ENTRIES))
    with pytest.raises(UserError, match="record 000000000 of .*/test looks like one of a train or val LMDB"):
        open_test_source(tmp_path, "test", 0, 10)


# ------------------------------------------------------------------------------------------------- test


@pytest.mark.parametrize(("mode", "positions"), [(0, None), (1, 3), (2, 6)])
def test_lmdb_of_clips(tmp_path, mode, positions):
    write_items(tmp_path / "test", clip_items(ENTRIES, positions))
    source = open_test_source(tmp_path, "test", mode, num_temporal=99)
    per_video = 10 * (positions or 1)
    assert len(source) == 3 * per_video
    assert source.paths == ["a.mp4", "b c.mp4"]
    # Keys are decimals in bytewise order: 0, 1, 10, 11, ...
    for ordinal, number in enumerate(sorted(range(len(source)), key=str)):
        video, clip = divmod(number, per_video)
        spatial, temporal = divmod(clip, 10)
        path = ENTRIES[video][0].decode()
        assert source.record(ordinal) == TestRecord(path, video, temporal, spatial if positions else None)


def test_crops_lmdb_for_centre_crops(tmp_path):
    write_items(tmp_path / "test", clip_items(ENTRIES, 3))
    source = open_test_source(tmp_path, "test", 0, 10)
    assert source.spatial_indices is None and len(source) == 90
    assert source.record(2) == TestRecord("a.mp4", 0, 0, None)  # key 10


def test_lmdb_in_an_unusual_layout_is_read_alike(tmp_path):
    def value(i):
        # Fields in another order, unpacked integers, unknown fields, indices of two bytes.
        tensors = [b"2\x01%c" % (97 + i), b" %c" % i, b"\x10\x02 \x80\x01", b" %c\x78\x01" % (i % 3)]
        return b"".join(b"\n%c" % len(tensor) + tensor for tensor in tensors)

    write_items(tmp_path / "test", [(b"%d" % i, value(i)) for i in range(5)])
    source = open_test_source(tmp_path, "test", 1, 10)
    assert [source.record(i) for i in range(5)] == [TestRecord("abcde"[i], i, 128, i % 3) for i in range(5)]


def test_lmdb_of_the_wrong_kind(tmp_path):
    for name, positions in (("single", None), ("crops", 3), ("flip", 6)):
        write_items(tmp_path / name, clip_items(ENTRIES, positions))
    for name, mode, part in (
        ("single", 1, "single-crop test LMDB"),
        ("flip", 1, "flip-crop test LMDB"),
        ("crops", 2, "0..2; TEST.USE_MULTI_CROP 2 expects 0..5"),
    ):
        with pytest.raises(UserError, match=part):
            open_test_source(tmp_path, name, mode, 10)


def test_a_bad_record_among_good_ones(tmp_path):
    items = list(clip_items(ENTRIES, 3))
    items[50] = items[50][0], path_proto(b"a.mp4") + int_proto(1)
    write_items(tmp_path / "test", items)
    with pytest.raises(UserError, match="record 50 of"):
        open_test_source(tmp_path, "test", 1, 10)


@pytest.mark.parametrize(("mode", "positions"), [(0, 1), (1, 3), (2, 6)])
def test_list_expands_to_clips(tmp_path, mode, positions):
    write_list(tmp_path / "test.txt", ["a.mp4", "b.mp4", "a.mp4"], [4, 5, 6])
    source = open_test_source(tmp_path, "test", mode, num_temporal=2)
    expected = [
        TestRecord("ab"[video % 2] + ".mp4", video, temporal, spatial if mode else None)
        for video in range(3)
        for spatial in range(positions)
        for temporal in range(2)
    ]
    assert records(source, len(source)) == expected
    assert source.paths == ["a.mp4", "b.mp4"]
    assert source.video_indices.dtype == np.int32
