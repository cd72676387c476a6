"""A stopwatch with a running average."""

import time


class Timer:
    """Times repeated sections: tic() ... toc(). Seconds."""

    def __init__(self):
        self.total_time = 0.0
        self.calls = 0
        self.diff = 0.0
        self._start = None

    def tic(self):
        self._start = time.perf_counter()

    def lap(self):
        """Let this section begin now; what has passed since tic() counts for the average alone."""
        now = time.perf_counter()
        self.total_time += now - self._start
        self._start = now

    def toc(self):
        """Stop, and return the seconds since tic()."""
        self.diff = time.perf_counter() - self._start
        self.total_time += self.diff
        self.calls += 1
        return self.diff

    @property
    def average_time(self):
        return self.total_time / self.calls if self.calls else 0.0
