"""Blobs of a network as a file has them: numpy arrays by name."""

from unittest import mock

import numpy as np
import torch
from reference_recipe import fill

from formats.blobs import model_blobs
from models import model_builder_video

__all__ = ["fill", "shapes", "values"]


def values(model):
    return {name: tensor.numpy().copy() for name, tensor in model_blobs(model).items()}


def shapes(cfg):
    """Arrays of the right shapes, for the network of a configuration, that take no memory."""
    with torch.device("meta"), mock.patch.object(model_builder_video, "initialize"):
        model = model_builder_video.create_model(cfg, "test")
    return {name: np.broadcast_to(np.float32(0), tensor.shape) for name, tensor in model_blobs(model).items()}
