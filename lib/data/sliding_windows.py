"""Which clips a long video is looked at through: windows of a fixed length, one after another, until the video ends.

Window k is the time from k to k + 1 times its length in seconds; the last one ends with the video. It is cut into equal
parts, and in the middle of each a clip is centred: the frame that is shown at that time is in the middle of the
`length` * `rate` frames of which the clip takes every `rate`-th. (As in a test, clips count frames, whatever their
times.) A clip may be longer than a window; clips of neighbouring windows then overlap.

So that one pass over the video is enough, and few frames have to be kept, a clip begins at a frame whose number is a
multiple of `rate`: it is off the centre by at most half of that. A clip that would reach over the start or the end of
the video is moved inside. Of the last window, parts that are centred after the end have no clip, apart from the first.
A video shorter than a clip wraps around, as in a test, and every window is looked at through that one clip.
"""

import math
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Generic, TypeVar

from data.transforms import clip_indices

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Window:
    """A window: start and end in seconds from the first frame, and the numbers of its clips, ascending."""

    start: Fraction
    end: Fraction
    clips: tuple[int, ...]


class WindowCutter(Generic[T]):
    """Cuts a video into windows and clips while it is played; keeps `length` of its frames, at the start a whole clip.

    Clips are numbered from 0 in the order in which they come. One that is the same as the clip before it does not come
    again: windows name it again.

    Args:
        seconds: length of a window.
        clips: clips of a window.
        length: frames in a clip.
        rate: frames from one of them to the next.
    """

    def __init__(self, seconds: Fraction, clips: int, length: int, rate: int):
        self._seconds, self._clips = seconds, clips
        self._length, self._rate = length, rate
        self._count = 0  # frames so far
        self._start: list[T] | None = []  # all frames, until there are enough for a clip
        self._grid: deque[T] = deque(maxlen=length)  # the last ones whose number is a multiple of rate
        self._window = self._part = 0  # what is planned next
        self._due = self._next_due()
        self._planned: deque[int | Fraction] = deque()  # the place of a clip in the grid, or the end of a window
        self._windows_made, self._last_place = 0, -1
        self._clips_made = 0
        self._of_window: list[int] = []

    def add(self, time: Fraction, take: Callable[[], T]) -> Iterator[list[T] | Window]:
        """Take the next frame; yields the clips (lists of frames) and windows that are complete by now, in order.

        Args:
            time: seconds since the first frame, not before that of the frame before.
            take: returns the frame; called only for frames that may be part of a clip.
        """
        while self._due < time:
            self._plan_next()
        yield from self._complete(self._place_now)
        if not self._count % self._rate or self._start is not None:
            frame = take()
            if self._start is not None:
                self._start.append(frame)
            if not self._count % self._rate:
                self._grid.append(frame)
        self._count += 1
        if self._count > (self._length - 1) * self._rate:
            self._start = None
        yield from self._complete(self._place_now)

    def finish(self, end: Fraction, last: Fraction) -> Iterator[list[T] | Window]:
        """Yields the rest, after the last of one or more frames.

        Args:
            end: seconds at which the video ends.
            last: seconds for which its last frame is shown. Less than half of that is no window of its own, as
                timestamps are rounded.
        """
        windows = max(math.ceil((end - last / 2) / self._seconds), 1)
        while self._window < windows:
            if self._window == windows - 1 and (self._part and self._due > end or self._part == self._clips):
                self._planned.append(end)
                break
            self._plan_next()
        yield from self._complete(max(self._place_now, 0), at_end=True)

    @property
    def _place_now(self):
        """The place in the grid of the clip that ends with its last frame; negative: none does yet."""
        return -(-self._count // self._rate) - self._length

    def _next_due(self):
        """The time of the centre of the next part, or else of the window's end."""
        if self._part == self._clips:
            return (self._window + 1) * self._seconds
        return (self._window + Fraction(2 * self._part + 1, 2 * self._clips)) * self._seconds

    def _plan_next(self):
        if self._part < self._clips:
            # The frame that is shown is the last one so far; the clip's middle is to be that frame's.
            middle, step = 2 * self._count - 1, 2 * self._rate
            self._planned.append(max((middle - (self._length - 1) * self._rate) // step, 0))
            self._part += 1
        else:
            self._planned.append(self._due)
            self._window, self._part = self._window + 1, 0
        self._due = self._next_due()

    def _complete(self, place_now, at_end=False):
        """Yield what is planned, up to the first clip that needs later frames."""
        while self._planned:
            planned = self._planned[0]
            if isinstance(planned, Fraction):
                start = self._windows_made * self._seconds
                yield Window(start, planned, tuple(self._of_window))
                self._windows_made += 1
                self._of_window = []
            else:
                place = min(planned, place_now) if at_end else planned
                if place > place_now:
                    return
                if place != self._last_place:
                    yield self._clip()
                    self._last_place = place
                    self._clips_made += 1
                self._of_window.append(self._clips_made - 1)
            self._planned.popleft()

    def _clip(self):
        if self._start is None:
            return list(self._grid)
        return [self._start[i] for i in clip_indices(0, self._length, self._rate, self._count)]
