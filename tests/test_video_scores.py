"""The report over videos, from the scores of clips."""

import logging
import pickle
import subprocess
from pathlib import Path

import numpy as np
import pytest
import reference_data

from formats.caffe2_pickle import load
from reports import video_scores
from reports.video_scores import score_videos, write_results

DATA = Path(__file__).parent / "data"


def report_lines(caplog, report):
    caplog.set_level(logging.INFO)
    caplog.clear()
    report.log()
    return [record.getMessage() for record in caplog.records]


def test_the_legacy_programs_report(caplog):
    """Its 120 score vectors (4 videos of 30 clips) give the report in its log."""
    rows = np.loadtxt(DATA / "legacy_scores.csv", delimiter=",")
    report = score_videos(rows[:, 0].astype(int), rows[:, 1:], [0, 1, 2, 3], 30)
    log = [line.removeprefix("INFO:test_net_video:") for line in (DATA / "legacy_log.txt").read_text().splitlines()]
    first = log.index("Num of empty videos: 0")
    assert report_lines(caplog, report) == log[first:first + 10]


def vectors(*winners, classes=8):
    """Score vectors in which the given class comes first, followed by the next ones."""
    return np.array([[(classes - (c - winner) % classes) / classes for c in range(classes)] for winner in winners])


def test_scores_are_summed_over_the_clips():
    # Each clip alone gives class 0 or 1; their sum gives class 2.
    scores = np.array([[0.5, 0.1, 0.4], [0.1, 0.5, 0.4]])
    report = score_videos(np.array([0, 0]), scores, [2], 2)
    assert (report.clip1_correct, report.clip_correct, report.top1) == (0, 0, 1.0)


def test_single_clips_and_first_clips():
    videos = np.array([1, 0, 1, 0])  # in record order: the first clip of video 1 comes first
    report = score_videos(videos, vectors(5, 3, 6, 4), [3, 6], 2)
    assert (report.clip1_correct, report.clip1_total) == (1, 2)
    assert (report.clip_correct, report.clip_total) == (2, 4)


def test_empty_and_incomplete_videos(caplog):
    report = score_videos(np.array([0, 0, 2]), vectors(0, 0, 2), [0, 0, 2, 0], 2)
    assert report_lines(caplog, report) == [
        "Id: 1 count: 0",
        "Id: 2 count: 1",
        "Id: 3 count: 0",
        "Num of empty videos: 2",
        "Num of corrupted videos: 3",
        "Max num of clips in a video: 2",
        "Min num of clips in a video: 0",
        "Clip1 accuracy: 100.00 percent (2/2)",
        "Clip accuracy: 100.00 percent (3/3)",
        "-" * 80,
        "top-1 accuracy: 50.00 percent",  # a video without a clip counts as wrong, though its class 0 is "first"
        "top-5 accuracy: 50.00 percent",
        "-" * 80,
    ]
    assert [record.levelname for record in caplog.records[:3]] == ["WARNING"] * 3


def test_no_clip_at_all(caplog):
    report = score_videos(np.empty(0, int), np.empty((0, 8)), [0, 1], 3)
    assert "Clip accuracy: 0.00 percent (0/0)" in report_lines(caplog, report)
    assert (report.top1, report.top5) == (0, 0)


def test_ties_go_to_the_lower_class():
    even = np.full((1, 8), 0.125)
    found = [score_videos(np.array([0]), even, [label], 1) for label in range(8)]
    assert [report.top1 for report in found] == [1, 0, 0, 0, 0, 0, 0, 0]
    assert [report.top5 for report in found] == [1, 1, 1, 1, 1, 0, 0, 0]


def test_fewer_classes_than_five():
    report = score_videos(np.array([0]), np.array([[0.1, 0.7, 0.2]]), [0], 1)
    assert (report.top1, report.top5) == (0, 1)


# --------------------------------------------------------------------------------------------- results_probs.pkl


@pytest.fixture
def results(tmp_path, monkeypatch):
    """A file of five clips, written in pieces of two."""
    monkeypatch.setattr(video_scores, "ITEMS_PER_APPEND", 2)
    scores = np.arange(15, dtype="f4").reshape(5, 3) / 7
    path = tmp_path / "results_probs.pkl"
    write_results(path, np.array([0, 2, 0, 2, 1]), scores)
    return path, [[video, scores[i].tolist()] for i, video in enumerate([0, 2, 0, 2, 1])]


def test_results(results):
    path, expected = results
    assert pickle.loads(path.read_bytes()) == expected
    assert load(path) == expected
    assert type(load(path)[0][0]) is int
    assert path.read_bytes()[:2] == b"\x80\x02"  # protocol 2


def test_results_of_no_clip(tmp_path):
    write_results(tmp_path / "results_probs.pkl", np.empty(0, int), np.empty((0, 3)))
    assert load(tmp_path / "results_probs.pkl") == []


def test_python_2_reads_the_results(results, bare_python2):
    path, expected = results
    script = (
        "import pickle, cPickle, sys\n"
        "for module in (pickle, cPickle):\n"
        "    found = module.load(open(sys.argv[1], 'rb'))\n"
        "    assert type(found) is list and type(found[0][0]) is int and type(found[0][1][0]) is float\n"
        f"    assert found == {expected!r}, found\n"
    )
    subprocess.run([bare_python2, "-c", script, path], check=True)


def test_the_legacy_programs_results(shared):
    """The excerpt used above is from that file."""
    rows = np.loadtxt(DATA / "legacy_scores.csv", delimiter=",")
    legacy = load(shared / "reference/end_to_end/results_probs.pkl")
    assert [int(video) for video, _ in legacy] == rows[:, 0].tolist()
    np.testing.assert_allclose([scores for _, scores in legacy], rows[:, 1:], atol=1e-6)


def test_the_legacy_programs_report_of_them(shared):
    assert [error for _, error, _ in reference_data.check_end_to_end(shared / "reference/end_to_end", None)] == [0]
