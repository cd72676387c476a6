"""Stopping a training on request without losing work (utils.stopping), in all its processes at once."""

import logging
import signal
from typing import Self

import torch

from engine.replicas import Replicas
from utils import stopping

logger = logging.getLogger(__name__)


class Interrupted(Exception):
    """The run was asked to stop; raised in every process."""


class Interruption:
    """Context manager of a run that has nothing to lose at first, and from hold() on work that must be saved.

    Up to hold() a signal ends the process at once. From then on it ends where check() is called, by Interrupted, or at
    the latest with the block. All processes must call hold() at the same place, just before a check(): one that ends
    at once while the others hold on is then missed there.
    """

    def __init__(self, replicas: Replicas) -> None:
        self._replicas = replicas
        self._holding = False

    def hold(self) -> None:
        """There is work to be saved from here on."""
        if not self._holding:
            self._holding = True
            stopping.hold()

    def check(self) -> None:
        """Raise Interrupted if any process was asked to stop. Collective: all processes must call it together."""
        number = int(self._replicas.max(torch.tensor(stopping.asked())))
        if number:
            logger.info("%s: stopping; run the same command again to resume", signal.Signals(number).name)
            raise Interrupted

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if self._holding:
            stopping.release(end=kind is None)
