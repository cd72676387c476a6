"""How a line of a list is read: one rule (data.lists.parse_line), for every reader of lists."""

import ast
import os
import re
import runpy
from functools import partial

import pytest
from kinetics_tools import assert_one_line, run_tool
from video_files import read_items

from core.config import load_config
from data.data_builder import read_ground_truth, warn_of_missing_test_data
from data.dataset_check.check import Limits, check_splits
from data.dataset_check.findings import REMARKS, Findings
from data.dataset_check.splits import Split
from data.lists import Entry, format_line, parse_line, path_of, read_list
from data.lmdb_writer import clip_items, train_items, write_lmdb
from data.records import parse_protos
from utils.errors import UserError

LINES = [  # line, path, labels, what is ignored
    (b"/d/a.mp4 3", b"/d/a.mp4", [3], b""),
    (b"/d/a.mp4 3 300", b"/d/a.mp4", [3], b"300"),
    (b"/d/a.MP4\t3\t300 # note", b"/d/a.MP4", [3], b"300 # note"),
    (b"/d/a.webm 3\r4", b"/d/a.webm", [3], b"4"),
    (b"/d/a.avi  3,4,5", b"/d/a.avi", [3, 4, 5], b""),
    (b"/d/a.mkv \t +3", b"/d/a.mkv", [3], b""),
    (b"/d/a.mov -1", b"/d/a.mov", [-1], b""),
    (b"/d/my video.mp4 3", b"/d/my video.mp4", [3], b""),
    (b"/d/my 7 video.mp4 3", b"/d/my 7 video.mp4", [3], b""),
    (b"/d/my\t7 video.mp4\t3", b"/d/my\t7 video.mp4", [3], b""),
    (b"/d/my.mp4 copy.mp4 3", b"/d/my.mp4 copy.mp4", [3], b""),
    (b"frames/my clip 3", b"frames/my clip", [3], b""),
    (b'"/d/a.mp4" 3', b'"/d/a.mp4"', [3], b""),
    (b"/d/\xe9.mp4 3", b"/d/\xe9.mp4", [3], b""),
    (b"/d/x\x85y.mp4 3", b"/d/x\x85y.mp4", [3], b""),
    (b"video 2147483647", b"video", [2147483647], b""),
]
EXPECTED = "expected 'path label[,label...]', got"


@pytest.mark.parametrize(("line", "path", "labels", "rest"), LINES)
def test_a_line(line, path, labels, rest):
    assert parse_line(line) == Entry(path, labels, rest)
    assert path_of(line) == path


@pytest.mark.parametrize("line", [
    b"", b"/d/a.mp4", b"/d/a.mp4 dog", b"/d/a.mp4 1_0", b"/d/a.mp4 3, 4", b"/d/a.mp4 3,,4", b"/d/a.mp4 ,3",
    b"/d/a.mp4 1.0",
    b"/d/a.mp4 0x1", b"/d/a.mp4 2147483648", b"/d/a.mp4 2147483648 3", b"/d/a.mp4 \xd9\xa1", b"/d/a.mp4 " + b"9" * 5000,
    b"frames/x 3 # note",
])
def test_a_line_that_is_no_entry(line):
    with pytest.raises(ValueError) as caught:
        parse_line(line)
    assert str(caught.value).startswith(EXPECTED) and len(str(caught.value)) < 200


def test_a_line_with_two_readings():
    with pytest.raises(ValueError) as caught:
        parse_line(b"frames/x 3 300")
    assert str(caught.value) == (f"{EXPECTED} 'frames/x 3 300': either 'frames/x' with the label '3', or 'frames/x 3' "
                                 "with the label '300'")


@pytest.mark.parametrize("line", [b"/d/a.mp4", b"/d/my 7 video.mp4", b"/d/my video.mp4", b"x"])
def test_some_readers_need_no_label(line):
    assert path_of(line) == line


@pytest.mark.parametrize(("path", "good"), [
    (b"/d/my 7 video.mp4", True), (b"frames/my clip", True), (b"a\rb.mp4", True),
    (b"frames/my 7", False), (b"a.mp4 3 b", False), (b" a.mp4", False), (b"a.mp4 ", False), (b"a\nb.mp4", False),
])
def test_lines_are_written_so_that_they_are_read_back(path, good):
    if good:
        assert parse_line(format_line(path, 5)) == Entry(path, [5])
    else:
        with pytest.raises(ValueError, match="a list cannot hold this path"):
            format_line(path, 5)


# ------------------------------------------------------------------------------------------------------- every reader

GOOD = [line for line in LINES if line[2] != [-1] and line[2] != [2147483647]]


@pytest.fixture
def listed(tmp_path):
    (tmp_path / "list.txt").write_bytes(b"".join(line + b"\n" for line, *_ in GOOD))
    return tmp_path / "list.txt"


def records(folder):
    """(path, other numbers) of the records of an LMDB, in the order of their numbers."""
    items = sorted(read_items(folder), key=lambda item: int(item[0]))
    protos = [parse_protos(value, key) for key, value in items]
    return [(proto[0].strings[0], [proto_.ints for proto_ in proto[1:]]) for proto in protos]


def test_lmdbs(listed, tmp_path):
    write_lmdb(tmp_path / "train", listed, train_items, sorted_keys=True)
    assert records(tmp_path / "train") == [(path, [labels]) for _, path, labels, _ in GOOD]
    write_lmdb(tmp_path / "test", listed, lambda entries: clip_items(entries, None), sorted_keys=False)
    assert records(tmp_path / "test")[::10] == [
        (path, [[i, *labels], [0]]) for i, (_, path, labels, _) in enumerate(GOOD)]
    write_lmdb(tmp_path / "multi", listed, lambda entries: clip_items(entries, 3), sorted_keys=False)
    assert [path for path, _ in records(tmp_path / "multi")[::30]] == [path for _, path, *_ in GOOD]


def test_lists_in_place_of_lmdbs_and_the_truth(listed):
    found = read_list(listed)
    assert [path.encode("utf-8", "surrogateescape") for path in found.paths()] == [path for _, path, *_ in GOOD]
    labels = [labels[0] for _, _, labels, _ in GOOD]
    assert [found.label(i) for i in range(len(found))] == labels
    cfg = load_config(None, ["FILENAME_GT", str(listed), "TEST.DATASET_SIZE", str(len(GOOD)), "MODEL.NUM_CLASSES", "4"])
    assert read_ground_truth(cfg).tolist() == labels
    cfg.MODEL.NUM_CLASSES = 3
    with pytest.raises(UserError, match=r"list.txt:1: the label 3 is not in 0\.\.2 \(MODEL.NUM_CLASSES 3\)"):
        read_ground_truth(cfg)


def test_the_check(listed, tmp_path):
    findings = Findings()
    split = Split("list", None, listed, num_classes=4)
    summary = check_splits([split], Limits(ground_truth=str(listed)), None, findings, Findings(REMARKS))
    assert summary["splits"][0]["videos"] == len({path for _, path, *_ in GOOD})
    assert findings.counts.keys() == {"file"}  # there are no such files


def test_the_list_tools(repo, listed, tmp_path):
    status, stdout, _ = run_tool(repo, tmp_path, "change_listname.py", "list.txt", "out.txt", "/d/", "/3/")
    assert status == 0 and "13 of 14 lines changed" in stdout
    assert ("out.txt: 1 of 14 lines copied as they are, without '/d/' in their path, the first from list.txt:11\n"
            in stdout)
    assert (tmp_path / "out.txt").read_bytes() == listed.read_bytes().replace(b"/d/", b"/3/")
    # Labels and what stands behind them are not paths.
    result = run_tool(repo, tmp_path, "change_listname.py", "list.txt", "none.txt", "3", "4")
    assert_one_line(result, "expected '3' in its paths, got 14 lines without it")
    assert not (tmp_path / "none.txt").exists()

    words = ("s.txt", "--list_file", "list.txt", "--repetitions", "1")
    assert run_tool(repo, tmp_path, "shuffle_list_rep.py", *words)[0] == 0
    assert sorted((tmp_path / "s.txt").read_bytes().split(b"\n")) == sorted(listed.read_bytes().split(b"\n"))

    read_names = runpy.run_path(str(repo / "process_data/kinetics/downscale_video_joblib.py"))["read_names"]
    names, failures = read_names(str(listed))
    assert names == list(dict.fromkeys("/".join(os.fsdecode(path).split("/")[-2:]) for _, path, *_ in GOOD))
    assert not failures


def test_lines_without_a_path_are_copied_by_change_listname(repo, tmp_path):
    (tmp_path / "list.txt").write_text("/d/a.mp4\n/d/x 3 300\n\n/d/my video.mp4\n/d/b.mp4 dog\n/d/c.mp4 3 /d/\n")
    status, stdout, _ = run_tool(repo, tmp_path, "change_listname.py", "list.txt", "out.txt", "/d/", "/e/")
    assert status == 0 and "3 of 5 lines changed" in stdout
    assert "2 of 5 lines copied as they are, without '/d/' in their path, the first from list.txt:2" in stdout
    assert (tmp_path / "out.txt").read_text() == (
        "/e/a.mp4\n/d/x 3 300\n\n/e/my video.mp4\n/d/b.mp4 dog\n/e/c.mp4 3 /d/\n")


def test_further_columns_are_told_once(repo, listed, tmp_path, caplog):
    read_list(listed)
    read_list(listed)
    assert [message for message in caplog.messages if "stands after" in message] == [
        f"{listed}:2: what stands after the label is ignored, here and in other lines: '300'"]
    words = ("--dataset_dir", "out", "--list_file", "list.txt")
    status, stdout, _ = run_tool(repo, tmp_path, "create_video_lmdb.py", *words)
    assert status == 0 and stdout.count("what stands after the label is ignored") == 1


@pytest.mark.parametrize(("name", "how"), [
    ("process_data/kinetics/vallist.txt", "gen_py_list.py, or put the list of the Caffe2 program there"),
    ("trainlist.txt", "gen_py_list.py, or put the list of the Caffe2 program there"),
    ("data/kinetics/val_all_list.txt", "gen_py_list.py, or put the list of the Caffe2 program there"),
    ("trainlist_shuffle_rep.txt", "shuffle_list_rep.py"),
    ("mine.txt", None),
])
def test_a_missing_list_of_the_default_options_says_where_it_comes_from(name, how, tmp_path, caplog):
    with pytest.raises(UserError, match=f"cannot read the list {tmp_path}/{name}: No such file") as caught:
        read_list(tmp_path / name)
    warn_of_missing_test_data(load_config(None, ["DATADIR", str(tmp_path), "FILENAME_GT", str(tmp_path / name)]))
    for message in (str(caught.value), caplog.messages[-1]):
        assert (how in message) if how else message.endswith(("No such file or directory", "not there yet"))


# ------------------------------------------------------------------------------- against what the Caffe2 program wrote

# Lists that are read in another way on purpose, or refused.
OTHERWISE = {"bom", "multi_label_space", "space_then_number", "spaces_name", "underscore", "word_label"}
KINDS = {"train": train_items, "test": partial(clip_items, spatial_positions=None),
         "test_multicrop": partial(clip_items, spatial_positions=3),
         "test_flipcrop": partial(clip_items, spatial_positions=6)}


@pytest.fixture
def odd_lists(shared):
    folder = shared / "cases/odd-lists"
    if not folder.is_dir():
        pytest.skip("the odd lists are not available")
    return folder


@pytest.mark.parametrize("kind", KINDS)
def test_the_records_are_those_of_the_caffe2_program(odd_lists, kind, tmp_path):
    found = {}
    for path in odd_lists.glob("*.txt"):
        if path.stem in {*OTHERWISE, "legacy_outcome"}:
            continue
        write_lmdb(tmp_path / path.stem, path, KINDS[kind], sorted_keys=False)
        items = sorted(read_items(tmp_path / path.stem), key=lambda item: int(item[0]))
        found[path.stem] = [value for _, value in items]
        first_two = [line.split()[:2] for line in path.read_bytes().split(b"\n") if line.strip()]
        entries = [(video, [int(label) for label in labels.split(b",")]) for video, labels in first_two]
        assert found[path.stem] == [value for _, value in KINDS[kind](entries)], path.stem
    assert len(found) >= 13
    outcome = (odd_lists / "legacy_outcome.txt").read_text()
    for name, value in re.findall(rf"^(\w+) {kind}: legacy ok.*?(b'.*')", outcome, re.MULTILINE):
        assert name in OTHERWISE or found[name][0] == ast.literal_eval(value), name


def test_odd_lists_that_are_refused_or_read_as_names_with_spaces(odd_lists):
    for name in OTHERWISE - {"space_then_number", "spaces_name"}:
        with pytest.raises(UserError):
            read_list(odd_lists / f"{name}.txt")
    assert read_list(odd_lists / "space_then_number.txt").path(0) == "/a/my 7 video.mp4"
    assert read_list(odd_lists / "spaces_name.txt").path(0) == "/a/my video.mp4"
