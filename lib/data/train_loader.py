"""Batches of random clips, for training and for the evaluations during it."""

import zlib
from collections import deque
from collections.abc import Iterable
from concurrent.futures import Future
from dataclasses import dataclass

import numpy as np
import torch

from data import transforms
from data.loader import Loader
from data.records import label_problem
from data.sources import ListTrainSource, LmdbTrainSource
from utils.errors import UserError
from video.bad_videos import BadVideo, BadVideos
from video.video_facts import VideoFactsCache

Batch = list[tuple[torch.Tensor, torch.Tensor]]


@dataclass(frozen=True)
class TrainClips:
    """The shape of a training or val clip: `length` frames, `rate` apart, a random crop of a randomly scaled video.

    `crop` is the side of the square in pixels; `jitter_scales` the range of the scaled video's short side in pixels,
    both ends included. Raises UserError if the crop can be larger than the frame.
    """

    length: int
    rate: int
    crop: int
    jitter_scales: tuple[int, int]

    def __post_init__(self):
        transforms.check_crop(self.crop, min(self.jitter_scales), "TRAIN.CROP_SIZE", "TRAIN.JITTER_SCALES")


class TrainLoader(Loader):
    """Endless batches of random clips for the replicas of one process.

    next() returns a list with, for each of local_replicas, (clips: uint8 b x L x c x c x 3 RGB, labels: int64 b), where
    b = batch_size // replicas. Replica r takes the r-th run of b of the batch's batch_size successive records.
    `position` is the number of records handed out to all replicas: a loader made with first_record=position continues
    exactly there.

    What is drawn for a clip follows from (seed, purpose, number of the record in the stream). A record whose video is
    bad is replaced by the next good one of the stream, which does not shift the stream: the records that follow keep
    their numbers.

    Memory: _AHEAD local batches of uint8 clips or one clip per worker, whichever is more, and a decoder per worker.

    Args:
        source: from sources.open_train_source.
        clips: their shape.
        batch_size: clips of all replicas together; a multiple of replicas.
        replicas: number of replicas in all processes.
        local_replicas: the numbers of those in this process.
        seed: RNG_SEED.
        purpose: 'train' or 'val', so that the two draw differently.
        num_classes: labels must be in 0..num_classes - 1.
        first_record: number of the first record to hand out.
        workers, bad_videos, facts, pin_memory, hang_seconds, as_stored: see Loader.

    Raises:
        UserError: by next(), in the order of the records: a label out of range, a bad record, too many bad videos, or
            a source without a good video. After an exception the loader is closed.
    """

    _AHEAD = 3  # batches waiting or being decoded

    def __init__(
        self,
        source: LmdbTrainSource | ListTrainSource,
        clips: TrainClips,
        batch_size: int,
        replicas: int,
        local_replicas: Iterable[int],
        seed: int,
        purpose: str,
        num_classes: int,
        workers: int,
        bad_videos: BadVideos,
        first_record: int = 0,
        facts: VideoFactsCache | None = None,
        pin_memory: bool = False,
        hang_seconds: float = 0,
        as_stored: bool = False,
    ):
        if batch_size % replicas:
            raise ValueError(f"a batch of {batch_size} does not divide into {replicas} replicas")
        super().__init__(workers, bad_videos, facts, pin_memory, hang_seconds, as_stored, learn=True)
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
        self._pending: deque[tuple[Batch, list[Future]]] = deque()
        self._scheduled = first_record
        for _ in range(max(self._AHEAD, -(-workers // local_batch))):
            self._schedule()

    def __next__(self) -> Batch:
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

    def _fill(self, slot: int, clip: np.ndarray, label: np.ndarray) -> None:
        """Decode the clip of a slot into clip (L x c x c x 3) and its class into label (1)."""
        rng = np.random.default_rng([self._seed, self._purpose, slot])
        draws = transforms.train_draws(rng, self._clips.jitter_scales)
        # Twice the length of the source contains a whole pass, wherever the shuffled passes begin.
        bad = None
        for candidate in range(slot, slot + 2 * len(self._source)):
            record = self._source.record(candidate)
            if problem := label_problem(record.label, self._num_classes):
                raise UserError(f"record {self._source.name(candidate)}: {problem} (MODEL.NUM_CLASSES "
                                f"{self._num_classes})")
            try:
                self._decode(record.path, draws, clip)
            except BadVideo as error:
                self._bad_videos.add(error)
                bad = error
                continue
            label[0] = record.label
            return
        raise UserError(f"no record from {self._source.name(slot)} on has a good video; the last one: {bad}")

    def _decode(self, path: str, draws: transforms.TrainDraws, clip: np.ndarray) -> None:
        clips = self._clips
        size: tuple[int, int] | None = None  # of the scaled frames: one for the whole clip, as its first frame has it

        def indices_of(num_frames):
            nonlocal size
            size = None
            start = transforms.train_start(draws.start, num_frames, clips.length, clips.rate)
            return transforms.clip_indices(start, clips.length, clips.rate, num_frames)

        def keep(places, frame):
            nonlocal size
            size = size or transforms.scaled_size(*frame.shape[:2], draws.scale)
            row, column = transforms.drawn_offsets(draws, *size, clips.crop)
            square = transforms.cut(transforms.resize(frame, size), row, column, clips.crop, draws.mirror)
            for place in places:
                clip[place] = square

        self._sample(path, indices_of, keep)
