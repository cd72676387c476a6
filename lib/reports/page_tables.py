"""The tables of the page of a run, as rows for its template and data for its script."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from core.assignment import is_option
from core.defaults import OPTIONS
from reports.calibration import Reliability
from reports.class_report import ClassReport, class_rows
from reports.log_parser import Log
from reports.scored_videos import ScoredVideo
from utils.collections import value_at
from utils.visualize import as_label, evaluation_points

HARDEST, PAIRS = 12, 20  # rows


def hardest_classes(report: ClassReport, names: Sequence[str]) -> list[dict[str, Any]]:
    """The classes with the lowest accuracy, the lowest first: `row`, and `taken_for`, what their videos went to."""
    rows = [row for row in class_rows(report, names) if row.top1 is not None and row.top1 < 1]
    rows.sort(key=lambda row: (row.top1, row.top5, -row.videos))
    hardest = []
    for row in rows[:HARDEST]:
        counts = report.confusion[row.id].copy()
        counts[row.id] = 0
        others = [{"name": names[k], "videos": int(counts[k]), "share": float(counts[k] / row.videos)}
                  for k in np.argsort(-counts, kind="stable")[:4] if counts[k]]
        hardest.append({"row": row, "taken_for": others})
    return hardest


def confused_pairs(report: ClassReport, names: Sequence[str]) -> list[dict[str, Any]]:
    """The pairs of a true and another class that most videos fell to, the most first."""
    wrong = report.confusion - np.diag(report.confusion.diagonal())
    order = np.argsort(-wrong, axis=None, kind="stable")[:PAIRS]
    pairs = [divmod(int(cell), len(names)) for cell in order if wrong.flat[cell]]
    return [{"true": names[k], "other": names[other], "videos": int(wrong[k, other]),
             "share": wrong[k, other] / report.videos[k]} for k, other in pairs]


def confusion_data(report: ClassReport, names: Sequence[str]) -> dict[str, Any]:
    """The confusion matrix for the script: `cells` are the numbers that are not zero, row, column, number, ..."""
    cells = np.argwhere(report.confusion)
    numbers = report.confusion[report.confusion > 0]
    return {"names": list(names), "videos": report.videos.tolist(), "hits": report.top1.tolist(),
            "cells": np.column_stack([cells, numbers]).ravel().tolist()}


def calibration_rows(found: Reliability) -> list[dict[str, Any]]:
    """A row for each bin that has videos."""
    bins = len(found.counts)
    return [{"low": i / bins, "high": (i + 1) / bins, "videos": int(found.counts[i]),
             "confidence": float(found.confidence[i]), "accuracy": float(found.accuracy[i])}
            for i in range(bins) if found.counts[i]]


def video_card(video: ScoredVideo, path: str, names: Sequence[str]) -> dict[str, Any]:
    """What the page says of a video; `path` is its path in the list."""
    top = [{"name": names[k], "score": score, "right": k == video.label} for k, score in video.top]
    return {"path": as_label(path, longest=200), "file": as_label("/".join(path.split("/")[-2:])),
            "truth": names[video.label], "rank": video.rank, "score": video.score, "top": top}


def span(numbers: np.ndarray) -> str:
    """`3 to 8`, or `3` if all numbers are equal."""
    low, high = numbers.min(), numbers.max()
    return f"{low} to {high}" if low < high else str(low)


def evaluation_rows(log: Log) -> list[dict[str, Any]]:
    """A row for each evaluation: iteration, errors in percent of the val split and of the training up to it."""
    columns = {"val1": "test_err", "val5": "test_err5", "train1": "train_err", "train5": "train_err5",
               "loss": "train_loss"}
    values = {name: dict(evaluation_points(log, key)) for name, key in columns.items()}
    return [{"iteration": it, **{name: found.get(it) for name, found in values.items()}}
            for it in (stats["currentIter"] for stats in log.evaluations)]


def best_evaluation(log: Log) -> dict[str, Any] | None:
    """The row of the evaluation with the lowest top-1 error; of equal ones the first."""
    rows = [row for row in evaluation_rows(log) if row["val1"] is not None]
    return min(rows, key=lambda row: row["val1"], default=None)


def option_rows(options: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row for each option: key, value, default, meaning, whether value and default differ. Unknown ones differ."""
    rows = []
    for key, value in options.items():
        declared = value_at(OPTIONS, key) if is_option(key) else None
        rows.append({"key": key, "value": repr(value), "default": repr(declared.default) if declared else "",
                     "help": declared.help if declared else "", "changed": not declared or value != declared.default})
    return rows


def differing_options(options: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A row for each option in which runs differ, except their folders: key, and the value in each run, or ''."""
    keys = dict.fromkeys(key for one in options for key in one)
    rows = [{"key": key, "values": [repr(one[key]) if key in one else "" for one in options]}
            for key in keys if key != "CHECKPOINT.DIR"]
    return [row for row in rows if len(set(row["values"])) > 1]
