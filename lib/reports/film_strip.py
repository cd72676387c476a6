"""A few frames of a video side by side, as a small picture."""

import base64

import cv2
import numpy as np

from utils.errors import UserError
from video.sampling import open_video, sample_frames
from video.video_facts import VideoFactsCache

FRAMES, HEIGHT, GAP = 6, 112, 3  # frames; pixels
WIDEST = 3 * HEIGHT  # of a frame


def film_strip(path: str, as_stored: bool = False) -> np.ndarray:
    """FRAMES frames, spread over a video from its first to its last: HEIGHT x W x 3 uint8 RGB, black between them.

    Args:
        path: of the video.
        as_stored: see video.sampling.open_video.

    Raises:
        BadVideo: the video cannot be read.
    """
    frames: dict[int, np.ndarray] = {}

    def keep(places, frame):
        width = min(max(1, round(frame.shape[1] * HEIGHT / frame.shape[0])), WIDEST)
        small = cv2.resize(frame, (width, HEIGHT), interpolation=cv2.INTER_AREA)
        frames.update(dict.fromkeys(places, small))

    facts = sample_frames(open_video(path, as_stored), spread, keep, VideoFactsCache())
    gap = np.zeros((HEIGHT, GAP, 3), np.uint8)
    parts = [part for place in range(len(spread(facts.count))) for part in (gap, frames[place])]
    return np.hstack(parts[1:])


def spread(count: int) -> np.ndarray:
    """Indices of FRAMES of `count` frames, or of all if there are fewer."""
    return np.unique(np.linspace(0, count - 1, FRAMES).round().astype(int)) if count else np.zeros(0, int)


def data_uri(picture: np.ndarray, quality: int = 80) -> str:
    """An H x W x 3 uint8 RGB picture as a data: URI of a WebP."""
    done, encoded = cv2.imencode(".webp", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_WEBP_QUALITY, quality])
    if not done:
        raise UserError("OpenCV cannot write a WebP picture here")
    return f"data:image/webp;base64,{base64.b64encode(encoded.tobytes()).decode()}"
