"""The data doctor: planted faults are found, all of them, and none in clean data."""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import cv2
import legacy_run
import numpy as np
import pytest
from video_files import H264, make_videos, moving_square, write_frames, write_items, write_list, write_video

import check_dataset
from data.dataset_check.findings import KINDS, Findings
from data.dataset_check.records import scan_split
from data.dataset_check.splits import Split, TestPlan
from data.lmdb_writer import clip_items, train_items
from data.records import encode_train, int_proto, path_proto
from video.bad_videos import BadVideo
from video.decoder_processes import DecoderProcesses
from video.sampling import open_video, sample_frames
from video.video_facts import VideoFacts, VideoFactsCache

CLASSES = 4
TRAIN, VAL = 40, 20  # videos: 60 in all
OPTIONS = {
    "MODEL__NUM_CLASSES": CLASSES, "TRAIN__DATASET_SIZE": TRAIN, "TEST__DATASET_SIZE": VAL,
    "TRAIN__VIDEO_LENGTH": 3, "TRAIN__SAMPLE_RATE": 3, "TRAIN__TEST_AFTER_TRAIN": True, "TEST__NUM_TEST_CLIPS": 30,
}  # fmt: skip


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """60 sound videos of 10 to 12 frames."""
    return make_videos(tmp_path_factory.mktemp("videos"), TRAIN + VAL, [(10, 32, 48), (11, 48, 32), (12, 32, 32)])


def labels(number):
    return [i % CLASSES for i in range(number)]


def entries(videos, numbers):
    return [(os.fsencode(video), [number]) for video, number in zip(videos, numbers, strict=True)]


def write_data(folder, videos, lmdb=True, train=None, test=None):
    """Splits train, val and test (multi-crop), as LMDBs or lists, and the list of true labels, in folder/data."""
    data = folder / "data"
    data.mkdir()
    write_list(data / "gt.txt", videos[TRAIN:], labels(VAL))
    if lmdb:
        write_items(data / "train", train or train_items(entries(videos[:TRAIN], labels(TRAIN))))
        write_items(data / "val", train_items(entries(videos[TRAIN:], labels(VAL))))
        write_items(data / "test", test or clip_items(entries(videos[TRAIN:], labels(VAL)), 3))
    else:
        write_list(data / "train.txt", videos[:TRAIN], labels(TRAIN))
        write_list(data / "val.txt", videos[TRAIN:], labels(VAL))
        write_list(data / "test.txt", videos[TRAIN:], labels(VAL))
    return data


def words(folder, *more, **options):
    """Words of a check of folder/data, with the report as JSON."""
    return [*more, "--json", folder / "report.json",
            *legacy_run.words(folder / "data", folder, **(OPTIONS | options))]


def found(folder):
    """{kind: [(where, what)]} of the report."""
    findings = json.loads((folder / "report.json").read_text())["findings"]
    return {kind: [(each["where"], each["what"]) for each in of_kind["first"]] for kind, of_kind in findings.items()}


# ------------------------------------------------------------------------------------------- whole checks


@pytest.mark.parametrize("lmdb", [True, False])
def test_nothing_is_found_in_clean_data(tmp_path, videos, call_tool, lmdb):
    write_data(tmp_path, videos, lmdb)
    status, out, _ = call_tool(check_dataset, *words(tmp_path))
    report = json.loads((tmp_path / "report.json").read_text())
    assert (status, report["clean"], report["findings"]) == (0, True, {}), out
    assert [split["name"] for split in report["splits"]] == ["train", "val", "test after training"]
    assert report["videos"] == {"distinct": 60, "decoded": 60, "known": 0, "skips": 0}
    assert "Nothing wrong found" in out


def test_twelve_planted_faults_are_found(tmp_path, videos, call_tool):
    """A fault of every kind among 60 videos, and nothing else."""
    videos = list(videos)
    train_labels = [0 if label == 3 else label for label in labels(TRAIN)]  # 1: nothing of class 3
    train_labels[0] = CLASSES  # 2: out of range
    videos[1] = tmp_path / "gone.mp4"  # 3
    videos[2] = tmp_path / "empty.mp4"  # 4
    videos[2].touch()
    videos[3] = tmp_path / "text.mp4"  # 5: does not decode
    videos[3].write_text("no video\n" * 1000)
    videos[4] = tmp_path / "cut.avi"  # 6: loses its end
    write_video(videos[4], moving_square(60, 64, 96), fourcc="MJPG")
    videos[4].write_bytes(videos[4].read_bytes()[: videos[4].stat().st_size // 2])
    videos[5] = write_video(tmp_path / "short.mp4", moving_square(8, 32, 32))  # 7: 3 x 3 frames make a clip
    train = list(train_items(entries(videos[:TRAIN], train_labels)))
    train[6] = train[6][0], b"\x0a\xff"  # 8: no message
    train[7] = train[7][0], next(clip_items(entries([videos[7]], [0]), 3))[1]  # 9: a test record
    test = dict(clip_items(entries(videos[TRAIN:-1], labels(VAL - 1)), 3))  # 10: a video is not there
    del test[b"75"]  # 11: a clip is not there
    data = write_data(tmp_path, videos, train=train, test=test.items())
    truth = [*videos[TRAIN + 1 : TRAIN - 1 : -1], *videos[TRAIN + 2 :]]
    write_list(data / "gt.txt", truth, labels(VAL))  # 12: two in another order

    status, out, _ = call_tool(check_dataset, *words(tmp_path))
    assert status == 1
    report = found(tmp_path)
    places = {kind: [where for where, _ in of_kind] for kind, of_kind in report.items()}
    assert places == {
        "class": ["train"],
        "label": [f"000000000 of {data / 'train'}"],
        "file": [str(videos[1]), str(videos[2])],
        "undecodable": [str(videos[3])],
        "damaged": [str(videos[4])],
        "short": [str(videos[5])],
        "record": [f"000000006 of {data / 'train'}"],
        "wrong kind": [f"000000007 of {data / 'train'}"],
        "test videos": ["test after training"],
        "test clips": ["test after training: video 2"],
        "ground truth": [f"{data / 'gt.txt'}", f"{data / 'gt.txt'}:1", f"{data / 'gt.txt'}:2"],
    }
    assert "1 (3) of 4 classes" in report["class"][0][1]
    assert "the label 4 is not in 0..3" in report["label"][0][1]
    assert "1 (19) of 20 videos" in report["test videos"][0][1]
    assert report["ground truth"][0][1] == "20 lines, test after training has 19 videos"
    assert "8 frames, a clip spans 9" in report["short"][0][1]
    for kind, title in KINDS.items():
        assert (f"{title}: " in out) == (kind in report)


def faulty_lmdbs(videos):
    """(name of the split's folder, items, kind of the finding, its text) of LMDBs of the wrong kind for a split."""
    tested = entries(videos[TRAIN:], labels(VAL))
    return [
        ("train", clip_items(tested, 3), "wrong kind", "a multi-crop test LMDB (4 tensors), expected a train or val"),
        ("val", clip_items(tested, None), "wrong kind", "a single-crop test LMDB (3 tensors), expected a train or val"),
        ("test", train_items(tested), "wrong kind", "a train or val LMDB (2 tensors), expected a multi-crop test"),
        ("test", clip_items(tested, None), "wrong kind", "a single-crop test LMDB (3 tensors), expected a multi-crop"),
        ("test", clip_items(tested, 6), "wrong kind", "a flip-crop test LMDB"),
    ]


@pytest.mark.parametrize("case", range(5))
def test_an_lmdb_of_the_wrong_kind(tmp_path, videos, call_tool, case):
    data = write_data(tmp_path, videos)
    split, items, kind, text = faulty_lmdbs(videos)[case]
    (data / split).rename(tmp_path / "right")
    write_items(data / split, items)
    status, out, _ = call_tool(check_dataset, *words(tmp_path, "--no_decode"))
    assert status == 1 and list(found(tmp_path)) == [kind] and text in out


def test_each_mode_of_a_test_has_its_lmdb(tmp_path, videos, call_tool):
    data = write_data(tmp_path, videos)
    check = ["--no_decode", "--split", "test"]
    for crops, options in ((None, {"TEST__NUM_TEST_CLIPS": 10}),
                           (3, {"TEST__TEST_FULLY_CONV": True}),
                           (6, {"TEST__TEST_FULLY_CONV_FLIP": True, "TEST__NUM_TEST_CLIPS": 60})):  # fmt: skip
        (data / "test").rename(tmp_path / f"before {crops}")
        write_items(data / "test", clip_items(entries(videos[TRAIN:], labels(VAL)), crops))
        status, out, _ = call_tool(check_dataset, *words(tmp_path, *check, TRAIN__TEST_AFTER_TRAIN=False, **options))
        assert status == 0, out
    # Three crops taken for one: legacy's report would be of the wrong clips, without a word.
    status, _, _ = call_tool(check_dataset, *words(tmp_path, *check, TRAIN__TEST_AFTER_TRAIN=False,
                                                   TEST__NUM_TEST_CLIPS=10))
    assert status == 1 and len(found(tmp_path)["test clips"]) == VAL
    # A multi-crop LMDB has no flipped clips.
    (data / "test").rename(tmp_path / "flipped")
    (tmp_path / "before 6").rename(data / "test")
    status, _, _ = call_tool(check_dataset, *words(tmp_path, *check, TRAIN__TEST_AFTER_TRAIN=False,
                                                   TEST__TEST_FULLY_CONV_FLIP=True, TEST__NUM_TEST_CLIPS=60))
    assert status == 1 and "expects 0..5" in found(tmp_path)["wrong kind"][0][1]


def test_options_that_do_not_fit(tmp_path, videos, call_tool):
    data = write_data(tmp_path, videos, lmdb=False)
    (data / "val.txt").unlink()
    write_list(data / "train.txt", [*videos[:TRAIN], "gone1", "gone2"], labels(TRAIN + 2))
    status, _, _ = call_tool(check_dataset, *words(tmp_path, "--no_decode", TEST__NUM_TEST_CLIPS=10,
                                                   DATALOADER__MAX_BAD_IMAGES=1))
    report = found(tmp_path)
    assert status == 1 and list(report) == ["options", "split", "file"]
    assert [what for _, what in report["options"]] == [
        "TEST.NUM_TEST_CLIPS: expected a multiple of the 3 crops of a clip, got 10",
        "is 1, a training reads 2 bad videos",
    ]
    assert report["split"] == [("val", f"no data for the split 'val': no LMDB {data}/val and no list {data}/val.txt")]


@pytest.mark.parametrize(("change", "text"), [
    (lambda lines: lines[:-1], "19 lines, TEST.DATASET_SIZE is 20"),
    (lambda lines: [lines[1], lines[0], *lines[2:]], "gt.txt:1: is of "),
    (lambda lines: [lines[0].replace(" 0", " 1"), *lines[1:]], "gt.txt:1: has the label 1, "),
    (lambda lines: ["word\n", *lines[1:]], "gt.txt:1: expected 'path label"),
    (lambda lines: [lines[0].replace(" 0", " 9"), *lines[1:]], "gt.txt:1: the label 9 is not in 0..3"),
    (None, "gt.txt: cannot read the list"),
])  # fmt: skip
def test_true_labels_of_other_videos(tmp_path, videos, call_tool, change, text):
    data = write_data(tmp_path, videos, lmdb=False)
    lines = (data / "gt.txt").read_text().splitlines(keepends=True)
    (data / "gt.txt").unlink()
    if change:
        (data / "gt.txt").write_text("".join(change(lines)))
    status, out, _ = call_tool(check_dataset, *words(tmp_path, "--no_decode", "--split", "test"))
    assert status == 1 and text in out and list(found(tmp_path)) == ["ground truth"]


def test_true_labels_may_name_the_videos_of_another_folder(tmp_path, videos, call_tool):
    data = write_data(tmp_path, videos)
    write_list(data / "gt.txt", [f"/original/{Path(video).stem}.avi" for video in videos[TRAIN:]], labels(VAL))
    status, out, _ = call_tool(check_dataset, *words(tmp_path, "--no_decode"))
    assert status == 0, out


# -------------------------------------------------------------------------------------------- single parts


def test_a_list_by_itself_and_its_clean_list(tmp_path, videos, call_tool):
    lines = [f"{videos[i]} {label}\n" for i, label in enumerate([0, 1, 2, 0])]
    bad = ["nonsense\n", f"{tmp_path}/gone.mp4 1\n", "\n", f"{tmp_path}/list.txt 2\n", f"{videos[5]} -1\n"]
    (tmp_path / "list.txt").write_text("".join([*bad, *lines]))
    status, out, _ = call_tool(check_dataset, "--list", tmp_path / "list.txt", "--write_clean_list",
                               tmp_path / "clean.txt")
    assert status == 1 and "5 findings" in out
    assert (tmp_path / "clean.txt").read_text() == "".join(lines)
    status, out, _ = call_tool(check_dataset, "--list", tmp_path / "clean.txt")
    assert status == 0 and "4 distinct videos, 0 decoded now, 4 known before" in out


@pytest.mark.parametrize(("crops", "kind"), [("train", "training"), (None, "single-crop test"),
                                             (3, "multi-crop test"), (6, "flip-crop test")])  # fmt: skip
def test_an_lmdb_by_itself(tmp_path, videos, call_tool, crops, kind):
    some = entries(videos[:8], labels(8))
    write_items(tmp_path / "lmdb", train_items(some) if crops == "train" else clip_items(some, crops))
    status, out, _ = call_tool(check_dataset, "--lmdb", tmp_path / "lmdb", "--no_decode")
    assert status == 0 and f"{kind} records: " in out


def test_a_clean_list_from_an_lmdb(tmp_path, videos, call_tool):
    some = entries([*videos[:4], tmp_path / "gone.mp4"], [0, 1, 2, 3, 0])
    write_items(tmp_path / "lmdb", train_items(some))
    clean = ["--write_clean_list", tmp_path / "clean.txt"]
    assert call_tool(check_dataset, "--lmdb", tmp_path / "lmdb", "--no_decode", *clean)[0] == 1
    assert (tmp_path / "clean.txt").read_text() == "".join(f"{videos[i]} {i}\n" for i in range(4))
    write_data(tmp_path, videos, lmdb=False)
    status, _, err = call_tool(check_dataset, *words(tmp_path, *clean))
    assert status == 1 and err.startswith("error: --write_clean_list: expected one split with the records of a trainin")


def test_a_second_check_decodes_what_has_changed(tmp_path, call_tool):
    videos = make_videos(tmp_path, 4)
    videos[1].write_text("no video\n")
    write_list(tmp_path / "list.txt", videos, [0, 0, 0, 0])
    check = ["--list", tmp_path / "list.txt"]
    first, second = call_tool(check_dataset, *check), call_tool(check_dataset, *check)
    assert first[0] == second[0] == 1
    assert "4 decoded now, 0 known before" in first[1]
    assert second[1] == first[1].replace("4 decoded now, 0 known before", "0 decoded now, 4 known before")
    write_video(videos[1], moving_square(10, 32, 32))
    status, out, _ = call_tool(check_dataset, *check)
    assert status == 0 and "1 decoded now, 3 known before" in out


def test_folders_of_frames_among_the_videos(tmp_path, videos, call_tool):
    frames = moving_square(12, 32, 48)
    sound, torn, gap, short = (
        write_frames(tmp_path / name, frames[:number])
        for name, number in (("sound", 12), ("torn", 12), ("gap", 12), ("short", 3))
    )
    (torn / "000007.png").write_bytes((torn / "000007.png").read_bytes()[:-30])
    (gap / "000002.png").unlink()
    (tmp_path / "empty").mkdir()
    write_list(tmp_path / "train.txt", [sound, torn, gap, short, tmp_path / "empty", videos[0]], [0, 1, 2, 3, 3, 3])
    (tmp_path / "data").symlink_to(tmp_path)
    check = words(tmp_path, "--split", "train", "--write_clean_list", tmp_path / "clean.txt")
    assert call_tool(check_dataset, *check)[0] == 1
    report = found(tmp_path)
    assert {kind: [where for where, _ in of_kind] for kind, of_kind in report.items()} == {
        "file": [str(tmp_path / "empty")], "damaged": [str(torn), str(gap)], "short": [str(short)]}
    assert report["file"][0][1].startswith("is a folder without frames: expected images 000001.jpg")
    assert [what.partition(" (")[0] for _, what in report["damaged"]] == [
        "000007.png is cut short", "image number 2 is missing"]
    assert (tmp_path / "clean.txt").read_text() == f"{sound} 0\n{videos[0]} 3\n"
    counted = json.loads((tmp_path / "report.json").read_text())["videos"]
    assert counted == {"distinct": 6, "decoded": 5, "known": 0, "skips": 0}
    call_tool(check_dataset, *check)
    assert found(tmp_path) == report
    assert json.loads((tmp_path / "report.json").read_text())["videos"]["decoded"] == 0


def test_skipping_is_tried_once(tmp_path, call_tool):
    videos = [*make_videos(tmp_path, 2), Path(shutil.copy(H264, tmp_path)), tmp_path / "bad.mp4"]
    videos[-1].write_text("no video\n")
    write_list(tmp_path / "list.txt", videos, [0, 0, 0, 0])
    check = ["--list", tmp_path / "list.txt", "--json", tmp_path / "report.json"]

    def done():
        out = call_tool(check_dataset, *check)[1]
        counted = json.loads((tmp_path / "report.json").read_text())["videos"]
        assert f"{counted['skips']} of them decode faster" in out
        return counted["decoded"], counted["known"], counted["skips"]

    known = VideoFactsCache(tmp_path / "frame_counts.txt")  # as a test leaves it, which reads every video once
    known.put(str(videos[0]), open_video(str(videos[0])).fingerprint, VideoFacts(24, None))
    known.put(str(videos[-1]), open_video(str(videos[-1])).fingerprint, VideoFacts(0, "is a text file"))
    assert done() == (3, 1, 2)  # the bad one is not decoded again
    assert done() == (0, 4, 2)
    facts = VideoFactsCache(tmp_path / "frame_counts.txt")
    fingerprints = {str(path): open_video(str(path)).fingerprint for path in videos}
    # The second video has one keyframe.
    assert [facts.get(*item).skips for item in fingerprints.items()] == [True, False, True, None]


@pytest.mark.parametrize(("arguments", "text"), [
    ([], "one of --config_file, --list and --lmdb is needed"),
    (["--list", "l", "MODEL.NUM_CLASSES", "3"], "KEY VALUE options need a --config_file"),
    (["--list", "l", "--lmdb", "m"], "not allowed with argument"),
    (["--list", "l", "--workers", "0"], "invalid positive int value: '0'"),
    (["--lmdb", "/none"], "/none is not an LMDB"),
])  # fmt: skip
def test_a_wrong_command_line(call_tool, arguments, text):
    status, _, err = call_tool(check_dataset, "--no_decode", *arguments)
    assert status in (1, 2) and text in err


# ----------------------------------------------------------------------------------------------- records


def train_findings(tmp_path, items, num_classes=4):
    write_items(tmp_path / "train", items)
    findings = Findings()
    scan_split(Split("train", tmp_path / "train", None, num_classes), findings)
    return findings


def test_every_record_of_a_wrong_value_counts(tmp_path):
    values = [encode_train(b"v", [9])] * 3 + [b"", b"x", path_proto(b"v"), path_proto(b"\0") + int_proto(0)]
    findings = train_findings(tmp_path, [(b"%03d" % i, value) for i, value in enumerate(values)])
    assert findings.counts == {"label": 3, "record": 4}
    assert [where.split()[0] for where, _ in findings.kept["label"]] == ["000", "001", "002"]


def test_a_truncated_lmdb_is_a_finding(tmp_path):
    write_items(tmp_path / "train", train_items([(b"v%d" % i, [0]) for i in range(5000)]))
    with open(tmp_path / "train" / "data.mdb", "r+b") as file:
        file.truncate(50_000)
    findings = Findings()
    scan_split(Split("train", tmp_path / "train", None), findings)
    assert findings.counts == {"split": 1} and "is cut short" in findings.kept["split"][0][1]


@pytest.mark.parametrize(("record", "what"), [
    ((0, 0, 9), "30 clips, 29 of them"), ((0, 10, 0), "30 clips, 29 of them"), ((0, 1, 0), "30 clips, 29 of them"),
    ((1, 0, 0), "29 clips, 29 of them"), ((1 << 30, 0, 0), f"its last video is number {1 << 30}"),
])  # fmt: skip
def test_a_clip_of_another_place(tmp_path, record, what):
    """Of two videos' clips the first one is changed to (video, temporal, spatial index)."""
    video, temporal, spatial = record
    items = dict(clip_items([(b"a", [0]), (b"b", [0])], 3))
    path = b"a" if video != 1 else b"b"
    items[b"0"] = path_proto(path) + int_proto(video) + int_proto(temporal) + int_proto(spatial)
    write_items(tmp_path / "test", items.items())
    findings = Findings()
    scan_split(Split("test", tmp_path / "test", None, test=TestPlan(1, 10, 2)), findings)
    texts = [text for of_kind in findings.kept.values() for _, text in of_kind]
    if spatial == 9:
        assert findings.counts["record"] == 1  # not of a known LMDB
    else:
        assert any(text.startswith(what) for text in texts), texts


def test_a_video_index_of_two_videos(tmp_path):
    items = dict(clip_items([(b"a", [0]), (b"b", [0])], 3))
    items[b"0"] = path_proto(b"b") + int_proto(0) + int_proto(0) + int_proto(0)
    write_items(tmp_path / "test", items.items())
    findings = Findings()
    scan_split(Split("test", tmp_path / "test", None, test=TestPlan(1, 10, 2)), findings)
    assert findings.counts["test videos"] == 29 and findings.counts.total() == 29


def test_a_path_is_looked_at_once(tmp_path, videos, call_tool, monkeypatch):
    """Whatever the number of its records."""
    data = write_data(tmp_path, videos)
    looked_at, stat = [], os.stat

    def counted(path, *arguments, **keywords):
        looked_at.append(str(path))
        return stat(path, *arguments, **keywords)

    monkeypatch.setattr(os, "stat", counted)
    assert call_tool(check_dataset, *words(tmp_path, "--no_decode"))[0] == 0
    monkeypatch.undo()
    assert sorted(path for path in looked_at if re.search(r"video\d+\.mp4$", path)) == sorted(map(str, videos))
    assert data.is_dir()


# -------------------------------------------------------------------------------------- decoder processes


def decoding(decoders):
    """Ids of the processes that decode."""
    return {worker._process.pid for worker in decoders._workers if worker._process.poll() is None}


def wait_for(condition):
    deadline = time.monotonic() + 20
    while not (result := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.002)
    return result


@pytest.mark.parametrize("number", ["SIGSEGV", "SIGABRT", "SIGKILL"])
def test_a_crash_costs_one_video(videos, number):
    paths, results, told = [str(video) for video in videos[:20]], [], threading.Event()

    def telling():
        for i, path in enumerate(paths):
            if i == 1:
                told.set()  # the first one is given
            yield path

    with DecoderProcesses(1, 60) as decoders:
        (pid,) = wait_for(lambda: decoding(decoders))
        os.kill(pid, signal.SIGSTOP)
        reader = threading.Thread(target=lambda: results.extend(decoders.decode(telling())), daemon=True)
        reader.start()
        assert told.wait(20)
        os.kill(pid, getattr(signal, number))
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)
        reader.join(20)
    assert [path for path, _ in results] == paths
    first, *others = [(outcome.facts.count, outcome.facts.damage) for _, outcome in results]
    assert first[0] == 0 and number in first[1]
    assert results[0][1].lasting == (number != "SIGKILL")  # that comes from outside
    assert others == [((10, 11, 12)[i % 3], None) for i in range(1, 20)]


def test_a_process_that_dies_without_a_video_costs_none(videos):
    with DecoderProcesses(1, 60) as decoders:
        (pid,) = wait_for(lambda: decoding(decoders))
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda: not decoding(decoders))
        outcomes = dict(decoders.decode(map(str, videos[:3])))
    assert [outcome.facts.count for outcome in outcomes.values()] == [10, 11, 12]


def test_a_decoder_that_hangs_costs_one_video(tmp_path, videos):
    long, picture = tmp_path / "long.mjpeg", np.zeros((1080, 1920, 3), np.uint8)
    long.write_bytes(cv2.imencode(".jpg", picture)[1].tobytes() * 1000)  # takes seconds
    with DecoderProcesses(2, 0.4) as decoders:
        outcomes = dict(decoders.decode([str(long), *map(str, videos[:6])]))
    slow = outcomes.pop(str(long))
    assert slow.facts.damage == "is not decoded after 0.4 seconds" and not slow.lasting
    assert [outcome.facts.count for outcome in outcomes.values()].count(0) == 0


def test_a_process_that_has_met_a_bad_video_decodes_no_other(tmp_path, videos):
    (tmp_path / "bad.mp4").write_text("no video")
    with DecoderProcesses(1, 60) as decoders:
        before = wait_for(lambda: decoding(decoders))
        assert [outcome.facts.count for _, outcome in decoders.decode([str(videos[0])])] == [10]
        assert decoding(decoders) == before
        ((_, outcome),) = decoders.decode([str(tmp_path / "bad.mp4")])
        assert outcome.facts.count == 0 and outcome.lasting
        wait_for(lambda: not decoding(decoders))
        ((_, outcome),) = decoders.decode([str(videos[1])])
        assert outcome.facts.count == 11
        assert decoding(decoders).isdisjoint(before)


def test_no_process_is_left(videos):
    with DecoderProcesses(2, 60) as decoders:
        outcomes = decoders.decode(map(str, videos))
        next(outcomes)
        pids = decoding(decoders)
        assert len(pids) == 2
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


def test_a_video_that_is_remembered_as_bad_is_not_touched(tmp_path):
    """A training that shares the file must not run into a crash that the check has survived."""
    (video,) = make_videos(tmp_path, 1)
    video = open_video(str(video))
    facts = VideoFactsCache(tmp_path / "frame_counts.txt")
    facts.put(video.name, video.fingerprint, VideoFacts(0, "crashes the decoder (SIGSEGV)"))
    facts = VideoFactsCache(tmp_path / "frame_counts.txt")
    with pytest.raises(BadVideo, match="crashes the decoder"):
        sample_frames(video, lambda count: (0,), lambda places, frame: pytest.fail("it was decoded"), facts)


@pytest.mark.parametrize("name", ["/dev/stdout", "link", "link to a device"])
def test_the_report_goes_through_links_and_into_devices(tmp_path, repo, name):
    (tmp_path / "list.txt").write_text("none.mp4 0\n")
    (tmp_path / "link").symlink_to("disk")
    (tmp_path / "link to a device").symlink_to("/dev/null")
    run = subprocess.run([sys.executable, repo / "tools/check_dataset.py", "--list", "list.txt", "--no_decode",
                          "--json", name], cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 1 and "error:" not in run.stderr
    if name == "/dev/stdout":
        assert json.loads(run.stdout[run.stdout.index("{"):])["clean"] is False
    else:
        assert (tmp_path / name).is_symlink()
    if name == "link":
        assert json.loads((tmp_path / "disk").read_text())["clean"] is False
