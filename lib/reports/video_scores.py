"""Accuracy over videos, from the scores of their clips (paper section 5.1: scores are averaged over the clips)."""

import logging
import operator
import os
import pickle
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from formats.caffe2_pickle import load
from formats.result_file import SCORED, TODO, is_result_file, open_result_file, verified_status
from utils.errors import UserError
from utils.files import StrPath, atomic_write

logger = logging.getLogger(__name__)

ITEMS_PER_APPEND = 1000


@dataclass(frozen=True)
class Report:
    """Test results: clips per video, and accuracies as fractions."""

    clips_per_video: np.ndarray  # (videos,)
    expected_clips: int
    clip1_correct: int
    clip1_total: int
    clip_correct: int
    clip_total: int
    top1: float
    top5: float

    def log(self) -> None:
        """Log the report, in the lines of legacy."""
        counts = self.clips_per_video
        for video in np.flatnonzero(counts != self.expected_clips):
            logger.warning("Id: %d count: %d", video, counts[video])
        logger.info("Num of empty videos: %d", (counts == 0).sum())
        logger.info("Num of corrupted videos: %d", (counts != self.expected_clips).sum())
        logger.info("Max num of clips in a video: %d", counts.max(initial=0))
        logger.info("Min num of clips in a video: %d", counts.min(initial=self.expected_clips))
        logger.info("Clip1 accuracy: %.2f percent (%d/%d)", *_percent(self.clip1_correct, self.clip1_total))
        logger.info("Clip accuracy: %.2f percent (%d/%d)", *_percent(self.clip_correct, self.clip_total))
        logger.info("-" * 80)
        logger.info("top-1 accuracy: %.2f percent", 100 * self.top1)
        logger.info("top-5 accuracy: %.2f percent", 100 * self.top5)
        logger.info("-" * 80)


def _percent(part: int, whole: int) -> tuple[float, int, int]:
    return (100 * part / whole if whole else 0.0), part, whole


def score_videos(video_ids: np.ndarray, scores: np.ndarray, labels: ArrayLike, expected_clips: int) -> Report:
    """Sum the score vectors of each video and compare with the labels.

    Args:
        video_ids: (clips,) int, video index of each clip, in record order.
        scores: (clips, K) float32.
        labels: (videos,) true class of each video.
        expected_clips: TEST.NUM_TEST_CLIPS.

    Returns:
        Report. A video without a clip counts as wrong. Ties go to the lower class index.
    """
    labels = np.asarray(labels)
    counts, ranking = rank_classes(video_ids, scores, len(labels))
    hits = (ranking == labels[:, None]) & (counts > 0)[:, None]
    clip_hits = scores.argmax(1) == labels[video_ids]
    first_clips = np.unique(video_ids, return_index=True)[1]
    return Report(
        clips_per_video=counts,
        expected_clips=expected_clips,
        clip1_correct=int(clip_hits[first_clips].sum()),
        clip1_total=len(first_clips),
        clip_correct=int(clip_hits.sum()),
        clip_total=len(video_ids),
        top1=float(hits[:, 0].mean()),
        top5=float(hits.any(1).mean()),
    )


def rank_classes(video_ids: np.ndarray, scores: np.ndarray, videos: int) -> tuple[np.ndarray, np.ndarray]:
    """Rank the classes of each video by their summed scores.

    Args:
        video_ids, scores: as in score_videos.
        videos: number of videos.

    Returns:
        (videos,) number of clips of each video, and (videos, up to 5) the classes with its highest scores. The row of a
        video without clips is meaningless.
    """
    seen, clips, sums = sum_scores(video_ids, scores)
    counts, ranking = np.zeros(videos, np.int64), np.zeros((videos, min(5, scores.shape[1])), np.int64)
    counts[seen] = clips
    # stable: ties go to the lower index
    ranking[seen] = np.argsort(-sums, axis=1, kind="stable")[:, :5]
    return counts, ranking


def sum_scores(video_ids: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sum the scores of the clips of each video; arguments as in score_videos.

    Returns:
        (n,) indices of the videos that have clips, ascending; (n,) their numbers of clips; (n, K) float64 sums.
    """
    seen, rows, counts = np.unique(video_ids, return_inverse=True, return_counts=True)
    sums = np.zeros((len(seen), scores.shape[1]))
    np.add.at(sums, rows, scores)
    return seen, counts, sums


def read_results(path: StrPath) -> tuple[np.ndarray, np.ndarray]:
    """Read a results_probs.pkl (of this program or the Caffe2 program) or a results_scores.h5.

    Returns:
        (clips,) int64 video indices and (clips, K) score vectors, in record order.

    Raises:
        UserError: the file cannot be read, has other contents, or contains no clip or a score that is not finite.
    """
    video_ids, scores = _read_rows(path) if is_result_file(path) else _read_pickle(path)
    if not len(video_ids):
        raise UserError(f"{path}: expected the scores of clips, got none")
    wrong = np.flatnonzero(~np.isfinite(scores).all(1))
    if len(wrong):
        raise UserError(f"{path}: expected finite scores, got NaN or infinity in {len(wrong)} of {len(scores)} clips, "
                        f"the first of video {video_ids[wrong[0]]}")
    return video_ids, scores


def _read_rows(path: StrPath) -> tuple[np.ndarray, np.ndarray]:
    with open_result_file(path, "scores of a test") as file:
        if "video_indices" not in file or "scores" not in file:
            raise UserError(f"{path}: expected the scores of a test and their video indices, got "
                            f"{', '.join(file)}; results_probs.pkl contains them as well")
        for name in ("status", "video_indices", "scores"):
            _check_size(path, name, file[name].shape, file[name].nbytes)
        status, damaged = verified_status(file, ["scores"])
        if len(damaged):
            raise UserError(f"{path}: damaged: {len(damaged)} of {len(status)} rows (first row {damaged[0]}); the same "
                            "test, started again, computes them again")
        if (status == TODO).any():
            logger.warning("%s: %d of %d clips were not scored: did the test finish?", path, (status == TODO).sum(),
                           len(status))
        scored = np.flatnonzero(status == SCORED)
        return file["video_indices"][:][scored].astype(np.int64), file["scores"][:][scored]


def _read_pickle(path: StrPath) -> tuple[np.ndarray, np.ndarray]:
    rows = load(path)
    try:
        if not isinstance(rows, list):
            raise TypeError
        clips, classes = len(rows), len(rows[0][1]) if rows else 0
        _check_size(path, "scores", (clips, classes), clips * classes)  # a number takes a byte at least
        video_ids, scores = np.empty(clips, np.int64), np.empty((clips, classes))
        for clip, (video, vector) in enumerate(rows):
            if not isinstance(vector, list | tuple | np.ndarray) or len(vector) != classes:
                raise ValueError
            video_ids[clip] = operator.index(video)
            scores[clip] = np.fromiter(vector, np.float64, classes)  # one by one: a score may turn out to be a list
    except (TypeError, ValueError, LookupError, OverflowError):
        raise UserError(f"{path}: expected a list of [video index, list of scores], as in results_probs.pkl") from None
    return video_ids, scores


def _check_size(path: StrPath, name: str, shape: tuple[int, ...], size: int) -> None:
    """Raise UserError if what a file is said to hold takes more bytes than it has: a small one may claim terabytes."""
    if size > os.path.getsize(path):
        raise UserError(f"{path}: expected a file that holds its {name}, got one of {os.path.getsize(path)} bytes for "
                        f"{' x '.join(map(str, shape))}")


def write_results(path: StrPath, video_ids: np.ndarray, scores: np.ndarray) -> None:
    """Write results_probs.pkl: a list of [video index, list of K floats], one per clip, in the given order.

    Streamed, because as one list of Python floats a Kinetics test would need over 7 GB. Protocol 2 is readable by
    Python 2.

    Args:
        path: the file to write.
        video_ids: (clips,) int.
        scores: (clips, K) float.

    Raises:
        UserError: the file cannot be written.
    """
    with atomic_write(path) as file:
        file.write(pickle.PROTO + b"\x02" + pickle.EMPTY_LIST)
        for start in range(0, len(video_ids), ITEMS_PER_APPEND):
            file.write(pickle.MARK)
            for video, vector in zip(video_ids[start:start + ITEMS_PER_APPEND], scores[start:start + ITEMS_PER_APPEND],
                                     strict=True):
                item = pickle.dumps([int(video), vector.tolist()], protocol=2)
                file.write(item[2:-1])  # without PROTO and STOP
            file.write(pickle.APPENDS)
        file.write(pickle.STOP)
    logger.info("Temporary file saved to: %s", os.fspath(path))
