"""All frames of a video file in turn, each with its time, in one pass that keeps nothing, however long the video is."""

from collections.abc import Iterator
from fractions import Fraction
from typing import Any, Self

import av
import numpy as np

from video.container import Container
from video.pixels import Turn, display_matrix, to_rgb
from video.survey import damage_of

# Seconds. Timestamps that go further forward or back have been set anew, as where recordings were joined.
LONGEST_PAUSE, FURTHEST_BACK = 3600, 1
_USUAL_RATE = 25  # frames a second, where a container names none (as FFmpeg assumes)


class Clock:
    """The times of frames, from their timestamps: seconds since the first frame, exact, never decreasing.

    A frame without a timestamp, or whose timestamp has been set anew, follows the frame before it at the usual rate.

    Args:
        unit: seconds of one unit of the timestamps; None: there are none.
        rate: frames a second, or None.
    """

    def __init__(self, unit: Fraction | None, rate: Fraction | None):
        self._unit = unit
        self._step = 1 / Fraction(rate if rate and 0.001 <= rate <= 1000 else _USUAL_RATE)
        self._zero: int | None = None  # the timestamp of time 0
        self._now = -self._step

    def time(self, stamp: int | None) -> Fraction:
        """The time of the next frame, whose timestamp is given."""
        then, self._now = self._now, self._now + self._step
        if stamp is not None and self._unit:
            if self._zero is None:
                self._zero = stamp - round(self._now / self._unit)
            by_stamp = (stamp - self._zero) * self._unit
            if -FURTHEST_BACK <= by_stamp - then <= LONGEST_PAUSE:
                self._now = max(by_stamp, then)
            else:
                self._zero = stamp - round(self._now / self._unit)
        return self._now

    def duration(self, units: int | None) -> Fraction:
        """Seconds that a frame is shown for, from its stated duration."""
        stated = (units or 0) * (self._unit or 0)
        return Fraction(stated) if 0 < stated <= LONGEST_PAUSE else self._step


class Playback:
    """A video file from its first frame to its last, for a with statement.

    Args:
        container: newly opened; closed at the end.
        upright: whether frames are turned as the first one's display matrix says.

    Attributes:
        count: number of frames so far.
        end: seconds from the first frame to the end of the last one, so far.
        last: seconds that the last frame is shown for.
        stated: length in seconds by what the container says, or None.
    """

    def __init__(self, container: Container, upright: bool):
        self._container = container
        self._upright = upright
        self._turn: Turn = None
        self._corrupt = 0
        self.count = 0
        self.end, self.last = Fraction(0), Fraction(0)
        self.stated = container.stated_seconds

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: Any) -> None:
        self._container.__exit__(*exception)

    def frames(self) -> Iterator[tuple[Fraction, av.VideoFrame]]:
        """Yield (time, frame) for every frame that decodes, in the order of presentation, without an upper limit.

        Raises BadVideo as Container does.
        """
        stream = self._container.stream
        clock = Clock(stream.time_base, stream.average_rate or stream.guessed_rate)
        for frame in self._container.frames():
            if not self.count and self._upright:
                self._turn = display_matrix(frame)
            self.count += 1
            self._corrupt += frame.is_corrupt
            time = clock.time(frame.pts)
            self.last = clock.duration(frame.duration)
            self.end = time + self.last
            yield time, frame

    def rgb(self, frame: av.VideoFrame) -> np.ndarray:
        """A frame of this video as H x W x 3 uint8, RGB; see pixels.to_rgb."""
        return to_rgb(frame, self._turn)

    @property
    def damage(self) -> str | None:
        """What was damaged so far, in words, or None."""
        return damage_of(self._container, self._corrupt, self.count)
