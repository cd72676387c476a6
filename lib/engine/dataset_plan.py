"""The options that follow from the lists of a data set: classes, numbers of videos, where the data are."""

import logging
import os
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np

from data.lists import VideoList, read_list
from data.records import label_problem
from data.sources import locate
from utils.collections import AttrDict
from utils.errors import UserError

logger = logging.getLogger(__name__)

_SHOWN = 5  # classes in a line


def options_of_lists(cfg: AttrDict, train_list: str, test_list: str, given: Collection[str]) -> dict[str, Any]:
    """The options that two lists of `path label` lines determine.

    Classes without a training video are logged, and so is what the splits of a training still lack.

    Args:
        cfg: configuration of the training.
        train_list, test_list: paths of the lists.
        given: keys of options that are known already: those are not among the result, and labels must go with
            MODEL.NUM_CLASSES.

    Returns:
        {dotted key: value} with absolute paths: MODEL.NUM_CLASSES (the largest label and one), TRAIN.DATASET_SIZE,
        TEST.DATASET_SIZE, DATADIR (the folder of train_list), FILENAME_GT (test_list), DATASET (the folder's name).

    Raises:
        UserError: a list that cannot be read; a label that is negative or too large.
    """
    lists = [read_list(train_list), read_list(test_list)]
    labels = [np.array([videos.label(line) for line in range(len(videos))]) for videos in lists]
    classes = cfg.MODEL.NUM_CLASSES if "MODEL.NUM_CLASSES" in given else None
    for videos, of_list in zip(lists, labels, strict=True):
        _check_labels(videos, of_list, classes)
    if classes is None:
        classes = _count_classes(lists, labels)
    _warn_of_classes_without_videos(train_list, labels[0], classes)
    folder = os.path.dirname(os.path.abspath(train_list))
    options = {
        "MODEL.NUM_CLASSES": classes,
        "TRAIN.DATASET_SIZE": len(lists[0]),
        "TEST.DATASET_SIZE": len(lists[1]),
        "DATASET": Path(folder).name,
        "DATADIR": folder,
        "FILENAME_GT": os.path.abspath(test_list),
    }
    return {key: value for key, value in options.items() if key not in given}


def warn_of_missing_splits(cfg: AttrDict) -> None:
    """Log what a training with its test would not find in DATADIR."""
    for split in (cfg.TRAIN.DATA_TYPE, cfg.TEST.DATA_TYPE, "test"):
        try:
            locate(cfg.DATADIR, split)
        except UserError as error:
            logger.warning("Still needed: %s", error)


def _check_labels(videos: VideoList, labels: np.ndarray, classes: int | None) -> None:
    wrong = np.flatnonzero((labels < 0) | (labels >= (np.inf if classes is None else classes)))
    if len(wrong):
        of = "" if classes is None else f" (MODEL.NUM_CLASSES {classes})"
        raise UserError(f"{videos.name}:{wrong[0] + 1}: {label_problem(int(labels[wrong[0]]), classes)}{of}")


def _count_classes(lists: list[VideoList], labels: list[np.ndarray]) -> int:
    """The largest label and one. Raises UserError if that can only be a mistake: most classes would have no video."""
    largest = max(range(2), key=lambda i: labels[i].max())
    classes, with_videos = int(labels[largest].max()) + 1, len(np.unique(labels[0]))
    if classes > 2 * with_videos:
        line = int(labels[largest].argmax()) + 1
        raise UserError(f"{lists[largest].name}:{line}: the label {classes - 1} makes {classes} classes, but there are "
                        f"training videos of {with_videos}: expected labels 0, 1, 2, ... without large gaps, or "
                        "MODEL.NUM_CLASSES among the KEY VALUE words")
    return classes


def _warn_of_classes_without_videos(train_list: str, labels: np.ndarray, classes: int) -> None:
    empty = np.flatnonzero(np.bincount(labels, minlength=classes) == 0)
    if len(empty):
        shown = ", ".join(map(str, empty[:_SHOWN])) + (", ..." if len(empty) > _SHOWN else "")
        logger.warning("%s: no video of %d of the classes 0 to %d: %s", train_list, len(empty), classes - 1, shown)
