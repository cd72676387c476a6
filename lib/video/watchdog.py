"""A watch over threads that decode: a video that gives no frame for a long time ends the run.

FFmpeg can hang in a call: on a file system that does not answer any more, or in a bug. Such a thread cannot be ended,
only the process can. To skip the video instead would make what is trained on depend on time, leave a thread behind
with each, and hide that a disk is gone. So the run ends and says which video it was; started again it goes on from
its last checkpoint (or score), and meets the same video if that is the cause.
"""

import contextlib
import time

from utils.errors import Hang

# In how many parts the time is counted: parts that pass without a frame and while this process runs. The clock alone
# would take a process that was stopped and continued (SIGSTOP, a debugger) for one that hangs.
_PARTS = 10


class _Decoding:
    """A video that a thread is at: path, time of its beginning, parts without a frame so far."""

    __slots__ = ("path", "quiet", "started")

    def __init__(self, path):
        self.path, self.started, self.quiet = path, time.time(), 0

    def frame(self):
        self.quiet = 0


class Watchdog:
    """What is being decoded by the threads of a loader.

    Args:
        seconds: how long a video may take for a frame; 0: for ever.
    """

    def __init__(self, seconds):
        self._seconds = seconds
        self._at_work = {}  # by id: dictionaries are changed by one thread at a time

    @contextlib.contextmanager
    def video(self, path):
        """Around the decoding of a video. Yields a function to call with every frame."""
        decoding = _Decoding(path)
        self._at_work[id(decoding)] = decoding
        try:
            yield decoding.frame
        finally:
            del self._at_work[id(decoding)]

    def result(self, future):
        """future.result(). Raises Hang if it does not come and a video gives no frame."""
        while self._seconds:
            try:
                return future.result(self._seconds / _PARTS)
            except TimeoutError:
                if future.done():  # an error of the work itself
                    raise
                self._count()
        return future.result()

    def wait_until_idle(self):
        """Return when nothing is being decoded any more. Raises Hang if that does not come."""
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
            f"{decoding.path!r} (begun {time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(decoding.started))})"
            for decoding in decodings
        )
        return Hang(
            f"decoding hangs: no frame for {self._seconds} seconds (DATALOADER.HANG_SECONDS) of {listed}; "
            "what has been saved stands"
        )
