"""Scoring the clips of a test with a network, resumable, in one or several processes."""

import itertools
import logging
import math

import numpy as np
import torch

from data.data_builder import Preprocessor, test_loader
from data.sources import group_by_video
from engine.fetching import begun_early, fetch
from formats.result_file import SCORED, TODO, UNREADABLE, value_digest
from utils.errors import UserError
from utils.files import StrPath
from utils.misc import eta
from utils.timer import Timer
from video.bad_videos import BadVideos

logger = logging.getLogger(__name__)


def identity(cfg, protocol, source, weights: str) -> dict[str, str]:
    """What scores depend on, as digests (`weights` is one): scores of another identity must not be mixed in."""
    options = {name: cfg[name] for name in ("MODEL", "NONLOCAL", "RESNETS")}
    options["TRAIN"] = [protocol.frames, protocol.stride, protocol.crop]
    options["TEST"] = [protocol.scale, cfg.TEST.OUTPUT_NAME, protocol.multi_crop, protocol.views]
    options["DATALOADER"] = [cfg.DATALOADER.AS_STORED]
    options["clips per pass"] = clips_per_pass(cfg)
    positions = [source.path_ids, source.video_indices, source.temporal_indices]
    if source.spatial_indices is not None:
        positions.append(source.spatial_indices)
    return {"weights": weights, "configuration": value_digest(options), "list": value_digest(source.paths, *positions)}


def clips_per_pass(cfg) -> int:
    """How many clips of a video share a forward pass."""
    return cfg.TEST.BATCH_SIZE // cfg.NUM_GPUS


def passes_of_videos(path_ids: np.ndarray, ordinals: np.ndarray, size: int) -> list[list[np.ndarray]]:
    """For each video, its records in passes of at most `size` (int64 ordinals).

    The passes of a video are as large as each other if that takes few more of them (30 clips in passes of 8: five of
    six), as a network is compiled, or its kernels are chosen, for each size anew. Otherwise sizes differ by one.
    """
    return [np.array_split(video, _count_passes(len(video), size)) for video in group_by_video(path_ids, ordinals)]


def _count_passes(clips: int, size: int) -> int:
    fewest = math.ceil(clips / size)
    even = next(count for count in range(fewest, clips + 1) if clips % count == 0)
    return even if even <= 1.25 * fewest else fewest


@torch.inference_mode()
def score_clips(model, cfg, protocol, source, ordinals, replicas, scores_file) -> None:
    """Score the given records into the root's ResultFile, except those already there; each video by one process.

    Which clips share a forward pass depends on their video alone, so that a test that was interrupted and resumed, or
    spread over other devices, computes the same.

    Args:
        model: function from normalised clips N x 3 x T x H x W to N x K.
        protocol: TestProtocol.
        source: TestSource.
        ordinals: numbers of the records to score.
        scores_file: the root's ResultFile (or what writes as one); None in other processes.
    """
    status = replicas.gather(scores_file.status if replicas.is_root else None)[0]

    def passes_left(rank):
        videos = passes_of_videos(source.path_ids, ordinals, clips_per_pass(cfg))[rank::replicas.processes]
        return [part for passes in videos for part in passes if (status[part] == TODO).any()]

    at_once = len(replicas.local)
    rounds = max(math.ceil(len(passes_left(rank)) / at_once) for rank in range(replicas.processes))
    prepare, timer, bad_videos = Preprocessor(cfg, replicas.device), Timer(), BadVideos()
    videos_seen = np.zeros(cfg.TEST.DATASET_SIZE, bool)
    videos_seen[source.video_indices[status == SCORED]] = True
    planned_here = passes_left(replicas.rank)
    with test_loader(cfg, replicas, protocol, source, planned_here, bad_videos) as loader:
        begun = ((planned, good, fetch(model(prepare.clips(clips))) if len(good) else None)
                 for planned, (clips, good) in zip(planned_here, loader, strict=True))
        # A GPU computes the next pass while the scores of this one are gathered and written.
        passes = begun_early(begun, 1 if replicas.device.type == "cuda" else 0)
        for i in range(rounds):
            timer.tic()
            scored = []
            for planned, good, fetched in itertools.islice(passes, at_once):
                scores = fetched() if fetched else None
                check_scores(scores, cfg.TEST.PARAMS_FILE, source.paths[source.path_ids[planned[0]]])
                scored.append((planned, good, scores))
            timer.toc()
            everyone = [part for parts in replicas.gather(scored) for part in parts]
            for known in replicas.gather(bad_videos.known()):
                bad_videos.merge(known)
            if not replicas.is_root:
                continue
            good = write_scores(scores_file, everyone)
            videos_seen[source.video_indices[good]] = True
            logger.info("%d/%d iter (%d/%d videos): Time: %.3f (ETA: %s). ID: %s", i, rounds, videos_seen.sum(),
                        cfg.TEST.DATASET_SIZE, timer.diff, eta(timer.average_time * (rounds - i - 1)),
                        [int(source.video_indices[planned[0]]) for planned, _, _ in everyone])


def check_scores(scores: np.ndarray | None, weights_file: StrPath, video: str) -> None:
    """Raise UserError if there is a NaN or an infinity in what a network computed for clips of a video."""
    if scores is not None and not np.isfinite(scores).all():
        raise UserError(f"{weights_file}: expected weights that give finite numbers, got NaN or infinity for {video}: "
                        "are the options those of the training?")


def write_scores(scores_file, parts) -> np.ndarray:
    """Write passes (planned ordinals, those of readable videos, their scores or None). Returns the readable ones."""
    good = np.concatenate([part for _, part, _ in parts])
    order = np.argsort(good)
    if len(good):
        scores = np.concatenate([part for _, _, part in parts if part is not None])
        scores_file.write(good[order], scores[order], SCORED)
    planned = np.concatenate([part for part, _, _ in parts])
    scores_file.write(np.setdiff1d(planned, good), None, UNREADABLE)
    return good
