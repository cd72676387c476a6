"""Initial values of a network's parameters (paper section 4.1; Caffe2's MSRAFill and GaussianFill)."""

import math
import zlib

import numpy as np
import torch
from torch import nn

from models.nonlocal_helper import NonLocalBlock


@torch.no_grad()
def initialize(model: nn.Module, seed: int, bn_init_gamma: float, fc_init_std: float, nonlocal_init_std: float,
               nonlocal_zero_init: bool, nonlocal_bn_init_gamma: float) -> None:
    """Fill every parameter of a ResNetVideo. Each draw follows from the seed and the parameter's name alone, so that
    a layer starts the same in every variant of the network.

    bn_init_gamma is for the last BN of every residual branch, the other BNs start at gamma 1. Frozen affine layers
    keep scale 1 and bias 0.
    """
    blocks = [module for module in model.modules() if isinstance(module, NonLocalBlock)]
    inside_nonlocal = {module for block in blocks for module in block.modules()}
    for name, module in model.named_modules():
        if isinstance(module, nn.BatchNorm3d):
            if module in inside_nonlocal:
                module.weight.fill_(nonlocal_bn_init_gamma)
            elif name.endswith("branch2c_bn"):
                module.weight.fill_(bn_init_gamma)
        elif isinstance(module, nn.Conv3d | nn.Linear):
            if module in inside_nonlocal:
                std = 0.0 if nonlocal_zero_init and name.endswith(".out") else nonlocal_init_std
            elif isinstance(module, nn.Linear):
                std = fc_init_std
            else:
                std = math.sqrt(2 / (module.weight.shape[0] * math.prod(module.kernel_size)))
            rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
            values = np.float32(std) * rng.standard_normal(module.weight.shape, np.float32)
            module.weight.copy_(torch.from_numpy(values))
            if module.bias is not None:
                module.bias.zero_()
