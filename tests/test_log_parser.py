"""reports.log_parser, on real lines of the Caffe2 program and on lines formatted as the tools do."""

import pytest

from reports.log_parser import (
    BestLine,
    BestNWayLine,
    ClipsLine,
    FinishedLine,
    TestLine,
    TrainLine,
    parse_line,
    parse_log,
    read_log,
)
from utils.errors import UserError

# The formats that the training tool prints, with numbers of every width.
TRAIN = ("| Train ETA: {} LR: {:.8f}  Iters [{}/{}] [{:.2f}ep]  Time {:0.3f}  Loss {:7.4f}  "
         "top1 {:7.3f} top5 {:7.3f}")
TEST = ("| Test: [{}/{}]  Time {:0.3f}  top1 {:7.3f} ({:7.3f})  top5 {:7.3f} ({:7.3f})"
        "  current batch {}  aggregated batch {}")
TEST_N_WAY = ("| Test: [{}/{}]  Time {:0.3f}  top1 {:7.3f} ({:7.3f})  top5 {:7.3f} ({:7.3f})"
              " top1_N_way {:7.3f} ({:7.3f})  top5_N_way {:7.3f} ({:7.3f})"
              "  current batch {}  aggregated batch {}")


def train_line(iteration, loss=1.0, max_iter=100):
    return TRAIN.format("0:00:10", 0.01, iteration, max_iter, 0.5, 1.25, loss, 50, 25)


def stats_line(iteration, test_err):
    return f'json_stats: {{"currentIter": {iteration}, "test_err": {test_err}, "test_err5": 10.0}}'


@pytest.fixture(scope="module")
def legacy(repo):
    return (repo / "tests/data/legacy_log.txt").read_text().splitlines()


def test_legacy_training(legacy):
    log = parse_log(legacy)
    assert log.train[0] == TrainLine("0:00:30", 0.01, 1, 4, 0.5, 10.185, 2.2438, 75.0, 50.0)
    assert [line.iteration for line in log.train] == [1, 2, 3, 4]
    assert [line.loss for line in log.train] == [2.2438, 3.6889, 2.6074, 2.6733]
    assert [line.lr for line in log.train] == [0.01, 0.01, 0.001, 0.0001]


def test_legacy_evaluations(legacy):
    log = parse_log(legacy)
    assert [stats["currentIter"] for stats in log.evaluations] == [2, 4]
    assert [stats["test_err5"] for stats in log.evaluations] == [50.0, 100.0]
    assert log.evaluations[0]["train_loss"] == 2.966363310813904
    assert log.evaluations[0]["used_gpu_memory"] == "11171 MiB"


def test_legacy_single_lines(legacy):
    records = [record for line in legacy if (record := parse_line(line))]
    assert [r for r in records if isinstance(r, BestLine)] == [BestLine(100.0, 50.0)]
    assert [r for r in records if isinstance(r, FinishedLine)] == [
        FinishedLine(2, 500500, 100.0, 50.0, None, None), FinishedLine(4, 500500, 100.0, 100.0, None, None)]
    assert [r for r in records if isinstance(r, ClipsLine)] == [
        ClipsLine(0, 30, 1, 4, 2.756, "0:01:19", (0, 0)),
        ClipsLine(7, 30, 2, 4, 2.397, "0:00:49", (0, 1)),
        ClipsLine(29, 30, 4, 4, 1.769, "0:00:00", (3, 3)),
    ]


REPORT = {
    "empty_videos": 0, "corrupted_videos": 0, "max_clips": 30, "min_clips": 30,
    "clip1_accuracy": (25.0, 1, 4), "clip_accuracy": (24.17, 29, 120),
    "top1_accuracy": 25.0, "top5_accuracy": 50.0,
}


def test_legacy_report(legacy):
    assert parse_log(legacy).report == REPORT


@pytest.mark.parametrize("prefix", ["", "[INFO: test_net_video.py:   23]: ", "[INFO: a_b.py: 12345]: "])
def test_report_with_every_prefix(legacy, prefix):
    lines = [line.replace("INFO:test_net_video:", prefix) for line in legacy]
    assert parse_log(lines).report == REPORT
    assert sum(isinstance(parse_line(line), ClipsLine) for line in lines) == 3


def test_train_line_beyond_a_day_and_without_a_number():
    line = TRAIN.format("2 days, 7:33:20", 1e-5, 100000, 400000, 27.27, 0.6, float("nan"), 100, 7.8125)
    record = parse_line(line)
    assert record.eta == "2 days, 7:33:20"
    assert record.loss != record.loss
    assert (record.lr, record.top1, record.top5) == (1e-5, 100.0, 7.812)


def test_test_line_with_and_without_n_way():
    record = parse_line(TEST.format(10, 309, 0.5, 28.125, 26.5, 9.375, 8.25, 64, 640))
    assert (record.batch, record.batches, record.top1, record.top1_average) == (10, 309, 28.125, 26.5)
    assert (record.top5, record.top5_average, record.aggregated_batch) == (9.375, 8.25, 640)
    assert record.top1_n_way is None
    record = parse_line(TEST_N_WAY.format(10, 309, 0.5, 28.125, 26.5, 9.375, 8.25, 1, 2, 3, 4, 64, 640))
    assert (record.top1_n_way, record.top1_n_way_average) == (1.0, 2.0)
    assert (record.top5_n_way, record.top5_n_way_average, record.current_batch) == (3.0, 4.0, 64)


def test_n_way_best_and_finished():
    assert parse_line("* Best: top1_N_way:  26.250 top5_N_way:   8.000") == BestNWayLine(26.25, 8.0)
    line = "* Finished #iters [20|40]: top1: 26.250 top5: 8.000 top1_N_way: 1.500 top5_N_way: 0.500"
    assert parse_line(line) == FinishedLine(20, 40, 26.25, 8.0, 1.5, 0.5)


def test_truncated_lines_are_skipped(legacy):
    """They never give a wrong number, except for a cut within the count at the end of a line, which is invisible."""
    for line in legacy:
        whole = parse_line(line)
        if whole is None:
            continue
        ends_in_count = isinstance(whole, TestLine) or isinstance(getattr(whole, "value", None), int)
        for end in range(len(line.rstrip("0123456789")) if ends_in_count else len(line)):
            assert parse_line(line[:end]) is None, line[:end]


def test_two_lines_run_together_are_passed_over():
    half, whole = train_line(5)[:40], train_line(6)
    assert parse_line(half + whole) is None
    assert parse_line("Training with config: " + whole) is None


def test_log_records_about_training_are_no_training_lines():
    assert parse_line("[INFO: misc.py:   12]: " + train_line(5)) is None


@pytest.mark.parametrize("line", ["", "json_stats: []", "json_stats: {}", "json_stats: {1}",
                                  'json_stats: {"currentIter": "2"}', "\x00\ufffd| Train ETA: 0:00:01"])
def test_damaged_lines(line):
    assert parse_line(line) is None


def test_a_resumed_run_replaces_the_later_lines_of_the_killed_one():
    killed = [train_line(i, loss=1.0) for i in (10, 20, 30, 40)]
    killed.insert(2, stats_line(20, 60.0))
    killed.insert(4, stats_line(30, 55.0))
    killed.append(train_line(50)[:30])
    resumed = [train_line(30, loss=2.0), stats_line(30, 50.0), train_line(40, loss=2.0)]
    log = parse_log(killed + resumed)
    assert [(line.iteration, line.loss) for line in log.train] == [(10, 1), (20, 1), (30, 2), (40, 2)]
    errors = [(stats["currentIter"], stats["test_err"]) for stats in log.evaluations]
    assert errors == [(20, 60.0), (30, 50.0)]


def test_a_run_restarted_from_the_beginning_replaces_everything():
    log = parse_log([train_line(10), stats_line(10, 9.0), train_line(20), train_line(10, 3.0)])
    assert [(line.iteration, line.loss) for line in log.train] == [(10, 3.0)]
    assert log.evaluations == []


def test_the_finished_line_replaces_missing_stats():
    lines = [train_line(10), "* Finished #iters [10|100]: top1: 40.000 top5: 5.000", 'json_stats: {"test_e']
    assert parse_log(lines).evaluations == [{"currentIter": 10, "test_err": 40.0, "test_err5": 5.0}]


def test_read_log(tmp_path):
    path = tmp_path / "log.txt"
    path.write_bytes(b"\xff\xfe garbage\n" + train_line(7).encode() + b"\n")
    assert [line.iteration for line in read_log(path).train] == [7]
    with pytest.raises(UserError, match="missing.txt: cannot read this log"):
        read_log(tmp_path / "missing.txt")


def test_the_whole_legacy_log(shared):
    log = read_log(shared / "reference/end_to_end/log.txt")
    assert (len(log.train), len(log.evaluations)) == (4, 2)
    assert log.report == REPORT
