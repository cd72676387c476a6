"""What reading a video to its end shows: how many frames it has, what is damaged, what is unusual.

Damage is what does not decode, not what a container claims: of a video that was cut without being encoded again, for
one, some frames are hidden. The kinds of remarks about sound videos:

    long      more than MAX_FRAMES frames
    size      the size of the picture changes
    format    the pixel format changes
    rotation  a display matrix turns or mirrors the picture
    streams   there are several video streams
    rate      far from 30 frames a second, or changing: clips are made of numbered frames, whatever their times
"""

from itertools import pairwise
from statistics import median

import av

from video.container import Container
from video.pixels import Turn, checksum, display_matrix
from video.video_facts import MAX_FRAMES, VideoFacts

# Kinds that concern what a clip is made of, and so are worth a line in the log of a run.
WORTH_SAYING = ("long", "size", "format")

# What "far from 30" means, and by how much the times between frames may differ (containers round them).
_SLOW, _FAST = 20, 40
_STEADY = 1.5


class Survey:
    """What is noted of every frame, in the order of presentation.

    Args:
        video: being read.
        upright: whether frames are turned as the first one's display matrix says.
        checksums: whether to take checksums of the frames.

    Attributes:
        turn: for pixels.to_rgb.
        times: list of presentation times, in the unit of the stream; None where there is none.
        checksums: list of pixels.checksum of the frames, if asked for.
    """

    def __init__(self, video: Container, upright: bool, checksums: bool):
        self._video = video
        self._with_checksums = checksums
        self._upright = upright
        self._corrupt = 0
        self._more = False
        self._sizes: list[tuple[int, str]] = []  # (first frame, what) of each run of equal ones
        self._formats: list[tuple[int, str]] = []
        self.turn: Turn = None
        self.times: list[int | None] = []
        self.checksums: list[int] = []

    def add(self, frame: av.VideoFrame) -> bool:
        """Note one more frame. Returns False, and does not count it, if it is one too many."""
        index = len(self.times)
        if index == MAX_FRAMES:
            self._more = True
            return False
        if index == 0 and self._upright:
            self.turn = display_matrix(frame)
        _note(self._sizes, index, f"{frame.width}x{frame.height}")
        _note(self._formats, index, frame.format.name)
        self._corrupt += frame.is_corrupt
        self.times.append(frame.pts)
        if self._with_checksums:
            self.checksums.append(checksum(frame))
        return True

    def facts(self) -> VideoFacts:
        """What is known at the end. Packets are not known to be left out safely."""
        damage = damage_of(self._video, self._corrupt, len(self.times))
        return VideoFacts(len(self.times), damage, turn=self.turn, remarks=dict(self._remarks()),
                          length=self._video.stated_length)

    def _remarks(self):
        if self._more:
            yield "long", f"has more than {MAX_FRAMES} frames; the rest is not looked at"
        for kind, changes in (("size", self._sizes), ("format", self._formats)):
            if len(changes) > 1:
                (_, before), (index, after) = changes[:2]
                more = f" ({len(changes) - 1} changes in all)" if len(changes) > 2 else ""
                yield kind, f"changes from {before} to {after} at frame {index}{more}"
        if self.turn:
            a, b, c, d = self.turn
            mirrored = a * d - b * c < 0
            degrees = {(1, 0): 0, (0, 1): 90, (-1, 0): 180, (0, -1): 270}[a, b]
            yield "rotation", f"turned by {degrees} degrees{', then mirrored' if mirrored else ''}"
        if other := self._video.other_streams:
            yield "streams", f"{other + 1} video streams; number {self._video.stream.index} is read"
        if rate := self._rate():
            yield "rate", rate

    def _rate(self):
        base = self._video.stream.time_base
        if len(self.times) < 3 or None in self.times or not base:
            return None
        steps = sorted(float((after - before) * base) for before, after in pairwise(self.times))
        if steps[0] <= 0:  # not the times at which the frames are shown
            return None
        # A few longer pauses, as at a cut, are not a rate.
        low, usual, high = steps[len(steps) // 20], median(steps), steps[-1 - len(steps) // 20]
        if high > _STEADY * low:
            return f"changes between {1 / high:.4g} and {1 / low:.4g} frames a second"
        if not _SLOW <= 1 / usual <= _FAST:
            return f"{1 / usual:.4g} frames a second"
        return None


def damage_of(video: Container, corrupt: int, frames: int) -> str | None:
    """What is damaged in a video that has been read, in words, or None.

    corrupt: how many of its frames decode only in part. frames: how many decode.
    """
    faults = []
    if video.failures:
        faults.append(f"{video.failures} packets do not decode")
    if corrupt:
        faults.append(f"{corrupt} frames decode only in part")
    if video.problem:
        faults.append(f"the file cannot be read to its end ({video.problem})")
    return f"{', '.join(faults)}; used with the {frames} frames that decode" if faults else None


def _note(runs, index, what):
    if not runs or runs[-1][1] != what:
        runs.append((index, what))
