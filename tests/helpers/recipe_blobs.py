"""Blobs of a network as a file has them: numpy arrays by name."""

import numpy as np
from reference_recipe import fill

from formats.blobs import model_blobs
from models.model_builder_video import weight_shapes

__all__ = ["fill", "shapes", "values"]


def values(model):
    return {name: tensor.numpy().copy() for name, tensor in model_blobs(model).items()}


def shapes(cfg):
    """Arrays of the right shapes, for the network of a configuration, that take no memory."""
    return {name: np.broadcast_to(np.float32(0), shape) for name, shape in weight_shapes(cfg).items()}
