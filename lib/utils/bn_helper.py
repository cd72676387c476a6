"""Precise BN: true means and variances in place of running ones, before each evaluation and checkpoint."""

import contextlib
import logging
import time
from collections.abc import Callable, Iterable, Iterator

import torch
from torch import nn

from formats.blobs import blob_name
from utils.errors import UserError

logger = logging.getLogger(__name__)


def batch_norms(model: nn.Module) -> dict[str, nn.BatchNorm3d]:
    """{name: layer} of every batch norm of the model."""
    return {name: module for name, module in model.named_modules() if isinstance(module, nn.BatchNorm3d)}


@contextlib.contextmanager
def running_statistics_frozen(model: nn.Module, frozen: bool = True) -> Iterator[None]:
    """Inside, training-mode passes leave the running statistics alone (if `frozen`): those of the root replica rule."""
    layers = batch_norms(model).values() if frozen else ()
    for layer in layers:
        layer.track_running_stats = False
    try:
        yield
    finally:
        for layer in layers:
            layer.track_running_stats = True


class BatchStatistics:
    """Sums of E[x] and E[x^2] of every batch norm's input over training-mode forward passes.

    Use as a context manager around the passes, calling add() after each. Meanwhile the layers' running statistics are
    scratch space; they are restored at the end.
    """

    def __init__(self, model):
        self.layers = batch_norms(model)
        self.passes = 0
        self.sums = {name: torch.zeros(2, layer.num_features, dtype=torch.float64, device=layer.weight.device)
                     for name, layer in self.layers.items()}
        self._counts = {}

    def __enter__(self):
        self._momenta = {name: layer.momentum for name, layer in self.layers.items()}
        self._running = {name: (layer.running_mean.clone(), layer.running_var.clone())
                         for name, layer in self.layers.items()}
        self._hooks = []
        for name, layer in self.layers.items():
            # With momentum 1 a pass leaves just its own batch's statistics in the running ones.
            layer.momentum = 1.0
            self._hooks.append(layer.register_forward_pre_hook(self._counter(name)))
        return self

    def _counter(self, name):
        def hook(_, inputs):
            self._counts[name] = inputs[0].numel() // inputs[0].shape[1]

        return hook

    def add(self) -> None:
        for name, layer in self.layers.items():
            count = self._counts[name]
            mean = layer.running_mean.double()
            biased = layer.running_var.double() * ((count - 1) / count)
            self.sums[name] += torch.stack([mean, biased + mean**2])
        self.passes += 1

    def __exit__(self, *_):
        for hook in self._hooks:
            hook.remove()
        for name, layer in self.layers.items():
            layer.momentum = self._momenta[name]
            layer.running_mean.copy_(self._running[name][0])
            layer.running_var.copy_(self._running[name][1])


@torch.no_grad()
def compute_precise_bn(model: nn.Module, next_batch: Callable[[], Iterable[torch.Tensor]], iterations: int, replicas,
                       it: int, log_period: int) -> None:
    """Set every batch norm's running statistics to E[x] and E[x^2] - E[x]^2 over fresh training batches.

    Args:
        model: network in training mode.
        next_batch: function returning the next iteration's normalised clips, one tensor per local replica.
        iterations: how many iterations to average over (TRAIN.ITER_COMPUTE_PRECISE_BN).
        replicas: engine.replicas.Replicas; the average is over all of them.
        it: 0-based training iteration, for the log.

    Raises:
        UserError: a variance is not positive; names the layer.
    """
    logger.info("Computing and updating BN stats at iter: %d", it + 1)
    with BatchStatistics(model) as statistics:
        for i in range(iterations):
            start = time.perf_counter()
            for clips in next_batch():
                model(clips)
                statistics.add()
            if (i + 1) % log_period == 0:
                logger.info("Computing BN [%d/%d]: %ss", i + 1, iterations, f"{time.perf_counter() - start:.3}")
    for name, layer in statistics.layers.items():
        mean, square = replicas.sum(statistics.sums[name]) / (iterations * replicas.total)
        variance = square - mean**2
        if not bool((variance > 0).all()):
            blob = blob_name(f"{name}.running_var")
            raise UserError(f"precise BN at iteration {it + 1}: {blob}: expected positive variances, got "
                            f"{variance.min().item():g}: a channel there is constant or not a number")
        layer.running_mean.copy_(mean)
        layer.running_var.copy_(variance)
