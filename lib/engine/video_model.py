"""A trained network for other programs: made from its weights alone, and asked for the classes of a video."""

import contextlib
import os
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from data.class_ids import KINETICS, read_class_names
from engine import prediction
from engine.prediction import VideoClassifier
from engine.weights_options import configuration_of_weights
from formats.blobs import read_checkpoint
from utils.collections import AttrDict
from utils.errors import UserError
from utils.files import StrPath

KINETICS_CLASSES = 400


class Prediction(NamedTuple):
    """What happens in a video.

    Attributes:
        classes: names of the K classes, the most probable first; of equally probable ones that of the lower id.
        probabilities: (K,) float64, in the same order; their sum is 1.
    """

    classes: list[str]
    probabilities: np.ndarray


class VideoModel(VideoClassifier):
    """A network in inference mode, for clips and, by predict(), for videos.

    Called with clips N x 3 x T x H x W (float32, normalised, on the model's device) it returns N x K probabilities,
    float32. Several threads may use it at once.

    Attributes:
        classes: names of the K classes, by their ids.
        protocol: TestProtocol: the frames T and their stride, the short side and the crop in pixels, and how many clips
            and crops of a video are averaged; protocol.clip_shape is (3, T, H, W).
        device: torch.device.
        cfg: the configuration.
        weights_file: that of the weights.
    """

    classes: list[str]


def load_model(weights: StrPath, cfg: AttrDict | None = None, device: str | torch.device | None = None,
               views: tuple[int, int] = (10, 3), classes: StrPath | Sequence[str] | None = None) -> VideoModel:
    """A trained network, ready for predict().

    Args:
        weights: a checkpoint or converted file (.pkl) of this program or the Caffe2 program, or a .safetensors file.
        cfg: a configuration, from load_config. None: that which the weights tell, with the file of options of their
            training beside them (c2_model_iterN.options.json), their metadata (.safetensors), or a name with frames x
            stride, as the released models have. It is logged as a warning.
        device: where the network runs; None: the current GPU if there is one, else the CPU.
        views: (clips, crops) of each video: clips spread over it, with 1, 3 or 6 crops each; their probabilities are
            averaged.
        classes: the names of the classes, or a file of them (data.class_ids.read_class_names). None: those of Kinetics
            for 400 classes, otherwise "class 0", ...

    Raises:
        UserError: weights that cannot be read or do not tell their options; options, names or views that do not fit.
    """
    checkpoint = read_checkpoint(weights)
    if cfg is None:
        cfg = configuration_of_weights(checkpoint)
    clips, crops = views
    if clips < 1 or crops not in prediction.CROPS:
        raise UserError(f"views: expected at least one clip, with 1, 3 or 6 crops, got {clips} with {crops}")
    names = _class_names(classes, cfg.MODEL.NUM_CLASSES)
    model = VideoModel(cfg, checkpoint, device or ("cuda" if torch.cuda.is_available() else "cpu"), views)
    model.classes = names
    return model


def predict(model: VideoModel, video: StrPath) -> Prediction:
    """The classes of a video and their probabilities, the mean over the model's views.

    Several threads may call it at once with the same model.

    Args:
        model: from load_model.
        video: a video file, or a folder of numbered frames.

    Raises:
        UserError: no frame of the video can be decoded.
    """
    on_gpu = model.device.type == "cuda"
    with torch.cuda.device(model.device) if on_gpu else contextlib.nullcontext():
        probabilities = prediction.predict(model, str(video))
    order = np.argsort(-probabilities, kind="stable")
    return Prediction([model.classes[i] for i in order], probabilities[order])


def _class_names(classes: StrPath | Sequence[str] | None, count: int) -> list[str]:
    if classes is None:
        is_kinetics = count == KINETICS_CLASSES and KINETICS.exists()
        return read_class_names(KINETICS, count) if is_kinetics else [f"class {i}" for i in range(count)]
    if isinstance(classes, str | os.PathLike):
        return read_class_names(classes, count)
    names = list(map(str, classes))
    if len(names) != count:
        raise UserError(f"classes: expected the names of {count} classes, got {len(names)}")
    return names
