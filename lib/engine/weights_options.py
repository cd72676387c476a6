"""The options of a network, read from its weights, and from the file of options beside them or the name of theirs."""

import logging
import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from core.assignment import option_values, set_options
from core.config import assert_and_infer_cfg, load_config
from core.defaults import OPTIONS, default_config
from core.messages import shown
from formats.blobs import Checkpoint, is_weight, read_checkpoint
from formats.options_file import StoredOptions, classifier_digest, options_path, read_options
from models.model_builder_video import nonlocal_places, weight_shapes
from models.resnet_video import ARCS
from utils.collections import AttrDict, leaves, value_at
from utils.errors import UserError
from utils.files import StrPath

logger = logging.getLogger(__name__)

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
# What the files of options say beyond the weights: the view of a test, how many clips share a pass.
BATCH_NORM, FROZEN = (CONFIGS / f"DBG_kinetics_resnet_8gpu_c2d_nonlocal_{kind}400k.yaml" for kind in ("", "affine_"))
# The options that say where the non-local blocks are.
PLACES = {"NONLOCAL.CONV3_NONLOCAL", "NONLOCAL.CONV4_NONLOCAL", "NONLOCAL.LAYER_MOD", "NONLOCAL.AFTER"}
# Frames and stride of the released models, as in the names of their files, and the network that takes such clips.
CLIPS = {(8, 8): "resnet_video", (32, 4): "resnet_video", (32, 2): "resnet_video_org", (128, 1): "resnet_video_org"}
# The options of a training that scores depend on (engine.scoring.identity). The others are about its course, its data
# and its machine.
_OF_SCORES = re.compile(r"(MODEL|NONLOCAL|RESNETS|TEST)\..*|DATALOADER\.AS_STORED|NUM_GPUS|"
                        r"TRAIN\.(VIDEO_LENGTH|SAMPLE_RATE|CROP_SIZE|JITTER_SCALES)")
_OF_DATA = {"TEST.PARAMS_FILE", "TEST.DATA_TYPE", "TEST.DATASET_SIZE"}


class FoundOptions(NamedTuple):
    """The options that weights belong to.

    Attributes:
        origin: the file that tells them.
        base: the file of options that lies under them; None for the defaults.
        options: {key: value}.
    """

    origin: StrPath
    base: Path | None
    options: dict[str, Any]


def load_configuration(config_file: StrPath | None, words: Iterable[str]) -> AttrDict:
    """core.config.load_config(); without a file, options that are not given come from the weights, TEST.PARAMS_FILE.

    What was found is logged in one line.

    Raises:
        UserError: wrong options; weights that are not those of a whole network, or do not tell of what clips.
    """
    words = list(words)
    given = dict(zip(words[::2], words[1::2], strict=False))
    if config_file is not None or not (weights := given.get("TEST.PARAMS_FILE")):
        return load_config(config_file, words)
    load_config(None, words)  # mistakes in the words first
    return configuration_of_weights(read_checkpoint(weights), words)


def configuration_of_weights(checkpoint: Checkpoint, words: Iterable[str] = ()) -> AttrDict:
    """The configuration that weights belong to, under the user's words. Logs what was found in one line.

    Raises:
        UserError: see options_of_weights; or the words do not go with what was found.
    """
    words = list(words)
    found = options_of_weights(checkpoint, dict(zip(words[::2], words[1::2], strict=False)))
    told = [str(word) for option in found.options.items() for word in option]
    logger.warning("Options from %s: %s", found.origin, " ".join(told))
    cfg = load_config(found.base, [*told, *words])
    if found.base:  # otherwise the shapes have been compared with the options of the training
        _check_size(cfg, checkpoint)
    return cfg


def options_of_weights(checkpoint: Checkpoint, given: Mapping[str, object]) -> FoundOptions:
    """The options of the network that the weights belong to.

    They are those of the training, if the file has them or they lie beside it. Otherwise the weights tell the layers,
    and the name of the file frames and stride.

    Args:
        checkpoint: a checkpoint or converted file.
        given: options that are known; only whether they are there counts.

    Raises:
        UserError: the weights are not those of a whole network, or do not tell of what clips, or the options of the
            training are damaged, or are not those of these weights.
    """
    blobs = {name: value.shape for name, value in checkpoint.blobs.items() if isinstance(value, np.ndarray)}
    for name, dimensions in {"conv1_w": 5, "pred_w": 2, "res2_0_branch2a_w": 5, "res2_0_branch2b_w": 5}.items():
        if len(blobs.get(name, ())) != dimensions or 0 in blobs[name]:
            got = f"one of shape {blobs[name]}" if name in blobs else "none"
            raise UserError(f"{checkpoint.path}: expected the weights of a video network, with a blob {name} of "
                            f"{dimensions} dimensions, got {got}")
    options = _backbone(checkpoint, blobs)
    if stored := checkpoint.options or read_options(checkpoint.path):
        found = FoundOptions(stored.origin, None, _of_training(stored, checkpoint, blobs, options))
    else:
        options |= _blocks(blobs, options["MODEL.DEPTH"])
        options |= {key: value for key, value in _clips(checkpoint, given).items() if key not in given}
        base = FROZEN if options["MODEL.USE_AFFINE"] else BATCH_NORM
        found = FoundOptions(checkpoint.path, base, options)
    if PLACES & given.keys():  # which NONLOCAL.AFTER would outweigh
        found.options.pop("NONLOCAL.AFTER", None)
    return found


def options_of_scores(cfg: AttrDict) -> dict[str, Any]:
    """{key: value} of what the scores of a network depend on, apart from its weights."""
    return {key: value_at(cfg, key) for key, option in leaves(OPTIONS)
            if _OF_SCORES.fullmatch(key) and key not in _OF_DATA and not option.unused}


def _check_size(cfg, checkpoint):
    """A damaged or hostile file of a few bytes can tell of a network that fills the memory."""
    needed = sum(math.prod(shape) for shape in weight_shapes(cfg).values())
    there = sum(value.size for value in checkpoint.blobs.values() if isinstance(value, np.ndarray))
    if needed > max(4 * there, 10**8):
        raise UserError(f"{checkpoint.path}: expected the weights of a whole network, which has {needed:,} numbers by "
                        f"the shapes in this file, got {there:,}")


def _of_training(stored: StoredOptions, checkpoint: Checkpoint, blobs: dict[str, tuple[int, ...]],
                 facts: dict[str, Any]) -> dict[str, Any]:
    """The options of a training that differ from the defaults; `facts` are those that the weights tell for certain."""
    cfg = default_config()
    set_options(cfg, list(option_values(stored.options)), stored.origin)
    try:
        assert_and_infer_cfg(cfg)
        contradiction = _contradiction(cfg, blobs, facts)
    except UserError as error:
        raise UserError(f"{stored.origin}: {error}") from error
    if contradiction:
        raise UserError(f"{stored.origin}: expected the options of {checkpoint.path}: {contradiction}")
    if stored.classifier != classifier_digest(checkpoint.blobs["pred_w"]):
        raise UserError(f"{stored.origin}: expected the options of {checkpoint.path}, got those of other weights (of "
                        "another pred_w)")
    return {key: value for key, value in options_of_scores(cfg).items() if value != value_at(OPTIONS, key).default}


def _contradiction(cfg: AttrDict, blobs: dict[str, tuple[int, ...]], facts: dict[str, Any]) -> str:
    """How options differ from weights; '' if they do not."""
    for key, value in facts.items():
        if (told := value_at(cfg, key)) != value:
            return f"{key} is {value} by the weights, got {shown(told)}"
    expected = weight_shapes(cfg)
    for name in [name for name in blobs if is_weight(name)] + list(expected):
        if blobs.get(name) != expected.get(name):
            shapes = (f"shape {shape}" if shape else "no such blob" for shape in (blobs.get(name), expected.get(name)))
            return "{}: {} in the weights, {} by these options".format(name, *shapes)
    return ""


def _backbone(checkpoint, blobs):
    kernel, depth = blobs["conv1_w"][2], 101 if "res4_22_branch2a_w" in blobs else 50
    arc = next((key for key, arc in ARCS.items() if (arc.depth, 1 + 2 * arc.conv1_reach) == (depth, kernel)), None)
    if arc is None:
        raise UserError(f"{checkpoint.path}: conv1_w: expected a kernel over 1 or 5 frames, got {kernel}")
    inner = blobs["res2_0_branch2a_w"][0]
    groups = max(inner // blobs["res2_0_branch2b_w"][1], 1)
    return {
        "MODEL.VIDEO_ARC_CHOICE": arc, "MODEL.DEPTH": depth, "MODEL.NUM_CLASSES": blobs["pred_w"][0],
        "MODEL.USE_AFFINE": "res_conv1_bn_rm" not in blobs,
        "RESNETS.NUM_GROUPS": groups, "RESNETS.WIDTH_PER_GROUP": inner // groups,
        "RESNETS.STEM_OUT_CHANNELS": blobs["conv1_w"][0],
    }


def _blocks(blobs, depth):
    """The options of the non-local blocks. Softmax or not is not to be seen: it stays as the released models have it.
    """
    names = {found[0]: f"res{found[1]}_{found[2]}" for name in blobs
             if (found := re.fullmatch(r"nonlocal_conv(\d)_(\d+)_g_w", name))}
    kinds = {re.sub(r"^nonlocal_conv\d_\d+_", "", name) for name in blobs if name.startswith("nonlocal_conv")}
    options: dict[str, Any] = {"NONLOCAL.CONV3_NONLOCAL": False, "NONLOCAL.CONV4_NONLOCAL": False}
    if not names:
        return options
    options = {f"NONLOCAL.CONV{stage}_NONLOCAL": any(f"conv{stage}_" in name for name in names) for stage in (3, 4)}
    standard = AttrDict(AFTER=[], LAYER_MOD=2, **{key.partition(".")[2]: value for key, value in options.items()})
    if nonlocal_places(standard, depth) != set(names.values()):
        options["NONLOCAL.AFTER"] = sorted(names.values())
    if "theta_w" not in kinds or "f_w" in kinds:
        options["NONLOCAL.AFFINITY"] = "concatenation" if "f_w" in kinds else "gaussian"
    return options | {
        "NONLOCAL.USE_BN": "bn_rm" in kinds, "NONLOCAL.USE_AFFINE": "bn_s" in kinds and "bn_rm" not in kinds,
        "NONLOCAL.NO_BIAS": 0 if "g_b" in kinds else 1,
    }


def _clips(checkpoint, given):
    """Frames, stride and the network for them: from the file's name, unless all are given."""
    if {"MODEL.MODEL_NAME", "TRAIN.VIDEO_LENGTH", "TRAIN.SAMPLE_RATE"} <= given.keys():
        return {}
    found = re.findall(r"(?<![0-9A-Za-z])(\d{1,4})x(\d{1,4})(?![0-9A-Za-z])", Path(checkpoint.path).stem)
    clips = {(int(frames), int(stride)) for frames, stride in found}
    if len(clips) != 1 or not clips <= CLIPS.keys():
        known = ", ".join("{}x{}".format(*clip) for clip in CLIPS)
        raise UserError(
            f"{checkpoint.path}: weights do not tell the clips that they were trained with: expected --config_file, or "
            f"{options_path(checkpoint.path).name} of their training, or a name with one of {known} (frames x stride), "
            "or the options TRAIN.VIDEO_LENGTH, TRAIN.SAMPLE_RATE, and MODEL.MODEL_NAME resnet_video (conv1 takes "
            "every frame) or resnet_video_org (every second one)")
    [(frames, stride)] = clips
    return {"MODEL.MODEL_NAME": CLIPS[frames, stride], "TRAIN.VIDEO_LENGTH": frames, "TRAIN.SAMPLE_RATE": stride}
