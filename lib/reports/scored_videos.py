"""Each video of a test: what it was taken for, and how certainly."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from reports.video_scores import sum_scores

_TOLERANCE = 1e-3  # of the sum of probabilities in float32


@dataclass(frozen=True)
class ScoredVideo:
    """One video of a test.

    Attributes:
        index: its line in the list, from 0.
        label: its true class.
        top: (class, score), the highest score first; of equal ones the lower class.
        score: of the true class.
        rank: of the true class, from 1.
    """

    index: int
    label: int
    top: tuple[tuple[int, float], ...]
    score: float
    rank: int


class ScoredVideos:
    """The mean scores of the videos of a test, over their clips.

    Args:
        video_ids, scores, labels: as in video_scores.score_videos.

    Attributes:
        seen: (n,) indices of the videos with clips, ascending; all else is about these.
        labels: (n,) their true classes.
        scores: (n, K) their mean scores, float64.
        predicted: (n,) classes of the highest score; of equal ones the lower.
    """

    def __init__(self, video_ids: np.ndarray, scores: np.ndarray, labels: np.ndarray):
        self.seen, clips, sums = sum_scores(video_ids, scores)
        self.labels, self.predicted = labels[self.seen], sums.argmax(1)
        self.scores = sums / clips[:, None]

    @cached_property
    def hits(self) -> np.ndarray:
        """(n,) whether the highest score is that of the true class."""
        return self.predicted == self.labels

    @cached_property
    def confidences(self) -> np.ndarray:
        """(n,) the highest scores."""
        return self.scores.max(1)

    @cached_property
    def are_probabilities(self) -> bool:
        """Whether the scores of every video are."""
        return bool((self.scores >= 0).all() and np.allclose(self.scores.sum(1), 1, rtol=0, atol=_TOLERANCE))

    def mistakes(self, count: int) -> list[ScoredVideo]:
        """The videos that are wrong with the highest scores, the highest first."""
        wrong = np.flatnonzero(~self.hits)
        return list(self._videos(wrong[np.argsort(-self.confidences[wrong], kind="stable")][:count]))

    def closest(self, count: int) -> list[ScoredVideo]:
        """The videos that are right with the smallest lead over another class, the smallest first."""
        right = np.flatnonzero(self.hits)
        if self.scores.shape[1] > 1:
            best = np.partition(self.scores[right], -2, axis=1)[:, -2:]
            right = right[np.argsort(best[:, 1] - best[:, 0], kind="stable")]
        return list(self._videos(right[:count]))

    def most_certain_by_class(self, count: int) -> list[ScoredVideo]:
        """The right videos with the highest scores, of different classes, the highest first."""
        right = np.flatnonzero(self.hits)
        right = right[np.argsort(-self.confidences[right], kind="stable")]
        first = np.sort(np.unique(self.labels[right], return_index=True)[1])
        return list(self._videos(right[first][:count]))

    def _videos(self, rows: np.ndarray) -> Iterator[ScoredVideo]:
        for row in rows:
            scores, label = self.scores[row], int(self.labels[row])
            order = np.argsort(-scores, kind="stable")
            top = tuple((int(k), float(scores[k])) for k in order[:3])
            yield ScoredVideo(int(self.seen[row]), label, top, float(scores[label]),
                              int(np.flatnonzero(order == label)[0]) + 1)
