"""Video files opened by OpenCV's FFmpeg, and their frames as RGB."""

import contextlib
import os
import sys
import threading
from collections.abc import Iterator

import cv2
import numpy as np

from video.bad_videos import BadVideo

# Another decoder may get more or fewer frames out of a damaged file.
DECODER = f"opencv-{cv2.__version__}"

# The loaders log once, with its name, what is wrong with a video. FFmpeg's and OpenCV's own messages name no file and
# repeat with every clip.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
cv2.setLogLevel(0)

# Work is parallel over videos, one per thread.
cv2.setNumThreads(0)

# How FFmpeg conceals damage depends on its number of frame threads, which defaults to the number of cores.
_OPTIONS = [cv2.CAP_PROP_N_THREADS, 1]

# FFmpeg renders text as ANSI art.
_TEXT = cv2.VideoWriter.fourcc(*"ansi")


def open_capture(path: str) -> cv2.VideoCapture:
    """Open a file. Frames come as they are stored, not rotated. Raises BadVideo if it is not a video."""
    # Behind a folder, FFmpeg cannot mistake a name with a colon for a protocol.
    # Interned, as OpenCV's binding keeps every name it is given (4.12): one per video rather than one per clip.
    name = sys.intern(os.path.join(os.getcwd(), path))
    capture = cv2.VideoCapture(name, cv2.CAP_FFMPEG, _OPTIONS)
    if not capture.isOpened():
        raise BadVideo(path, "is not a video that FFmpeg can read")
    if int(capture.get(cv2.CAP_PROP_FOURCC)) == _TEXT:
        raise BadVideo(path, "is a text file")
    capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 0)
    return capture


@contextlib.contextmanager
def opened_bytes(content: bytes) -> Iterator[cv2.VideoCapture]:
    """Open the content of a file (less than 2 GiB), for a with statement. Linux only.

    Through a file in memory: the streams of OpenCV's binding call Python for every piece, and crash (4.12) where the
    capture holds the last reference to one.
    """
    descriptor = os.memfd_create("video")
    try:
        os.write(descriptor, content)
        capture = cv2.VideoCapture(sys.intern(f"/proc/self/fd/{descriptor}"), cv2.CAP_FFMPEG, _OPTIONS)
        try:
            yield capture
        finally:
            capture.release()
    finally:
        os.close(descriptor)


class _Buffers(threading.local):
    """A thread's last frame, overwritten by its next: page-faulting a new array costs more than the conversion."""

    bgr: np.ndarray | None = None
    rgb: np.ndarray | None = None


_buffers = _Buffers()


def retrieve(capture: cv2.VideoCapture, name: str, index: int) -> np.ndarray:
    """Convert the frame grabbed last: H x W x 3 uint8, RGB. The thread's next frame overwrites it. Raises BadVideo."""
    converted, _buffers.bgr = capture.retrieve(_buffers.bgr)
    if not converted:
        _buffers.bgr = None
        raise BadVideo(name, f"frame {index} cannot be converted to RGB")
    _buffers.rgb = cv2.cvtColor(_buffers.bgr, cv2.COLOR_BGR2RGB, dst=_buffers.rgb)
    return _buffers.rgb
