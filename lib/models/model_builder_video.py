"""The one place where the configuration becomes a network."""

import logging
from collections.abc import Callable
from functools import partial
from os import PathLike

import torch
from torch import nn

from formats.blobs import Checkpoint, model_blobs
from models.affinities import affinity_class
from models.attention_spans import span_of
from models.compilation import Compiled, is_worth_compiling
from models.complexity import count_operations
from models.features import BlobNetwork, check_blob_names
from models.inference import for_inference
from models.initialization import initialize
from models.nonlocal_helper import NonLocalBlock
from models.resnet_helper import FrozenAffine
from models.resnet_video import ARCS, BLOCKS, ResNetVideo
from models.resnet_video_org import ResNetVideoOrg
from utils.checkpoints import load_weights
from utils.collections import AttrDict
from utils.errors import UserError

logger = logging.getLogger(__name__)

NETWORKS: dict[str, Callable[..., ResNetVideo]] = {"resnet_video": ResNetVideo, "resnet_video_org": ResNetVideoOrg}

# Legacy's default is the name of a function that it did not have; every YAML file has the second name.
BOTTLENECKS = ("bottleneck_transformation", "bottleneck_transformation_3d")


# What a network can compute in its transformed form: scores, and probabilities.
SCORES = ("pred", "softmax")


def create_model(cfg: AttrDict, split: str) -> ResNetVideo:
    """Build the network of a configuration, initialised from RNG_SEED.

    Args:
        cfg: configuration (core.config).
        split: 'train' (training mode, dropout on), 'val' or 'test' (inference mode).

    Returns:
        A network that takes clips N x 3 x T x H x W (float32, normalised) and returns N x K: the scores `pred` for
        'train' and 'val', the probabilities `softmax` averaged over positions for 'test'.

    Raises:
        UserError: unknown names, or options that contradict each other.
    """
    model = _uninitialized(cfg, split)
    initialize(
        model, cfg.RNG_SEED, cfg.MODEL.BN_INIT_GAMMA, cfg.MODEL.FC_INIT_STD, cfg.NONLOCAL.CONV_INIT_STD,
        cfg.NONLOCAL.USE_ZERO_INIT_CONV, cfg.NONLOCAL.BN_INIT_GAMMA,
    )
    # The layout in which clips come (data.transforms.normalize), so that no convolution has to change it.
    model.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    return model.train(split == "train")


def weight_shapes(cfg: AttrDict) -> dict[str, tuple[int, ...]]:
    """{blob: shape} of the network of a configuration, which takes no memory. Raises UserError as create_model."""
    with torch.device("meta"):
        return {name: tuple(tensor.shape) for name, tensor in model_blobs(_uninitialized(cfg, "test")).items()}


def _uninitialized(cfg, split):
    check_model_options(cfg, split)
    model_cfg, nonlocal_cfg = cfg.MODEL, cfg.NONLOCAL
    return NETWORKS[model_cfg.MODEL_NAME](
        arc=model_cfg.VIDEO_ARC_CHOICE,
        num_classes=model_cfg.NUM_CLASSES,
        norm=_norm(model_cfg.USE_AFFINE, model_cfg.BN_EPSILON, model_cfg.BN_MOMENTUM),
        nonlocal_block=_nonlocal_block(nonlocal_cfg),
        nonlocal_after=nonlocal_places(nonlocal_cfg, model_cfg.DEPTH),
        grouped_stages=(2, 3) if model_cfg.USE_AFFINE else (),
        groups=cfg.RESNETS.NUM_GROUPS,
        width_per_group=cfg.RESNETS.WIDTH_PER_GROUP,
        stem=cfg.RESNETS.STEM_OUT_CHANNELS,
        dropout=cfg.TRAIN.DROPOUT_RATE,
        checkpoint_activations=cfg.TRAIN.CHECKPOINT_ACTIVATIONS,
        output="softmax" if split == "test" else "pred",
    )


def load_model(cfg: AttrDict, weights: str | PathLike | Checkpoint | Callable[[nn.Module], None],
               device: torch.device, clip_shape: tuple[int, ...], output: str = "softmax", clips: int = 0) -> nn.Module:
    """The network of a configuration with the weights of a file, transformed for prediction.

    Args:
        cfg: configuration (core.config).
        weights: a checkpoint or converted file, or its contents if it has been read already
            (formats.blobs.read_checkpoint), or a function that fills a network.
        device: where the network runs.
        clip_shape: (3, T, H, W) of the clips.
        output: 'softmax' for probabilities, 'pred' for scores, or the name of another blob, whose network is not
            transformed.
        clips: how many clips this process is going to score: the network is compiled for a long run (MODEL.COMPILE).

    Returns:
        A module in inference mode that takes clips N x 3 x T x H x W (float32, normalised) and returns N x K float32;
        for another blob a BlobNetwork.

    Raises:
        UserError: options, weights, an output or a clip shape that do not fit.
    """
    model = create_model(cfg, "test")
    log_architecture(model, cfg, "test")
    if output in SCORES:
        model.output = output
    else:
        check_blob_names(model, [output], "TEST.OUTPUT_NAME")
    logger.info("Initializing from pre-trained file for test...")
    if callable(weights):
        weights(model)
    else:
        load_weights(model, weights).require_complete()
    model.check_size(*clip_shape[1:])
    if output not in SCORES:
        return BlobNetwork(model.to(device), output)
    # Decided before folding: it must follow from the configuration and the data alone, so that a test that is resumed
    # runs as it did before.
    is_long = is_worth_compiling(cfg.MODEL.COMPILE, lambda: clips * count_operations(model, clip_shape)[0], device)
    network = for_inference(model.to(device), cfg.MODEL.PRECISION)
    return Compiled(network, constant=True) if is_long else network


def log_architecture(model: ResNetVideo, cfg: AttrDict, split: str) -> None:
    """Log the depth of a network, and where its kernels reach over time and step in time, as the Caffe2 program."""
    resnets = cfg.RESNETS
    logger.info("%s_%s", cfg.MODEL.MODEL_NAME, split)
    logger.info("--------------- ResNet-%d %dx%dd-%s, %s ---------------", cfg.MODEL.DEPTH, resnets.NUM_GROUPS,
                resnets.WIDTH_PER_GROUP, resnets.TRANS_FUNC, cfg.DATASET)
    for layers in model.temporal_reaches(), model.temporal_strides():
        logger.info("%s", layers)


def nonlocal_places(nonlocal_cfg: AttrDict, depth: int) -> set[str]:
    """Names of the residual blocks that a non-local block follows: those of NONLOCAL.AFTER, if it names any.

    Otherwise five in all, in res3 and res4 (paper section 5.1): after every block i of a stage with i mod m = m - 1.
    """
    if nonlocal_cfg.AFTER:
        return set(nonlocal_cfg.AFTER)
    mod = nonlocal_cfg.LAYER_MOD
    every = {3: mod, 4: mod} if depth == 50 else {3: 2, 4: 4 * mod - 1}
    enabled = {3: nonlocal_cfg.CONV3_NONLOCAL, 4: nonlocal_cfg.CONV4_NONLOCAL}
    return {f"res{stage}_{i}" for stage, m in every.items() if enabled[stage]
            for i in range(m - 1, BLOCKS[depth][stage - 2], m)}


def affinity_of(nonlocal_cfg: AttrDict) -> str:
    """NONLOCAL.AFFINITY, or what NONLOCAL.USE_SOFTMAX means if that is empty."""
    return nonlocal_cfg.AFFINITY or ("embedded_gaussian" if nonlocal_cfg.USE_SOFTMAX else "dot_product")


def check_model_options(cfg: AttrDict, split: str) -> None:
    """Raise UserError for names that do not exist and options that contradict each other."""
    if split not in ("train", "val", "test"):
        raise UserError(f"split: expected 'train', 'val' or 'test', got {split!r}")
    model = cfg.MODEL
    if model.MODEL_NAME not in NETWORKS:
        raise UserError(f"MODEL.MODEL_NAME: expected one of {', '.join(NETWORKS)}, got {model.MODEL_NAME!r}")
    if cfg.RESNETS.TRANS_FUNC not in BOTTLENECKS:
        raise UserError(f"RESNETS.TRANS_FUNC: expected one of {', '.join(BOTTLENECKS)}, got {cfg.RESNETS.TRANS_FUNC!r}")
    arc = ARCS.get(model.VIDEO_ARC_CHOICE)
    if arc is None or arc.depth != model.DEPTH:
        known = ", ".join(f"{key} with DEPTH {value.depth}" for key, value in ARCS.items())
        raise UserError(f"MODEL.VIDEO_ARC_CHOICE {model.VIDEO_ARC_CHOICE} does not go with MODEL.DEPTH {model.DEPTH}: "
                        f"expected {known}")
    if model.NUM_CLASSES < 1:
        raise UserError(f"MODEL.NUM_CLASSES: expected a positive number, got {model.NUM_CLASSES}")
    nonlocal_cfg = cfg.NONLOCAL
    affinity_class(affinity_of(nonlocal_cfg))
    span_of(nonlocal_cfg.REACH)
    residual = [f"res{stage}_{i}" for stage, count in enumerate(BLOCKS[model.DEPTH], 2) for i in range(count)]
    unknown = [name for name in nonlocal_cfg.AFTER if name not in residual]
    if unknown:
        raise UserError(f"NONLOCAL.AFTER: expected names of residual blocks, {residual[0]} to {residual[-1]}, "
                        f"got {unknown[0]!r}")
    if nonlocal_cfg.USE_BN and nonlocal_cfg.USE_AFFINE:
        raise UserError("NONLOCAL.USE_BN and NONLOCAL.USE_AFFINE name the same blobs: switch one of them off")


def _norm(use_affine: bool, epsilon: float, momentum: float) -> Callable[[int], nn.Module]:
    # Caffe2's momentum is the share of the old value, PyTorch's that of the new one.
    return FrozenAffine if use_affine else partial(nn.BatchNorm3d, eps=epsilon, momentum=1 - momentum)


def _nonlocal_block(options):
    def build(channels, inner, grouped):
        norm = None
        if options.USE_BN or options.USE_AFFINE:
            norm = _norm(options.USE_AFFINE, options.BN_EPSILON, options.BN_MOMENTUM)(channels)
        return NonLocalBlock(
            channels, inner, norm, affinity_of(options), use_maxpool=options.USE_MAXPOOL, use_scale=options.USE_SCALE,
            bias=not options.NO_BIAS, grouped=grouped, reach=options.REACH,
        )

    return build
