"""Reading training and test logs: this program's, and the released ones of the Caffe2 program.

One regular expression per kind of line. Train, test, best, finished and json_stats lines are bare; the lines of the
test tool are log records, with the prefix `[INFO: file.py:  123]: `, `INFO:module:` or none. Truncated, garbled and
unknown lines are skipped. Numbers are those of the log: errors in percent for training, accuracies in percent for the
test tool's report.
"""

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from utils.errors import UserError
from utils.files import StrPath


class TrainLine(NamedTuple):
    """`| Train ETA: ...`: one training batch."""

    eta: str
    lr: float
    iteration: int  # iterations done, counted from 1
    max_iter: int
    epoch: float
    time: float  # seconds of this step
    loss: float
    top1: float  # error in percent, as all errors here
    top5: float


class TestLine(NamedTuple):
    """`| Test: ...`: one validation batch, and running averages. The N-way fields are None if disabled."""

    batch: int
    batches: int
    time: float
    top1: float
    top1_average: float
    top5: float
    top5_average: float
    top1_n_way: float | None
    top1_n_way_average: float | None
    top5_n_way: float | None
    top5_n_way_average: float | None
    current_batch: int
    aggregated_batch: int


class BestLine(NamedTuple):
    """`* Best model: ...`, the lowest top-1 error so far and the top-5 error with it."""

    top1: float
    top5: float


class BestNWayLine(NamedTuple):
    """`* Best: ...`: the same among the first N classes."""

    top1_n_way: float
    top5_n_way: float


class FinishedLine(NamedTuple):
    """`* Finished #iters ...`: the errors of one complete evaluation."""

    iteration: int
    max_iter: int  # 500500 in every released log
    top1: float
    top5: float
    top1_n_way: float | None
    top5_n_way: float | None


class StatsLine(NamedTuple):
    """`json_stats: {...}`: measurements since the previous evaluation."""

    stats: dict[str, Any]


class ClipsLine(NamedTuple):
    """One batch of the test tool."""

    batch: int
    batches: int
    videos_seen: int
    videos: int
    time: float
    eta: str
    video_ids: tuple[int, ...]


class ReportLine(NamedTuple):
    """One line of the test tool's report."""

    key: str  # a key of REPORT_LINES
    value: object  # a count, a percentage, or a tuple (percentage, correct, total)


class FactLine(NamedTuple):
    """A line that describes the run."""

    key: str  # a key of FACT_LINES
    text: str


@dataclass
class Log:
    """The contents of the log of one run. Lines of a resumed run replace earlier ones of the same iterations."""

    train: list[TrainLine] = field(default_factory=list)  # iterations ascending
    evaluations: list[dict[str, Any]] = field(default_factory=list)  # keys as in json_stats, currentIter ascending
    report: dict[str, object] = field(default_factory=dict)  # key of REPORT_LINES -> value, of the last test
    batches: list[ClipsLine] = field(default_factory=list)  # of the last test, from its last start on
    facts: dict[str, str] = field(default_factory=dict)  # key of FACT_LINES -> text, the last of each


# Longer lines, and numbers of more digits, are damage: nothing may be made of them.
_LONGEST_LINE = 1 << 16
_COUNT = r"\d{1,18}"


# A number as str.format writes it with this many decimals; a truncated number does not match.
def _number(name, decimals):
    return rf" *(?P<{name}>-?\d{{1,40}}\.\d{{{decimals}}}|-?nan|-?inf)"


RECORD_PREFIX = r"(?:\[[A-Z]+: [^\]]+: +\d+\]: |[A-Z]+:[\w.]+:)?"
_DURATION = r"(?:-?\d+ days?, )?\d+:\d\d:\d\d"

TRAIN_LINE = re.compile(
    rf"\| Train ETA: (?P<eta>{_DURATION}) LR:{_number('lr', 8)}  "
    rf"Iters \[(?P<iteration>{_COUNT})/(?P<max_iter>{_COUNT})\] \[{_number('epoch', 2)}ep\]  "
    rf"Time{_number('time', 3)}  Loss{_number('loss', 4)}  top1{_number('top1', 3)} top5{_number('top5', 3)}"
)
TEST_LINE = re.compile(
    rf"\| Test: \[(?P<batch>{_COUNT})/(?P<batches>{_COUNT})\]  Time{_number('time', 3)}  "
    rf"top1{_number('top1', 3)} \({_number('top1_average', 3)}\)  "
    rf"top5{_number('top5', 3)} \({_number('top5_average', 3)}\)"
    rf"(?: top1_N_way{_number('top1_n_way', 3)} \({_number('top1_n_way_average', 3)}\)  "
    rf"top5_N_way{_number('top5_n_way', 3)} \({_number('top5_n_way_average', 3)}\))?"
    rf"  current batch (?P<current_batch>{_COUNT})  aggregated batch (?P<aggregated_batch>{_COUNT})"
)
BEST_LINE = re.compile(rf"\* Best model: top1:{_number('top1', 3)} top5:{_number('top5', 3)}")
BEST_N_WAY_LINE = re.compile(
    rf"\* Best: top1_N_way:{_number('top1_n_way', 3)} top5_N_way:{_number('top5_n_way', 3)}"
)
FINISHED_LINE = re.compile(
    rf"\* Finished #iters \[(?P<iteration>{_COUNT})\|(?P<max_iter>{_COUNT})\]: "
    rf"top1:{_number('top1', 3)} top5:{_number('top5', 3)}"
    rf"(?: top1_N_way:{_number('top1_n_way', 3)} top5_N_way:{_number('top5_n_way', 3)})?"
)
STATS_LINE = re.compile(r"json_stats: (?P<stats>\{.*\})")
CLIPS_LINE = re.compile(
    rf"{RECORD_PREFIX}(?P<batch>{_COUNT})/(?P<batches>{_COUNT}) iter "
    rf"\((?P<videos_seen>{_COUNT})/(?P<videos>{_COUNT}) videos\): "
    rf"Time:{_number('time', 3)} \(ETA: (?P<eta>{_DURATION})\)\. ID: \[(?P<video_ids>{_COUNT}(?:, {_COUNT})*)\]"
)
_PERCENT = _number("percent", 2)
_PERCENT_OF = rf"{_PERCENT} percent \((?P<correct>{_COUNT})/(?P<total>{_COUNT})\)"
REPORT_LINES = {
    "empty_videos": re.compile(rf"{RECORD_PREFIX}Num of empty videos: (?P<count>{_COUNT})"),
    "corrupted_videos": re.compile(rf"{RECORD_PREFIX}Num of corrupted videos: (?P<count>{_COUNT})"),
    "max_clips": re.compile(rf"{RECORD_PREFIX}Max num of clips in a video: (?P<count>{_COUNT})"),
    "min_clips": re.compile(rf"{RECORD_PREFIX}Min num of clips in a video: (?P<count>{_COUNT})"),
    "clip1_accuracy": re.compile(rf"{RECORD_PREFIX}Clip1 accuracy: {_PERCENT_OF}"),
    "clip_accuracy": re.compile(rf"{RECORD_PREFIX}Clip accuracy: {_PERCENT_OF}"),
    "top1_accuracy": re.compile(rf"{RECORD_PREFIX}top-1 accuracy: {_PERCENT} percent"),
    "top5_accuracy": re.compile(rf"{RECORD_PREFIX}top-5 accuracy: {_PERCENT} percent"),
}
FACT_LINES = {
    "machine": re.compile(rf"{RECORD_PREFIX}(?P<text>\d+ replicas? in .+)"),
    "network": re.compile(rf"{RECORD_PREFIX}-{{15}} (?P<text>ResNet-\d+ [^,]+),.* -{{15}}"),
    "flops": re.compile(rf"{RECORD_PREFIX}Total conv/fc/matMul FLOPs: (?P<text>[\d.]+)\(e9\)"),
    "parameters": re.compile(rf"{RECORD_PREFIX}Total conv/fc params: (?P<text>[\d.]+)\(e6\)"),
    "protocol": re.compile(rf"{RECORD_PREFIX}Test protocol: (?P<text>.+ \(SHA-256 [0-9a-f]+\))"),
}

LogLine = TrainLine | TestLine | BestLine | BestNWayLine | FinishedLine | StatsLine | ClipsLine | ReportLine | FactLine

_LINES_OF_NUMBERS: tuple[tuple[re.Pattern[str], Any], ...] = (
    (TRAIN_LINE, TrainLine),
    (TEST_LINE, TestLine),
    (BEST_LINE, BestLine),
    (BEST_N_WAY_LINE, BestNWayLine),
    (FINISHED_LINE, FinishedLine),
)


def parse_line(line: str) -> LogLine | None:
    """One line of a log as the NamedTuple of its kind; None if it is of no known kind or damaged."""
    line = line.rstrip()
    for pattern, kind in _LINES_OF_NUMBERS:
        if match := pattern.fullmatch(line):
            types = kind.__annotations__
            return kind(**{key: _convert(text, types[key]) for key, text in match.groupdict().items()})
    if match := STATS_LINE.fullmatch(line):
        return _parse_stats(match["stats"])
    if match := CLIPS_LINE.fullmatch(line):
        numbers = {key: int(match[key]) for key in ("batch", "batches", "videos_seen", "videos")}
        ids = tuple(int(word) for word in match["video_ids"].split(", "))
        return ClipsLine(**numbers, time=float(match["time"]), eta=match["eta"], video_ids=ids)
    return _parse_report_line(line) or _parse_fact_line(line)


def parse_log(lines: Iterable[str]) -> Log:
    """Parse the lines of a log.

    If the json_stats line of an evaluation is missing (the run was killed before it), its `Finished` line is used,
    which has no training averages.
    """
    log = Log()
    for line in lines:
        record = parse_line(line)
        if isinstance(record, TrainLine):
            _drop_from(log.train, record.iteration, lambda entry: entry.iteration)
            _drop_from(log.evaluations, record.iteration, lambda entry: entry["currentIter"])
            log.train.append(record)
        elif isinstance(record, FinishedLine):
            _add_evaluation(log, _stats_of_finished(record))
        elif isinstance(record, StatsLine):
            _add_evaluation(log, record.stats)
        elif isinstance(record, ReportLine):
            log.report[record.key] = record.value
        elif isinstance(record, ClipsLine):
            _drop_from(log.batches, record.batch, lambda entry: entry.batch)
            log.batches.append(record)
        elif isinstance(record, FactLine):
            log.facts[record.key] = record.text
    return log


def read_log(path: StrPath) -> Log:
    """parse_log of a file. Raises UserError if it cannot be read or contains no line of a log."""
    log = parse_log(log_lines(path))
    if not (log.train or log.evaluations or log.report or log.batches):
        raise UserError(f"{path}: expected a log with '| Train ETA: ...' or 'json_stats: ...' lines, found none")
    return log


def log_lines(path: StrPath) -> Iterator[str]:
    """The lines of a log, over-long ones in pieces. Raises UserError if it cannot be read."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            yield from iter(lambda: file.readline(_LONGEST_LINE), "")
    except OSError as error:
        raise UserError(f"{path}: cannot read this log: {error.strerror}") from error


def _convert(text, kind):
    if text is None:
        return None
    return float(text) if kind not in (int, str) else kind(text)


def _parse_stats(text):
    try:
        stats = json.loads(text)
    except (ValueError, RecursionError):
        return None
    iteration = stats.get("currentIter")
    return StatsLine(stats) if type(iteration) is int and re.fullmatch(_COUNT, str(iteration)) else None


def _parse_report_line(line):
    for key, pattern in REPORT_LINES.items():
        if match := pattern.fullmatch(line):
            found = match.groupdict()
            if "count" in found:
                return ReportLine(key, int(found["count"]))
            percent = float(found["percent"])
            if "correct" in found:
                return ReportLine(key, (percent, int(found["correct"]), int(found["total"])))
            return ReportLine(key, percent)
    return None


def _parse_fact_line(line):
    for key, pattern in FACT_LINES.items():
        if match := pattern.fullmatch(line):
            return FactLine(key, match["text"])
    return None


def _stats_of_finished(line):
    stats = {"currentIter": line.iteration, "test_err": line.top1, "test_err5": line.top5}
    if line.top1_n_way is not None:
        stats |= {"test_err_N_way": line.top1_n_way, "test_err5_N_way": line.top5_n_way}
    return stats


def _add_evaluation(log, stats):
    _drop_from(log.evaluations, stats["currentIter"], lambda entry: entry["currentIter"])
    log.evaluations.append(stats)


def _drop_from(entries, iteration, iteration_of):
    """Drop the entries from an iteration on: the run was killed and resumed before them."""
    while entries and iteration_of(entries[-1]) >= iteration:
        entries.pop()
