"""A picture of what happens in a long video, and when."""

from collections.abc import Sequence

import matplotlib
import numpy as np

from reports.window_tables import clock_time
from utils.files import StrPath, atomic_write
from utils.visualize import as_label

matplotlib.use("Agg")  # files only: no display is needed

from matplotlib import pyplot as plt  # noqa: E402
from matplotlib.colors import PowerNorm  # noqa: E402
from matplotlib.ticker import FixedLocator, FuncFormatter  # noqa: E402

MOST_COLUMNS = 1000  # of the picture: about as many as it has pixels
MOST_CLASSES, FEWEST_CLASSES = 12, 4  # rows
_TICKS = [0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 10800, 21600, 43200]  # seconds
_MOST_TICKS = 12
_HIGHLIGHT = "#c8500a"


class Timeline:
    """Class probabilities over time, of any number of windows: neighbours are averaged as soon as there are too many.

    Memory: 2 * MOST_COLUMNS rows of as many numbers as there are classes.
    """

    def __init__(self) -> None:
        self._edges = [0.0]
        self._columns: list[np.ndarray] = []  # sums of _share windows each
        self._share = 1
        self._sum: np.ndarray | None = None  # of the windows that make no whole column yet
        self._in_sum = self._windows = 0
        self._end = 0.0

    def add(self, end: float, probabilities: np.ndarray) -> None:
        """Add the next window, which ends at `end` seconds: (K,) probabilities."""
        self._windows += 1
        self._end, self._in_sum = end, self._in_sum + 1
        self._sum = probabilities.astype(np.float32) if self._sum is None else self._sum + probabilities
        if self._in_sum < self._share:
            return
        self._columns.append(self._sum)
        self._edges.append(end)
        self._sum, self._in_sum = None, 0
        if len(self._columns) == 2 * MOST_COLUMNS:
            self._columns = [a + b for a, b in zip(self._columns[::2], self._columns[1::2], strict=True)]
            self._edges, self._share = self._edges[::2], 2 * self._share

    def columns(self) -> tuple[np.ndarray, np.ndarray]:
        """(edges in seconds (n + 1,), mean probabilities (n, K)) of the n columns, at most 2 * MOST_COLUMNS."""
        columns, edges = [column / self._share for column in self._columns], list(self._edges)
        if self._sum is not None:
            columns.append(self._sum / self._in_sum)
            edges.append(self._end)
        return np.array(edges), np.array(columns)

    def __len__(self) -> int:
        """Number of windows so far."""
        return self._windows

    def draw(self, output: StrPath, names: Sequence[str] | None, title: str) -> None:
        """Write a PNG: a row for each of the main classes, dark where it is probable, and a curve of the highest one.

        Args:
            output: the file, written atomically.
            names: of the K classes; None: they are shown by number.
            title: line over the picture.

        Raises UserError if the PNG cannot be written.
        """
        edges, columns = self.columns()
        classes, on_top = main_classes(columns)
        figure, (curve, rows) = plt.subplots(
            2, 1, sharex=True, layout="constrained", figsize=(13, 2.6 + 0.34 * len(classes)),
            gridspec_kw={"height_ratios": [1.2, 0.34 * len(classes)]})
        try:
            _draw_highest(curve, edges, columns.max(1))
            curve.set_title(as_label(title, longest=150), fontsize=11)
            # Square root scale, so that what is improbable can be told from what is not there.
            mesh = rows.pcolormesh(edges, np.arange(len(classes) + 1) - 0.5, columns[:, classes].T, cmap="Blues",
                                   norm=PowerNorm(0.5, 0, 1))
            labels = [as_label(names[i], longest=40) if names else f"class {i}" for i in classes]
            rows.set_yticks(range(len(classes)), labels)
            rows.set_ylim(len(classes) - 0.5, -0.5)
            rows.hlines(np.arange(1, len(classes)) - 0.5, edges[0], edges[-1], color="0.8", linewidth=0.6)
            rows.set_xlim(edges[0], edges[-1])
            rows.xaxis.set_major_locator(FixedLocator(tick_places(edges[-1])))
            rows.xaxis.set_major_formatter(FuncFormatter(lambda seconds, _: clock_time(seconds)))
            rows.grid(axis="x", color="0.8", linewidth=0.6)
            rows.set_xlabel(self._about(len(classes), on_top))
            bar = figure.colorbar(mesh, ax=[curve, rows], fraction=0.015, pad=0.01, label="probability")
            bar.set_ticks([0, 0.05, 0.2, 0.5, 1])
            with atomic_write(output) as file:
                figure.savefig(file, format="png", dpi=120)
        finally:
            plt.close(figure)

    def _about(self, classes, on_top):
        parts = [f"{self._windows} window{'s' if self._windows > 1 else ''}"]
        if self._share > 1:
            parts.append(f"a column is the mean of {self._share}")
        if on_top > classes:
            parts.append(f"{classes} of the {on_top} classes that are the most probable at some time")
        return "; ".join(parts)


def _draw_highest(axes, edges, highest):
    """The curve of the highest probability; where it has very many steps, its running mean in front of it."""
    many = len(highest) > 200
    axes.stairs(highest, edges, color=_HIGHLIGHT, linewidth=0.6 if many else 1.4, alpha=0.4 if many else 1,
                baseline=None)
    if many:
        window = np.ones(len(highest) // 50)
        mean = np.convolve(highest, window, "same") / np.convolve(np.ones(len(highest)), window, "same")
        axes.plot((edges[1:] + edges[:-1]) / 2, mean, color=_HIGHLIGHT, linewidth=1.6)
    axes.set_ylim(0, 1.05)
    axes.set_yticks([0, 0.5, 1])
    axes.set_ylabel("highest\nprobability")
    axes.grid(alpha=0.3)


def main_classes(columns: np.ndarray) -> tuple[list[int], int]:
    """Which classes to draw, of (n, K) probabilities: those that are the highest for longest, and at least a few.

    Returns them in the order of the time at which each is most probable, and how many classes are the highest ever.
    """
    first = np.bincount(columns.argmax(1), minlength=columns.shape[1])
    order = np.lexsort((-columns.mean(0), -first))
    on_top = np.count_nonzero(first)
    count = min(max(on_top, FEWEST_CLASSES), MOST_CLASSES, columns.shape[1])
    return sorted(order[:count].tolist(), key=lambda i: (int(columns[:, i].argmax()), i)), on_top


def tick_places(length: float) -> list[float]:
    """Round times, from 0 to a length in seconds, few enough to be read."""
    step = next((step for step in _TICKS if length / step <= _MOST_TICKS), length / _MOST_TICKS)
    return [i * step for i in range(int(length / step) + 1)]
