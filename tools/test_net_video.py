#!/usr/bin/env python3
"""Test a network on whole videos: several clips over time; one, three or six crops over space, or whole frames.

    python tools/test_net_video.py --config_file configs/F.yaml TEST.PARAMS_FILE W.pkl TEST.TEST_FULLY_CONV True
"""

import _init_paths  # noqa: F401, I001  (puts lib/ on the path)

import argparse
import contextlib
import copy
import itertools
import logging
import math
import sys
from pathlib import Path

import numpy as np
import torch

from core.config import load_config, log_options_without_effect, print_cfg
from data.data_builder import (
    Preprocessor,
    read_ground_truth,
    temporal_positions,
    crop_of_test,
    test_loader,
    test_source,
)
from data.loader import BadVideos, group_by_video
from models.model_builder_video import load_model
from utils import cli
from utils.errors import UserError
from utils.files import make_writable_folder
from engine.interruption import EXIT_INTERRUPTED, Interrupted, Interruption
from engine.launcher import launch
from utils.misc import eta
from formats.result_file import SCORED, TODO, UNREADABLE, ResultFile, file_digest, value_digest
from utils.timer import Timer
from reports.video_scores import score_videos, write_results

logger = logging.getLogger(__name__)


def derive_test_config(cfg):
    """A copy of the configuration with what testing sets by itself: split, crop size and kind of crops."""
    cfg = copy.deepcopy(cfg)
    cfg.TEST.DATA_TYPE = "test"
    cfg.TRAIN.CROP_SIZE = 224
    if cfg.TEST.TEST_FULL_SIZE:
        cfg.TRAIN.CROP_SIZE = cfg.TEST.SCALE
        cfg.TEST.USE_MULTI_CROP = 0
    for option, crops in (("TEST_FULLY_CONV", 1), ("TEST_FULLY_CONV_FLIP", 2)):
        if cfg.TEST[option]:
            cfg.TRAIN.CROP_SIZE = cfg.TRAIN.JITTER_SCALES[0]
            cfg.TEST.USE_MULTI_CROP = crops
            break
    return cfg


def describe_protocol(cfg):
    """What is scored of each video, in words, from a configuration of derive_test_config."""
    crop, scale = crop_of_test(cfg), cfg.TEST.SCALE
    kind = ("1 crop", "3 crops", "6 crops (3 of them mirrored)")[cfg.TEST.USE_MULTI_CROP]
    space = f"whole frames of short side {scale}" if crop is None else f"{kind} of {crop} x {crop}, short side {scale}"
    return (f"{temporal_positions(cfg)} clips of {cfg.TRAIN.VIDEO_LENGTH} frames with stride {cfg.TRAIN.SAMPLE_RATE} "
            f"x {space}")


def plan_clips(video_indices, dataset_size, clips_per_video, batch_size):
    """Which records to score, as legacy's batches over the wrapping LMDB would.

    Args:
        video_indices: (records,) video index of each record, in key order.
        dataset_size, clips_per_video, batch_size: TEST.DATASET_SIZE, NUM_TEST_CLIPS and BATCH_SIZE.

    Returns:
        Ordinals of the records, at most clips_per_video for each video; records of a video that has as many are logged
        and left out. Another number of records than that of the clips is logged.
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
            break  # a whole further round would only be skipped
        ordinal = i % len(video_indices)
        video = video_indices[ordinal]
        if seen[video] == clips_per_video:
            logger.info("Video id %d have been seen. Skip.", video)
        else:
            seen[video] += 1
            ordinals.append(ordinal)
    return np.array(ordinals)


def test_net(cfg, replicas):
    """Score every clip, report the accuracy over videos, write results_probs.pkl. Returns the exit status."""
    cfg = derive_test_config(cfg)
    if cfg.TEST.TEST_FULL_SIZE:
        logger.info("Testing on whole frames of short side: %d", cfg.TEST.SCALE)
    else:
        logger.info("Setting test crop_size to: %d", cfg.TRAIN.CROP_SIZE)
    print_cfg(cfg)
    if not cfg.TEST.PARAMS_FILE:
        raise UserError("TEST.PARAMS_FILE is not set: give the weights to test")
    labels = read_ground_truth(cfg)
    source = test_source(cfg)
    ordinals = plan_clips(source.video_indices, cfg.TEST.DATASET_SIZE, cfg.TEST.NUM_TEST_CLIPS, cfg.TEST.BATCH_SIZE)
    # Whole frames come in many sizes, each of which would be compiled anew.
    compilable = 0 if cfg.TEST.TEST_FULL_SIZE else len(ordinals) // replicas.processes
    clip_shape = (3, cfg.TRAIN.VIDEO_LENGTH, cfg.TRAIN.CROP_SIZE, cfg.TRAIN.CROP_SIZE)
    model = load_model(cfg, cfg.TEST.PARAMS_FILE, replicas.device, clip_shape, cfg.TEST.OUTPUT_NAME, compilable)

    folder = Path(cfg.CHECKPOINT.DIR)
    with contextlib.ExitStack() as stack:
        scores_file = None
        if replicas.is_root:
            make_writable_folder(folder)
            computed_from = identity(cfg, source)
            scores_file = stack.enter_context(ResultFile(
                folder / "results_scores.h5", "scores of a test", computed_from, len(source),
                {"scores": (cfg.MODEL.NUM_CLASSES,)}, {"video_indices": source.video_indices}, replace_finished=True))
        try:
            with Interruption(replicas) as interruption:
                score_clips(model, cfg, source, np.unique(ordinals), replicas, scores_file, interruption)
        except Interrupted:
            return EXIT_INTERRUPTED
        if replicas.is_root:
            # In record order, and as often as the plan takes a record; a bad video has given no clip.
            clips = ordinals[scores_file.status[ordinals] == SCORED]
            videos, scores = source.video_indices[clips], scores_file.columns["scores"][:][clips]
            if labels is not None:
                score_videos(videos, scores, labels, cfg.TEST.NUM_TEST_CLIPS).log()
            logger.info("Test protocol: %s; %d of %d videos scored; weights %s (SHA-256 %s)", describe_protocol(cfg),
                        len(np.unique(videos)), cfg.TEST.DATASET_SIZE, Path(cfg.TEST.PARAMS_FILE).name,
                        computed_from["weights"][:12])
            write_results(folder / "results_probs.pkl", videos, scores)
    return 0


def identity(cfg, source):
    """What scores depend on: those of another file must not be mixed in."""
    options = {name: cfg[name] for name in ("MODEL", "NONLOCAL", "RESNETS")}
    options["TRAIN"] = [cfg.TRAIN.VIDEO_LENGTH, cfg.TRAIN.SAMPLE_RATE, crop_of_test(cfg)]
    options["TEST"] = [cfg.TEST.SCALE, cfg.TEST.OUTPUT_NAME, cfg.TEST.USE_MULTI_CROP, cfg.TEST.NUM_TEST_CLIPS]
    options["clips per pass"] = cfg.TEST.BATCH_SIZE // cfg.NUM_GPUS
    positions = [source.path_ids, source.video_indices, source.temporal_indices]
    if source.spatial_indices is not None:
        positions.append(source.spatial_indices)
    return {"weights": file_digest(cfg.TEST.PARAMS_FILE), "configuration": value_digest(options),
            "list": value_digest(source.paths, *positions)}


@torch.inference_mode()
def score_clips(model, cfg, source, ordinals, replicas, scores_file, interruption):
    """Score the given records into the root's ResultFile, each video by one process, but for those that are there.

    Which clips share a forward pass depends on their video alone, so that a test that was ended and started again,
    or spread over other devices, computes the same.
    """
    status = replicas.gather(scores_file.status if replicas.is_root else None)[0]
    clips_per_pass = cfg.TEST.BATCH_SIZE // cfg.NUM_GPUS

    def passes_left(rank):
        videos = group_by_video(source.path_ids, ordinals)[rank::replicas.processes]
        passes = [part for video in videos
                  for part in np.split(video, range(clips_per_pass, len(video), clips_per_pass))]
        return [part for part in passes if (status[part] == TODO).any()]

    at_once = len(replicas.local)
    rounds = max(math.ceil(len(passes_left(rank)) / at_once) for rank in range(replicas.processes))
    prepare, timer, bad_videos = Preprocessor(cfg, replicas.device), Timer(), BadVideos()
    videos_seen = np.zeros(cfg.TEST.DATASET_SIZE, bool)
    videos_seen[source.video_indices[status == SCORED]] = True
    planned_here = passes_left(replicas.rank)
    with test_loader(cfg, replicas, source, planned_here, bad_videos) as loader:
        work = zip(planned_here, loader, strict=True)
        for i in range(rounds):
            interruption.check()
            timer.tic()
            scored = [(planned, good, model(prepare.clips(clips)).float().cpu().numpy() if len(good) else None)
                      for planned, (clips, good) in itertools.islice(work, at_once)]
            timer.toc()
            everyone = [part for parts in replicas.gather(scored) for part in parts]
            for known in replicas.gather(bad_videos.known()):
                bad_videos.merge(known)
            if not replicas.is_root:
                continue
            good = np.concatenate([part for _, part, _ in everyone])
            order = np.argsort(good)
            if len(good):
                scores = np.concatenate([part for _, _, part in everyone if part is not None])
                scores_file.write(good[order], scores[order], SCORED)
            planned = np.concatenate([part for part, _, _ in everyone])
            scores_file.write(np.setdiff1d(planned, good), None, UNREADABLE)
            videos_seen[source.video_indices[good]] = True
            logger.info("%d/%d iter (%d/%d videos): Time: %.3f (ETA: %s). ID: %s", i, rounds, videos_seen.sum(),
                        cfg.TEST.DATASET_SIZE, timer.diff, eta(timer.average_time * (rounds - i - 1)),
                        [int(source.video_indices[planned[0]]) for planned, _, _ in everyone])


def run_test(cfg, replicas):
    log_options_without_effect(cfg)
    return test_net(cfg, replicas)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config_file", help="YAML file of options")
    parser.add_argument("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="options over those of the file")
    if len(sys.argv) == 1:
        parser.print_help()
        return 1
    args = parser.parse_args()
    cli.setup_logging()
    cfg = load_config(args.config_file, args.opts)
    if args.config_file is None and not cfg.MODEL.MODEL_NAME:
        raise UserError("no --config_file, and no MODEL.MODEL_NAME among the KEY VALUE words: which network?")
    return launch(run_test, cfg)


if __name__ == "__main__":
    cli.run(main)
