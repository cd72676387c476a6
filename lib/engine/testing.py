"""The test of a network: scores of every view of every video, accuracy over videos, results_probs.pkl."""

import contextlib
import copy
import logging
import math
from pathlib import Path

import numpy as np

from core.config import print_cfg
from data.data_builder import protocol_of_test, read_ground_truth, test_source
from data.sources import TestSource
from data.test_protocol import TestProtocol
from engine.agreement import load_for_all
from engine.run_lock import only_run_in
from engine.scoring import identity, score_clips
from formats.result_file import SCORED, ResultFile, keep_unfinished
from models.features import BlobNetwork
from models.model_builder_video import SCORES, load_model
from reports.video_scores import Report, score_videos, write_results
from utils.collections import AttrDict
from utils.errors import UserError
from utils.files import make_writable_folder

logger = logging.getLogger(__name__)

SCORES_FILE, RESULTS_FILE, CONTENT = "results_scores.h5", "results_probs.pkl", "scores of a test"


def test_net(cfg, replicas) -> Report | None:
    """Score every clip, report the accuracy over videos, and write results_probs.pkl.

    Returns the report, in the root; None without FILENAME_GT.
    """
    protocol = protocol_of_test(cfg)
    if protocol.crop is None:
        if cfg.TEST.OUTPUT_NAME not in SCORES:
            raise UserError(f"TEST.OUTPUT_NAME: expected {' or '.join(SCORES)} with TEST.TEST_FULL_SIZE, as other "
                            f"blobs have a size for each size of frames, got {cfg.TEST.OUTPUT_NAME!r}")
        logger.info("Testing on whole frames of short side: %d", protocol.scale)
    else:
        logger.info("Setting test crop_size to: %d", protocol.crop)
    print_cfg(config_as_tested(cfg, protocol))
    if not cfg.TEST.PARAMS_FILE:
        raise UserError("TEST.PARAMS_FILE is not set: give the weights to test")
    labels, source, ordinals = replicas.from_root(lambda: plan_test(cfg, protocol))
    # Whole frames have many sizes, each of which would be compiled separately.
    compilable = 0 if protocol.crop is None else len(ordinals) // replicas.processes
    weights = ""

    def load(model):
        nonlocal weights
        weights = load_for_all(model, cfg.TEST.PARAMS_FILE, replicas)

    model = load_model(cfg, load, replicas.device, protocol.clip_shape, cfg.TEST.OUTPUT_NAME, compilable)
    size = model.size(protocol.clip_shape) if isinstance(model, BlobNetwork) else cfg.MODEL.NUM_CLASSES

    folder, report = Path(cfg.CHECKPOINT.DIR), None
    with contextlib.ExitStack() as stack:
        scores_file = None

        def open_scores():
            nonlocal scores_file
            make_writable_folder(folder)
            stack.enter_context(only_run_in(folder))
            scores_file = stack.enter_context(ResultFile(
                folder / SCORES_FILE, CONTENT, identity(cfg, protocol, source, weights), len(source),
                {"scores": (size,)}, {"video_indices": source.video_indices}, make_way=True))

        replicas.from_root(open_scores)
        score_clips(model, cfg, protocol, source, np.unique(ordinals), replicas, scores_file)
        if scores_file is not None:
            # In record order, and as often as the plan takes a record; a bad video has no clips.
            clips = ordinals[scores_file.status[ordinals] == SCORED]
            videos, scores = source.video_indices[clips], scores_file.columns["scores"][:][clips]
            if labels is not None:
                report = score_videos(videos, scores, labels, cfg.TEST.NUM_TEST_CLIPS)
                report.log()
            logger.info("Test protocol: %s; %d of %d videos scored; weights %s (SHA-256 %s)", protocol,
                        len(np.unique(videos)), cfg.TEST.DATASET_SIZE, Path(cfg.TEST.PARAMS_FILE).name,
                        weights[:12])
            write_results(folder / RESULTS_FILE, videos, scores)
    return report


def plan_test(cfg: AttrDict, protocol: TestProtocol) -> tuple[np.ndarray | None, TestSource, np.ndarray]:
    """The true classes of the videos (None: no scoring), the records of the test, and the numbers of those to score."""
    labels, source = read_ground_truth(cfg), test_source(cfg, protocol)
    test = cfg.TEST
    return labels, source, plan_clips(source.video_indices, test.DATASET_SIZE, test.NUM_TEST_CLIPS, test.BATCH_SIZE)


def keep_unfinished_scores(cfg: AttrDict) -> None:
    """Before a training whose weights will be tested: scores of other weights must not stop that test."""
    keep_unfinished(Path(cfg.CHECKPOINT.DIR, SCORES_FILE), CONTENT,
                    "of a test with other weights than this training makes")


def config_after_training(cfg: AttrDict, weights: str | Path) -> AttrDict:
    """A copy of the configuration for the fully convolutional test that ends a training."""
    cfg = copy.deepcopy(cfg)
    cfg.TEST.update(PARAMS_FILE=str(weights), OUTPUT_NAME="softmax", TEST_FULLY_CONV=not cfg.TEST.TEST_FULL_SIZE)
    return cfg


def config_as_tested(cfg: AttrDict, protocol: TestProtocol) -> AttrDict:
    """A copy of the configuration with the options that a test overrides, for the log."""
    cfg = copy.deepcopy(cfg)
    cfg.TEST.update(DATA_TYPE="test", USE_MULTI_CROP=protocol.multi_crop)
    cfg.TRAIN.CROP_SIZE = protocol.crop or protocol.scale
    return cfg


def plan_clips(video_indices: np.ndarray, dataset_size: int, clips_per_video: int, batch_size: int) -> np.ndarray:
    """Which records to score, as legacy's batches over the wrapping LMDB would.

    Args:
        video_indices: (records,) video index of each record, in key order.
        dataset_size, clips_per_video, batch_size: TEST.DATASET_SIZE, NUM_TEST_CLIPS and BATCH_SIZE.

    Returns:
        Ordinals of the records, at most clips_per_video for each video; further records of a video are logged and left
        out. A number of records that differs from the number of clips is logged.
    """
    outside = np.flatnonzero((video_indices < 0) | (video_indices >= dataset_size))
    if len(outside):
        raise UserError(f"test record {outside[0]} (in key order) is of video {video_indices[outside[0]]}, expected "
                        f"0 to {dataset_size - 1}: TEST.DATASET_SIZE is {dataset_size}")
    if len(video_indices) != dataset_size * clips_per_video:
        logger.warning("The test data have %d records; %d videos (TEST.DATASET_SIZE) of %d clips (TEST.NUM_TEST_CLIPS) "
                       "have %d: is this the LMDB of another test?", len(video_indices), dataset_size, clips_per_video,
                       dataset_size * clips_per_video)
    wanted = math.ceil(dataset_size * clips_per_video / batch_size) * batch_size
    seen = np.zeros(dataset_size, np.int64)
    ordinals = []
    for i in range(wanted):
        if i % len(video_indices) == 0 and (seen[np.unique(video_indices)] >= clips_per_video).all():
            break  # another round would only be skipped
        ordinal = i % len(video_indices)
        video = video_indices[ordinal]
        if seen[video] == clips_per_video:
            logger.warning("Video id %d have been seen. Skip.", video)
        else:
            seen[video] += 1
            ordinals.append(ordinal)
    return np.array(ordinals)
