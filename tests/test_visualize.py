"""utils.visualize and tools/plot_log.py."""

import subprocess
import sys

import cv2
import numpy as np
import pytest

import plot_log
from reports.attention_pictures import Attention, draw_clip
from reports.curves import curves
from reports.log_parser import Log, TrainLine, read_log
from utils.errors import UserError
from utils.visualize import as_label, log_names, plot_confusion, plot_logs, smooth


def make_log(loss, train5=20.0, val5=30.0):
    """Training lines with a constant loss and errors, and two evaluations."""
    train = [TrainLine("0:00:01", 0.1, i, 100, 1.0, 0.5, loss, 60.0, train5) for i in range(1, 101)]
    stats = [{"currentIter": i, "test_err": 70.0, "test_err5": val5} for i in (50, 100)]
    return Log(train=train, evaluations=stats)


def has_color(image, rgb, tolerance=12):
    return bool((np.abs(image[..., ::-1].astype(int) - rgb) <= tolerance).all(-1).any())


BLUE, ORANGE = (31, 119, 180), (255, 127, 14)  # matplotlib's first two colours


def test_the_picture_shows_every_log(tmp_path):
    one, two = tmp_path / "one.png", tmp_path / "two.png"
    plot_logs({"a": make_log(1.0)}, one)
    plot_logs({"a": make_log(1.0), "b": make_log(2.0)}, two)
    first, second = cv2.imread(str(one)), cv2.imread(str(two))
    assert first.shape[1] > 2 * first.shape[0] > 800  # three panels side by side
    assert has_color(first, BLUE) and not has_color(first, ORANGE)
    assert has_color(second, BLUE) and has_color(second, ORANGE)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.png", "two.png"]


@pytest.mark.parametrize("train5, val5, panels", [(0, 0, 2), (0, 30, 3), (20, 0, 3), (float("nan"), 0, 2)])
def test_top5_errors_have_a_panel_where_there_are_any(tmp_path, train5, val5, panels):
    plot_logs({"five classes": make_log(1.0, 0, 0), "other": make_log(1.0, train5, val5)}, tmp_path / "a.png")
    height, width = cv2.imread(str(tmp_path / "a.png")).shape[:2]
    assert width / height == pytest.approx(5 * panels / 4.8, rel=0.01)
    assert ("top5" in curves(make_log(1.0, train5, val5))) == (panels == 3)


def test_losses_that_are_not_numbers_are_left_out(tmp_path):
    plot_logs({"a": make_log(float("nan"))}, tmp_path / "a.png")
    assert cv2.imread(str(tmp_path / "a.png")) is not None


def test_training_or_validation_lines_alone_are_enough(tmp_path):
    log = make_log(1.0)
    plot_logs({"a": Log(train=log.train), "b": Log(evaluations=log.evaluations)}, tmp_path / "a.png")
    image = cv2.imread(str(tmp_path / "a.png"))
    assert has_color(image, BLUE) and has_color(image, ORANGE)


def test_a_log_without_lines_is_an_error(tmp_path):
    with pytest.raises(UserError, match="empty: expected .*Train ETA.* found none"):
        plot_logs({"a": make_log(1.0), "empty": Log()}, tmp_path / "a.png")
    assert list(tmp_path.iterdir()) == []


def test_names_that_are_no_formulas(tmp_path):
    names = ["a$b", "$\\frac{$", "_hidden", "x" * 5000, "\udcff.log", "", "line\nbreak", "50 % {} \\"]
    plot_logs({name: make_log(1.0) for name in names}, tmp_path / "a.png")
    plot_confusion(np.eye(len(names), dtype=int), names, tmp_path / "b.png")
    clip = np.zeros((2, 32, 32, 3), np.uint8)
    attention = Attention((0, 1, 1), np.ones((2, 2, 2)) / 8, (0, 0, 0), (1, 16, 16), 3)
    for number, name in enumerate(names[1:6:3]):
        draw_clip(tmp_path / f"{number}.png", clip, ["frame 0", "frame 1"], [attention], name, "both")
    assert len(list(tmp_path.iterdir())) == 4


def test_as_label():
    assert as_label("a$b \udcff") == "a$b \\udcff"
    assert as_label("x" * 60) == "x" * 60 and as_label("x" * 61) == "x" * 59 + "\u2026"


def test_a_confusion_of_thousands_of_classes(tmp_path):
    plot_confusion(np.eye(1100, dtype=int), [f"class {i}" for i in range(1100)], tmp_path / "a.png")
    assert 1100 < max(cv2.imread(str(tmp_path / "a.png")).shape) < 1600


def test_smooth_is_the_mean_over_the_last_values():
    assert smooth([1, 2, 3, 4, 5], 1).tolist() == [1, 2, 3, 4, 5]
    assert smooth([1, 2, 3, 4, 5], 2).tolist() == [1, 1.5, 2.5, 3.5, 4.5]
    assert smooth([1, 2, 6], 10).tolist() == [1, 1.5, 3]


def test_log_names():
    assert log_names(["/x/run_a/log.txt", "/x/run_b/log.txt", "old.log"]) == ["run_a", "run_b", "old"]
    assert log_names(["/x/run/log.txt", "/y/run/log.txt"]) == ["/x/run/log.txt", "/y/run/log.txt"]


def test_command(repo, tmp_path):
    command = [sys.executable, repo / "tools/plot_log.py", repo / "tests/data/legacy_log.txt"]
    result = subprocess.run([*command, "--output", tmp_path / "curves.png"], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout == f"Curves saved to: {tmp_path}/curves.png\n"
    assert has_color(cv2.imread(str(tmp_path / "curves.png")), BLUE)


ENDLESS = "9" * 5000
JUNK = [
    f"| Train ETA: 0:00:01 LR: 0.10000000  Iters [{ENDLESS}/{ENDLESS}] [1.00ep]  Time 0.500  Loss  1.0000  "
    "top1  60.000 top5  20.000",
    f"| Train ETA: 0:00:01 LR: 0.10000000  Iters [7/100] [1.00ep]  Time 0.500  Loss {ENDLESS}.0000  top1  60.000 top5  "
    "20.000",
    "| Train ETA: 0:00:01 LR: 0.10000000  Iters [8/100] [1.00ep]  Time 0.500  Loss inf  top1  -inf top5  -nan",
    f"| Train ETA: 0:00:01 LR: 0.10000000  Iters [9/100] [1.00ep]  Time 0.500  Loss {'9' * 40}.0000  top1  60.000 "
    "top5  20.000",
    f"* Finished #iters [{ENDLESS}|500500]: top1: 1.000 top5: 1.000",
    f"json_stats: {{\"currentIter\": {ENDLESS}}}", f"json_stats: {{\"currentIter\": {'9' * 400}, \"test_err\": 3}}",
    "json_stats: {\"currentIter\": true, \"test_err\": 3}", "json_stats: {\"currentIter\": -5, \"test_err\": 3}",
    f"json_stats: {{\"currentIter\": 10, \"test_err\": {'9' * 400}, \"test_err5\": 1e999}}",
    "json_stats: {\"currentIter\": 20, \"test_err\": null, \"test_err5\": NaN}",
    "json_stats: {\"currentIter\": 30, \"test_err\": \"many\", \"test_err5\": [1]}",
    "json_stats: {\"currentIter\": 40, \"a\": " + "[" * 30_000 + "]" * 30_000 + "}",
    f"[INFO: a.py:    1]: Num of empty videos: {ENDLESS}", f"INFO:a:top-1 accuracy: {ENDLESS}.00 percent",
    f"0/1 iter (1/{ENDLESS} videos): Time: 0.500 (ETA: 0:00:00). ID: [{ENDLESS}]",
    "json_stats: {" + "x" * 3_000_000,
]


def test_a_log_of_numbers_without_end(call_tool, tmp_path):
    good = ("| Train ETA: 0:00:01 LR: 0.10000000  Iters [{}/100] [1.00ep]  Time 0.500  Loss  1.0000  top1  6.000 top5  "
            "2.000")
    log = tmp_path / "a$b$ \udcff.log"
    log.write_text("\n".join([good.format(5), *JUNK, good.format(50), ""]))
    found = read_log(log)
    assert [line.iteration for line in found.train] == [5, 8, 9, 50]
    assert [stats["currentIter"] for stats in found.evaluations] == [10, 20, 30]
    status, _, errors = call_tool(plot_log, log, "--output", tmp_path / "curves.png")
    assert not status and not errors
    assert cv2.imread(str(tmp_path / "curves.png")) is not None


def test_the_command_reports_errors_in_one_line(call_tool, tmp_path):
    (tmp_path / "log.txt").write_text("nothing of use\n")
    status, _, errors = call_tool(plot_log, tmp_path / "log.txt", "--output", tmp_path / "curves.png")
    assert status == 1
    assert errors.startswith("error: ") and errors.count("\n") == 1
    assert not (tmp_path / "curves.png").exists()
