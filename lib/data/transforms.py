"""From a video's frames to a clip: pure functions of the frames and of the drawn numbers.

Where legacy computed in float32 and truncated, so does this: float64 can give another frame or another pixel.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch

from utils.errors import UserError

# ---------------------------------------------------------------------------------------------- frames


def train_start(draw: float, num_frames: int, length: int, rate: int) -> int:
    """Start frame of a training clip: draw in [0, 1) over 0..num_frames - length * rate, else 0."""
    return int(draw * max(num_frames - length * rate + 1, 1))


def uniform_start(num_frames: int, num_clips: int, temporal_index: int) -> int:
    """Start frame of test clip temporal_index (from 0) of num_clips."""
    step = np.float32(num_frames / num_clips)
    return int(step * np.float32(temporal_index)) % num_frames


def clip_indices(start: int, length: int, rate: int, num_frames: int) -> np.ndarray:
    """Frame indices of a clip (int64 array): start, start + rate, ...; a short video wraps around."""
    return (start + rate * np.arange(length)) % num_frames


# ---------------------------------------------------------------------------------------------- pixels


def scaled_size(height: int, width: int, short_side: int) -> tuple[int, int]:
    """(height, width) after scaling so that the short side is short_side; the long side is truncated."""
    scale = np.float32(short_side / min(height, width))
    # For a square, the product can fall just below the short side.
    long_side = max(int(np.float32(max(height, width)) * scale), short_side)
    return (short_side, long_side) if height <= width else (long_side, short_side)


def resize(frame: np.ndarray, size: tuple[int, int], out: np.ndarray | None = None) -> np.ndarray:
    """Scale a frame (H x W x 3, uint8) bilinearly to size (height, width).

    Returns `out`, if given (contiguous, of that size), filled with the result; else the result may be the frame itself.
    """
    height, width = size
    if frame.shape[:2] != (height, width):
        return cv2.resize(frame, (width, height), dst=out, interpolation=cv2.INTER_LINEAR)
    if out is None:
        return frame
    out[:] = frame
    return out


def crop_offsets(height: int, width: int, crop: int, spatial_index: int | None = None) -> tuple[int, int]:
    """(row, column) of a test crop: the centre, or with a spatial index p the start, centre, end for p mod 3.

    The positions lie along the vertical if there is room, else along the horizontal.
    """
    row, column = (height - crop) // 2, (width - crop) // 2
    if spatial_index is not None:
        position = spatial_index % 3
        if row > 0:
            row *= position
        else:
            column *= position
    return row, column


def is_mirrored(spatial_index: int | None) -> bool:
    """Whether a test crop is mirrored: spatial indices 3..5 are the mirror images of 0..2."""
    return spatial_index is not None and spatial_index >= 3


def cut(frame: np.ndarray, row: int, column: int, crop: int, mirror: bool) -> np.ndarray:
    """The crop x crop square of a frame at (row, column), mirrored left-right if asked for. May be a view."""
    square = frame[row : row + crop, column : column + crop]
    return cv2.flip(square, 1) if mirror else square


def cut_clip(frames: Sequence[np.ndarray], crop: int | None, spatial_index: int | None, out: np.ndarray) -> None:
    """Write the test crop of a clip into out (L x crop x crop x 3, uint8); without a crop, whole frames.

    frames: L frames of one size, H x W x 3 uint8. spatial_index: see crop_offsets and is_mirrored.
    """
    if crop is None:
        np.stack(frames, out=out)
        return
    height, width, _ = frames[0].shape
    row, column = crop_offsets(height, width, crop, spatial_index)
    mirror = is_mirrored(spatial_index)
    for i, frame in enumerate(frames):
        out[i] = cut(frame, row, column, crop, mirror)


# ---------------------------------------------------------------------------------------------- draws


@dataclass(frozen=True, slots=True)
class TrainDraws:
    """The random part of a training clip.

    start, row and column are in [0, 1), so that no draw depends on the size and length of the video. scale is the short
    side in pixels.
    """

    start: float
    scale: int
    row: float
    column: float
    mirror: bool


def train_draws(rng: np.random.Generator, jitter_scales: tuple[int, int]) -> TrainDraws:
    """Draw a TrainDraws. jitter_scales: range of the short side in pixels, both ends included."""
    start, row, column, mirror = rng.random(4)
    low, high = jitter_scales
    return TrainDraws(start, int(rng.integers(low, high, endpoint=True)), row, column, bool(mirror < 0.5))


def drawn_offsets(draws: TrainDraws, height: int, width: int, crop: int) -> tuple[int, int]:
    """(row, column) of a training crop, uniform over 0..height - crop and 0..width - crop."""
    return int(draws.row * (height - crop + 1)), int(draws.column * (width - crop + 1))


def check_crop(crop: int, short_side: int, crop_key: str, short_side_key: str) -> None:
    """Raise UserError if a crop is larger than the short side that it is cut from."""
    if crop > short_side:
        raise UserError(f"{crop_key} {crop} is larger than the short side {short_side} of {short_side_key}")


# ---------------------------------------------------------------------------------------------- values


def normalize(clips: torch.Tensor, mean: float, std: float, use_bgr: bool = False) -> torch.Tensor:
    """N x L x H x W x 3 uint8 RGB clips -> N x 3 x L x H x W float32, (value - mean) * (1 / std).

    mean and std are in grey levels (0..255), one for all channels. The result is on the device of clips and has
    channels_last_3d strides. use_bgr reverses the order of the channels.
    """
    if use_bgr:
        clips = clips.flip(-1)
    return clips.permute(0, 4, 1, 2, 3).float().sub_(mean).mul_(float(np.float32(1.0 / std)))
