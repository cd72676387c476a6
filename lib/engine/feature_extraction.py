"""Features: what a network computes for the clips of videos, in an HDF5 file with a row for each clip or video."""

import contextlib
import copy
import json
import logging
import math
import os
from pathlib import Path

import numpy as np
import torch

from core.config import log_options_without_effect, print_cfg
from data.data_builder import protocol_of_test
from data.sources import expand_test_videos
from engine.agreement import agree_on_options, load_for_all
from engine.scoring import identity, score_clips
from engine.testing import config_as_tested
from formats.result_file import SCORED, UNREADABLE, ResultFile
from models.features import blob_shapes, blob_values, check_blob_names
from models.model_builder_video import create_model
from utils.errors import UserError
from utils.files import make_folder

logger = logging.getLogger(__name__)


class VideoMeans:
    """A ResultFile with a row for each video, written clip by clip: a row is the mean over the video's clips."""

    def __init__(self, file, video_indices):
        self._file, self._videos = file, video_indices
        self._missing = np.bincount(video_indices)
        self._clips = self._missing.copy()
        self._sums = {}

    @property
    def status(self) -> np.ndarray:
        """That of each clip's video."""
        return self._file.status[self._videos]

    def write(self, clips: np.ndarray, values: np.ndarray | None, status: int) -> None:
        """As ResultFile.write; a video's row is written with its last clip."""
        if values is None:
            self._file.write(np.unique(self._videos[clips]), None, status)
            return
        for video, value in zip(self._videos[clips], values, strict=True):
            self._sums[video] = self._sums.get(video, 0) + value.astype(np.float64)
            self._missing[video] -= 1
            if not self._missing[video]:
                mean = self._sums.pop(video) / self._clips[video]
                self._file.write(np.array([video]), mean[None].astype(np.float32), status)


def open_features(cfg, protocol, source, weights, videos, shapes, output, average,
                  pool) -> tuple[ResultFile, ResultFile | VideoMeans]:
    """The ResultFile of the features, and what score_clips writes to."""
    computed_from = identity(cfg, protocol, source, weights) | {"blobs": " ".join(shapes), "pool": str(pool),
                                                       "rows": "videos" if average else "clips"}
    attributes = {
        "weights_file": os.fsencode(os.path.basename(cfg.TEST.PARAMS_FILE)).decode(errors="backslashreplace"),
        "protocol": str(protocol),
        "clips_over_time": protocol.clips,
        "crops": protocol.crops,
        "crop_size": protocol.crop or "whole frames",
        "short_side": protocol.scale,
        "frames": protocol.frames,
        "stride": protocol.stride,
        "dtype": "float32",
        "shapes": json.dumps(shapes),
    }
    constants: dict[str, np.ndarray | list[bytes]] = {"videos": [os.fsencode(path) for path in videos]}
    if not average:
        constants |= {"video_indices": source.video_indices, "temporal_indices": source.temporal_indices}
        if source.spatial_indices is not None:
            constants["spatial_indices"] = source.spatial_indices
    make_folder(Path(output).parent)
    file = ResultFile(output, "features", computed_from, len(videos) if average else len(source), shapes,
                    constants, attributes)
    return file, VideoMeans(file, source.video_indices) if average else file


def extract(cfg, replicas, videos: list[str], blobs: list[str], output: str, average=False, pool=False) -> None:
    """Compute and write the features that are not there yet.

    Args:
        cfg: configuration; its test protocol says which clips are taken, TEST.PARAMS_FILE the weights.
        videos: paths.
        blobs: names of blobs, see models.features.
        output: HDF5 file to make, or to continue.
        average: one row for each video, the mean over its clips and crops.
        pool: average each blob over its positions in time and space.

    Raises:
        UserError: options, weights or an existing output that do not fit.
    """
    protocol = protocol_of_test(cfg)
    print_cfg(config_as_tested(cfg, protocol))
    log_options_without_effect(cfg)
    agree_on_options(cfg, replicas)
    videos = replicas.from_root(lambda: videos)
    if not cfg.TEST.PARAMS_FILE:
        raise UserError("TEST.PARAMS_FILE is not set: give the weights to compute with")
    if cfg.TEST.TEST_FULL_SIZE and not pool and not {"softmax"}.issuperset(blobs):
        raise UserError("TEST.TEST_FULL_SIZE: expected --pool with it, as whole frames of different videos have "
                        "different numbers of positions")
    cfg = copy.deepcopy(cfg)
    cfg.TEST.DATASET_SIZE = len(videos)
    cfg.CHECKPOINT.DIR = str(Path(output).parent)  # holds what is remembered of the videos
    source = expand_test_videos(videos, protocol.multi_crop, protocol.clips)
    model = create_model(cfg, "test").to(replicas.device)
    check_blob_names(model, blobs)
    weights = load_for_all(model, cfg.TEST.PARAMS_FILE, replicas)
    shapes = blob_shapes(model, protocol.clip_shape, blobs, pool)

    def features(clips):
        values = blob_values(model, clips, blobs, pool)
        return torch.cat([value.flatten(1) for value in values.values()], 1)

    with contextlib.ExitStack() as stack:
        file = writer = None

        def open_output():
            nonlocal file, writer
            file, writer = open_features(cfg, protocol, source, weights, videos, shapes, output, average, pool)
            stack.enter_context(file)
            logger.info("Features: %s of %s: %s; %.2f GB", protocol, blobs, shapes,
                        4e-9 * len(file.status) * sum(map(math.prod, shapes.values())))
        replicas.from_root(open_output)
        score_clips(features, cfg, protocol, source, np.arange(len(source)), replicas, writer)
        if file is not None:
            logger.info("Features saved to: %s (%d rows, %d of videos that could not be read)", output,
                        (file.status == SCORED).sum(), (file.status == UNREADABLE).sum())
