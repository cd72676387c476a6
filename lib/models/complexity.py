"""The start-up report: how many operations and parameters a network has."""

import copy

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
    meta = copy.deepcopy(model).to("meta").eval()
    weighted = [m for m in meta.modules() if isinstance(m, nn.Conv3d | nn.Linear)]
    blocks = [m for m in meta.modules() if isinstance(m, NonLocalBlock)]
    grouped = {layer for block in blocks if block.span == LONG_CLIP_GROUPS for layer in block.modules()}
    operations = 0

    def count_weighted(module, _, output):
        nonlocal operations
        counted = output[:1] if module in grouped else output
        channels = output.shape[-1 if isinstance(module, nn.Linear) else 1]
        operations += module.weight.numel() * (counted.numel() // channels)

    def count_products(block, inputs, _):
        nonlocal operations
        operations += _affinity_operations(block, *inputs[0].shape[2:])

    for layer in weighted:
        layer.register_forward_hook(count_weighted)
    for block in blocks:
        block.register_forward_hook(count_products)
    with torch.no_grad():
        meta(torch.empty(1, *clip_shape, device="meta"))
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
