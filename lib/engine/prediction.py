"""What happens in videos: class probabilities of files, by the protocol of a test."""

import copy
import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import nn

from data.data_builder import Preprocessor, protocol_of_test, test_loader
from data.sources import expand_test_videos
from engine.fetching import fetch
from engine.replicas import Replicas
from engine.scoring import check_scores, clips_per_pass, passes_of_videos
from formats.blobs import Checkpoint, read_checkpoint
from models import model_builder_video
from utils.collections import AttrDict
from utils.errors import UserError
from utils.files import StrPath
from video.bad_videos import BadVideos
from video.formats import VIDEO_SUFFIXES
from video.frame_folder import is_frame_folder
from video.video_facts import VideoFactsCache
from video.video_search import find_below

logger = logging.getLogger(__name__)

# Crops of a clip -> the values of TEST.TEST_FULLY_CONV and TEST_FULLY_CONV_FLIP that make them.
CROPS = {1: (False, False), 3: (True, False), 6: (False, True)}


def find_videos(paths: list[str]) -> list[str]:
    """Files and folders of frames as they are, and the videos below other folders, each once, sorted by path.

    A video below a folder is a file with the suffix of one, or a folder of frames (video.frame_folder). What else there
    is, is counted in the log.

    Raises UserError for a folder without any.
    """
    videos: dict[str, None] = {}
    for path in paths:
        found = [path]
        if Path(path).is_dir() and not is_frame_folder(path):
            search = find_below(path)
            found, left_out = search.videos, "; ".join(search.left_out())
            if not found:
                raise UserError(f"{path}: expected a folder with videos, found no file that ends in "
                                f"{', '.join(VIDEO_SUFFIXES)}{left_out and f', but {left_out}'}")
            if left_out:
                logger.warning("%s: left out: %s", path, left_out)
        videos |= dict.fromkeys(found)
    return list(videos)


def prediction_config(cfg: AttrDict, views: tuple[int, int]) -> AttrDict:
    """A copy of the configuration for views = (clips, crops) on one device, giving probabilities.

    As many clips go through the network at once as in a test.
    """
    cfg = copy.deepcopy(cfg)
    clips, crops = views
    cfg.TEST.TEST_FULLY_CONV, cfg.TEST.TEST_FULLY_CONV_FLIP = CROPS[crops]
    cfg.TEST.USE_MULTI_CROP = 0
    cfg.TEST.NUM_TEST_CLIPS = clips * crops
    cfg.TEST.OUTPUT_NAME = "softmax"
    cfg.TEST.BATCH_SIZE //= cfg.NUM_GPUS
    cfg.NUM_GPUS = 1
    return cfg


def check_classifier(checkpoint: Checkpoint, num_classes: int) -> None:
    """Raise UserError where loading would keep an untrained classifier: one that is missing, or of another size."""
    weights = checkpoint.blobs.get("pred_w")
    if weights is None:
        raise UserError(f"{checkpoint.path}: expected the weights of a trained network, but it has no classifier "
                        "(pred_w)")
    if len(weights) != num_classes:
        raise UserError(f"{checkpoint.path}: its classifier has {len(weights)} classes, but MODEL.NUM_CLASSES is "
                        f"{num_classes}")


class VideoClassifier(nn.Module):
    """A network in inference mode that knows how videos are cut into views.

    Called with clips N x 3 x T x H x W (float32, normalised) it returns N x K probabilities, float32.

    Attributes:
        protocol: TestProtocol.
        device: torch.device.
        weights_file: that of the weights.
    """

    def __init__(self, cfg: AttrDict, weights: StrPath | Checkpoint, device: str | torch.device,
                 views: tuple[int, int]):
        super().__init__()
        self.cfg = prediction_config(cfg, views)
        self.protocol = protocol_of_test(self.cfg)
        self.device = torch.device(device)
        checkpoint = weights if isinstance(weights, Checkpoint) else read_checkpoint(weights)
        self.weights_file = checkpoint.path
        check_classifier(checkpoint, cfg.MODEL.NUM_CLASSES)
        self.network = model_builder_video.load_model(cfg, checkpoint, self.device, self.protocol.clip_shape)
        self.eval()

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        return self.network(clips)


def load_model(cfg, weights_file, device: str | torch.device = "cpu",
               views: tuple[int, int] = (10, 3)) -> VideoClassifier:
    """The network of a configuration with the weights of a file, ready for predict().

    Args:
        cfg: from load_config.
        weights_file: a checkpoint or converted file.
        device: where it runs.
        views: (clips, crops) of each video: clips spread over it, with 1, 3 or 6 crops each.

    Raises:
        UserError: options or weights that do not fit.
    """
    return VideoClassifier(cfg, weights_file, device, views)


def predict(model: VideoClassifier, video: str) -> np.ndarray:
    """(K,) float64 probabilities of the classes for a video file: the mean over its views.

    Raises:
        UserError: no frame of the video can be decoded.
    """
    bad_videos = BadVideos()
    _, probabilities = next(predict_videos(model, [video], bad_videos))
    if probabilities is None:
        bad, _ = bad_videos.known()
        raise UserError(f"{video}: {bad[video]}")
    return probabilities


@torch.inference_mode()
def predict_videos(model: VideoClassifier, videos: list[str],
                   bad_videos: BadVideos) -> Iterator[tuple[str, np.ndarray | None]]:
    """Yield (video, its K probabilities, float64) for each path, in order; None for a bad video.

    Raises UserError where the network gives no finite numbers.

    Args:
        model: from load_model.
        videos: paths.
        bad_videos: learns why a video is bad.
    """
    cfg, protocol, replicas = model.cfg, model.protocol, Replicas(1, device=model.device)
    source = expand_test_videos(videos, protocol.multi_crop, protocol.clips)
    per_video = passes_of_videos(source.path_ids, np.arange(len(source)), clips_per_pass(cfg))
    prepare = Preprocessor(cfg, replicas.device)
    with test_loader(cfg, replicas, protocol, source, [part for passes in per_video for part in passes], bad_videos,
                     facts=VideoFactsCache()) as loader:
        for video, passes in zip(videos, per_video, strict=True):
            fetched = [fetch(model(prepare.clips(clips)))
                       for clips, good in (next(loader) for _ in passes) if len(good)]
            scores = [wait() for wait in fetched]
            for part in scores:
                check_scores(part, model.weights_file, video)
            yield video, np.concatenate(scores).sum(0, dtype=np.float64) / protocol.views if scores else None


def ranking(probabilities: np.ndarray, names: list[str] | None, count: int) -> list[dict]:
    """The `count` most probable classes as dicts; of equal ones the lower id first."""
    best = np.argsort(-probabilities, kind="stable")[:count]
    return [{"class_id": int(i), "class_name": names[i] if names else None, "probability": float(probabilities[i])}
            for i in best]
