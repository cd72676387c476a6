"""Files of videos, opened by OpenCV's FFmpeg, and the frames that it has grabbed."""

import contextlib
import os
import stat
import sys
import threading

import cv2

# What is wrong with a video is logged once, with its path, by the loader. FFmpeg's and OpenCV's own
# complaints name no file and come again with every clip.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
cv2.setLogLevel(0)

# Parallelism is one video a thread.
cv2.setNumThreads(0)

# FFmpeg's frame threads conceal damage differently, depending on their number, which defaults to the
# machine's cores.
_OPTIONS = [cv2.CAP_PROP_N_THREADS, 1]

# FFmpeg renders text as ANSI art.
_TEXT = cv2.VideoWriter.fourcc(*"ansi")


class BadVideo(Exception):
    """A video that gives no frame: path and reason (both str)."""

    def __init__(self, path, reason):
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason


def regular_file(path):
    """os.stat_result of a video's file. Raises BadVideo if it may not be opened: opening a FIFO would wait forever."""
    try:
        status = os.stat(path)
    except (OSError, ValueError) as error:
        raise BadVideo(path, getattr(error, "strerror", None) or str(error)) from None
    if not stat.S_ISREG(status.st_mode):
        raise BadVideo(path, "is a folder" if stat.S_ISDIR(status.st_mode) else "is no regular file")
    if not os.access(path, os.R_OK):
        raise BadVideo(path, "Permission denied")
    if not status.st_size:
        raise BadVideo(path, "is empty")
    try:
        path.encode()
    except UnicodeEncodeError:
        # OpenCV's Python binding would crash.
        raise BadVideo(path, "has a name that is not UTF-8") from None
    return status


def open_video(path):
    """cv2.VideoCapture of a file, frames as they are stored, not rotated. Raises BadVideo if it is no video."""
    # With the folder in front FFmpeg cannot take a name with a colon for a protocol.
    # Interned, as OpenCV's binding keeps every name that it is given (4.12): one a video, and not one a clip.
    name = sys.intern(os.path.join(os.getcwd(), path))
    capture = cv2.VideoCapture(name, cv2.CAP_FFMPEG, _OPTIONS)
    if not capture.isOpened():
        raise BadVideo(path, "is no video that FFmpeg can read")
    if int(capture.get(cv2.CAP_PROP_FOURCC)) == _TEXT:
        raise BadVideo(path, "is a text file")
    capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 0)
    return capture


@contextlib.contextmanager
def opened_bytes(content):
    """cv2.VideoCapture of a file's content (bytes, less than 2 GiB), for a with statement. Linux only.

    Through a file in memory: the streams of OpenCV's binding ask Python for every piece, and crash (4.12) where the
    capture is the last to hold one.
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


# A thread's last frame, to be overwritten by its next: the pages of a new array cost more than the conversion.
_last = threading.local()


def retrieve(capture, path, index):
    """The frame grabbed last, H x W x 3 uint8 in BGR, which the thread's next one overwrites. Raises BadVideo."""
    converted, frame = capture.retrieve(getattr(_last, "frame", None))
    if not converted:
        raise BadVideo(path, f"frame {index} cannot be converted to RGB")
    _last.frame = frame
    return frame
