"""Pictures of what a run did: the training curves of logs, and what a test confused."""

import math
from pathlib import Path

import matplotlib
import numpy as np

from utils.errors import UserError
from utils.files import atomic_write

matplotlib.use("Agg")  # files only: no display is needed

from matplotlib import pyplot as plt  # noqa: E402
from matplotlib.colors import PowerNorm  # noqa: E402
from matplotlib.lines import Line2D  # noqa: E402
from matplotlib.ticker import MaxNLocator  # noqa: E402

# Training lines are single batches; their curve is the mean over this share of the whole run.
SMOOTHING_SHARE = 0.05


def log_names(paths):
    """A short name for each log file: the stem, or the folder's for a `log.txt`; else the path."""
    paths = [Path(path) for path in paths]
    names = [path.resolve().parent.name if path.stem == "log" else path.stem for path in paths]
    return [str(path) if names.count(name) > 1 else name for name, path in zip(names, paths, strict=True)]


def smooth(values, window):
    """Running mean of a one-dimensional array over `window` values ending at each; shorter at the start."""
    values = np.asarray(values, dtype=np.float64)
    sums = np.concatenate([[0], np.cumsum(values)])
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(ends - window, 0)
    return (sums[ends] - sums[starts]) / (ends - starts)


def plot_logs(logs, output):
    """Draw loss, top-1 error and top-5 error over the iterations into a PNG file, as figure 4 of the paper does.

    Dashed lines are training (a running mean over the log's training lines, the lines themselves faintly
    behind), solid ones with dots validation. Logs hold no validation loss: the first panel is training's.

    Args:
        logs: {name: reports.log_parser.Log}; every log has one colour.
        output: path of the PNG; appears only when it is whole.

    Raises:
        UserError: a log has neither training nor evaluation lines, or the picture cannot be written.
    """
    for name, log in logs.items():
        if not log.train and not log.evaluations:
            raise UserError(f"{name}: expected '| Train ETA: ...' or 'json_stats: ...' lines, found none")
    figure, (loss, top1, top5) = plt.subplots(1, 3, figsize=(15, 4.8), layout="constrained")
    try:
        _label(loss, "Training loss", "loss")
        _label(top1, "Top-1 error", "error (%)")
        _label(top5, "Top-5 error", "error (%)")
        handles = []
        for number, (name, log) in enumerate(logs.items()):
            color = f"C{number}"
            _draw_training(loss, log, "loss", color)
            _draw_training(top1, log, "top1", color)
            _draw_training(top5, log, "top5", color)
            _draw_validation(top1, log, "test_err", color)
            _draw_validation(top5, log, "test_err5", color)
            handles.append(Line2D([], [], color=color, label=name))
        loss.set_ylim(bottom=0)
        top1.set_ylim(0, 105)
        top5.set_ylim(0, 105)
        handles.append(Line2D([], [], color="0.3", linestyle="--", label="training"))
        handles.append(Line2D([], [], color="0.3", marker="o", markersize=4, label="validation"))
        figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 4), frameon=False)
        with atomic_write(output) as file:
            figure.savefig(file, format="png", dpi=120)
    finally:
        plt.close(figure)


def _label(axes, title, ylabel):
    axes.set_title(title)
    axes.set_xlabel("iterations")
    axes.set_ylabel(ylabel)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)


def _draw_training(axes, log, field, color):
    points = [(line.iteration, getattr(line, field)) for line in log.train]
    points = [(iteration, value) for iteration, value in points if math.isfinite(value)]
    if points:
        iterations, values = zip(*points, strict=True)
        window = max(1, round(SMOOTHING_SHARE * len(values)))
        axes.plot(iterations, values, color=color, alpha=0.15, linewidth=0.8)
        axes.plot(iterations, smooth(values, window), color=color, linestyle="--", linewidth=1.4)


def _draw_validation(axes, log, key, color):
    points = [(stats["currentIter"], stats[key]) for stats in log.evaluations if key in stats]
    if points:
        axes.plot(*zip(*points, strict=True), color=color, marker="o", markersize=4, linewidth=1.6)


# Up to so many classes, every cell of a confusion matrix has room for a number.
MOST_NUMBERED_CLASSES = 30


def plot_confusion(confusion, names, output):
    """Draw which class the videos of each class went to into a PNG file.

    Every row and column has its name, however many there are: the picture grows with them.

    Args:
        confusion: (K, K) numbers of videos, by true class and by class of the highest score.
        names: K names of the classes.
        output: path of the PNG; appears only when it is whole.

    Raises:
        UserError: the picture cannot be written.
    """
    classes, totals = len(names), confusion.sum(1, keepdims=True)
    shares = confusion / np.maximum(totals, 1)
    numbered = classes <= MOST_NUMBERED_CLASSES
    cell, font = (0.55, 10) if numbered else (0.075, 4.5)  # inches, points
    names = [f"{name[:39]}\u2026" if len(name) > 40 else name for name in names]
    margin = max(map(len, names)) * 0.6 * font / 72 + 0.6
    inside = max(classes * cell, 2.5)
    side = margin + inside + 0.4
    figure = plt.figure(figsize=(side, side))
    try:
        axes = figure.add_axes([margin / side, margin / side, inside / side, inside / side])
        # The square root, so that single videos among hundreds show.
        axes.imshow(shares, cmap="Blues", norm=PowerNorm(0.5, 0, 1), interpolation="nearest")
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
            figure.savefig(file, format="png", dpi=150)
    finally:
        plt.close(figure)
