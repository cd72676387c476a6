"""Large tensors whose memory is used again: touching new memory can cost more than filling it."""

import math
import weakref

import numpy as np
import torch


class _Use(weakref.ref):
    """Of an array, which lies in a block."""

    __slots__ = ("block",)


class BufferPool:
    """Memory for uint8 tensors; may be used from many threads.

    It holds as many blocks as were in use at the same time, each as large as the largest that was asked of it.
    """

    def __init__(self):
        self._uses = {}  # a reference that is not held itself calls nobody
        self._ended = []

    def tensor(self, shape):
        """A tensor of this shape, not filled. Its memory is free again when nobody holds it or a part of it."""
        size = math.prod(shape)
        block = self._free_block()
        if block is None or block.size < size:
            # NumPy's and not PyTorch's: it asks for huge pages.
            block = np.empty(size, np.uint8)
        array = block[:size].reshape(shape)
        # The tensor and its parts hold this array (parts of an array would hold the block behind it).
        # What is called at its end is no Python code (as weakref.finalize is): a Ctrl-C in there would be lost.
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
