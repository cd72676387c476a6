"""Large tensors whose memory is used again: touching new memory can cost more than filling it."""

import math
import weakref

import numpy as np
import torch


class Blocks:
    """Memory for uint8 tensors; may be used from many threads.

    It holds as many blocks as were in use at the same time, each as large as the largest that was asked of it.
    """

    def __init__(self):
        self._free = []

    def tensor(self, shape):
        """A tensor of this shape, not filled. Its memory is free again when nobody holds it or a part of it."""
        size = math.prod(shape)
        try:
            block = self._free.pop()
        except IndexError:
            block = None
        if block is None or block.size < size:
            # NumPy's and not PyTorch's: it asks for huge pages.
            block = np.empty(size, np.uint8)
        array = block[:size].reshape(shape)
        # The tensor and its parts hold this array (parts of an array would hold the block behind it).
        weakref.finalize(array, self._free.append, block).atexit = False
        return torch.from_numpy(array)
