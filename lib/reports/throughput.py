"""How fast a run was, by the times in its log."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

# A step that takes so many times the median has waited: for data, for another program.
SLOW = 1.5


@dataclass(frozen=True)
class Throughput:
    """Times of steps in seconds.

    Attributes:
        steps: how many.
        total: of all.
        median, longest: of a step.
        slow: how many took more than SLOW times the median.
        waited: what these took beyond the median, together.
    """

    steps: int
    total: float
    median: float
    longest: float
    slow: int
    waited: float

    @property
    def mean(self) -> float:
        return self.total / self.steps

    @property
    def waiting_share(self) -> float:
        """The share of all time that was waited."""
        return self.waited / self.total if self.total else 0.0


def measure(seconds: Sequence[float]) -> Throughput | None:
    """The throughput of steps that took so long; None if there is none."""
    times = np.array(seconds, np.float64)
    times = times[np.isfinite(times)]
    if not len(times):
        return None
    median = float(np.median(times))
    slow = times[times > SLOW * median]
    return Throughput(len(times), float(times.sum()), median, float(times.max()), len(slow),
                      float((slow - median).sum()))
