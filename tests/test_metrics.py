"""Classification errors, and the exact lines of a training log."""

import json
import math
import re

import numpy as np
import pytest
import torch

from reports.log_parser import parse_line
from utils import metrics
from utils.metrics import Averages, BestErrors, first_n_errors, topk_errors
from utils.misc import eta, used_memory
from utils.timer import Timer


def counts(scores, labels, ks=(1, 5)):
    return topk_errors(torch.tensor(scores), torch.tensor(labels), ks).tolist()


def test_errors_against_sorting():
    rng = np.random.default_rng(0)
    scores = rng.standard_normal((200, 12)).astype("f4")
    labels = rng.integers(0, 12, 200)
    ranking = np.argsort(-scores, axis=1)
    expected = [sum(label not in row[:k] for label, row in zip(labels, ranking, strict=True)) for k in (1, 5)]
    assert counts(scores, labels) == expected
    assert 0 < expected[1] < expected[0] < 200


def test_ties_go_to_the_lower_class():
    scores = [[1.0, 3.0, 3.0, 0.0, 0.0, 0.0, 0.0]]
    assert counts(scores, [1]) == [0, 0]
    assert counts(scores, [2]) == [1, 0]
    assert [counts(scores, [label])[1] for label in range(7)] == [0, 0, 0, 0, 0, 1, 1]


@pytest.mark.parametrize("scores", [[torch.nan] * 7, [torch.nan, 5, 4, 3, 2, 1, 0]])
def test_nan_is_never_correct(scores):
    assert counts([scores], [0]) == [1, 1]


def test_fewer_classes_than_five():
    assert counts([[1.0, 2.0, 3.0]], [0]) == [1, 0]


def test_errors_among_the_first_classes():
    scores = torch.tensor([[0, 2, 1, 9], [0, 2, 1, 9], [0, 2, 1, 9.0]])
    labels = torch.tensor([1, 2, 3])
    assert topk_errors(scores, labels).tolist() == [2, 0]
    # Among 0..2 the first clip is correct, the second is wrong, and the class of the third is not included.
    assert first_n_errors(scores, labels, 3).tolist() == [2, 1]
    assert first_n_errors(scores, labels, 1000).tolist() == [2, 0]
    assert first_n_errors(scores, torch.tensor([3, 3, 3]), 3).tolist() == [3, 3]


def test_averages():
    averages = Averages()
    averages.update({"loss": 1.0, "err": 50.0}, 4)
    averages.update({"loss": 4.0, "err": 0.0}, 8)
    assert (averages["loss"], averages["err"], averages.weight) == (3.0, pytest.approx(50 / 3), 12)
    again = Averages(**json.loads(json.dumps(averages.state())))
    for one in (averages, again):
        one.update({"loss": 0.5, "err": 1.0}, 3)
    assert again.state() == averages.state()


# --------------------------------------------------------------------------------------------------------- lines


def printed(capsys, function, *arguments):
    function(*arguments)
    return capsys.readouterr().out


def timer(diff, average):
    stopwatch = Timer()
    stopwatch.diff, stopwatch.total_time, stopwatch.calls = diff, average * 4, 4
    return stopwatch


@pytest.mark.parametrize(("arguments", "line"), [
    # The third line of the legacy log: one iteration of 8.2 s on average remains.
    ((2, 4, 0.001, 1.5, timer(7.337, 8.24), {"loss": 2.6074, "err": 100.0, "err5": 50.0}),
     "| Train ETA: 0:00:08 LR: 0.00100000  Iters [3/4] [1.50ep]  Time 7.337  Loss  2.6074  top1 100.000 top5  50.000"),
    ((9, 400000, 0.01, 0.00273, timer(0.5, 0.5), {"loss": 6.0, "err": 98.4375, "err5": 9.375}),
     "| Train ETA: 2 days, 7:33:15 LR: 0.01000000  Iters [10/400000] [0.00ep]  Time 0.500  Loss  6.0000  "
     "top1  98.438 top5   9.375"),
])
def test_train_line(capsys, arguments, line):
    assert printed(capsys, metrics.print_train_line, *arguments) == line + "\n"


def test_test_line(capsys):
    values, averages = {"err": 100.0, "err5": 50.0}, {"err": 87.5, "err5": 6.25}
    assert printed(capsys, metrics.print_test_line, 4, 20, 3.0464, values, averages, 4, 20) == (
        "| Test: [5/20]  Time 3.046  top1 100.000 ( 87.500)  top5  50.000 (  6.250)  "
        "current batch 4  aggregated batch 20\n")


def test_test_line_with_the_first_classes(capsys):
    values = {"err": 100.0, "err5": 50.0, "err_N_way": 75.0, "err5_N_way": 25.0}
    averages = {"err": 87.5, "err5": 6.25, "err_N_way": 70.0, "err5_N_way": 20.0}
    assert printed(capsys, metrics.print_test_line, 4, 20, 3.0464, values, averages, 4, 20) == (
        "| Test: [5/20]  Time 3.046  top1 100.000 ( 87.500)  top5  50.000 (  6.250) "
        "top1_N_way  75.000 ( 70.000)  top5_N_way  25.000 ( 20.000)  current batch 4  aggregated batch 20\n")


def test_finished_line(capsys):
    errors = {"err": 100.0, "err5": 7.5}
    assert printed(capsys, metrics.print_finished_line, 19999, 400000, errors) == (
        "* Finished #iters [20000|400000]: top1: 100.000 top5: 7.500\n")
    errors |= {"err_N_way": 75.0, "err5_N_way": 25.0}
    assert printed(capsys, metrics.print_finished_line, 19999, 400000, errors) == (
        "* Finished #iters [20000|400000]: top1: 100.000 top5: 7.500 top1_N_way: 75.000 top5_N_way: 25.000\n")


def test_json_stats(capsys):
    text = printed(capsys, metrics.print_json_stats, {"test_err": 12.5, "currentIter": 3})
    assert re.fullmatch(r"\njson_stats: (\{.*\})\n\n", text)
    assert json.loads(text.strip().removeprefix("json_stats: ")) == {"test_err": 12.5, "currentIter": 3}


def test_json_stats_stay_json(capsys):
    """As after a loss that is infinite."""
    stats = {"train_loss": math.inf, "test_err": math.nan, "other": [{"a": -math.inf, "b": (1, 2.5, "NaN")}]}
    text = printed(capsys, metrics.print_json_stats, stats | {"currentIter": 3})
    assert text.strip() == ('json_stats: {"train_loss": null, "test_err": null, "other": '
                            '[{"a": null, "b": [1, 2.5, "NaN"]}], "currentIter": 3}')
    assert parse_line(text.strip()).stats["train_loss"] is None


def test_best_model(capsys):
    best = BestErrors()
    assert printed(capsys, best.update, {"err": 80.0, "err5": 7.5}) == "\n* Best model: top1:  80.000 top5:   7.500\n\n"
    assert printed(capsys, best.update, {"err": 80.0, "err5": 0.0}) == ""
    assert best.best == {"err": 80.0, "err5": 7.5}  # the top-5 error of the evaluation with the best top-1 error
    assert printed(capsys, best.update, {"err": 79.0, "err5": 9.0}) == "\n* Best model: top1:  79.000 top5:   9.000\n\n"
    assert best.best == {"err": 79.0, "err5": 9.0}


def test_best_of_the_first_classes(capsys):
    best = BestErrors()
    text = printed(capsys, best.update, {"err": 80.0, "err5": 7.5, "err_N_way": 60.0, "err5_N_way": 5.0})
    assert text.endswith("\n\n\n* Best: top1_N_way:  60.000 top5_N_way:   5.000\n\n")
    assert printed(capsys, best.update, {"err": 80.0, "err5": 7.5, "err_N_way": 61.0, "err5_N_way": 0.0}) == ""


@pytest.mark.parametrize(("seconds", "text"), [
    (0.9, "0:00:00"), (3661.5, "1:01:01"), (86400, "1 day, 0:00:00"), (2 * 86400 + 27200, "2 days, 7:33:20"),
])
def test_eta(seconds, text):
    assert eta(seconds) == text


def test_memory_of_this_process():
    number, unit = used_memory(torch.device("cpu")).split()
    assert unit == "MiB"
    assert 50 < int(number) < 100_000


def test_timer(monkeypatch):
    clock = iter([1.0, 3.0, 10.0, 14.0])
    monkeypatch.setattr("time.perf_counter", lambda: next(clock))
    stopwatch = Timer()
    assert stopwatch.average_time == 0
    stopwatch.tic()
    assert stopwatch.toc() == 2
    stopwatch.tic()
    assert stopwatch.toc() == 4
    assert (stopwatch.diff, stopwatch.average_time) == (4, 3)
