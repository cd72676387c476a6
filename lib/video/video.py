"""What a video is to the rest of the program: a name, a fingerprint, and frames on request."""

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from video.playback import Playback
from video.video_facts import Fingerprint, VideoFacts, VideoFactsCache

IndicesOf = Callable[[int], Sequence[int] | np.ndarray]
Keep = Callable[[list[int], np.ndarray], None]


class Stopped(Exception):
    """The frames are no longer wanted."""


class Video(Protocol):
    """A source of frames. The kinds of videos are listed in sampling.KINDS.

    Attributes:
        name: for messages, logs and the facts cache; usually the path.
        fingerprint: of its content when the object was made.
    """

    name: str
    fingerprint: Fingerprint

    def sample(self, indices_of: IndicesOf, keep: Keep, cache: VideoFactsCache, stopped: Callable[[], bool],
               learn: bool) -> VideoFacts:
        """Decode the wanted frames; see sampling.sample_frames."""

    def examine(self) -> VideoFacts:
        """Decode everything, to find what is damaged or unusual. Raises BadVideo if there is no frame."""

    def learn(self, examined: Callable[[VideoFacts], None]) -> VideoFacts:
        """As examine(); call examined with that; then add whether less may be decoded for a frame (skip_check.py)."""

    def play(self) -> Playback:
        """All frames in turn, with their times. Raises BadVideo, also for a video that has no times."""


def places_of(indices: Sequence[int] | np.ndarray) -> dict[int, list[int]]:
    """{index of a wanted frame: its places in indices}, in the order of first appearance."""
    places: dict[int, list[int]] = {}
    for place, index in enumerate(indices):
        places.setdefault(int(index), []).append(place)
    return places
