"""The clips of a test, in batches: every video is decoded once for all of its clips."""

import itertools
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch

from data import transforms
from data.buffer_pool import BufferPool
from data.loader import Loader
from data.sources import TestSource
from video.bad_videos import BadVideo, BadVideos
from video.video_facts import VideoFactsCache


@dataclass(frozen=True)
class TestClips:
    """The shape of a test clip: `length` frames, `rate` apart, a fixed crop of a video of short side `scale`.

    `crop` is the side of the square in pixels; None: whole frames. `temporal_positions` is the number of start frames
    spread over a video. Raises UserError if the crop is larger than the frame.
    """

    length: int
    rate: int
    crop: int | None
    scale: int
    temporal_positions: int

    def __post_init__(self):
        if self.crop is not None:
            transforms.check_crop(self.crop, self.scale, "TRAIN.CROP_SIZE", "TEST.SCALE")


class TestLoader(Loader):
    """The clips of a test; each video is decoded once for all of its clips, whatever their order in the source.

    Iterates over (clips: uint8 n x L x c x c x 3 RGB, ordinals: int64 array n), one for each of the batches given. A
    bad video is noted in bad_videos, and its clips are missing from their batches: which clips share a batch never
    depends on which videos are bad. Without a crop, clips are n x L x H x W x 3, whole frames at test scale, and the
    videos of a batch must have one size, which they have if a batch is of one video.

    A separate thread assembles the batches, one ahead of the one asked for.

    Memory: workers + 2 videos at a time, each as its distinct wanted frames at test scale, however long it is. That is
    at most temporal_positions * length frames of 3 * scale * long side bytes: 320 frames or 84 MB for 10 clips of
    32 frames at 256 x 340. And two batches.

    Args:
        source: the records.
        clips: their shape.
        batches: int64 arrays, the numbers of the records of each batch; those of a video follow one another (see
            sources.group_by_video).
        workers, bad_videos, facts, pin_memory, hang_seconds, as_stored: see Loader.
    """

    def __init__(
        self,
        source: TestSource,
        clips: TestClips,
        batches: Sequence[np.ndarray],
        workers: int,
        bad_videos: BadVideos,
        facts: VideoFactsCache | None = None,
        pin_memory: bool = False,
        hang_seconds: float = 0,
        as_stored: bool = False,
    ):
        super().__init__(workers, bad_videos, facts, pin_memory, hang_seconds, as_stored)
        self._source = source
        self._clips = clips
        self._frame_memory = BufferPool()
        self._videos = iter(_runs_of_one_video(source.path_ids, batches))
        self._pending: deque[tuple[np.ndarray, Future]] = deque()
        for _ in range(workers + 1):
            self._schedule()
        self._batches = self._generate(batches)
        self._assembler = ThreadPoolExecutor(1, thread_name_prefix="assembler")
        self._next = self._assembler.submit(next, self._batches, None)

    def __next__(self) -> tuple[torch.Tensor, np.ndarray]:
        batch = self._result(self._next)
        if batch is None:
            raise StopIteration
        self._next = self._assembler.submit(next, self._batches, None)
        return batch

    def close(self) -> None:
        """See Loader.close."""
        if not self._closed:
            super().close()
            self._assembler.shutdown(wait=True)

    def _stop(self):
        super()._stop()
        self._assembler.shutdown(wait=False, cancel_futures=True)

    def _generate(self, batches):
        decoded = self._decoded()
        for ordinals in batches:
            batch, good = torch.empty(0, dtype=torch.uint8), []
            for ordinal, frames in itertools.islice(decoded, len(ordinals)):
                if frames is not None:
                    if not good:
                        crop = self._clips.crop
                        size = frames[0].shape[:2] if crop is None else (crop, crop)
                        batch = self._new_clips(len(ordinals), self._clips.length, *size)
                    spatial = self._source.record(ordinal).spatial_index
                    transforms.cut_clip(frames, self._clips.crop, spatial, out=batch[len(good)].numpy())
                    good.append(ordinal)
            yield batch[: len(good)], np.array(good, np.int64)

    def _decoded(self) -> Iterator[tuple[int, list[np.ndarray] | None]]:
        """Yield (ordinal, its frames) of every clip of every video in turn; None for the frames of a bad video."""
        while self._pending:
            ordinals, task = self._pending.popleft()
            video = task.result()
            self._schedule()
            for ordinal in ordinals:
                yield ordinal, None if video is None else video.clip(self._source.temporal_indices[ordinal])

    def _schedule(self):
        """Let the workers decode the next video, if there is one."""
        ordinals = next(self._videos, None)
        if ordinals is not None:
            self._pending.append((ordinals, self._pool.submit(self._decode, ordinals)))

    def _decode(self, ordinals: np.ndarray) -> "_TestVideo | None":
        """The frames that these clips of one video need; None if the video is bad."""
        path = self._source.paths[self._source.path_ids[ordinals[0]]]
        video = _TestVideo(self._clips, np.unique(self._source.temporal_indices[ordinals]), self._frame_memory)
        try:
            self._sample(path, video.indices, video.keep)
        except BadVideo as error:
            self._bad_videos.add(error)
            return None
        return video


class _TestVideo:
    """The frames of some temporal positions of one video, RGB at test scale, each stored once for each size.

    All frames of a clip have the size of its first one in the order of the video; whole frames (no crop), that of the
    video's first. Only in a video whose size changes do the sizes of clips differ.
    """

    def __init__(self, clips, temporal_indices, memory):
        self._clips = clips
        self._temporal_indices = temporal_indices
        self._memory = memory
        self._wanted = {}  # {temporal index: frame indices of its clip}
        self._sizes = {}  # {temporal index: size of its clip}
        self._frames = {}  # {(frame index, size): frame}
        self._stored = None  # memory for the frames of the first size, in the order of the video

    def indices(self, num_frames):
        """The distinct frame indices of all positions, in order."""
        self._wanted = {int(temporal): self._clip_indices(temporal, num_frames) for temporal in self._temporal_indices}
        self._indices = np.unique(np.concatenate(list(self._wanted.values())))
        self._users = {int(index): [] for index in self._indices}
        for temporal, wanted in self._wanted.items():
            for index in set(wanted.tolist()):
                self._users[index].append(temporal)
        self._sizes, self._frames = {}, {}  # if F turns out to be another number, this is called again
        return self._indices

    def keep(self, places, frame):
        """Keep a frame; see sample_frames."""
        (place,) = places
        index = int(self._indices[place])
        own = transforms.scaled_size(*frame.shape[:2], self._clips.scale)
        if self._clips.crop is None and self._sizes:
            own = next(iter(self._sizes.values()))
        for temporal in self._users[index]:
            size = self._sizes.setdefault(temporal, own)
            if (index, size) not in self._frames:
                self._frames[index, size] = transforms.resize(frame, size, out=self._place(place, size))

    def clip(self, temporal_index):
        """The frames of a clip, each H x W x 3."""
        size = self._sizes[int(temporal_index)]
        return [self._frames[index, size] for index in self._wanted[int(temporal_index)].tolist()]

    def _place(self, place, size):
        if self._stored is None:
            # If F turns out to be another number, more frames may be wanted than are now.
            most = len(self._temporal_indices) * self._clips.length
            self._stored = self._memory.tensor((most, *size, 3)).numpy()
        return self._stored[place] if self._stored.shape[1:3] == size else np.empty((*size, 3), np.uint8)

    def _clip_indices(self, temporal_index, num_frames):
        clips = self._clips
        start = transforms.uniform_start(num_frames, clips.temporal_positions, temporal_index)
        return transforms.clip_indices(start, clips.length, clips.rate, num_frames)


def _runs_of_one_video(path_ids, batches):
    """Yield the ordinals of successive records of one path, across the batches."""
    if not len(batches):
        return
    ordinals = np.concatenate(batches)
    yield from np.split(ordinals, np.flatnonzero(np.diff(path_ids[ordinals])) + 1)
