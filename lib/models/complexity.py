"""The start-up report: how many operations and parameters a network has."""

import torch
from torch import nn

from models.attention_spans import LONG_CLIP_GROUPS
from models.nonlocal_helper import NonLocalBlock
from models.resnet_video import ResNetVideo


def count_operations(model: ResNetVideo, clip_shape: tuple[int, ...]) -> tuple[int, int]:
    """Multiply-adds and weights of one forward pass, counted as the legacy report counts them.

    Args:
        model: the network. It is left unchanged.
        clip_shape: (3, T, H, W) of one clip.

    Returns:
        (operations, parameters): over convolutions, classifier and affinity products; weights only, no biases.
        Only one group of a grouped non-local block counts, as in legacy.
    """
    weighted = [m for m in model.modules() if isinstance(m, nn.Conv3d | nn.Linear)]
    blocks = [m for m in model.modules() if isinstance(m, NonLocalBlock)]
    operations, parts = 0, 1

    def enter(block, inputs):
        nonlocal operations, parts
        size = inputs[0].shape[2:]
        operations += _affinity_operations(block, *size)
        parts = 1 if block.span == LONG_CLIP_GROUPS else block.span.count_parts(*size)

    def leave(*_):
        nonlocal parts
        parts = 1

    def count_weighted(module, _, output):
        nonlocal operations
        positions = output.shape[1:-1] if isinstance(module, nn.Linear) else output.shape[2:]
        operations += module.weight.numel() * parts * positions.numel()

    was_training = model.training
    hooks = [layer.register_forward_hook(count_weighted) for layer in weighted]
    hooks += [hook for block in blocks for hook in (
        block.register_forward_pre_hook(enter), block.register_forward_hook(leave))]
    try:
        with torch.no_grad():
            model.eval()
            # A batch of no clips: all shapes, and nothing to compute.
            model(next(model.parameters()).new_empty(0, *clip_shape))
    finally:
        model.train(was_training)
        for hook in hooks:
            hook.remove()
    return operations, sum(layer.weight.numel() for layer in weighted)


def _affinity_operations(block: NonLocalBlock, t: int, h: int, w: int) -> int:
    """Multiply-adds of the two products of a block with an input of T x H x W positions."""
    parts = block.span.count_parts(t, h, w)
    queries = t * h * w // parts
    keys = t * (h // 2) * (w // 2) // parts if block.use_maxpool else queries
    if block.span == LONG_CLIP_GROUPS:
        parts = 1
    if parts == 1 and queries == keys:
        return 0  # as in legacy
    return parts * (block.affinity.operations_per_pair + block.affinity.inner) * queries * keys
