"""Stopping a run on request without losing work: SIGTERM (a scheduler), SIGINT (Ctrl-C)."""

import logging
import signal
from typing import Self

import torch

from engine.replicas import Replicas

logger = logging.getLogger(__name__)

# Exit status of a run that was asked to stop and can be resumed (EX_TEMPFAIL).
EXIT_INTERRUPTED = 75


class Interrupted(Exception):
    """The run was asked to stop; raised in every process."""


class Interruption:
    """Context manager that records SIGTERM and SIGINT, from its creation to its end.

    A second SIGINT raises KeyboardInterrupt.
    """

    def __init__(self, replicas: Replicas) -> None:
        self._replicas = replicas
        self._requested = 0
        self._previous = {number: signal.signal(number, self._note) for number in (signal.SIGTERM, signal.SIGINT)}

    def _note(self, number: int, _: object) -> None:
        if self._requested == signal.SIGINT and number == signal.SIGINT:
            raise KeyboardInterrupt
        self._requested = number

    def check(self) -> None:
        """Raise Interrupted if any process was asked to stop. Collective: all processes must call it together."""
        number = int(self._replicas.max(torch.tensor(self._requested)))
        if number:
            logger.info("%s: stopping; run the same command again to resume", signal.Signals(number).name)
            raise Interrupted

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
