"""Frames of a video: exactly the ones asked for.

OpenCV's FFmpeg decodes: grab() decodes a frame, retrieve() converts it. So only wanted frames are
retrieved, and nothing after the last of them is read.

A clip's start depends on F, the number of frames that decode, and F has to follow from the file alone: with
a start that depends on what was believed at the time, a resumed run would differ. No container can be
trusted with it: nothing in one tells whether its packets decode, and one flipped bit in a sound file can
cost a frame. So the first meeting of a video reads it to the end, wanting what the claim implies. If the
claim was right (it mostly is) that was all; if not, a second pass fetches the right frames. F is
remembered (video_facts.py), and later meetings stop after the last wanted frame.

Seeking to a keyframe would decode less. But where a seek lands depends on timestamps, which some files have
wrong, and what decodes from there can differ from what decodes from the start. Where it is VideoFacts that a file's
frames stay the same, packets that the wanted ones do not need are left out instead (h264.py).
"""

from dataclasses import dataclass

import cv2

from video import h264
from video.capture import BadVideo, open_video, regular_file, retrieve
from video.video_facts import VideoFacts, VideoFactsCache

MAX_FRAMES = 10000

# A grab() that fails may be a packet that does not decode: each call goes on to the next packet, and at
# the end of the file costs under a microsecond. So the end is as many failures in a row as the container
# has packets left by its claim, and at least this many.
_MIN_FAILURES = 100

# Parts of the frames up to the last wanted one. Where more are wanted, or needed, to leave out the others does not pay.
_DENSE_WANTED, _DENSE_NEEDED = 0.25, 0.9


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
        counts: a VideoFactsCache.
        stopped: asked before every frame; if it says so, Stopped is raised.

    Returns a VideoFacts: F, and what is damaged. At most MAX_FRAMES frames of a video count. Raises BadVideo if the
    file cannot be opened or nothing decodes.
    """
    status = regular_file(path)
    known = counts.get(path, status)
    if known and not known.count:
        raise BadVideo(path, known.damage)
    if known and known.skips and _read_needed(path, known.count, indices_of, keep, stopped):
        return known
    if known and _read(path, known.count, indices_of, keep, stopped).wanted_left == 0:
        return known
    # Not met before, or its content has changed behind size and time.
    seen = _read(path, None, indices_of, keep, stopped)
    if not seen.count:
        raise BadVideo(path, "no frame decodes")
    known = VideoFacts(seen.count, seen.damage())
    counts.put(path, status, known)
    if seen.count != seen.claimed and _read(path, seen.count, indices_of, keep, stopped).wanted_left:
        raise BadVideo(path, f"gave {seen.count} frames at first, and then fewer")
    return known


def count_frames(path):
    """Number of frames of a video that decode, at most MAX_FRAMES. Raises BadVideo if none does."""
    return sample_frames(path, lambda count: (), lambda places, frame: None, VideoFactsCache()).count


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
    capture = open_video(path)
    try:
        claimed = min(max(int(capture.get(cv2.CAP_PROP_FRAME_COUNT)), 0), MAX_FRAMES)
        places = _places(indices_of, count or claimed)
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


def _places(indices_of, count):
    """{index of a wanted frame: its places in indices_of(count)}; none if there are no frames."""
    places = {}
    for place, index in enumerate(indices_of(count) if count else ()):
        places.setdefault(int(index), []).append(place)
    return places


def _read_needed(path, count, indices_of, keep, stopped):
    """Read only what the wanted frames need. Returns whether that worked; if not, what was kept does not count."""
    places = _places(indices_of, count)
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
