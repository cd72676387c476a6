"""The views of a long video, in batches, from one pass over the file."""

import itertools
from collections import deque
from collections.abc import Generator
from dataclasses import dataclass
from fractions import Fraction
from functools import partial

import numpy as np
import torch

from data import transforms
from data.loader import Loader
from data.records import SPATIAL_POSITIONS
from data.sliding_windows import Window, WindowCutter
from data.test_loader import TestClips
from video.bad_videos import BadVideo, BadVideos
from video.sampling import open_video
from video.video import Stopped


@dataclass(frozen=True)
class SlidingBatch:
    """Views of a video, and the windows all of whose views have come with this batch or before.

    Attributes:
        views: n x L x c x c x 3 uint8 RGB; n may be 0 in the last batch.
        clips: (n,) the number of each view's clip, ascending: the crops of a clip follow each other.
        windows: list of Window.
        stated: length of the video in seconds by what its container says, or None.
    """

    views: torch.Tensor
    clips: np.ndarray
    windows: list[Window]
    stated: float | None


class SlidingLoader(Loader):
    """Iterates over the SlidingBatches of one video; the next one is made in a thread meanwhile.

    Memory, however long the video is: frames at test scale, at first of a whole clip ((length - 1) * rate + 1), then
    `length`; and three batches.

    Next raises BadVideo where the video cannot be read (any further); windows that came before stand.

    Args:
        path: of the video.
        seconds: length of a window.
        clips: their shape; temporal_positions is the number of clips of a window.
        multi_crop: see TestProtocol.
        batch_size: views of a batch; the last one has fewer, and one before whole frames of another size.
        bad_videos, pin_memory, hang_seconds, as_stored: see Loader.
    """

    def __init__(self, path: str, seconds: Fraction, clips: TestClips, multi_crop: int, batch_size: int,
                 bad_videos: BadVideos, pin_memory: bool = False, hang_seconds: float = 0, as_stored: bool = False):
        super().__init__(1, bad_videos, None, pin_memory, hang_seconds, as_stored)
        self._path = path
        self._clips = clips
        self._cutter: WindowCutter[_ScaledFrame] = WindowCutter(seconds, clips.temporal_positions, clips.length,
                                                                clips.rate)
        self._spatial = range(SPATIAL_POSITIONS[multi_crop]) if multi_crop else [None]
        self._batch_size = batch_size
        self._first_sizes: deque[tuple[int, int]] = deque(maxlen=clips.length)  # of frames that clips begin with
        self._stated: float | None = None
        self._frame_done = lambda: None
        self._batches = self._generate()
        self._next = self._pool.submit(self._make)

    def __next__(self) -> SlidingBatch:
        batch = self._result(self._next)
        if batch is None:
            raise StopIteration
        self._next = self._pool.submit(self._make)
        return batch

    def close(self) -> None:
        """See Loader.close."""
        if not self._closed:
            super().close()
            self._batches.close()  # and with it the file

    def _make(self):
        with self._watchdog.video(self._path) as self._frame_done:
            return next(self._batches, None)

    def _generate(self) -> Generator[SlidingBatch, None, None]:
        views: torch.Tensor | None = None
        clips: list[int] = []
        windows: list[Window] = []
        numbers = itertools.count()

        def batch():
            made = torch.empty(0, dtype=torch.uint8) if views is None else views[:len(clips)]
            return SlidingBatch(made, np.array(clips, np.int64), windows, self._stated)

        events = self._events()
        while True:
            try:
                event = next(events, None)
            except BadVideo:
                yield batch()  # what came before stands
                raise
            if event is None:
                break
            if isinstance(event, Window):
                windows.append(event)
                continue
            number = next(numbers)
            frames = [frame.scaled[event[0].size] for frame in event]
            size = (self._clips.crop, self._clips.crop) if self._clips.crop else frames[0].shape[:2]
            for spatial in self._spatial:
                if views is not None and (len(clips) == self._batch_size or views.shape[2:4] != size):
                    yield batch()
                    views, clips, windows = None, [], []
                if views is None:
                    views = self._new_clips(self._batch_size, self._clips.length, *size)
                transforms.cut_clip(frames, self._clips.crop, spatial, out=views[len(clips)].numpy())
                clips.append(number)
        yield batch()

    def _events(self):
        """Yield the clips and windows of the video."""
        with open_video(self._path, self._as_stored).play() as playback:
            self._stated = playback.stated
            for number, (time, frame) in enumerate(playback.frames()):
                self._frame_done()
                if self._closed:
                    raise Stopped
                yield from self._cutter.add(time, partial(self._take, playback, frame, number))
            if not playback.count:
                raise BadVideo(self._path, "no frame decodes")
            yield from self._cutter.finish(playback.end, playback.last)
            if playback.damage:
                self._bad_videos.add_damaged(self._path, playback.damage)

    def _take(self, playback, frame, number):
        """A frame as clips need it: all frames of a clip get the size of its first one."""
        frame = playback.rgb(frame)
        size = transforms.scaled_size(*frame.shape[:2], self._clips.scale)
        if not number % self._clips.rate:
            self._first_sizes.append(size)
        return _ScaledFrame(size, {wanted: transforms.resize(frame, wanted) for wanted in {size, *self._first_sizes}})


@dataclass(frozen=True, slots=True)
class _ScaledFrame:
    """A frame at test scale: its own size, and {size: frame} for that and those of other frames of its clips."""

    size: tuple[int, int]
    scaled: dict[tuple[int, int], np.ndarray]
