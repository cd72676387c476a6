"""What happens in a long video, and when: class probabilities of one window after another."""

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import torch

from data.data_builder import Preprocessor, sliding_loader
from engine.fetching import fetch
from engine.prediction import VideoClassifier
from engine.replicas import Replicas
from engine.scoring import check_scores
from utils.errors import UserError
from video.bad_videos import BadVideo, BadVideos

SHORTEST, LONGEST = Fraction(1, 10), 86400  # seconds of a window


@dataclass(frozen=True)
class WindowPrediction:
    """What a network makes of a window of a video.

    Attributes:
        start, end: seconds from the first frame.
        probabilities: (K,) float64, the mean over the window's views.
        stated: length of the video in seconds by what its container says, or None.
    """

    start: float
    end: float
    probabilities: np.ndarray
    stated: float | None


def window_length(text: str) -> Fraction:
    """Seconds, exactly, from text such as '2' or '0.5'. Raises UserError."""
    try:
        seconds = Fraction(text) if text.isascii() and len(text) <= 20 else None
    except (ValueError, ZeroDivisionError):
        seconds = None
    if seconds is None or not SHORTEST <= seconds <= LONGEST:
        raise UserError(f"--sliding: expected seconds between {float(SHORTEST)} and {LONGEST}, got {text!r:.100}")
    return seconds


@torch.inference_mode()
def predict_windows(model: VideoClassifier, video: str, seconds: Fraction,
                    bad_videos: BadVideos) -> Iterator[WindowPrediction]:
    """Yield the prediction for each window of a video, in order, from one pass over the file.

    The windows, and the clips that they are looked at through, are described in data.sliding_windows: model.protocol
    says how many clips a window has, and how many crops a clip. A clip's probabilities are those that predict() gives
    for a video of the clip's frames with one clip, up to rounding: clips go through the network in batches.

    Args:
        model: from load_model.
        video: path of a file.
        seconds: length of a window.
        bad_videos: learns why a video cannot be read (any further) or is damaged.

    Raises:
        UserError: the network gives no finite numbers.
    """
    cfg, protocol, replicas = model.cfg, model.protocol, Replicas(1, device=model.device)
    prepare = Preprocessor(cfg, replicas.device)
    sums: dict[int, Any] = {}  # by number of clip: over its crops
    try:
        with sliding_loader(cfg, replicas, protocol, video, seconds, bad_videos) as loader:
            for batch in loader:
                if len(batch.clips):
                    scores = fetch(model(prepare.clips(batch.views)))()
                    check_scores(scores, model.weights_file, video)
                    for clip, row in zip(batch.clips.tolist(), np.asarray(scores, np.float64), strict=True):
                        sums[clip] = sums[clip] + row if clip in sums else row
                for window in batch.windows:
                    views = len(window.clips) * protocol.crops
                    mean = np.sum([sums[clip] for clip in window.clips], axis=0) / views
                    yield WindowPrediction(_rounded(window.start), _rounded(window.end), mean, batch.stated)
                    for clip in [clip for clip in sums if clip < window.clips[-1]]:
                        del sums[clip]
    except BadVideo as error:
        bad_videos.add(error)


def _rounded(seconds: Fraction) -> float:
    return round(float(seconds), 6)
