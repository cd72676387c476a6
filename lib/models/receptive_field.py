"""Where the cells of a feature map lie in the clip, exactly, from kernels, strides and paddings."""

from dataclasses import dataclass

import numpy as np
from torch import nn

from models.resnet_helper import Bottleneck
from models.resnet_video import ResNetVideo

Triple = tuple[int, ...]  # frames, rows, columns


@dataclass(frozen=True)
class Grid:
    """The centres of a feature map's cells in the clip, and how much of the clip a cell sees.

    Each field has three numbers, for frames, rows and columns, in frames and pixels of the clip; the centre of pixel i
    is at i.

    first: centre of cell 0 (the middle of its receptive field). step: from one cell to the next. extent: side of the
    receptive field, in frames or pixels.
    """

    first: tuple = (0.0, 0.0, 0.0)
    step: tuple = (1, 1, 1)
    extent: tuple = (1, 1, 1)

    def through(self, kernel: Triple, stride: Triple, padding: Triple) -> "Grid":
        """The grid of what a convolution or pooling with this window makes of this grid's cells (triples)."""
        return Grid(
            tuple(f + ((k - 1) / 2 - p) * s for f, s, k, p in zip(self.first, self.step, kernel, padding, strict=True)),
            tuple(s * by for s, by in zip(self.step, stride, strict=True)),
            tuple(e + (k - 1) * s for e, s, k in zip(self.extent, self.step, kernel, strict=True)),
        )

    def centres(self, cells) -> np.ndarray:
        """Positions (... x 3, float64: frame, row, column) of cells (... x 3, integers: t, h, w)."""
        return np.asarray(cells) * self.step + self.first

    def nearest(self, position, shape) -> tuple[int, int, int]:
        """The cell (t, h, w) of a map of this shape (T, H, W) whose centre is nearest to a position of the clip."""
        cell = np.rint((np.asarray(position) - self.first) / self.step).astype(int)
        return tuple(np.clip(cell, 0, np.array(shape) - 1).tolist())


def input_grid(model: ResNetVideo, name: str) -> Grid:
    """Grid of the feature map that the trunk's module `name` of a ResNetVideo takes in.

    Non-local blocks see the whole clip and move no centre; like the shortcuts, they are passed over.
    """
    grid = Grid()
    for module in model.trunk[:model.trunk.index(name)]:
        for window in _windows(getattr(model, module)):
            grid = grid.through(*window)
    return grid


def _windows(module):
    """(kernel, stride, padding) of the layers of a module of the trunk that look at more than a cell, in order."""
    if isinstance(module, Bottleneck):
        # The shortcut of stride s takes every s-th cell: the centres of the other branch.
        layers = [module.branch2a, module.branch2b, module.branch2c]
    else:
        layers = [module] if isinstance(module, (nn.Conv3d, nn.MaxPool3d)) else []
    return [tuple(map(_triple, (layer.kernel_size, layer.stride, layer.padding))) for layer in layers]


def _triple(value):
    return (value,) * 3 if isinstance(value, int) else tuple(value)
