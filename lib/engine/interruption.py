"""Ending a run on request without losing anything: SIGTERM (a scheduler), SIGINT (Ctrl-C)."""

import logging
import signal

import torch

logger = logging.getLogger(__name__)

# The exit status of a run that was asked to end and can be started again (EX_TEMPFAIL).
EXIT_INTERRUPTED = 75


class Interrupted(Exception):
    """The run was asked to end, and every process knows."""


class Interruption:
    """Notes SIGTERM and SIGINT from its making on, until restore(). The second SIGINT ends the process at once."""

    def __init__(self, replicas):
        self._replicas = replicas
        self._requested = 0
        self._previous = {number: signal.signal(number, self._note) for number in (signal.SIGTERM, signal.SIGINT)}

    def _note(self, number, _):
        if self._requested == signal.SIGINT and number == signal.SIGINT:
            raise KeyboardInterrupt
        self._requested = number

    def check(self):
        """Raise Interrupted if any process was asked to end. All processes must call it at the same points."""
        number = int(self._replicas.max(torch.tensor(self._requested)))
        if number:
            logger.info("%s: ending this run; started again it goes on from here", signal.Signals(number).name)
            raise Interrupted

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for number, handler in self._previous.items():
            signal.signal(number, handler)
