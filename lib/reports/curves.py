"""The curves of a run's log, thinned for a page."""

from typing import Any

import numpy as np

from reports.log_parser import Log
from utils.visualize import EVALUATION_KEYS, evaluation_points, has_top5_errors, training_points

POINTS = 400  # of a curve; more are not to be seen
TRAINING = ("loss", "top1", "top5", "lr", "time")  # fields of training lines


def curves(log: Log) -> dict[str, Any]:
    """{curve: {"train": {"x", "mean", "low", "high"}, "val": {"x", "y"}}}, each a list; what a log lacks is left out,
    and so are top-5 errors that are always 0, as with five classes.

    Training lines are of single batches: `mean` is a running mean over them, `low` and `high` bound what lies between
    a point and the one before it.
    """
    found: dict[str, Any] = {}
    for name in TRAINING:
        iterations, values, means = training_points(log, name)
        if len(values):
            found.setdefault(name, {})["train"] = _thinned(iterations, values, means)
    for name, key in EVALUATION_KEYS.items():
        if points := evaluation_points(log, key):
            keep = np.unique(np.linspace(0, len(points) - 1, POINTS).round().astype(int))
            x, y = zip(*(points[i] for i in keep), strict=True)
            found.setdefault(name, {})["val"] = {"x": list(x), "y": [_short(value) for value in y]}
    if not has_top5_errors(log):
        found.pop("top5", None)
    return found


def _thinned(iterations, values, means):
    ends = np.unique(np.linspace(0, len(values), min(POINTS, len(values)) + 1).round().astype(int))
    starts, last = ends[:-1], ends[1:] - 1
    return {"x": iterations[last].tolist(), "mean": list(map(_short, means[last])),
            "low": list(map(_short, np.minimum.reduceat(values, starts))),
            "high": list(map(_short, np.maximum.reduceat(values, starts)))}


def _short(value: float) -> float:
    """A number with the digits that are to be seen."""
    return float(f"{value:.5g}")
