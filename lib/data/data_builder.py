"""Builds sources and loaders from the configuration; the only module of this package that reads it."""

import logging
import os
from collections.abc import Iterator, Sequence
from fractions import Fraction
from functools import cache
from pathlib import Path

import numpy as np
from torch import Tensor

from data.lists import origin_of, read_list
from data.records import SPATIAL_POSITIONS, label_problem
from data.sliding_loader import SlidingLoader
from data.sources import TestSource, open_test_source, open_train_source
from data.test_loader import TestClips, TestLoader
from data.test_protocol import TestProtocol
from data.train_loader import TrainClips, TrainLoader
from data.transforms import normalize
from utils.collections import AttrDict
from utils.errors import UserError
from video.bad_videos import BadVideos
from video.video_facts import VideoFactsCache

logger = logging.getLogger(__name__)


def decoder_threads(cfg: AttrDict, replicas) -> int:
    """VIDEO_DECODER_THREADS per replica of this process, limited to the number of available cores."""
    return max(1, min(cfg.VIDEO_DECODER_THREADS * len(replicas.local), len(os.sched_getaffinity(0))))


@cache
def _known_facts(folder):
    """The cache of a folder, shared by all loaders of this process."""
    return VideoFactsCache(Path(folder) / "frame_counts.txt")


def train_loader(cfg: AttrDict, replicas, bad_videos: BadVideos, first_record: int = 0) -> TrainLoader:
    """Training batches for the replicas of this process, starting at record number first_record."""
    return _random_clips(cfg, replicas, bad_videos, cfg.TRAIN.DATA_TYPE, "train", cfg.TRAIN.BATCH_SIZE,
                         first_record)


def val_loader(cfg: AttrDict, replicas, bad_videos: BadVideos, first_record: int = 0) -> TrainLoader:
    """Batches for evaluation during training: random clips, as in training, in the order of the split."""
    return _random_clips(cfg, replicas, bad_videos, cfg.TEST.DATA_TYPE, "val", cfg.TEST.BATCH_SIZE, first_record)


def describe_training_data(cfg: AttrDict) -> dict[str, str]:
    """What distinguishes the training and evaluation data from others."""
    splits = {"training data": cfg.TRAIN.DATA_TYPE, "evaluation data": cfg.TEST.DATA_TYPE}
    sources = {what: open_train_source(cfg.DATADIR, split, seed=0, shuffle=False) for what, split in splits.items()}
    return {what: f"{len(source)} records ({source.digest()[:12]})" for what, source in sources.items()}


def _random_clips(cfg, replicas, bad_videos, split, purpose, batch_size, first_record):
    train, source = cfg.TRAIN, open_train_source(cfg.DATADIR, split, cfg.RNG_SEED, shuffle=purpose == "train")
    if purpose == "train" and (label := source.only_label()) is not None:
        logger.warning("The training data (%s in %s) seem to be of class %d alone: nothing can be learned from them",
                       split, cfg.DATADIR, label)
    return TrainLoader(
        source=source,
        clips=TrainClips(train.VIDEO_LENGTH, train.SAMPLE_RATE, train.CROP_SIZE, tuple(train.JITTER_SCALES)),
        batch_size=batch_size,
        replicas=replicas.total,
        local_replicas=replicas.local,
        seed=cfg.RNG_SEED,
        purpose=purpose,
        num_classes=cfg.MODEL.NUM_CLASSES,
        workers=decoder_threads(cfg, replicas),
        bad_videos=bad_videos,
        first_record=first_record,
        facts=_known_facts(cfg.CHECKPOINT.DIR),
        pin_memory=replicas.device.type == "cuda",
        hang_seconds=cfg.DATALOADER.HANG_SECONDS,
        as_stored=cfg.DATALOADER.AS_STORED,
    )


def protocol_of_test(cfg: AttrDict) -> TestProtocol:
    """The TestProtocol of a configuration; the only place where its options are read.

    TEST.TEST_FULLY_CONV uses three crops of TRAIN.JITTER_SCALES[0] pixels, TEST_FULLY_CONV_FLIP adds their mirror
    images, and TEST_FULL_SIZE uses whole frames. Otherwise crops have 224 pixels, placed by TEST.USE_MULTI_CROP.

    Raises:
        UserError: If TEST.NUM_TEST_CLIPS, which counts every crop, is not a multiple of the number of crops per clip.
    """
    test = cfg.TEST
    crop: int | None = 224
    multi_crop = test.USE_MULTI_CROP
    if test.TEST_FULLY_CONV or test.TEST_FULLY_CONV_FLIP:
        crop, multi_crop = cfg.TRAIN.JITTER_SCALES[0], 1 if test.TEST_FULLY_CONV else 2
    elif test.TEST_FULL_SIZE:
        crop, multi_crop = None, 0
    crops = SPATIAL_POSITIONS[multi_crop]
    if test.NUM_TEST_CLIPS % crops:
        raise UserError(f"TEST.NUM_TEST_CLIPS: expected a multiple of the {crops} crops of a clip, "
                        f"got {test.NUM_TEST_CLIPS}")
    return TestProtocol(cfg.TRAIN.VIDEO_LENGTH, cfg.TRAIN.SAMPLE_RATE, test.SCALE, crop, multi_crop,
                        test.NUM_TEST_CLIPS // crops)


def test_source(cfg: AttrDict, protocol: TestProtocol) -> TestSource:
    """The records of the test split. Raises UserError if their clips do not match the protocol."""
    clips_of_test(protocol)
    source = open_test_source(cfg.DATADIR, "test", protocol.multi_crop, protocol.clips)
    if protocol.crop is None and (found := source.temporal_indices.max() + 1) != protocol.clips:
        # Otherwise the clips would not spread over the whole video.
        raise UserError(f"the test LMDB in {cfg.DATADIR} has {found} clips a video; TEST.NUM_TEST_CLIPS: expected "
                        f"{found} with TEST.TEST_FULL_SIZE True, got {cfg.TEST.NUM_TEST_CLIPS}")
    return source


def clips_of_test(protocol: TestProtocol) -> TestClips:
    """The TestClips of a protocol. Raises UserError if a crop is larger than the short side of the frames."""
    return TestClips(protocol.frames, protocol.stride, protocol.crop, protocol.scale, protocol.clips)


def test_loader(cfg: AttrDict, replicas, protocol: TestProtocol, source: TestSource, batches: Sequence[np.ndarray],
                bad_videos: BadVideos, facts: VideoFactsCache | None = None) -> TestLoader:
    """A TestLoader for the given batches of the source's records.

    facts is a VideoFactsCache to use instead of the one in CHECKPOINT.DIR.
    """
    return TestLoader(
        source=source,
        clips=clips_of_test(protocol),
        batches=batches,
        workers=decoder_threads(cfg, replicas),
        bad_videos=bad_videos,
        facts=_known_facts(cfg.CHECKPOINT.DIR) if facts is None else facts,
        pin_memory=replicas.device.type == "cuda",
        hang_seconds=cfg.DATALOADER.HANG_SECONDS,
        as_stored=cfg.DATALOADER.AS_STORED,
    )


def sliding_loader(cfg: AttrDict, replicas, protocol: TestProtocol, path: str, seconds: Fraction,
                   bad_videos: BadVideos) -> SlidingLoader:
    """A SlidingLoader for a long video; protocol.clips are those of a window of `seconds`."""
    return SlidingLoader(
        path=path,
        seconds=seconds,
        clips=clips_of_test(protocol),
        multi_crop=protocol.multi_crop,
        batch_size=cfg.TEST.BATCH_SIZE // cfg.NUM_GPUS,
        bad_videos=bad_videos,
        pin_memory=replicas.device.type == "cuda",
        hang_seconds=cfg.DATALOADER.HANG_SECONDS,
        as_stored=cfg.DATALOADER.AS_STORED,
    )


def read_ground_truth(cfg: AttrDict) -> np.ndarray | None:
    """(videos,) true classes of the test videos from FILENAME_GT, or None if it is null (no scoring)."""
    if cfg.FILENAME_GT is None:
        return None
    if not cfg.FILENAME_GT:
        raise UserError("FILENAME_GT is not set: expected the list of the test videos, or None for no scoring")
    truth = read_list(cfg.FILENAME_GT)
    if len(truth) != cfg.TEST.DATASET_SIZE:
        raise UserError(f"{cfg.FILENAME_GT}: expected TEST.DATASET_SIZE {cfg.TEST.DATASET_SIZE} lines, "
                        f"got {len(truth)}")
    labels = [truth.label(i) for i in range(len(truth))]
    classes = cfg.MODEL.NUM_CLASSES
    for number, label in enumerate(labels, start=1):
        if problem := label_problem(label, classes):
            raise UserError(f"{cfg.FILENAME_GT}:{number}: {problem} (MODEL.NUM_CLASSES {classes})")
    return np.array(labels)


def warn_of_missing_test_data(cfg: AttrDict) -> None:
    """Warn at the start of training if the final test's data are missing; training itself does not need them."""
    test = Path(cfg.DATADIR) / "test"
    if not test.is_dir() and not test.with_suffix(".txt").is_file():
        logger.warning("The test after training needs %s, which is not there yet", test)
    if cfg.FILENAME_GT is not None and not Path(cfg.FILENAME_GT).is_file():
        logger.warning("The test after training needs FILENAME_GT %s, which is not there yet%s", cfg.FILENAME_GT,
                       origin_of(cfg.FILENAME_GT))


class Preprocessor:
    """Converts the loader's uint8 clips to the model's input, on the model's device."""

    def __init__(self, cfg, device):
        self.device = device
        self.mean, self.std, self.use_bgr = cfg.MODEL.MEAN, cfg.MODEL.STD, cfg.MODEL.USE_BGR

    def clips(self, clips: Tensor) -> Tensor:
        """N x L x H x W x 3 uint8 -> N x 3 x L x H x W float32."""
        return normalize(clips.to(self.device, non_blocking=True), self.mean, self.std, self.use_bgr)

    def batch(self, batch: list[tuple[Tensor, Tensor]]) -> Iterator[tuple[Tensor, Tensor]]:
        """Move the (clips, labels) of each replica to the device, with the clips normalised; one at a time, as float32
        takes four times the memory of uint8."""
        for clips, labels in batch:
            yield self.clips(clips), labels.to(self.device, non_blocking=True)
