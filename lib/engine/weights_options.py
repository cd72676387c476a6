"""The options of a network, read from its weights and the name of their file."""

import logging
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from core.config import load_config
from formats.blobs import Checkpoint, read_checkpoint
from models.model_builder_video import nonlocal_places
from models.resnet_video import ARCS
from utils.collections import AttrDict
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
    base, found = options_of_weights(read_checkpoint(weights), given)
    logger.warning("Options from %s: %s", weights, " ".join(f"{key} {value}" for key, value in found.items()))
    return load_config(base, [*(str(word) for option in found.items() for word in option), *words])


def options_of_weights(checkpoint: Checkpoint, given: Mapping[str, object]) -> tuple[Path, dict[str, Any]]:
    """(file of options, {option: value}) of the network that the weights belong to.

    Args:
        checkpoint: a checkpoint or converted file.
        given: options that are known; only whether they are there counts.
    """
    blobs = {name: value.shape for name, value in checkpoint.blobs.items() if isinstance(value, np.ndarray)}
    for name, dimensions in {"conv1_w": 5, "pred_w": 2, "res2_0_branch2a_w": 5, "res2_0_branch2b_w": 5}.items():
        if len(blobs.get(name, ())) != dimensions:
            found = f"one of shape {blobs[name]}" if name in blobs else "none"
            raise UserError(f"{checkpoint.path}: expected the weights of a video network, with a blob {name} of "
                            f"{dimensions} dimensions, got {found}")
    options = _backbone(checkpoint, blobs)
    options |= _blocks(blobs, options["MODEL.DEPTH"])
    if PLACES & given.keys():  # which NONLOCAL.AFTER would outweigh
        options.pop("NONLOCAL.AFTER", None)
    options |= {key: value for key, value in _clips(checkpoint, given).items() if key not in given}
    return FROZEN if options["MODEL.USE_AFFINE"] else BATCH_NORM, options


def _backbone(checkpoint, blobs):
    kernel, depth = blobs["conv1_w"][2], 101 if "res4_22_branch2a_w" in blobs else 50
    arc = next((key for key, arc in ARCS.items() if (arc.depth, 1 + 2 * arc.conv1_reach) == (depth, kernel)), None)
    if arc is None:
        raise UserError(f"{checkpoint.path}: conv1_w: expected a kernel over 1 or 5 frames, got {kernel}")
    inner = blobs["res2_0_branch2a_w"][0]
    groups = max(inner // max(blobs["res2_0_branch2b_w"][1], 1), 1)  # a hostile file has no channels
    return {
        "MODEL.VIDEO_ARC_CHOICE": arc, "MODEL.DEPTH": depth, "MODEL.NUM_CLASSES": blobs["pred_w"][0],
        "MODEL.USE_AFFINE": "res_conv1_bn_rm" not in blobs,
        "RESNETS.NUM_GROUPS": groups, "RESNETS.WIDTH_PER_GROUP": inner // groups,
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
            f"a name with one of {known} (frames x stride), or the options "
            "TRAIN.VIDEO_LENGTH, TRAIN.SAMPLE_RATE, and MODEL.MODEL_NAME resnet_video (conv1 takes every frame) or "
            "resnet_video_org (every second one)")
    [(frames, stride)] = clips
    return {"MODEL.MODEL_NAME": CLIPS[frames, stride], "TRAIN.VIDEO_LENGTH": frames, "TRAIN.SAMPLE_RATE": stride}
