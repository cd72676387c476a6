"""The convolution of the networks: a Conv3d that computes flat kernels as two-dimensional convolutions."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Conv3d(nn.Conv3d):
    """torch.nn.Conv3d, faster on CPUs, where libraries have better kernels for two dimensions than for three.

    A kernel (1,k,k) runs over the frames, one of (k,1,1) over a plane of time by position; the latter only where there
    is no backward pass, which it would slow down. Both see channels-last memory through a view; the weights keep their
    five dimensions. A kernel may extend over time further than the clip.

    Input and output: N x C x T x H x W, best in torch.channels_last_3d.
    """

    def forward(self, x: Tensor) -> Tensor:
        kt, kh, kw = self.kernel_size
        if x.device.type == "cpu":
            if kt == 1:
                return self._over_space(x)
            if kh == kw == 1 and self.stride[1:] == (1, 1) and not torch.is_grad_enabled():
                return self._over_time(x)
        x, padding = self._padded_in_time(x)
        return F.conv3d(x, self.weight, self.bias, self.stride, (padding, *self._padding[1:]), groups=self.groups)

    @property
    def _padding(self) -> tuple[int, ...]:
        return tuple(int(side) for side in self.padding)

    def _over_space(self, x: Tensor) -> Tensor:
        x = x[:, :, ::self.stride[0]]
        n, c, t, h, w = x.shape
        frames = F.conv2d(x.transpose(1, 2).reshape(n * t, c, h, w), self.weight.squeeze(2), self.bias, self.stride[1:],
                          self._padding[1:], groups=self.groups)
        return frames.unflatten(0, (n, t)).transpose(1, 2)

    def _over_time(self, x: Tensor) -> Tensor:
        x, padding = self._padded_in_time(x)
        lines = F.conv2d(x.flatten(3), self.weight[..., 0], self.bias, (self.stride[0], 1), (padding, 0),
                         groups=self.groups)
        return lines.unflatten(3, x.shape[3:])

    def _padded_in_time(self, x: Tensor) -> tuple[Tensor, int]:
        """x and the padding that is left to do. A clip shorter than the kernel is padded here on CPUs."""
        reach = self._padding[0]
        if x.device.type != "cpu" or x.shape[2] >= self.kernel_size[0]:
            return x, reach
        # For such clips the bfloat16 gradient of oneDNN in PyTorch 2.13 reads uninitialised memory.
        return F.pad(x, (0, 0, 0, 0, reach, reach)), 0
