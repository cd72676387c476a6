"""Stochastic gradient descent as in the Caffe2 program: the learning rate is part of the update history."""

import logging
from typing import Any, Self, cast

import torch
from torch import nn

from formats.blobs import blob_name
from utils.collections import AttrDict

logger = logging.getLogger(__name__)


class Solver:
    """Caffe2's MomentumSGDUpdate with weight decay by blob name, and the scaling of the history.

        g  <- g + wd * w
        m' <- momentum * m + lr * g
        w  <- w - ((1 + momentum) * m' - momentum * m)   with Nesterov;   w <- w - m'   without

    torch.optim.SGD at learning rate 1, applied to lr * g, is exactly this, and its momentum buffer is the m that
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
        batch_norm = [p for name, p in self.parameters.items() if "_bn" in name]
        others = [p for name, p in self.parameters.items() if "_bn" not in name]
        groups: list[dict[str, Any]] = [{"params": others, "decay": weight_decay},
                                        {"params": batch_norm, "decay": weight_decay_bn}]
        self.sgd = torch.optim.SGD([g for g in groups if g["params"]], lr=1.0, momentum=momentum,
                                   nesterov=nesterov and momentum > 0, fused=True)
        # Allocated here, so that a checkpoint can be loaded into it.
        self.history = {name: torch.zeros_like(p) for name, p in self.parameters.items()}
        if momentum:
            for name, p in self.parameters.items():
                self.sgd.state[p]["momentum_buffer"] = self.history[name]

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

    def step(self) -> None:
        """Update every parameter from its gradient, and clear the gradients. set_lr must have been called."""
        assert self.lr is not None
        for group in self.sgd.param_groups:
            group["weight_decay"] = self.lr * group["decay"]
        torch._foreach_mul_([cast(torch.Tensor, p.grad) for p in self.parameters.values()], self.lr)
        self.sgd.step()
        self.sgd.zero_grad(set_to_none=True)
