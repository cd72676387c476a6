"""From records to batches: clips decoded by threads, with order and draws that threads cannot change.

Clips travel as uint8; transforms.normalize makes them float32 beside the model.
"""

import itertools
import logging
import threading
import zlib
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import cv2
import numpy as np
import torch

from data import transforms
from data.buffer_pool import BufferPool
from utils.errors import Hang, UserError
from video.capture import BadVideo
from video.decoder import sample_frames
from video.video_facts import VideoFactsCache
from video.watchdog import Watchdog

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainClips:
    """What a training or val clip is: length frames, rate apart, a random crop of a randomly scaled video.

    jitter_scales is the range of the short side in pixels, both ends included. Raises UserError if the
    crop can be larger than the frame.
    """

    length: int
    rate: int
    crop: int
    jitter_scales: tuple[int, int]

    def __post_init__(self):
        transforms.check_crop(self.crop, min(self.jitter_scales), "TRAIN.CROP_SIZE", "TRAIN.JITTER_SCALES")


@dataclass(frozen=True)
class TestClips:
    """What a test clip is: length frames, rate apart, a fixed crop of a video of short side scale.

    crop is None for whole frames. temporal_positions is the number of start frames spread over a video. Raises
    UserError if the crop is larger than the frame.
    """

    length: int
    rate: int
    crop: int | None
    scale: int
    temporal_positions: int

    def __post_init__(self):
        if self.crop is not None:
            transforms.check_crop(self.crop, self.scale, "TRAIN.CROP_SIZE", "TEST.SCALE")


class BadVideos:
    """Videos that gave no frame, and damaged ones, each logged once. May be shared by loaders and threads.

    More than max_bad distinct bad videos are a UserError that lists them; None: any number is survived.
    """

    def __init__(self, max_bad=None):
        self._max_bad = max_bad
        self._bad = {}
        self._damaged = {}
        self._lock = threading.Lock()

    @property
    def paths(self):
        """Paths of the bad videos so far, in the order they were met."""
        with self._lock:
            return list(self._bad)

    def known(self):
        """What has been noted, for merge() in another process."""
        with self._lock:
            return dict(self._bad), dict(self._damaged)

    def merge(self, known):
        """Note what another process has noted. Raises UserError if that is one bad video too many."""
        bad, damaged = known
        for path, reason in bad.items():
            self.add(BadVideo(path, reason))
        for path, damage in damaged.items():
            self.add_damaged(path, damage)

    def add(self, error):
        """Note a BadVideo. Raises UserError if it is one too many."""
        with self._lock:
            if error.path not in self._bad:
                logger.warning("Bad video %r: %s", error.path, error.reason)
                self._bad[error.path] = error.reason
            if self._max_bad is not None and len(self._bad) > self._max_bad:
                listed = "; ".join(f"{path!r} ({reason})" for path, reason in self._bad.items())
                raise UserError(
                    f"{len(self._bad)} bad videos, DATALOADER.MAX_BAD_IMAGES is {self._max_bad}: {listed}"
                )

    def add_damaged(self, path, damage):
        """Note a video that is used although it is damaged."""
        with self._lock:
            if path not in self._damaged:
                logger.warning("Damaged video %r: %s", path, damage)
                self._damaged[path] = damage


class _Loader:
    """The threads of a loader, and their end.

    Threads and not processes: OpenCV lets go of the interpreter's lock while it works, and what threads decode
    need not be copied.
    """

    def __init__(self, workers, bad_videos, counts, pin_memory, hang_seconds):
        self._watch = Watchdog(hang_seconds)
        self._bad_videos = bad_videos
        self._counts = VideoFactsCache() if counts is None else counts
        self._pin_memory = pin_memory
        self._batch_memory = BufferPool()
        self._closed = False
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="decoder")

    def __iter__(self):
        return self

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()

    def close(self):
        """Stop the threads; each ends with the frame that it is at. Raises Hang if one does not, the first time."""
        if self._closed:
            return
        self._stop()
        self._watch.wait_until_idle()
        self._pool.shutdown(wait=True)

    def _stop(self):
        """Begin nothing more; the threads end when they are through with what they are at, if ever."""
        self._closed = True
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _result(self, task):
        """What a task gives; the loader is closed if it raises."""
        try:
            return self._watch.result(task)
        except Hang:
            self._stop()
            raise
        except Exception:
            self.close()
            raise

    def _sample(self, path, indices_of, keep):
        """F, from sample_frames, with damage noted. Raises BadVideo, and Stopped if the loader is closed."""
        with self._watch.video(path) as frame:

            def stopped():
                frame()
                return self._closed

            known = sample_frames(path, indices_of, keep, self._counts, stopped)
        if known.damage:
            self._bad_videos.add_damaged(path, known.damage)
        return known.count

    def _new_clips(self, number, length, height, width):
        """Tensor for that many clips, not filled."""
        shape = number, length, height, width, 3
        if self._pin_memory:
            # PyTorch uses page-locked memory again by itself, when copies from it are done.
            return torch.empty(shape, dtype=torch.uint8, pin_memory=True)
        return self._batch_memory.tensor(shape)


# ---------------------------------------------------------------------------------------------- training


class TrainLoader(_Loader):
    """Endless batches of random clips for the replicas of one process.

    next() gives a list with, for each of local_replicas, (clips: uint8 b x L x c x c x 3, labels: int64
    b), where b = batch_size // replicas. Replica r takes the r-th run of b of the batch's batch_size
    successive records. position is the number of records handed out to all replicas: a loader made with
    first_record=position goes on exactly there.

    What is drawn for a clip follows from (seed, purpose, number of the record in the stream). A record
    whose video is bad is replaced by the next good one of the stream, which does not shift the stream:
    records that follow keep their numbers.

    Args:
        source: from sources.open_train_source.
        clips: TrainClips.
        batch_size: clips of all replicas together; a multiple of replicas.
        replicas: number of replicas in all processes.
        local_replicas: the numbers of those of this process.
        seed: RNG_SEED.
        purpose: 'train' or 'val', so that the two draw differently.
        num_classes: labels must be 0..num_classes - 1.
        workers: decoding threads.
        bad_videos: BadVideos.
        first_record: number of the first record to hand out.
        counts: VideoFactsCache to share with other loaders.
        pin_memory: whether batches lie in page-locked memory, for asynchronous copies to a GPU.
        hang_seconds: how long a video may give no frame before next() raises Hang; 0: for ever.

    Memory: _AHEAD local batches of uint8 clips or one clip a worker, whichever is more, and for each
    worker a decoder. Raises UserError from next(), in order of the records: for a label out of range, a
    bad record, too many bad videos, or a source with no good video. After an exception the loader is
    closed.
    """

    _AHEAD = 3  # batches waiting or being decoded

    def __init__(
        self,
        source,
        clips,
        batch_size,
        replicas,
        local_replicas,
        seed,
        purpose,
        num_classes,
        workers,
        bad_videos,
        first_record=0,
        counts=None,
        pin_memory=False,
        hang_seconds=0,
    ):
        if batch_size % replicas:
            raise ValueError(f"a batch of {batch_size} does not divide into {replicas} replicas")
        super().__init__(workers, bad_videos, counts, pin_memory, hang_seconds)
        self._source = source
        self._clips = clips
        self._batch_size = batch_size
        self._share = batch_size // replicas
        self._local_replicas = list(local_replicas)
        self._seed = seed
        self._purpose = zlib.crc32(purpose.encode())
        self._num_classes = num_classes
        self.position = first_record
        local_batch = self._share * len(self._local_replicas)
        self._pending = deque()
        self._scheduled = first_record
        for _ in range(max(self._AHEAD, -(-workers // local_batch))):
            self._schedule()

    def __next__(self):
        if self._closed:
            raise RuntimeError("the loader is closed")
        batch, tasks = self._pending[0]
        for task in tasks:
            self._result(task)
        self._pending.popleft()
        self.position += self._batch_size
        self._schedule()
        return batch

    def _schedule(self):
        """Let the workers fill the next batch's tensors."""
        batch, tasks = [], []
        for replica in self._local_replicas:
            videos = self._new_clips(self._share, self._clips.length, self._clips.crop, self._clips.crop)
            labels = torch.empty(self._share, dtype=torch.int64, pin_memory=self._pin_memory)
            batch.append((videos, labels))
            first = self._scheduled + replica * self._share
            tasks += [
                self._pool.submit(self._fill, first + i, videos[i].numpy(), labels.numpy()[i : i + 1])
                for i in range(self._share)
            ]
        self._pending.append((batch, tasks))
        self._scheduled += self._batch_size

    def _fill(self, slot, video, label):
        """Decode the clip of a slot into video (L x c x c x 3) and its class into label (1)."""
        rng = np.random.default_rng([self._seed, self._purpose, slot])
        draws = transforms.train_draws(rng, self._clips.jitter_scales)
        # Twice round holds a whole pass, wherever the shuffled passes begin.
        bad = None
        for candidate in range(slot, slot + 2 * len(self._source)):
            record = self._source.record(candidate)
            if not 0 <= record.label < self._num_classes:
                raise UserError(
                    f"record {self._source.name(candidate)}: the label {record.label} is not in "
                    f"0..{self._num_classes - 1} (MODEL.NUM_CLASSES {self._num_classes})"
                )
            try:
                self._decode(record.path, draws, video)
            except BadVideo as error:
                self._bad_videos.add(error)
                bad = error
                continue
            label[0] = record.label
            return
        raise UserError(f"no record gives a good video, from {self._source.name(slot)} on; the last: {bad}")

    def _decode(self, path, draws, video):
        clips = self._clips

        def indices_of(num_frames):
            start = transforms.train_start(draws.start, num_frames, clips.length, clips.rate)
            return transforms.clip_indices(start, clips.length, clips.rate, num_frames)

        def keep(places, frame):
            size = transforms.scaled_size(*frame.shape[:2], draws.scale)
            row, column = transforms.drawn_offsets(draws, *size, clips.crop)
            square = transforms.cut(transforms.resize(frame, size), row, column, clips.crop, draws.mirror)
            for place in places:
                cv2.cvtColor(square, cv2.COLOR_BGR2RGB, dst=video[place])

        self._sample(path, indices_of, keep)


# ---------------------------------------------------------------------------------------------- testing


class TestLoader(_Loader):
    """The clips of a test, each video decoded once for all of its clips, whatever their order in the source.

    Iterates over (clips: uint8 n x L x c x c x 3, ordinals: int64 array n), one for each of the batches given. A bad
    video is noted in bad_videos, and its clips are missing from their batches: which clips share a batch never
    depends on which videos are bad. Without a crop, clips are n x L x H x W x 3, whole frames at test scale, and the
    videos of a batch must be of one size, which they are if a batch is of one video.

    Batches are put together by a thread of their own, one ahead of what is asked for.

    Args:
        source: TestSource.
        clips: TestClips.
        batches: sequence of int64 arrays, the numbers of the records of each batch, those of a
            video one after another (see group_by_video).
        workers: decoding threads.
        bad_videos: BadVideos.
        counts: VideoFactsCache to share with other loaders.
        pin_memory: whether batches lie in page-locked memory, for asynchronous copies to a GPU.
        hang_seconds: how long a video may give no frame before next() raises Hang; 0: for ever.

    Memory: workers + 2 videos at a time, each as its distinct wanted frames at test scale, however long
    it is. That is at most temporal_positions * length frames of 3 * scale * long side bytes: 320 frames
    or 84 MB for 10 clips of 32 frames at 256 x 340. And two batches.
    """

    def __init__(self, source, clips, batches, workers, bad_videos, counts=None, pin_memory=False, hang_seconds=0):
        super().__init__(workers, bad_videos, counts, pin_memory, hang_seconds)
        self._source = source
        self._clips = clips
        self._frame_memory = BufferPool()
        self._videos = iter(_runs_of_one_video(source.path_ids, batches))
        self._pending = deque()
        for _ in range(workers + 1):
            self._schedule()
        self._batches = self._generate(batches)
        self._assembler = ThreadPoolExecutor(1, thread_name_prefix="assembler")
        self._next = self._assembler.submit(next, self._batches, None)

    def __next__(self):
        batch = self._result(self._next)
        if batch is None:
            raise StopIteration
        self._next = self._assembler.submit(next, self._batches, None)
        return batch

    def close(self):
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
                    self._cut(ordinal, frames, batch[len(good)].numpy())
                    good.append(ordinal)
            yield batch[: len(good)], np.array(good, np.int64)

    def _cut(self, ordinal, frames, clip):
        """Write the crop of a record out of its frames, or all of them, into clip (L x h x w x 3)."""
        if self._clips.crop is None:
            np.stack(frames, out=clip)
            return
        spatial = self._source.record(ordinal).spatial_index
        row, column = transforms.crop_offsets(*frames[0].shape[:2], self._clips.crop, spatial)
        mirror = transforms.is_mirrored(spatial)
        for i, frame in enumerate(frames):
            clip[i] = transforms.cut(frame, row, column, self._clips.crop, mirror)

    def _decoded(self):
        """Yield (ordinal, its frames) of every clip of every video in turn; None for the frames of a bad one."""
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

    def _decode(self, ordinals):
        """What these clips of one video need, as a _TestVideo; None if it is bad."""
        path = self._source.paths[self._source.path_ids[ordinals[0]]]
        video = _TestVideo(self._clips, np.unique(self._source.temporal_indices[ordinals]), self._frame_memory)
        try:
            self._sample(path, video.indices, video.keep)
        except BadVideo as error:
            self._bad_videos.add(error)
            return None
        return video


class _TestVideo:
    """The frames of some temporal positions of one video, RGB at test scale, each once."""

    def __init__(self, clips, temporal_indices, memory):
        self._clips = clips
        self._temporal_indices = temporal_indices
        self._memory = memory
        self._frames = None

    def indices(self, num_frames):
        """The distinct frame indices of all positions, in order."""
        self._num_frames = num_frames
        self._indices = np.unique([self._clip_indices(temporal) for temporal in self._temporal_indices])
        return self._indices

    def keep(self, places, frame):
        """Keep a frame; see sample_frames."""
        size = transforms.scaled_size(*frame.shape[:2], self._clips.scale)
        if self._frames is None:
            # Another number of frames may need more of them than this one.
            most = len(self._temporal_indices) * self._clips.length
            self._frames = self._memory.tensor((most, *size, 3)).numpy()
        (place,) = places
        cv2.cvtColor(transforms.resize(frame, size), cv2.COLOR_BGR2RGB, dst=self._frames[place])

    def clip(self, temporal_index):
        """The frames of a clip, each H x W x 3."""
        return [self._frames[i] for i in np.searchsorted(self._indices, self._clip_indices(temporal_index))]

    def _clip_indices(self, temporal_index):
        clips = self._clips
        start = transforms.uniform_start(self._num_frames, clips.temporal_positions, temporal_index)
        return transforms.clip_indices(start, clips.length, clips.rate, self._num_frames)


def group_by_video(path_ids, ordinals):
    """Records by video: a list of int64 arrays, videos in order of first appearance, their records in the order given.

    path_ids is TestSource.path_ids, ordinals are numbers of records in any order.
    """
    ordinals = np.asarray(ordinals, np.int64)
    if not len(ordinals):
        return []
    _, first, group = np.unique(path_ids[ordinals], return_index=True, return_inverse=True)
    order = np.argsort(first[group], kind="stable")
    return np.split(ordinals[order], np.flatnonzero(np.diff(first[group][order])) + 1)


def _runs_of_one_video(path_ids, batches):
    """Yield the ordinals of successive records of one path, across the batches."""
    if not len(batches):
        return
    ordinals = np.concatenate(batches)
    yield from np.split(ordinals, np.flatnonzero(np.diff(path_ids[ordinals])) + 1)
