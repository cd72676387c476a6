"""Frames of a video file: exactly the ones asked for.

OpenCV's FFmpeg decodes: grab() decodes a frame, retrieve() converts it. So only wanted frames are retrieved, and
nothing after the last of them is read.

A clip's start depends on F, the number of frames that decode, and F has to follow from the file alone: if it depended
on what was believed at the time, a resumed run would differ. The container cannot be trusted with it: nothing in it
shows whether its packets decode, and one flipped bit in a sound file can cost a frame. So the first time, a video is
read to its end, wanting what the container's claim implies. If the claim was right (it mostly is) that was all; if
not, a second pass fetches the right frames. F is cached (video_facts.py), and later passes stop after the last wanted
frame.

Seeking to a keyframe would decode less. But where a seek lands depends on timestamps, which are wrong in some files,
and what decodes from there can differ from what decodes from the start. Where a file's frames are known to stay the
same, packets that the wanted ones do not need are left out instead (h264.py).
"""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import cv2

from video import h264, skip_check
from video.bad_videos import BadVideo
from video.capture import open_capture, retrieve
from video.video import MAX_FRAMES, IndicesOf, Keep, Stopped, places_of
from video.video_facts import Fingerprint, VideoFacts, VideoFactsCache

# A grab() that fails may be a packet that does not decode: each call continues with the next packet, and at the end of
# the file costs less than a microsecond. So the end is as many failures in a row as the container claims packets are
# left, and at least this many.
_MIN_FAILURES = 100

# Fractions of the frames up to the last wanted one. If more are wanted, or needed, leaving out the rest does not pay.
_DENSE_WANTED, _DENSE_NEEDED = 0.25, 0.9


class VideoFile:
    """A file that FFmpeg can read. Raises BadVideo if it may not be opened. See video.Video."""

    __slots__ = ("fingerprint", "name")

    def __init__(self, path: str, status: os.stat_result):
        if not os.access(path, os.R_OK):
            raise BadVideo(path, "Permission denied")
        if not status.st_size:
            raise BadVideo(path, "is empty")
        try:
            path.encode()
        except UnicodeEncodeError:
            # OpenCV's Python binding would crash.
            raise BadVideo(path, "has a name that is not UTF-8") from None
        self.name = path
        self.fingerprint = Fingerprint(status.st_size, status.st_mtime_ns)

    def sample(self, indices_of: IndicesOf, keep: Keep, cache: VideoFactsCache,
               stopped: Callable[[], bool]) -> VideoFacts:
        """Decode the wanted frames; see sampling.sample_frames."""
        path, known = self.name, cache.get(self.name, self.fingerprint)
        if known and known.skips and _read_needed(path, known.count, indices_of, keep, stopped):
            return known
        if known and _read(path, known.count, indices_of, keep, stopped).wanted_left == 0:
            return known
        # The first time, or the content has changed behind an unchanged fingerprint.
        seen = _read(path, None, indices_of, keep, stopped)
        facts = seen.facts(path)
        cache.put(path, self.fingerprint, facts)
        if seen.count != seen.claimed and _read(path, seen.count, indices_of, keep, stopped).wanted_left:
            raise BadVideo(path, f"yielded {seen.count} frames at first, and fewer afterwards")
        return facts

    def examine(self) -> VideoFacts:
        """Decode to the end. Raises BadVideo if no frame decodes."""
        return _read(self.name, None, lambda count: (), lambda places, frame: None, lambda: False).facts(self.name)

    def skipping_is_exact(self, count: int) -> bool:
        """See skip_check.skipping_is_exact."""
        return skip_check.skipping_is_exact(self.name, count)


@dataclass
class _Pass:
    """What one pass over a video saw."""

    claimed: int  # frames, by the container
    count: int = 0
    skipped: int = 0  # failures with frames after them
    wanted_left: int = 0

    def facts(self, path: str) -> VideoFacts:
        """Of a video that was read to its end. Raises BadVideo if no frame decoded."""
        if not self.count:
            raise BadVideo(path, "no frame decodes")
        return VideoFacts(self.count, self._damage())

    def _damage(self):
        if self.skipped:
            return f"packets that do not decode: {self.skipped}; used with the {self.count} frames that do"
        # Claims that are off by a frame or two are common in sound videos.
        if self.claimed - self.count > max(2, self.claimed // 50):
            return f"{self.count} frames decode where the container claims {self.claimed}"
        return None


def _read(path, count, indices_of, keep, stopped):
    """One pass over a video, as a _Pass.

    With a count (F) it ends after the last wanted frame; without, it wants what the claim implies, and reads to the
    end.
    """
    capture = open_capture(path)
    try:
        claimed = min(max(int(capture.get(cv2.CAP_PROP_FRAME_COUNT)), 0), MAX_FRAMES)
        believed = count or claimed
        places = places_of(indices_of(believed)) if believed else {}
        end = max(places, default=-1) + 1 if count else MAX_FRAMES
        seen = _Pass(claimed)
        for index in _grabbed(capture, end, seen):
            if stopped():
                raise Stopped
            if index in places:
                keep(places.pop(index), retrieve(capture, path, index))
        seen.wanted_left = len(places)
    finally:
        capture.release()
    return seen


def _read_needed(path, count, indices_of, keep, stopped):
    """Read only what the wanted frames need. Returns whether that worked; if not, what was kept does not count."""
    places = places_of(indices_of(count))
    end = max(places, default=-1) + 1
    if len(places) >= _DENSE_WANTED * end:
        return False
    try:
        packets = h264.read_packets(path, end + h264.MAX_REORDER)
        needed = h264.needed_packets(packets, places.keys())
        if len(needed) > _DENSE_NEEDED * end:
            return False
        with h264.opened_needed(packets, needed) as capture:
            for index in h264.grabbed(capture, needed):
                if stopped():
                    raise Stopped
                if index in places:
                    keep(places[index], retrieve(capture, path, index))
    except h264.NotSkippable:
        return False
    return True


def _grabbed(capture: cv2.VideoCapture, end: int, seen: _Pass) -> Iterator[int]:
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
