"""Watchdog for decoding threads: ends the run when a video yields no frame for too long.

FFmpeg can hang in a call: on a file system that no longer answers, or in a bug. The thread cannot be ended, only the
process can. Skipping the video instead would make the training data depend on timing, leave a thread behind with each
one, and hide that a disk is gone. So the run ends and reports which video it was; the same command resumes from the
last checkpoint (or score), and reaches the same video again if that is the cause.
"""

import contextlib
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any

from utils.errors import Hang

# Time is counted in this many parts, which pass without a frame while this process runs. The clock alone would mistake
# a process that was stopped and continued (SIGSTOP, a debugger) for one that hangs.
_PARTS = 10


class _Decoding:
    """A video that a thread is decoding: its name, when that began, parts without a frame so far."""

    __slots__ = ("name", "quiet", "started")

    def __init__(self, name):
        self.name, self.started, self.quiet = name, time.time(), 0

    def frame(self):
        self.quiet = 0


class Watchdog:
    """What the threads of a loader are decoding.

    Args:
        seconds: how long a video may take to yield a frame; 0: forever.
    """

    def __init__(self, seconds: float):
        self._seconds = seconds
        self._at_work: dict[int, _Decoding] = {}  # by id: a dict is changed by one thread at a time

    @contextlib.contextmanager
    def video(self, name: str) -> Iterator[Callable[[], None]]:
        """Surrounds the decoding of a video. Yields a function to call for every frame."""
        decoding = _Decoding(name)
        self._at_work[id(decoding)] = decoding
        try:
            yield decoding.frame
        finally:
            del self._at_work[id(decoding)]

    def result(self, future: Future) -> Any:
        """future.result(). Raises Hang if it does not arrive and a video yields no frame."""
        while self._seconds:
            try:
                return future.result(self._seconds / _PARTS)
            except TimeoutError:
                if future.done():  # an error of the work itself
                    raise
                self._count()
        return future.result()

    def wait_until_idle(self) -> None:
        """Return when nothing is being decoded any more. Raises Hang if that takes too long."""
        deadline = time.monotonic() + self._seconds
        while self._at_work:
            if self._seconds and time.monotonic() > deadline:
                raise self._hang(list(self._at_work.values()))
            time.sleep(0.002)

    def _count(self):
        decodings = list(self._at_work.values())
        for decoding in decodings:
            decoding.quiet += 1
        if hanging := [decoding for decoding in decodings if decoding.quiet > _PARTS]:
            raise self._hang(hanging)

    def _hang(self, decodings):
        listed = "; ".join(
            f"{decoding.name!r} (begun {time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(decoding.started))})"
            for decoding in decodings
        )
        return Hang(
            f"decoding hangs: no frame for {self._seconds} seconds (DATALOADER.HANG_SECONDS) of {listed}; "
            "what has been saved stands"
        )
