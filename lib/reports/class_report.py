"""Test results by class."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from reports.video_scores import rank_classes
from utils.files import StrPath, atomic_write

MOST_CLASSES = 2000  # of a report: its table of confusions grows with their square


@dataclass(frozen=True)
class ClassReport:
    """Numbers of videos by true class. Videos without a clip count as wrong."""

    videos: np.ndarray  # (K,) all videos
    empty: np.ndarray  # (K,) videos without a clip
    top1: np.ndarray  # (K,) with the true class first
    top5: np.ndarray  # (K,) with the true class among the top five
    confusion: np.ndarray  # (K, K) by true class and class of the highest score; only videos with a clip

    @property
    def most_confused(self) -> np.ndarray:
        """(K,) the wrong class that most videos of each class were assigned to; ties go to the lower class."""
        return (self.confusion - np.diag(self.confusion.diagonal())).argmax(1)


def count_by_class(video_ids: np.ndarray, scores: np.ndarray, labels: ArrayLike) -> ClassReport:
    """Count by class; arguments as in video_scores.score_videos. Labels must be in 0..K-1."""
    labels, classes = np.asarray(labels), scores.shape[1]
    counts, ranking = rank_classes(video_ids, scores, len(labels))
    hits = (ranking == labels[:, None]) & (counts > 0)[:, None]
    confusion = np.zeros((classes, classes), np.int64)
    np.add.at(confusion, (labels[counts > 0], ranking[counts > 0, 0]), 1)

    def by_class(chosen: np.ndarray) -> np.ndarray:
        return np.bincount(labels[chosen], minlength=classes)

    return ClassReport(by_class(counts >= 0), by_class(counts == 0), by_class(hits[:, 0]), by_class(hits.any(1)),
                       confusion)


def write_class_table(path: StrPath, report: ClassReport, names: Sequence[str]) -> None:
    """Write a CSV with a line per class: accuracies in percent, and the wrong class that most videos were assigned to.

    The accuracies of a class without videos are empty, and so is the wrong class if there is none.

    Raises:
        UserError: the file cannot be written.
    """
    with atomic_write(path, "w", encoding="utf-8", errors="backslashreplace", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["id", "class", "videos", "empty", "top1", "top5", "confused_with", "confused_videos"])
        for k, other in enumerate(report.most_confused):
            videos, wrong = int(report.videos[k]), int(report.confusion[k, other]) if other != k else 0
            shares = [f"{100 * hits[k] / videos:.2f}" if videos else "" for hits in (report.top1, report.top5)]
            writer.writerow([k, names[k], videos, int(report.empty[k]), *shares,
                             *((names[other], wrong) if wrong else ("", ""))])
