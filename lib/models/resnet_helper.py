"""Parts of the residual network: frozen affine layer, bottleneck block."""

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn

from models.convolution import Conv3d


class FrozenAffine(nn.Module):
    """y = x * weight + bias per channel, never trained (Caffe2's AffineChannel with is_learnable = 0).

    A batch norm becomes one when its statistics are folded for long clips. Gradients pass through to x.
    Input and output: N x C x T x H x W.
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.ones(channels))
        self.register_buffer("bias", torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, _Affine.apply(x, self.weight, self.bias))


class _Affine(torch.autograd.Function):
    """x * weight + bias in the type of x, with float32 factors inside; keeps nothing of x for the backward pass."""

    @staticmethod
    def forward(ctx, x, weight, bias):
        ctx.save_for_backward(weight)
        return _scaled(x, weight, bias)

    @staticmethod
    def backward(ctx, gradient):
        weight, = ctx.saved_tensors
        return _scaled(gradient, weight, torch.zeros_like(weight)), None, None


def _scaled(x, weight, bias):
    # A batch norm with mean 0 and variance 1 takes factors of another type than x; a product would be in theirs.
    zeros, ones = torch.zeros_like(weight), torch.ones_like(weight)
    return torch.batch_norm(x, weight, bias, zeros, ones, training=False, momentum=0.0, eps=0.0, cudnn_enabled=False)


class Bottleneck(nn.Module):
    """A residual block: (kt,1,1) -> (1,3,3) -> 1x1x1, each with a norm, plus the shortcut, then ReLU.

    Args:
        dim_in, dim_out: channels of input and output.
        dim_inner: channels of the two inner convolutions.
        spatial_stride: stride of the (1,3,3) convolution and of the projection, in space.
        temporal_kernel: 1 or 3, of the first convolution.
        groups: group count of the (1,3,3) convolution.
        norm: function of a number of channels that makes the norm layer.

    Input N x dim_in x T x H x W; output N x dim_out x T x H/stride x W/stride.
    """

    def __init__(self, dim_in: int, dim_out: int, dim_inner: int, spatial_stride: int, temporal_kernel: int,
                 groups: int, norm: Callable[[int], nn.Module]) -> None:
        super().__init__()
        stride = (1, spatial_stride, spatial_stride)
        padding = (temporal_kernel // 2, 0, 0)
        self.branch2a = Conv3d(dim_in, dim_inner, (temporal_kernel, 1, 1), padding=padding, bias=False)
        self.branch2a_bn = norm(dim_inner)
        self.branch2b = Conv3d(dim_inner, dim_inner, (1, 3, 3), stride, (0, 1, 1), groups=groups, bias=False)
        self.branch2b_bn = norm(dim_inner)
        self.branch2c = Conv3d(dim_inner, dim_out, 1, bias=False)
        self.branch2c_bn = norm(dim_out)
        self.has_projection = dim_in != dim_out or spatial_stride != 1
        if self.has_projection:
            self.branch1 = Conv3d(dim_in, dim_out, 1, stride, bias=False)
            self.branch1_bn = norm(dim_out)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.branch2a_bn(self.branch2a(x)))
        y = self.relu(self.branch2b_bn(self.branch2b(y)))
        y = self.branch2c_bn(self.branch2c(y))
        shortcut = self.branch1_bn(self.branch1(x)) if self.has_projection else x
        return self.relu(y + shortcut)
