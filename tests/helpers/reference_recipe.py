"""Weights and inputs of the reference numbers, drawn from each blob's name and a seed instead of being stored.

The generator is numpy's legacy RandomState(crc32(name) ^ seed), which is the same in every version of numpy.
"""

import re
import zlib

import numpy as np
import torch

from formats.blobs import model_blobs


def random_state(name, seed):
    return np.random.RandomState(zlib.crc32(name.encode("ascii")) ^ seed)


def blob_value(name, shape, seed, weight_scales=None):
    """The float32 value of blob `name`."""
    rng = random_state(name, seed)
    if name.endswith("_bn_s"):
        small = name.endswith("branch2c_bn_s") or name.startswith("nonlocal")
        value = rng.uniform(*((0.2, 0.4) if small else (0.7, 1.3)), shape)
    elif name.endswith("_bn_riv"):
        value = rng.uniform(0.6, 1.6, shape)
    elif name.endswith(("_bn_rm", "_bn_b", "_b")):
        value = 0.1 * rng.randn(*shape)
    else:
        fan_in = np.prod(shape[1:])
        value = (0.15 / np.sqrt(fan_in) if name == "pred_w" else np.sqrt(2.0 / fan_in)) * rng.randn(*shape)
    value = value.astype(np.float32)
    for pattern, factor in (weight_scales or {}).items():
        if re.search(pattern, name):
            value *= np.float32(factor)
    return value


@torch.no_grad()
def fill(model, seed, weight_scales=None):
    """Set every blob of a model to its value from the recipe."""
    for name, tensor in model_blobs(model).items():
        tensor.copy_(torch.from_numpy(blob_value(name, tuple(tensor.shape), seed, weight_scales)))


def clips(shape, tag, seed):
    """A normalised batch of clips, float32."""
    return torch.from_numpy(random_state(tag, seed).randn(*shape).astype(np.float32))


def labels(count, num_classes, tag, seed):
    return torch.from_numpy(random_state(tag, seed).randint(0, num_classes, count).astype(np.int64))
