"""What the makers of unusual videos share: pictures, sizes, fast settings of the encoders."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from muxing import encode, write_container, write_elementary
from video_files import moving_square

os.environ.setdefault("SVT_LOG", "1")  # errors only


@dataclass(frozen=True)
class Unusual:
    """A file, and what it holds.

    frames: (height, width, pixel format) as stored of each frame in order of presentation, of the stream that ffmpeg
        takes by default. None: what decodes of it is for a judge to say. Empty: there is no video to us.
    stream: the place of that stream among the file's video streams.
    rotation: (degrees counter-clockwise, mirrored left-right, upside down) by which it is shown; None: not the same
        for all frames.
    hidden: how many of its samples are not shown.
    """

    path: Path
    kind: str
    frames: list[tuple[int, int, str]] | None
    stream: int = 0
    rotation: tuple[int, bool, bool] | None = (0, False, False)
    hidden: int = 0


# One thread each, so that a seed gives the same bytes. The trees of x264 and x265 overrun small pictures' memory.
_FAST = {
    "libx264": {"preset": "veryfast", "x264-params": "threads=1:mbtree=0:scenecut=0"},
    "libx264rgb": {"preset": "veryfast", "x264-params": "threads=1:mbtree=0:scenecut=0"},
    "libx265": {"preset": "ultrafast", "x265-params": "log-level=none:pools=none:frame-threads=1:cutree=0:scenecut=0"},
    "libsvtav1": {"preset": "11", "crf": "20", "svtav1-params": "lp=1"},
    "libvpx": {"deadline": "realtime", "cpu-used": "8"},
    "libvpx-vp9": {"deadline": "realtime", "cpu-used": "8"},
    "mjpeg": {"strict": "unofficial"},  # lets it take the full range by other names
}
_FORMAT = {"mjpeg": "yuvj420p", "png": "rgb24", "prores_ks": "yuv422p10le", "apng": "rgb24"}
# What decodes is not of the pixel format that was given.
_DECODED = {("libx264", "gray"): "yuv420p", ("libx264", "gray10le"): "yuv420p10le", ("libx264rgb", "rgb24"): "gbrp",
            ("gif", "rgb8"): "bgra", ("gif", "gray"): "bgra", ("gif", "bgr4_byte"): "bgra", ("qtrle", "gray"): "pal8",
            ("huffyuv", "rgb24"): "bgr0", ("prores_ks", "yuv444p10le"): "yuv444p12le"}  # fmt: skip
RAW = {".h264", ".hevc", ".mjpeg", ".m4v", ".m2v", ".m1v", ".h263"}  # endings of files that are no container's


def size(rng, least=32, most=160, step=2):
    """A random (height, width)."""
    return rng.randrange(least, most + 1, step), rng.randrange(least, most + 1, step)


def pictures(rng, height, width, fewest=5, most=40):
    """F x H x W x 3 RGB uint8 frames, no two alike, with a texture that moves."""
    frames = moving_square(rng.randint(fewest, most), height, width, seed=rng.randrange(1 << 30))
    texture = np.random.default_rng(rng.randrange(1 << 30)).integers(0, 40, (height, width, 3), np.uint8)
    for number, frame in enumerate(frames):
        frame //= 2
        frame += np.roll(texture, (number, 2 * number), (0, 1))
    return frames


def track(codec, frames, pix_fmt=None, parameters="", settings=None, **options):
    """The muxing.Track of frames; parameters: of x264, x265 or SVT-AV1, in their own way of writing; options: FFmpeg's.
    """
    options = _FAST.get(codec, {}) | options
    for name in options if parameters else ():
        if name.endswith("-params"):
            options[name] += f":{parameters}"
    return encode(codec, frames, pix_fmt or _FORMAT.get(codec, "yuv420p"), options, settings)


def frames_of(*tracks):
    """Unusual.frames of tracks, one after another."""
    return [(track.height, track.width, _DECODED.get((track.codec, track.pix_fmt), track.pix_fmt))
            for track in tracks for _ in track.packets]


def write(path, track, **container_options):
    """Write a track in the way that the path's ending says; returns the path."""
    if path.suffix in RAW:
        write_elementary(path, track)
    else:
        write_container(path, track, container_options=container_options)
    return path
