"""A pool of reusable buffers: page-faulting fresh memory can cost more than filling it."""

import math
import weakref
from collections.abc import Sequence

import numpy as np
import torch


class _Use(weakref.ref):
    """A reference to an array; remembers the block that the array is part of."""

    __slots__ = ("block",)

    block: np.ndarray


class BufferPool:
    """Memory for uint8 tensors; threads may share it.

    It grows to as many blocks as were in use at the same time, each as large as the largest tensor it has held.
    """

    def __init__(self) -> None:
        self._uses: dict[int, _Use] = {}  # a weak reference calls back only while it exists itself
        self._ended: list[_Use] = []

    def tensor(self, shape: Sequence[int]) -> torch.Tensor:
        """An uninitialised uint8 tensor. Its memory is free again once nothing refers to it or a part of it."""
        size = math.prod(shape)
        block = self._free_block()
        if block is None or block.size < size:
            # From NumPy rather than PyTorch, as it asks for huge pages.
            block = np.empty(size, np.uint8)
        array = block[:size].reshape(shape)
        # The tensor and its parts refer to this array (parts of an array would refer to the block behind it).
        # The callback is not Python code (weakref.finalize is): a Ctrl-C inside it would be lost.
        use = _Use(array, self._ended.append)
        use.block = block
        self._uses[id(use)] = use
        return torch.from_numpy(array)

    def _free_block(self):
        try:
            use = self._ended.pop()
        except IndexError:
            return None
        return self._uses.pop(id(use)).block
