"""Plots: training curves from logs, and confusion matrices."""

import math
import os
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import matplotlib
import numpy as np
from numpy.typing import ArrayLike

from utils.errors import UserError
from utils.files import StrPath, atomic_write

matplotlib.use("Agg")  # writes files only, needs no display
matplotlib.rcParams["text.parse_math"] = False  # a $ in a name begins no formula
warnings.filterwarnings("ignore", "Glyph .* missing from font")  # a box stands for it

from matplotlib import pyplot as plt  # noqa: E402
from matplotlib.axes import Axes  # noqa: E402
from matplotlib.colors import PowerNorm  # noqa: E402
from matplotlib.lines import Line2D  # noqa: E402
from matplotlib.ticker import MaxNLocator  # noqa: E402


class RunLog(Protocol):
    """The part of a reports.log_parser.Log that is plotted."""

    @property
    def train(self) -> Sequence[Any]: ...

    @property
    def evaluations(self) -> Sequence[Mapping[str, Any]]: ...


# Field of the training lines -> key of the json_stats.
EVALUATION_KEYS = {"top1": "test_err", "top5": "test_err5"}

# Training lines are of single batches; their curve is a running mean over this fraction of the run.
SMOOTHING_SHARE = 0.05


def as_label(name: str, longest: int = 60) -> str:
    """A name, of a file perhaps, as text that can be drawn: shortened, and what is no text escaped."""
    name = name.encode("utf-8", "backslashreplace").decode()
    return name if len(name) <= longest else f"{name[:longest - 1]}\u2026"


def log_names(paths: Iterable[StrPath]) -> list[str]:
    """A short name for each log file: its stem, or the folder name for a `log.txt`; the path if that is ambiguous."""
    files = [Path(path) for path in paths]
    names = [Path(os.path.abspath(path)).parent.name if path.stem == "log" else path.stem for path in files]
    return [str(path) if names.count(name) > 1 else name for name, path in zip(names, files, strict=True)]


def smooth(values: ArrayLike, window: int) -> np.ndarray:
    """Running mean of a one-dimensional array over the last `window` values, or fewer at the start."""
    values = np.asarray(values, dtype=np.float64)
    sums = np.concatenate([[0], np.cumsum(values)])
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(ends - window, 0)
    return (sums[ends] - sums[starts]) / (ends - starts)


def plot_logs(logs: Mapping[str, RunLog], output: StrPath) -> None:
    """Plot loss, top-1 error and top-5 error over the iterations as a PNG file, like figure 4 of the paper.

    Where the top-5 error is always 0, as with five classes or fewer, there is no panel of it.

    Dashed lines are training (a running mean over the training lines, with the raw values drawn faintly behind it),
    solid lines with dots are validation. Logs contain no validation loss, so the first panel shows only training.

    Args:
        logs: name -> parsed log; each log has its own colour.
        output: path of the PNG, written atomically.

    Raises:
        UserError: a log has neither training nor evaluation lines, or the PNG cannot be written.
    """
    for name, log in logs.items():
        if not log.train and not log.evaluations:
            raise UserError(f"{name}: expected '| Train ETA: ...' or 'json_stats: ...' lines, found none")
    errors = [1, 5] if any(has_top5_errors(log) for log in logs.values()) else [1]
    panels = 1 + len(errors)
    figure, (loss, *of_errors) = plt.subplots(1, panels, figsize=(5 * panels, 4.8), layout="constrained")
    try:
        handles = []
        _label(loss, "Training loss", "loss")
        for number, (name, log) in enumerate(logs.items()):
            _draw_training(loss, log, "loss", f"C{number}")
            handles.append(Line2D([], [], color=f"C{number}", label=as_label(name)))
        loss.set_ylim(bottom=0)
        for axes, k in zip(of_errors, errors, strict=True):
            _label(axes, f"Top-{k} error", "error (%)")
            for number, log in enumerate(logs.values()):
                _draw_training(axes, log, f"top{k}", f"C{number}")
                _draw_validation(axes, log, EVALUATION_KEYS[f"top{k}"], f"C{number}")
            axes.set_ylim(0, 105)
        handles.append(Line2D([], [], color="0.3", linestyle="--", label="training"))
        handles.append(Line2D([], [], color="0.3", marker="o", markersize=4, label="validation"))
        figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 4), frameon=False)
        with atomic_write(output) as file:
            figure.savefig(file, format="png", dpi=120)
    finally:
        plt.close(figure)


def _label(axes: Axes, title: str, ylabel: str) -> None:
    axes.set_title(title)
    axes.set_xlabel("iterations")
    axes.set_ylabel(ylabel)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)


def training_points(log: RunLog, field: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A field of the training lines: iterations, values, and their running mean; lines without a number left out."""
    points = [(line.iteration, getattr(line, field)) for line in log.train]
    points = [(iteration, value) for iteration, value in points if math.isfinite(value)]
    iterations, values = np.array([it for it, _ in points], np.int64), np.array([value for _, value in points])
    return iterations, values, smooth(values, max(1, round(SMOOTHING_SHARE * len(values))))


def evaluation_points(log: RunLog, key: str) -> list[tuple[int, float]]:
    """(iteration, value) of a key of the json_stats; those that are no number that fits into a picture left out."""
    return [(stats["currentIter"], stats[key]) for stats in log.evaluations if _can_be_drawn(stats.get(key))]


def has_top5_errors(log: RunLog) -> bool:
    """Whether a log has a top-5 error other than 0."""
    return any(training_points(log, "top5")[1]) or any(
        value for _, value in evaluation_points(log, EVALUATION_KEYS["top5"]))


def _draw_training(axes: Axes, log: RunLog, field: str, color: str) -> None:
    iterations, values, means = training_points(log, field)
    if len(values):
        axes.plot(iterations, values, color=color, alpha=0.15, linewidth=0.8)
        axes.plot(iterations, means, color=color, linestyle="--", linewidth=1.4)


def _draw_validation(axes: Axes, log: RunLog, key: str, color: str) -> None:
    if points := evaluation_points(log, key):
        axes.plot(*zip(*points, strict=True), color=color, marker="o", markersize=4, linewidth=1.6)


def _can_be_drawn(value: Any) -> bool:
    """Whether a value of a json_stats line, which can be anything, is a number that fits into a picture."""
    return type(value) in (int, float) and abs(value) < 1e40


# Up to so many classes, the cells of a confusion matrix are large enough for a number, and there is a name to each.
MOST_NUMBERED_CLASSES = 30
MOST_NAMED_CLASSES = 1000
_DOTS = 150  # an inch


def plot_confusion(confusion: np.ndarray, names: Sequence[str], output: StrPath) -> None:
    """Plot a confusion matrix as a PNG file.

    Every row and column is labelled; the picture grows with the number of classes. Beyond MOST_NAMED_CLASSES each
    is a pixel.

    Args:
        confusion: (K, K) numbers of videos, by true class and by class of the highest score.
        names: names of the K classes.
        output: path of the PNG, written atomically.

    Raises:
        UserError: the PNG cannot be written.
    """
    classes, totals = len(names), confusion.sum(1, keepdims=True)
    shares = confusion / np.maximum(totals, 1)
    numbered = classes <= MOST_NUMBERED_CLASSES
    cell, font = (0.55, 10) if numbered else (0.075, 4.5)  # inches, points
    if classes > MOST_NAMED_CLASSES:
        cell = 1 / _DOTS  # a pixel
    names = [as_label(name, longest=40) for name in names]
    margin = max(map(len, names)) * 0.6 * font / 72 + 0.6
    inside = max(classes * cell, 2.5)
    side = margin + inside + 0.4
    figure = plt.figure(figsize=(side, side))
    try:
        axes = figure.add_axes((margin / side, margin / side, inside / side, inside / side))
        # Square root scale, so that single videos among hundreds are visible. (imshow would take ten times the memory.)
        edges = np.arange(classes + 1) - 0.5
        axes.pcolormesh(edges, edges, shares, cmap="Blues", norm=PowerNorm(0.5, 0, 1))
        axes.invert_yaxis()
        if classes <= MOST_NAMED_CLASSES:
            axes.set_xticks(range(classes), names, rotation=90, fontsize=font)
            axes.set_yticks(range(classes), names, fontsize=font)
        axes.tick_params(length=0 if not numbered else 3, pad=1 if not numbered else 3)
        axes.set_xlabel("class of the highest score")
        axes.set_ylabel("true class")
        axes.set_title("Percent of each class's videos" if numbered else "Share of each class's videos")
        if numbered:
            for row, column in zip(*np.nonzero(confusion), strict=True):
                share = shares[row, column]
                axes.text(column, row, f"{100 * share:.0f}", ha="center", va="center", fontsize=font,
                          color="white" if share > 0.4 else "black")
        with atomic_write(output) as file:
            figure.savefig(file, format="png", dpi=_DOTS)
    finally:
        plt.close(figure)
