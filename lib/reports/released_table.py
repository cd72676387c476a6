"""Accuracies of the released models, measured beside published."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from models.released import ReleasedModel

# Of the normal distribution, for a confidence of 95 %.
QUANTILE = 1.959964


@dataclass(frozen=True)
class Measurement:
    """What a test found of a released model.

    Attributes:
        model: the model.
        videos: number of videos of the test.
        scored: how many of them could be read, of which accuracies are.
        top1, top5: how many of these are right.
    """

    model: ReleasedModel
    videos: int
    scored: int
    top1: int
    top5: int


def wilson_interval(hits: int, count: int) -> tuple[float, float]:
    """The 95 % confidence interval (Wilson 1927) of a share of which a sample of `count` has `hits`, in fractions."""
    if not count:
        return 0.0, 1.0
    share, square = hits / count, QUANTILE**2 / count
    middle, spread = share + square / 2, QUANTILE * math.sqrt((share * (1 - share) + square / 4) / count)
    return max(0.0, (middle - spread) / (1 + square)), min(1.0, (middle + spread) / (1 + square))


def measured_beside_published(measurements: Sequence[Measurement], is_sample: bool) -> str:
    """A table, in percent. A sample's accuracies come with their confidence intervals."""
    head = ["model", "top-1", "published", "difference", "top-5", "published", "difference", "videos scored"]
    rows = [head]
    for found in measurements:
        row = [found.model.name]
        for hits, published in ((found.top1, found.model.top1), (found.top5, found.model.top5)):
            if not found.scored:
                row += ["-", f"{published:.1f}", "-"]
                continue
            accuracy = 100 * hits / found.scored
            low, high = (100 * bound for bound in wilson_interval(hits, found.scored))
            row += [f"{accuracy:.2f}" + (f" ({low:.1f} to {high:.1f})" if is_sample else ""), f"{published:.1f}",
                    f"{accuracy - published:+.2f}"]
        rows.append([*row, f"{found.scored} of {found.videos}"])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows]
    if is_sample:
        lines.append("In brackets: 95 % confidence intervals of the accuracies over all videos of the list.")
    if any(found.scored < found.videos for found in measurements):
        lines.append("Accuracies are over the videos that could be read; the report of each test counts the others as "
                     "wrong.")
    return "\n".join(lines)
