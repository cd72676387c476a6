#!/usr/bin/env python3
"""Write what a network computes for videos into an HDF5 file: pool5, or any other of its blobs.

    python tools/extract_features.py --config_file configs/F.yaml --list LIST --blob pool5 --output features.h5 \
        TEST.PARAMS_FILE W.pkl TEST.NUM_TEST_CLIPS 10

Clips and crops are those of the test tool, with the same options: a row for each clip, for each video each crop, each
position in time; or with --average a row for each video. A run that was ended goes on when it is started again.
"""

import _init_paths  # noqa: F401, I001  (puts lib/ on the path)

import argparse
import contextlib
import json
import logging
import math
import os
from pathlib import Path

import numpy as np
import torch

from core.config import load_config, log_options_without_effect, print_cfg
from data.data_builder import temporal_positions, crop_of_test
from data.lists import read_list
from data.sources import expand_test_videos
from models.features import blob_shapes, blob_values, check_blob_names
from models.model_builder_video import create_model
from test_net_video import derive_test_config, describe_protocol, identity, score_clips
from utils import cli
from utils.checkpoints import initialize_params_from_file
from utils.errors import UserError
from utils.files import make_folder
from engine.interruption import EXIT_INTERRUPTED, Interrupted, Interruption
from engine.launcher import launch
from formats.result_file import SCORED, UNREADABLE, ResultFile

logger = logging.getLogger(__name__)


class VideoMeans:
    """A ResultFile with a row for each video, to be written clip by clip: a row is the mean over the video's clips."""

    def __init__(self, file, video_indices):
        self._file, self._videos = file, video_indices
        self._missing = np.bincount(video_indices)
        self._clips = self._missing.copy()
        self._sums = {}

    @property
    def status(self):
        """That of each clip's video."""
        return self._file.status[self._videos]

    def write(self, clips, values, status):
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


def open_features(args, cfg, source, shapes, videos):
    """The ResultFile of the features, and what score_clips is to write to."""
    computed_from = identity(cfg, source) | {"blobs": " ".join(args.blob), "pool": str(args.pool),
                                             "rows": "videos" if args.average else "clips"}
    attributes = {
        "weights_file": os.path.basename(cfg.TEST.PARAMS_FILE),
        "protocol": describe_protocol(cfg),
        "clips_over_time": temporal_positions(cfg),
        "crops": cfg.TEST.NUM_TEST_CLIPS // temporal_positions(cfg),
        "crop_size": crop_of_test(cfg) or "whole frames",
        "short_side": cfg.TEST.SCALE,
        "frames": cfg.TRAIN.VIDEO_LENGTH,
        "stride": cfg.TRAIN.SAMPLE_RATE,
        "dtype": "float32",
        "shapes": json.dumps(shapes),
    }
    constants = {"videos": [os.fsencode(path) for path in videos]}
    if not args.average:
        constants |= {"video_indices": source.video_indices, "temporal_indices": source.temporal_indices}
        if source.spatial_indices is not None:
            constants["spatial_indices"] = source.spatial_indices
    make_folder(Path(args.output).parent)
    file = ResultFile(args.output, "features", computed_from, len(videos) if args.average else len(source), shapes,
                    constants, attributes)
    return file, VideoMeans(file, source.video_indices) if args.average else file


def extract(args, cfg, replicas):
    """Compute and write the features that are not there yet. Returns the exit status."""
    cfg = derive_test_config(cfg)
    print_cfg(cfg)
    log_options_without_effect(cfg)
    if not cfg.TEST.PARAMS_FILE:
        raise UserError("TEST.PARAMS_FILE is not set: give the weights to compute with")
    if cfg.TEST.TEST_FULL_SIZE and not args.pool and not {"softmax"}.issuperset(args.blob):
        raise UserError("TEST.TEST_FULL_SIZE: expected --pool with it, as whole frames of different videos have "
                        "different numbers of positions")
    videos = args.video
    if args.list:
        listed = read_list(args.list)
        videos = [listed.path(line) for line in range(len(listed))]
    cfg.TEST.DATASET_SIZE = len(videos)
    cfg.CHECKPOINT.DIR = str(Path(args.output).parent)  # where numbers of frames are remembered
    source = expand_test_videos(videos, cfg.TEST.USE_MULTI_CROP, temporal_positions(cfg))
    model = create_model(cfg, "test").to(replicas.device)
    check_blob_names(model, args.blob)
    initialize_params_from_file(model, cfg.TEST.PARAMS_FILE)
    clip_shape = (3, cfg.TRAIN.VIDEO_LENGTH, cfg.TRAIN.CROP_SIZE, cfg.TRAIN.CROP_SIZE)
    shapes = blob_shapes(model, clip_shape, args.blob, args.pool)

    def features(clips):
        values = blob_values(model, clips, args.blob, args.pool)
        return torch.cat([value.flatten(1) for value in values.values()], 1)

    with contextlib.ExitStack() as stack:
        file = writer = None
        if replicas.is_root:
            file, writer = open_features(args, cfg, source, shapes, videos)
            stack.enter_context(file)
            logger.info("Features: %s of %s: %s; %.2f GB", describe_protocol(cfg), args.blob, shapes,
                        4e-9 * len(file.status) * sum(map(math.prod, shapes.values())))
        try:
            with Interruption(replicas) as interruption:
                score_clips(features, cfg, source, np.arange(len(source)), replicas, writer, interruption)
        except Interrupted:
            return EXIT_INTERRUPTED
        if replicas.is_root:
            logger.info("Features saved to: %s (%d rows, %d of videos that could not be read)", args.output,
                        (file.status == SCORED).sum(), (file.status == UNREADABLE).sum())
    return 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config_file", required=True, help="YAML file of options")
    videos = parser.add_mutually_exclusive_group(required=True)
    videos.add_argument("--list", metavar="LIST", help="list of videos: 'path label' lines")
    videos.add_argument("--video", action="append", metavar="VIDEO", help="a video; may be given several times")
    parser.add_argument("--blob", action="append", required=True, metavar="NAME",
                        help="e.g. pool5, res5_2, nonlocal_conv4_5_theta; may be given several times")
    parser.add_argument("--output", required=True, metavar="H5", help="file to make, or to go on with")
    parser.add_argument("--average", action="store_true", help="a row a video, the mean over its clips and crops")
    parser.add_argument("--pool", action="store_true", help="the mean of a blob over its positions in time and space")
    parser.add_argument("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="options over those of the file")
    args = parser.parse_args()
    cli.setup_logging()
    cfg = load_config(args.config_file, args.opts)
    return launch(lambda cfg, replicas: extract(args, cfg, replicas), cfg)


if __name__ == "__main__":
    cli.run(main)
