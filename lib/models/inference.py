"""Networks transformed for prediction: the same results, faster."""

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_weights

from models.resnet_helper import FrozenAffine
from models.resnet_video import ResNetVideo

# The convolution before a norm has the norm's name without `_bn`, except for these.
CONVOLUTION_BEFORE = {"res_conv1_bn": "conv1", "bn": "out"}


def for_inference(model: ResNetVideo, precision: str = "float32") -> ResNetVideo:
    """A copy of a network that makes the same predictions as the network in inference mode, but faster.

    Norms are folded into the convolutions before them. Convolutions that do not reach over both time and space run as
    two-dimensional ones on the same memory, for which better kernels exist. With precision 'bfloat16' trunk and
    weights are bfloat16, the classifier float32.

    Args:
        model: the network, in any mode. It is left unchanged.
        precision: MODEL.PRECISION.
    """
    network = copy.deepcopy(model).eval().requires_grad_(False)
    fold_norms(network)
    for name, convolution in list(network.named_modules()):
        if isinstance(convolution, nn.Conv3d):
            network.set_submodule(name, FlatConv(convolution))
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    for name in network.trunk:
        getattr(network, name).to(dtype)
    network.register_forward_pre_hook(
        lambda _, inputs: (inputs[0].to(dtype, memory_format=torch.channels_last_3d),))
    return network


def fold_norms(network: nn.Module) -> None:
    """Fold every batch norm (with its running statistics) and frozen affine layer into the convolution before it.

    Changes the network in place; a folded norm is replaced by nn.Identity.
    """
    modules = dict(network.named_modules())
    for name, norm in modules.items():
        if not isinstance(norm, nn.BatchNorm3d | FrozenAffine):
            continue
        parent, _, own = name.rpartition(".")
        convolution = getattr(modules[parent], CONVOLUTION_BEFORE.get(own, own.removesuffix("_bn")))
        mean, variance, epsilon = _statistics(norm)
        weight, bias = fuse_conv_bn_weights(convolution.weight, convolution.bias, mean, variance, epsilon,
                                            norm.weight, norm.bias)
        convolution.weight, convolution.bias = nn.Parameter(weight, False), nn.Parameter(bias, False)
        setattr(modules[parent], own, nn.Identity())


def _statistics(norm):
    """(mean, variance, epsilon) that a norm normalises with."""
    if isinstance(norm, FrozenAffine):
        return torch.zeros_like(norm.bias), torch.ones_like(norm.bias), 0.0
    return norm.running_mean, norm.running_var, norm.eps


class FlatConv(nn.Module):
    """A Conv3d for inference; a kernel (1,k,k) or (k,1,1) runs as a 2-D convolution on a view of channels-last memory.

    Input and output: N x C x T x H x W, best in torch.channels_last_3d.
    """

    def __init__(self, convolution: nn.Conv3d) -> None:
        super().__init__()
        _, kh, kw = convolution.kernel_size
        self.over_space = convolution.kernel_size[0] == 1
        self.over_time = not self.over_space and (kh, kw) == (1, 1) and convolution.stride[1:] == (1, 1)
        self.stride, self.groups = convolution.stride, convolution.groups
        self.padding = tuple(int(side) for side in convolution.padding)
        weight = convolution.weight
        if self.over_space:
            weight = weight[:, :, 0]
        elif self.over_time:
            weight = weight[..., 0]
        layout = torch.channels_last if weight.dim() == 4 else torch.channels_last_3d
        self.weight = nn.Parameter(weight.contiguous(memory_format=layout), False)
        self.bias = convolution.bias

    def forward(self, x: Tensor) -> Tensor:
        if self.over_space:
            x = x[:, :, ::self.stride[0]]
        n, c, t, h, w = x.shape
        if self.over_space:
            frames = x.transpose(1, 2).reshape(n * t, c, h, w)
            frames = F.conv2d(frames, self.weight, self.bias, self.stride[1:], self.padding[1:], groups=self.groups)
            return frames.reshape(n, t, *frames.shape[1:]).transpose(1, 2)
        if self.over_time:
            lines = F.conv2d(x.reshape(n, c, t, h * w), self.weight, self.bias, (self.stride[0], 1),
                             (self.padding[0], 0), groups=self.groups)
            return lines.reshape(n, lines.shape[1], -1, h, w)
        return F.conv3d(x, self.weight, self.bias, self.stride, self.padding, groups=self.groups)
