"""Less memory for more time: activations that are computed again in the backward pass instead of kept."""

import contextlib

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from utils.bn_helper import batch_norms


def recompute(block: nn.Module, x: Tensor) -> Tensor:
    """block(x), of which only x is kept for the backward pass. The block must draw no random numbers."""
    return checkpoint(block, x, use_reentrant=False, preserve_rng_state=False,
                      context_fn=lambda: (contextlib.nullcontext(), _second_pass(block)))


@contextlib.contextmanager
def _second_pass(block):
    """Inside, passes add nothing to the running statistics, which have taken this batch already."""
    # Not without them: the second pass must keep the same tensors as the first.
    layers = batch_norms(block).values()
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.momentum = 0.0
    try:
        yield
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
