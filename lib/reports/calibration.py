"""Whether a probability of 80 % is right 80 times of 100."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Reliability:
    """Accuracy by confidence, in bins of equal width over 0..1; NaN where a bin is empty.

    Attributes:
        counts: (bins,) videos.
        confidence: (bins,) their mean confidence.
        accuracy: (bins,) the share of them that is right.
    """

    counts: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray

    @property
    def error(self) -> float:
        """The expected calibration error: |accuracy - confidence|, averaged over all videos (Guo et al., ICML 2017)."""
        used = self.counts > 0
        return float((self.counts * np.abs(self.accuracy - self.confidence))[used].sum() / self.counts.sum())

    @property
    def overconfidence(self) -> float:
        """Mean confidence less accuracy, over all videos."""
        used = self.counts > 0
        return float((self.counts * (self.confidence - self.accuracy))[used].sum() / self.counts.sum())


def reliability(confidences: np.ndarray, hits: np.ndarray, bins: int = 10) -> Reliability:
    """Sort videos into bins by the probability of what they were taken for.

    Args:
        confidences: (n,) probabilities in 0..1; one on an edge is in the bin above it, 1 in the last.
        hits: (n,) bool, whether that was right.
        bins: how many.
    """
    number = np.clip((confidences * bins).astype(int), 0, bins - 1)
    counts, sums, right = (np.bincount(number, weights, bins) for weights in (None, confidences, hits))
    with np.errstate(invalid="ignore"):
        return Reliability(counts, sums / counts, right / counts)
