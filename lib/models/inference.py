"""Networks transformed for prediction: the same results, faster."""

import copy

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from models.resnet_helper import FrozenAffine
from models.resnet_video import ResNetVideo

# The convolution before a norm has the norm's name without `_bn`, except for these.
CONVOLUTION_BEFORE = {"res_conv1_bn": "conv1", "bn": "out"}


def for_inference(model: ResNetVideo, precision: str = "float32") -> ResNetVideo:
    """A copy of a network that makes the same predictions as the network in inference mode, but faster.

    Norms are folded into the convolutions before them. With precision 'bfloat16' trunk and weights are bfloat16, the
    classifier float32.

    Args:
        model: the network, in any mode. It is left unchanged.
        precision: MODEL.PRECISION.
    """
    network = copy.deepcopy(model).eval().requires_grad_(False)
    fold_norms(network)
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    for name in network.trunk:
        getattr(network, name).to(dtype, memory_format=torch.channels_last_3d)
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
