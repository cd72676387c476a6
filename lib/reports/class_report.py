"""Test results by class."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from data.lists import VideoList
from reports.video_scores import rank_classes
from utils.errors import UserError
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


def check_class_count(path: StrPath, scores: np.ndarray) -> None:
    """Raise UserError if the scores (clips, K) of a file are of too many classes for a report."""
    if scores.shape[1] > MOST_CLASSES:
        raise UserError(f"{path}: expected scores of at most {MOST_CLASSES} classes, got {scores.shape[1]}")


def true_classes(truth: VideoList, scores_file: StrPath, video_ids: np.ndarray, num_classes: int) -> np.ndarray:
    """(videos,) classes of the videos in a list. Raises UserError if they do not fit the scores of a file."""
    labels = np.array([truth.label(i) for i in range(len(truth))])
    if not (video_ids.min() >= 0 and video_ids.max() < len(labels)):
        raise UserError(f"{scores_file}: expected video indices 0 to {len(labels) - 1}, as {truth.name} has "
                        f"{len(labels)} lines, got {video_ids.min()} to {video_ids.max()}")
    outside = np.flatnonzero((labels < 0) | (labels >= num_classes))
    if len(outside):
        raise UserError(f"{truth.name}:{outside[0] + 1}: expected a label in 0..{num_classes - 1}, the classes of "
                        f"{scores_file}, got {labels[outside[0]]}")
    return labels


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


@dataclass(frozen=True)
class ClassRow:
    """A class in a report.

    Attributes:
        id, name: of the class.
        videos, empty: how many, and how many of them without a clip.
        top1, top5: accuracies as fractions; None without videos.
        other: name of the wrong class that most videos were assigned to; empty if there is none.
        wrong: how many were.
    """

    id: int
    name: str
    videos: int
    empty: int
    top1: float | None
    top5: float | None
    other: str
    wrong: int


def class_rows(report: ClassReport, names: Sequence[str]) -> list[ClassRow]:
    """A row for each class, by id."""
    rows = []
    for k, other in enumerate(report.most_confused):
        videos, wrong = int(report.videos[k]), int(report.confusion[k, other]) if other != k else 0
        top1, top5 = (float(hits[k] / videos) if videos else None for hits in (report.top1, report.top5))
        rows.append(ClassRow(k, names[k], videos, int(report.empty[k]), top1, top5, names[other] if wrong else "",
                             wrong))
    return rows


def write_class_table(path: StrPath, report: ClassReport, names: Sequence[str]) -> None:
    """Write a CSV with a line per class: accuracies in percent, and the wrong class that most videos were assigned to.

    The accuracies of a class without videos are empty, and so is the wrong class if there is none.

    Raises:
        UserError: the file cannot be written.
    """
    with atomic_write(path, "w", encoding="utf-8", errors="backslashreplace", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["id", "class", "videos", "empty", "top1", "top5", "confused_with", "confused_videos"])
        for row in class_rows(report, names):
            shares = ["" if share is None else f"{100 * share:.2f}" for share in (row.top1, row.top5)]
            writer.writerow([row.id, row.name, row.videos, row.empty, *shares, row.other, row.wrong or ""])
