"""The start-up report: how many operations and parameters a network has."""

import copy

import torch
from torch import nn

from models.nonlocal_helper import FRAMES_PER_GROUP, NonLocalBlock


def count_operations(model, clip_shape):
    """Multiply-adds and weights of one forward pass, counted as the legacy report counts them.

    Args:
        model: a ResNetVideo.
        clip_shape: (3, T, H, W) of one clip.

    Returns:
        (operations, parameters): over convolutions, classifier and affinity products; weights only, no biases.
        Of a grouped non-local block one group counts, as in legacy.
    """
    meta = copy.deepcopy(model).to("meta").eval()
    operations = 0

    def count_weighted(module, _, output):
        nonlocal operations
        one = output[0]  # the clip, or one group of a grouped non-local block
        channels = one.shape[-1 if isinstance(module, nn.Linear) else 0]
        operations += module.weight.numel() * (one.numel() // channels)

    def count_products(block, inputs, _):
        nonlocal operations
        _, c, t, h, w = inputs[0].shape
        groups = {"spacetime": 1, "space": t, "time": h * w}[block.reach]
        if block.grouped:
            t = FRAMES_PER_GROUP
        p = t * h * w // groups
        q = p // (h * w) * (h // 2) * (w // 2) if block.use_maxpool else p
        if p != q or groups > 1:
            compared = {"gaussian": c, "concatenation": 1}.get(block.affinity, block.inner)
            operations += groups * (compared + block.inner) * p * q

    weighted = [m for m in meta.modules() if isinstance(m, nn.Conv3d | nn.Linear)]
    for module in weighted:
        module.register_forward_hook(count_weighted)
    for module in meta.modules():
        if isinstance(module, NonLocalBlock):
            module.register_forward_hook(count_products)
    with torch.no_grad():
        meta(torch.empty(1, *clip_shape, device="meta"))
    return operations, sum(module.weight.numel() for module in weighted)
