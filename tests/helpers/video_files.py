"""Small videos, lists and LMDBs for tests."""

import hashlib
from pathlib import Path

import cv2
import lmdb
import numpy as np
from plain_decoder import all_frames


def write_video(path, frames, fps=25, fourcc="mp4v"):
    """Write RGB uint8 frames (F x H x W x 3, even sizes) to path; the name's ending chooses the container."""
    height, width = frames[0].shape[:2]
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*fourcc), fps, (width, height))
    assert writer.isOpened(), path
    for frame in frames:
        writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
    writer.release()
    return path


def moving_square(num_frames, height, width, seed=0):
    """F x H x W x 3 frames, no two alike: a coloured square wanders over a gradient that brightens."""
    rng = np.random.default_rng(seed)
    colour, (row, column) = rng.integers(0, 256, 3), rng.integers(0, (height // 2, width // 2))
    base = np.indices((height, width)).sum(0)[..., None] * 100 // (height + width)
    frames = np.empty((num_frames, height, width, 3), np.uint8)
    for i, frame in enumerate(frames):
        frame[:] = base + 3 * i % 150
        top, left = (row + 2 * i) % (height // 2), (column + 3 * i) % (width // 2)
        frame[top : top + height // 3, left : left + width // 3] = colour
    return frames


def digest(frame):
    """Sixteen bytes that distinguish a frame from any other."""
    return hashlib.blake2b(np.ascontiguousarray(frame).data, digest_size=16).digest()


def every_frame(path):
    """Digests of all frames of a video as they are stored (RGB), each decoded and converted in turn."""
    return [digest(frame) for frame in all_frames(path)]


def write_frames(folder, frames, name="{:06d}.png", first=1):
    """Write RGB uint8 frames as numbered images; the format of the name chooses the kind. Returns the folder."""
    folder.mkdir(parents=True)
    for number, frame in enumerate(frames, start=first):
        assert cv2.imwrite(str(folder / name.format(number)), frame[..., ::-1])
    return folder


# 90 frames of moving_square(90, 64, 96, seed=5), by ffmpeg -c:v libx264 -pix_fmt yuv420p -crf 26 -g 40 -bf 3: seven IDR
# frames, and 24 that no other frame needs. (OpenCV's wheels cannot encode H.264.)
H264 = Path(__file__).parents[1] / "data/h264.mp4"

SIZES = [(24, 80, 64), (10, 64, 96), (33, 72, 72), (16, 64, 64)]  # frames, height, width


def make_videos(folder, n, sizes=SIZES):
    """Write n videos video0.mp4, video1.mp4, ... of these sizes in turn; returns their paths."""
    return [
        write_video(folder / f"video{i}.mp4", moving_square(*sizes[i % len(sizes)], seed=i)) for i in range(n)
    ]


def write_list(path, videos, labels):
    """Write a list of videos."""
    path.write_text("".join(f"{video} {label}\n" for video, label in zip(videos, labels, strict=True)))
    return path


def write_items(folder, items):
    """Write (key, value) pairs to the LMDB folder, as they are."""
    folder.mkdir(parents=True)
    with lmdb.open(str(folder), lock=False) as environment, environment.begin(write=True) as transaction:
        for key, value in items:
            transaction.put(key, value)
    return folder


def read_items(folder):
    """All (key, value) pairs of an LMDB, in order."""
    with lmdb.open(str(folder), readonly=True, lock=False) as environment, environment.begin() as transaction:
        return list(transaction.cursor())
