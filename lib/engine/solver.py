"""Stochastic gradient descent as in the Caffe2 program: the learning rate is part of the update history."""

import logging
from typing import Self, cast

import torch
from torch import Tensor, nn
from torch.optim.sgd import sgd

from formats.blobs import blob_name
from utils.collections import AttrDict

logger = logging.getLogger(__name__)


class Solver:
    """Caffe2's MomentumSGDUpdate with weight decay by blob name, and the scaling of the history.

        g  <- g + wd * w
        m' <- momentum * m + lr * g
        w  <- w - ((1 + momentum) * m' - momentum * m)   with Nesterov;   w <- w - m'   without

    torch.optim's SGD at learning rate 1, applied to lr * g, is exactly this, and its momentum buffer is the m that
    `<blob>_momentum` holds in a checkpoint.

    Args:
        model: its trainable parameters are updated; `.grad` must hold the mean over the replicas.
        momentum, nesterov, weight_decay: SOLVER options.
        weight_decay_bn: weight decay of the blobs with `_bn` in their name.
        scale_momentum: multiply the whole history by new/old when the learning rate changes.

    Attributes:
        lr: current learning rate; None before the first set_lr.
        parameters: blob name -> trainable parameter.
        history: blob name -> momentum buffer, in the shape of the parameter.
    """

    def __init__(self, model: nn.Module, momentum: float, nesterov: bool, weight_decay: float, weight_decay_bn: float,
                 scale_momentum: bool) -> None:
        self.scale_momentum = scale_momentum
        self.lr: float | None = None
        self.parameters = {blob_name(name): p for name, p in model.named_parameters() if p.requires_grad}
        # Allocated here, so that a checkpoint can be loaded into it.
        self.history = {name: torch.zeros_like(p) for name, p in self.parameters.items()}
        self._momentum = momentum
        self._nesterov = nesterov and momentum > 0
        batch_norm = [name for name in self.parameters if "_bn" in name]
        others = [name for name in self.parameters if "_bn" not in name]
        self._groups = [self._group(others, weight_decay), self._group(batch_norm, weight_decay_bn)]

    def _group(self, names: list[str], decay: float) -> tuple[list[Tensor], list[Tensor | None], float]:
        """What is updated with the same weight decay."""
        return ([self.parameters[name] for name in names],
                [self.history[name] if self._momentum else None for name in names], decay)

    @classmethod
    def from_config(cls, model: nn.Module, cfg: AttrDict) -> Self:
        options = cfg.SOLVER
        return cls(model, options.MOMENTUM, options.NESTEROV, options.WEIGHT_DECAY, options.WEIGHT_DECAY_BN,
                   options.SCALE_MOMENTUM)

    def set_lr(self, lr: float, iteration: int) -> None:
        """Set the learning rate of a 0-based iteration.

        A change beyond rounding is logged, and scales the history if enabled; the rate itself follows every change.
        """
        if self.lr is not None and abs(lr - self.lr) > 1e-7 * abs(lr):
            self._log_and_scale(lr, iteration)
        self.lr = lr

    def _log_and_scale(self, lr, iteration):
        ratio = lr / self.lr if self.lr else 1.0
        unusual = not 0.9 <= ratio <= 1.1
        if unusual:
            logger.info("Setting learning rate to %.6f at iteration %d", lr, iteration)
        if self.scale_momentum:
            if unusual:
                logger.info("Scaling update history by %.6f (new/old lr)", ratio)
            torch._foreach_mul_(list(self.history.values()), ratio)

    @torch.no_grad()
    def step(self) -> None:
        """Update every parameter from its gradient, and clear the gradients. set_lr must have been called."""
        assert self.lr is not None
        torch._foreach_mul_([cast(Tensor, p.grad) for p in self.parameters.values()], self.lr)
        for parameters, history, decay in self._groups:
            # The function, as the class imports torch._dynamo: three seconds at the start of each process.
            sgd(parameters, [cast(Tensor, p.grad) for p in parameters], history, fused=True, lr=1.0, maximize=False,
                weight_decay=self.lr * decay, momentum=self._momentum, dampening=0.0, nesterov=self._nesterov)
        for parameter in self.parameters.values():
            parameter.grad = None
