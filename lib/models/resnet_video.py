"""The network of the paper's table 1: ResNet-50/101, C2D or I3D, with non-local blocks."""

from collections import OrderedDict, defaultdict
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.activation_checkpointing import recompute
from models.convolution import Conv3d
from models.nonlocal_helper import NonLocalBlock
from models.pooling import MaxPool3d
from models.precision import no_autocast
from models.resnet_helper import Bottleneck
from utils.errors import UserError


@dataclass(frozen=True)
class Arc:
    """Where the kernels reach over time. Blocks not named in `temporal_blocks` are purely spatial."""

    depth: int
    conv1_reach: int  # conv1's temporal kernel is 1 + 2 * conv1_reach
    temporal_blocks: tuple  # per stage res2..res5, which blocks have a temporal kernel of 3


# The smallest side in pixels that leaves pool5 its 7 x 7 positions after five halvings.
MIN_SIZE = 197

BLOCKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}


def _inflated(depth):
    """I3D: every block of res2, blocks 0 and 2 of res3, even blocks of res4, block 1 of res5."""
    res2, _, res4, _ = BLOCKS[depth]
    return (frozenset(range(res2)), frozenset({0, 2}), frozenset(range(0, res4, 2)), frozenset({1}))


_FLAT: tuple[frozenset[int], ...] = (frozenset(),) * 4

# MODEL.VIDEO_ARC_CHOICE
ARCS = {
    1: Arc(50, 0, _FLAT),
    2: Arc(50, 2, _inflated(50)),
    3: Arc(101, 0, _FLAT),
    4: Arc(101, 2, _inflated(101)),
}


class PositionPool(nn.Module):
    """Average over all frames and 7 x 7 positions: N x C x T x H x W -> N x C x 1 x (H - 6) x (W - 6)."""

    def forward(self, x: Tensor) -> Tensor:
        return F.avg_pool3d(x, (x.shape[2], 7, 7), stride=1)


class ResNetVideo(nn.Module):
    """The trunk, non-local blocks and classifier. Attribute names are the blob names of the `.pkl` files.

    Args:
        arc: key of ARCS.
        num_classes: K.
        norm: function of a number of channels that makes the backbone's norm layers.
        nonlocal_block: function (channels, inner, grouped) that makes a non-local block.
        nonlocal_after: names of the residual blocks that a non-local block follows, e.g. {"res3_1"}.
        grouped_stages: the stages whose non-local blocks attend inside groups of 4 frames.
        groups, width_per_group, stem: RESNETS.NUM_GROUPS, WIDTH_PER_GROUP and STEM_OUT_CHANNELS.
        dropout: rate before the classifier, in training mode.
        checkpoint_activations: in training mode, keep only the inputs of checkpoint_segments() for the backward pass.
        conv1_temporal_stride, pool1_temporal: the two numbers in which resnet_video_org differs.
        output: 'pred' for N x K scores, 'softmax' for N x K probabilities; averaged over the positions that pool5
            leaves (paper section 5.1, fully convolutional testing: the softmax is taken at each position).

    Input: N x 3 x T x H x W normalised clips of any length and size that leave pool5 at least one 7 x 7 position:
    197 pixels each way and 2 frames (7 for resnet_video_org), else UserError.
    """

    def __init__(self, arc, num_classes, norm, nonlocal_block, nonlocal_after, grouped_stages=(), groups=1,
                 width_per_group=64, stem=64, dropout=0.0, checkpoint_activations=False, conv1_temporal_stride=1,
                 pool1_temporal=1, output="pred"):
        super().__init__()
        self.checkpoint_activations = checkpoint_activations
        arc = ARCS[arc]
        reach = arc.conv1_reach
        self.output = output
        # What conv1 leaves must fill pool1, and that pool2, which needs two frames.
        self.min_frames = conv1_temporal_stride * (2 * pool1_temporal - 1) + 1
        trunk = self.trunk = []  # names in the order in which forward() runs them

        def add(name, module):
            self.add_module(name, module)
            trunk.append(name)

        kernel, stride = (1 + 2 * reach, 7, 7), (conv1_temporal_stride, 2, 2)
        add("conv1", Conv3d(3, stem, kernel, stride, (reach, 3, 3), bias=False))
        add("res_conv1_bn", norm(stem))
        add("conv1_relu", nn.ReLU(inplace=True))
        add("pool1", MaxPool3d((pool1_temporal, 3, 3), (pool1_temporal, 2, 2)))
        channels = stem
        for index, (blocks, temporal) in enumerate(zip(BLOCKS[arc.depth], arc.temporal_blocks, strict=True)):
            stage = index + 2
            dim_out, dim_inner = 4 * stem * 2**index, groups * width_per_group * 2**index
            for i in range(blocks):
                stride = 2 if i == 0 and stage > 2 else 1
                kernel = 3 if i in temporal else 1
                add(f"res{stage}_{i}", Bottleneck(channels, dim_out, dim_inner, stride, kernel, groups, norm))
                channels = dim_out
                if f"res{stage}_{i}" in nonlocal_after:
                    add(f"nonlocal_conv{stage}_{i}", nonlocal_block(channels, channels // 2, stage in grouped_stages))
            if stage == 2:
                add("pool2", MaxPool3d((2, 1, 1), (2, 1, 1)))
        self.pool5 = PositionPool()
        self.dropout = nn.Dropout(dropout)
        self.pred = nn.Linear(channels, num_classes)

    def forward(self, clips: Tensor) -> Tensor:
        self.check_size(*clips.shape[2:])
        x = clips
        if self.checkpoint_activations and self.training:
            for part, again in self.checkpoint_segments():
                x = recompute(part, x) if again else part(x)
        else:
            for name in self.trunk:
                x = getattr(self, name)(x)
        return self.head(x)

    def checkpoint_segments(self) -> list[tuple[nn.Module, bool]]:
        """The trunk in parts, each a block with the pooling behind it or what comes before the first block, and for
        each whether to compute it again in the backward pass: not res5's, which take much time and little memory."""
        parts: list[list[tuple[str, nn.Module]]] = [[]]
        for name in self.trunk:
            layer = getattr(self, name)
            if isinstance(layer, Bottleneck | NonLocalBlock):
                parts.append([])
            parts[-1].append((name, layer))
        return [(nn.Sequential(OrderedDict(part)), not part[0][0].startswith("res5")) for part in parts]

    def temporal_reaches(self) -> list[list[int]]:
        """Frames that conv1, and the blocks of each stage, see before and after each frame."""
        return self._of_temporal_convolutions(lambda convolution: convolution.padding[0])

    def temporal_strides(self) -> list[list[int]]:
        """Strides in time of conv1, and of the blocks of each stage."""
        return self._of_temporal_convolutions(lambda convolution: convolution.stride[0])

    def _of_temporal_convolutions(self, value):
        stages = defaultdict(list)
        for name in self.trunk:
            if isinstance(layer := getattr(self, name), Bottleneck):
                stages[name.partition("_")[0]].append(int(value(layer.branch2a)))
        return [[int(value(self.conv1))], *stages.values()]

    def check_size(self, frames: int, height: int, width: int) -> None:
        if frames < self.min_frames:
            raise UserError(f"the network needs clips of at least {self.min_frames} frames, got {frames}: "
                            "TRAIN.VIDEO_LENGTH is too small")
        if min(height, width) < MIN_SIZE:
            raise UserError(f"the network needs clips of at least {MIN_SIZE} x {MIN_SIZE} pixels, "
                            f"got {height} x {width}: TRAIN.CROP_SIZE (in a full-size test TEST.SCALE) is too small")

    def head(self, x: Tensor) -> Tensor:
        """res5's output N x C x T x H x W -> N x K, in float32 at least: what is averaged here decides the class."""
        with no_autocast(x.device):
            pool5 = self.pool5(x.to(torch.promote_types(x.dtype, torch.float32)))
            # A linear layer on channels-last positions is the fully connected and the 1x1x1 convolutional classifier.
            scores = self.pred(self.dropout(pool5.flatten(2).transpose(1, 2)))  # N x positions x K
            if self.output == "softmax":
                scores = scores.softmax(2)
            return scores.mean(1)

