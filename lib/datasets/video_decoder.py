"""Frames of a video: exactly the ones asked for.

OpenCV's FFmpeg decodes: grab() decodes a frame, retrieve() converts it. So only wanted frames are
retrieved, and nothing after the last of them is read.

A clip's start depends on F, the number of frames that decode, and F has to follow from the file alone: with
a start that depends on what was believed at the time, a resumed run would differ. No container can be
trusted with it: nothing in one tells whether its packets decode, and one flipped bit in a sound file can
cost a frame. So the first meeting of a video reads it to the end, wanting what the claim implies. If the
claim was right (it mostly is) that was all; if not, a second pass fetches the right frames. F is
remembered (frame_counts.py), and later meetings stop after the last wanted frame.

Seeking to a keyframe would decode less. But where a seek lands depends on timestamps, which some files have
wrong, and what decodes from there can differ from what decodes from the start.
"""

import os
import stat
import sys
import threading
from dataclasses import dataclass

import cv2

from datasets.frame_counts import FrameCounts, Known

# What is wrong with a video is logged once, with its path, by the loader. FFmpeg's and OpenCV's own
# complaints name no file and come again with every clip.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
cv2.setLogLevel(0)

# Parallelism is one video a thread.
cv2.setNumThreads(0)

MAX_FRAMES = 10000

# FFmpeg's frame threads conceal damage differently, depending on their number, which defaults to the
# machine's cores.
_OPEN_OPTIONS = [cv2.CAP_PROP_N_THREADS, 1]

# FFmpeg renders text as ANSI art.
_TEXT = cv2.VideoWriter.fourcc(*"ansi")

# A grab() that fails may be a packet that does not decode: each call goes on to the next packet, and at
# the end of the file costs under a microsecond. So the end is as many failures in a row as the container
# has packets left by its claim, and at least this many.
_MIN_FAILURES = 100


class BadVideo(Exception):
    """A video that gives no frame: path and reason (both str)."""

    def __init__(self, path, reason):
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason


class Stopped(Exception):
    """Nobody wants the frames any more."""


def sample_frames(path, indices_of, keep, counts, stopped=lambda: False):
    """Decode the frames that a function of F asks for.

    Args:
        path: the video (str).
        indices_of: indices_of(F) gives the wanted frame indices (a sequence), each in 0..F - 1, in any order.
        keep: keep(places, frame) is called with each wanted frame, in the order of the video, and the list of
            its places in indices_of(F). frame is H x W x 3 uint8 in BGR, OpenCV's order, and is overwritten
            after the call. Where the choice proves wrong, calls for all places come again, and those count.
        counts: a FrameCounts.
        stopped: asked before every frame; if it says so, Stopped is raised.

    Returns a Known: F, and what is damaged. At most MAX_FRAMES frames of a video count. Raises BadVideo if the
    file cannot be opened or nothing decodes.
    """
    status = regular_file(path)
    known = counts.get(path, status)
    if known and not known.count:
        raise BadVideo(path, known.damage)
    if known and _read(path, known.count, indices_of, keep, stopped).wanted_left == 0:
        return known
    # Not met before, or its content has changed behind size and time.
    seen = _read(path, None, indices_of, keep, stopped)
    if not seen.count:
        raise BadVideo(path, "no frame decodes")
    known = Known(seen.count, seen.damage())
    counts.put(path, status, known)
    if seen.count != seen.claimed and _read(path, seen.count, indices_of, keep, stopped).wanted_left:
        raise BadVideo(path, f"gave {seen.count} frames at first, and then fewer")
    return known


def count_frames(path):
    """Number of frames of a video that decode, at most MAX_FRAMES. Raises BadVideo if none does."""
    return sample_frames(path, lambda count: (), lambda places, frame: None, FrameCounts()).count


@dataclass
class _Pass:
    """What one pass over a video saw."""

    claimed: int  # frames, by the container
    count: int = 0
    skipped: int = 0  # failures with frames after them
    wanted_left: int = 0

    def damage(self):
        """What is wrong with a video that was read to its end, or None."""
        if self.skipped:
            return f"packets that do not decode: {self.skipped}; used with the {self.count} frames that do"
        # Claims that are off by a frame or two are common in sound videos.
        if self.claimed - self.count > max(2, self.claimed // 50):
            return f"{self.count} frames decode where the container claims {self.claimed}"
        return None


def _read(path, count, indices_of, keep, stopped):
    """One pass over a video, as a _Pass.

    With a count (F) it ends after the last wanted frame; else it wants what the claim implies, and reads to
    the end.
    """
    capture = _open(path)
    try:
        claimed = min(max(int(capture.get(cv2.CAP_PROP_FRAME_COUNT)), 0), MAX_FRAMES)
        places = {}
        for place, index in enumerate(indices_of(count or claimed) if count or claimed else ()):
            places.setdefault(int(index), []).append(place)
        end = max(places, default=-1) + 1 if count else MAX_FRAMES
        seen = _Pass(claimed)
        for index in _grabbed(capture, end, seen):
            if stopped():
                raise Stopped
            if index in places:
                keep(places.pop(index), _retrieve(capture, path, index))
        seen.wanted_left = len(places)
    finally:
        capture.release()
    return seen


def _grabbed(capture, end, seen):
    """Yield the index of every frame that grab() decodes, up to end; count in seen."""
    failures = 0
    while seen.count < end:
        if capture.grab():
            seen.skipped += failures
            failures = 0
            seen.count += 1
            yield seen.count - 1
        else:
            failures += 1
            if failures >= max(_MIN_FAILURES, seen.claimed - seen.count - seen.skipped):
                return


# A thread's last frame, to be overwritten by its next: the pages of a new array cost more than the conversion.
_last = threading.local()


def _retrieve(capture, path, index):
    converted, frame = capture.retrieve(getattr(_last, "frame", None))
    if not converted:
        raise BadVideo(path, f"frame {index} cannot be converted to RGB")
    _last.frame = frame
    return frame


def _open(path):
    # With the folder in front FFmpeg cannot take a name with a colon for a protocol.
    # Interned, as OpenCV's binding keeps every name that it is given (4.12): one a video, and not one a clip.
    name = sys.intern(os.path.join(os.getcwd(), path))
    capture = cv2.VideoCapture(name, cv2.CAP_FFMPEG, _OPEN_OPTIONS)
    if not capture.isOpened():
        raise BadVideo(path, "is no video that FFmpeg can read")
    if int(capture.get(cv2.CAP_PROP_FOURCC)) == _TEXT:
        raise BadVideo(path, "is a text file")
    capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 0)
    return capture


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
