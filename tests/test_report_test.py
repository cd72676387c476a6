"""tools/report_test.py: test results by class."""

import csv
import json
import pickle
import re
import shutil
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest
from limited_memory import run_limited

import report_test
from data.class_ids import read_class_names
from formats.caffe2_pickle import load
from reports.class_report import count_by_class
from reports.video_scores import read_results, write_results
from utils.errors import UserError
from utils.visualize import plot_confusion

DATA = Path(__file__).parent / "data"
REPORT = r"\]: ((?:Num|Max|Min|Clip|top-|Id).*)"


def write_truth(path, labels):
    path.write_text("".join(f"v{i}.mp4 {label}\n" for i, label in enumerate(labels)))
    return path


def table(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def report(call_tool, tmp_path):
    """Run the tool: (scores, labels, words) -> output, lines of per_class.csv, confusion.png."""
    def run(scores, labels, *words):
        truth = write_truth(tmp_path / "truth.txt", labels)
        status, output, errors = call_tool(report_test, scores, "--truth", truth, "--output", tmp_path / "out", *words)
        assert (status, errors) == (None, "")
        return output, table(tmp_path / "out/per_class.csv"), cv2.imread(str(tmp_path / "out/confusion.png"))

    return run


# ------------------------------------------------------------------------------------------------------- summary


def test_the_legacy_programs_report(report, tmp_path):
    """From scores as Python 2 pickled them: protocol 0, numpy numbers for the video indices."""
    rows = np.loadtxt(DATA / "legacy_scores.csv", delimiter=",")
    results = [[np.int32(row[0]), row[1:].tolist()] for row in rows]
    (tmp_path / "results_probs.pkl").write_bytes(pickle.dumps(results, protocol=0))
    output, classes, _ = report(tmp_path / "results_probs.pkl", [0, 1, 2, 3])
    expected = re.findall(r"INFO:test_net_video:((?:Num|Max|Min|Clip|top-).*)", (DATA / "legacy_log.txt").read_text())
    assert re.findall(REPORT, output) == expected and len(expected) == 8
    assert sum(float(line["top1"] or 0) for line in classes) / 4 == 25.0
    assert sum(float(line["top5"] or 0) for line in classes) / 4 == 50.0


def test_the_legacy_programs_own_file(shared, call_tool, tmp_path):
    folder = shared / "reference/end_to_end"
    status, output, errors = call_tool(report_test, folder / "results_probs.pkl", "--truth", folder / "gt.txt",
                                       "--output", tmp_path)
    assert (status, errors) == (None, "")
    expected = re.findall(r"INFO:test_net_video:((?:Num|Max|Min|Clip|top-).*)", (folder / "log.txt").read_text())
    assert re.findall(REPORT, output) == expected


@pytest.mark.parametrize("name", ["results_probs.pkl", "results_scores.h5"])
def test_the_report_equals_that_of_the_test_tool(report, job, name):
    output, classes, _ = report(job.folder / name, [0, 1, 2])
    assert re.findall(REPORT, output) == re.findall(REPORT, job.output)
    assert [(line["videos"], line["empty"]) for line in classes[:4]] == [("1", "0"), ("1", "1"), ("1", "0"), ("0", "0")]


def test_both_files_have_the_same_contents(job):
    pickled, rows = (read_results(job.folder / name) for name in ("results_probs.pkl", "results_scores.h5"))
    assert pickled[0].tolist() == rows[0].tolist()
    assert np.array_equal(pickled[1].astype("f4"), rows[1])


# ------------------------------------------------------------------------------------------------------ by class


@pytest.fixture
def six_classes(tmp_path):
    """Scores of two clips for each of nine videos, and their labels. The results below were worked out by hand."""
    winners = {0: 0, 1: 1, 2: 1, 3: 2, 4: 1, 5: 1, 6: 3, 7: None, 8: 5}  # video: class of its highest score
    labels = [0, 0, 0, 0, 1, 1, 3, 3, 4]
    videos, scores = [], []
    for video, winner in winners.items():
        if winner is not None:
            vector = np.full(6, 0.1)
            vector[[winner, 0]] += (0.5, 0.2)  # class 0 is second, or wins by a larger margin
            for clip in (1.0, 0.5):
                videos.append(video)
                scores.append(vector * clip - (0.3 if winner == 5 else 0) * (np.arange(6) == 4))
    path = tmp_path / "results_probs.pkl"
    write_results(path, np.array(videos), np.array(scores, "f4"))
    return path, labels


def test_accuracies_and_confusions(report, six_classes, tmp_path):
    (tmp_path / "names.txt").write_text("zero\none\ntwo, too\nthree\nfour\nfive\n")
    output, classes, _ = report(*six_classes, "--classes", tmp_path / "names.txt")
    found = [tuple(line.values()) for line in classes]
    assert found == [
        ("0", "zero", "4", "0", "25.00", "100.00", "one", "2"),
        ("1", "one", "2", "0", "100.00", "100.00", "", ""),
        ("2", "two, too", "0", "0", "", "", "", ""),
        ("3", "three", "2", "1", "50.00", "50.00", "", ""),  # the video without clips is wrong, not confused
        ("4", "four", "1", "0", "0.00", "0.00", "five", "1"),
        ("5", "five", "0", "0", "", "", "", ""),
    ]
    assert "top-1 accuracy: 44.44 percent" in output and "top-5 accuracy: 77.78 percent" in output
    assert "Num of empty videos: 1" in output and "Max num of clips in a video: 2" in output


def test_the_whole_matrix(six_classes):
    path, labels = six_classes
    confusion = count_by_class(*read_results(path), labels).confusion
    expected = np.zeros((6, 6), int)
    expected[0, 0], expected[0, 1], expected[0, 2], expected[1, 1], expected[3, 3], expected[4, 5] = 1, 2, 1, 2, 1, 1
    assert confusion.tolist() == expected.tolist()


@pytest.mark.parametrize("classes", [5, 120])
def test_the_picture_has_one_cell_per_class(classes, tmp_path):
    confusion = np.zeros((classes, classes), int)
    confusion[np.arange(classes), (np.arange(classes) + 2) % classes] = 3
    plot_confusion(confusion, [f"class {i}" for i in range(classes)], tmp_path / "a.png")
    dark = (cv2.imread(str(tmp_path / "a.png")).astype(int) - (107, 48, 8)).__abs__().max(-1) < 12  # Blues' last
    rows, columns = np.nonzero(dark)
    cell = 0.55 * 150 if classes == 5 else 0.075 * 150
    # One square per row, each as large as a cell, one of them at the left edge of the matrix.
    assert dark.sum() > 0.8 * classes * cell**2 * (0.75 if classes == 5 else 1)
    assert rows.max() - rows.min() == pytest.approx(classes * cell, abs=6)
    assert columns.max() - columns.min() == pytest.approx(classes * cell, abs=6)


def test_names(tmp_path):
    (tmp_path / "ids.json").write_text('{"b": 1, "\\"a c\\"": 0}')
    assert read_class_names(tmp_path / "ids.json", 2) == ["a c", "b"]
    with pytest.raises(UserError, match="ids.json: expected names for the classes 0 to 2, got 2"):
        read_class_names(tmp_path / "ids.json", 3)


# ------------------------------------------------------------------------------------------------------ mistakes


def test_errors_are_one_line(call_tool, six_classes, job, tmp_path):
    path, labels = six_classes
    truth = write_truth(tmp_path / "truth.txt", labels)
    short = write_truth(tmp_path / "short.txt", labels[:3])
    strange = write_truth(tmp_path / "strange.txt", [*labels[:8], 6])
    (tmp_path / "names.txt").write_text("one\ntwo\n")
    (tmp_path / "other.pkl").write_bytes(pickle.dumps([1, 2]))
    (tmp_path / "number.pkl").write_bytes(pickle.dumps(7))
    (tmp_path / "none.pkl").write_bytes(pickle.dumps([]))
    with h5py.File(tmp_path / "old.h5", "w") as file:
        file["scores"], file["status"] = np.zeros((3, 4)), np.ones(3)
    h5py.File(tmp_path / "other.h5", "w").close()
    cases = [
        ((tmp_path / "gone.pkl", "--truth", truth), "gone.pkl: "),
        ((tmp_path / "other.pkl", "--truth", truth), r"other.pkl: expected a list of \[video index, "),
        ((tmp_path / "number.pkl", "--truth", truth), r"number.pkl: expected a list of \[video index, "),
        ((job.weights, "--truth", truth), r"iter4.pkl: expected a list of \[video index, "),
        ((tmp_path / "none.pkl", "--truth", truth), "none.pkl: expected the scores of clips, got none"),
        ((tmp_path / "old.h5", "--truth", truth), "old.h5: expected .* video indices, got scores, status; results_pr"),
        ((tmp_path / "other.h5", "--truth", truth), "other.h5: expected the scores of a test, got another HDF5 file"),
        ((path, "--truth", short), ": expected video indices 0 to 2, as .*short.txt has 3 lines, got 0 to 8"),
        ((path, "--truth", strange), "strange.txt:9: expected a label in 0..5, the classes of .*, got 6"),
        ((path, "--truth", tmp_path / "no.txt"), "cannot read the list .*no.txt"),
        ((path, "--truth", truth, "--classes", tmp_path / "names.txt"), "names.txt: expected names for the classes"),
    ]
    for words, expected in cases:
        status, _, errors = call_tool(report_test, *words)
        assert status == 1
        assert re.fullmatch(f"error: .*{expected}.*\n", errors), errors
    assert not list(tmp_path.glob("*.csv"))


def nested(levels):
    """Scores as lists within lists, each of them twice: a small pickle of 2 ** levels numbers."""
    vector = [0.5, 0.5]
    for _ in range(levels):
        vector = [vector, vector]
    return [[0, vector]]


def repeated(clips, classes):
    """One clip's scores over and over: a pickle of clips + classes numbers for clips x classes."""
    return [[0, [0.5] * classes]] * clips


def hollow(path, clips, classes):
    """An HDF5 file whose scores are not there: each stands for zero."""
    with h5py.File(path, "w") as file:
        file.create_dataset("status", (clips,), "u1", fillvalue=1, chunks=(1000,))
        file.create_dataset("video_indices", (clips,), "i8", chunks=(1000,))
        file.create_dataset("scores", (clips, classes), "f4", chunks=(1000, classes), compression="gzip")


@pytest.mark.parametrize(("make", "message"), [
    (lambda path: path.write_bytes(pickle.dumps(nested(40))), r"expected a list of \[video index, list of scores\]"),
    (lambda path: path.write_bytes(pickle.dumps([[0, row] for row in nested(40)[0][1]])), "expected a list of"),
    (lambda path: path.write_bytes(pickle.dumps([*repeated(1, 4), *nested(40)])), "expected a list of"),
    (lambda path: path.write_bytes(pickle.dumps(repeated(200_000, 100_000))),
     "expected a file that holds its scores, got one of [0-9]+ bytes for 200000 x 100000"),
    (lambda path: path.write_bytes(pickle.dumps(repeated(1, 300_000))), "expected scores of at most 2000 classes"),
    (lambda path: hollow(path, 1_000_000, 400), "expected the scores of a test, got a damaged file"),
])
def test_a_small_file_does_not_fill_the_memory(repo, tmp_path, make, message):
    path, truth = tmp_path / "results", write_truth(tmp_path / "truth.txt", [0] * 50_000)
    make(path)
    run = run_limited(repo / "tools/report_test.py", path, "--truth", truth)
    assert (run.returncode, run.stderr.count("\n")) == (1, 1), run.stderr
    assert re.match(f"error: {path}: {message}", run.stderr)
    assert path.stat().st_size < 4 << 20


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["results_probs.pkl", "results_scores.h5"])
def test_scores_that_are_not_finite(job, call_tool, tmp_path, name, value):
    path, truth = tmp_path / name, write_truth(tmp_path / "truth.txt", [0, 1, 2])
    shutil.copy(job.folder / name, path)
    if name.endswith("h5"):
        with h5py.File(path, "r+") as file:
            file["scores"][np.flatnonzero(file["video_indices"][:] == 2)[:2], 3] = value
    else:
        rows = load(path)
        for row in [row for row in rows if row[0] == 2][:2]:
            row[1][3] = value
        path.write_bytes(pickle.dumps(rows, protocol=2))
    status, _, errors = call_tool(report_test, path, "--truth", truth)
    assert status == 1
    if name.endswith("h5"):  # each row has a checksum
        assert errors.startswith(f"error: {path}: damaged: 2 of 90 rows (first row ") and errors.count("\n") == 1
    else:
        assert errors == (f"error: {path}: expected finite scores, got NaN or infinity in 2 of 60 clips, the first of "
                          "video 2\n")


@pytest.mark.parametrize("rows", [
    [[0, [0.5, 0.5]], [1, [0.5]]], [[0, [0.5]], [1, [0.5, 0.5]]], [[0, "0123"]], [[0.5, [0.5]]], [["0", [0.5]]],
    [[2**70, [0.5]]], [[0]], [[0, [0.5], 1]], [[0, 0.5]], [[0, [10**400]]], {"a": 1}, "text", [None],
    [[0, {"a": 0.5}]], [[0, [[0.5]]]], [[0, np.zeros((2, 2))]],
], ids=range(16))  # fmt: skip
def test_lists_of_something_else(tmp_path, rows):
    (tmp_path / "r.pkl").write_bytes(pickle.dumps(rows, protocol=2))
    with pytest.raises(UserError, match=r"r.pkl: expected a list of \[video index, list of scores\], as in results_p"):
        read_results(tmp_path / "r.pkl")


def test_names_that_are_no_text(report, six_classes, tmp_path):
    (tmp_path / "ids.json").write_text(json.dumps({f"\udcff$\\frac{i}$": i for i in range(6)}))
    _, classes, _ = report(*six_classes, "--classes", tmp_path / "ids.json")
    assert classes[0]["class"] == "\\udcff$\\frac0$"


def test_an_unfinished_test_gives_a_warning(report, job, tmp_path):
    shutil.copy(job.folder / "results_scores.h5", tmp_path / "part.h5")
    with h5py.File(tmp_path / "part.h5", "r+") as file:
        file["status"][40:] = 0
    output, _, _ = report(tmp_path / "part.h5", [0, 1, 2])
    assert "part.h5: 50 of 90 clips were not scored: did the test finish?" in output
