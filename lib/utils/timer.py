"""A stopwatch with a running average."""

import time


class Timer:
    """Times repeated sections, tic() ... toc(), in seconds."""

    def __init__(self) -> None:
        self.total_time = 0.0
        self.calls = 0
        self.diff = 0.0
        self._start = 0.0

    def tic(self) -> None:
        """Start a section."""
        self._start = time.perf_counter()

    def lap(self) -> None:
        """Restart this section now. The time since tic() counts only towards the average."""
        now = time.perf_counter()
        self.total_time += now - self._start
        self._start = now

    def toc(self) -> float:
        """End the section. Returns the seconds since tic() or lap()."""
        self.diff = time.perf_counter() - self._start
        self.total_time += self.diff
        self.calls += 1
        return self.diff

    @property
    def average_time(self) -> float:
        """Mean seconds per section; 0 before the first toc()."""
        return self.total_time / self.calls if self.calls else 0.0
