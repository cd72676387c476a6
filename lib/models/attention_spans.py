"""Attention span of a non-local block: the whole clip, the same frame, or the same location over time (paper table 2d).

A span divides a clip into parts. Positions attend to all positions of their part and to no others.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from utils.errors import UserError


class Span(ABC):
    """How a clip is divided into parts of equal size."""

    # Whether a part has more than one location, which max pooling can subsample.
    covers_space = True

    @abstractmethod
    def apply(self, function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        """Run a function that preserves shapes on every part of x, each as a clip of its own.

        Args:
            function: takes and returns (N * parts) x C x t x h x w.
            x: N x C x T x H x W; the result has the same shape.
        """

    @abstractmethod
    def count_parts(self, t: int, h: int, w: int) -> int:
        """Number of parts of a clip of T x H x W positions."""

    @abstractmethod
    def part_of(self, positions: Tensor, t: int, h: int, w: int) -> Tensor:
        """Number of the part that each position belongs to; positions are int64 indices into a flattened T x H x W."""

    def attended(self, queries: Tensor, shape: torch.Size, key_shape: torch.Size) -> Tensor:
        """R x Q mask: which of all Q positions of a map `key_shape` the R `queries` on a map `shape` attend to.

        Both shapes are (T, H, W); they differ in H and W where the keys are pooled.
        """
        keys = torch.arange(key_shape.numel(), device=queries.device)
        return self.part_of(queries, *shape)[:, None] == self.part_of(keys, *key_shape)


@dataclass(frozen=True)
class FrameGroups(Span):
    """Groups of `frames` successive frames; None for all frames of the clip."""

    frames: int | None = None

    def apply(self, function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        n, c, t, h, w = x.shape
        frames = self.frames or t
        if frames == t:
            return function(x)
        if t % frames:
            raise UserError(f"grouped non-local blocks need a multiple of {frames} frames, got {t}: "
                            "choose another TRAIN.VIDEO_LENGTH")
        # N x C x (groups * frames) x H x W -> (N * groups) x C x frames x H x W
        groups = x.transpose(1, 2).reshape(n * t // frames, frames, c, h, w).transpose(1, 2)
        return function(groups).transpose(1, 2).reshape(n, t, c, h, w).transpose(1, 2)

    def count_parts(self, t: int, h: int, w: int) -> int:
        return t // (self.frames or t)

    def part_of(self, positions: Tensor, t: int, h: int, w: int) -> Tensor:
        return positions // ((self.frames or t) * h * w)


@dataclass(frozen=True)
class Locations(Span):
    """The same location over time: every location is a clip of one pixel."""

    covers_space = False

    def apply(self, function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        n, c, t, h, w = x.shape
        locations = x.permute(0, 3, 4, 1, 2).reshape(n * h * w, c, t, 1, 1)
        return function(locations).reshape(n, h, w, c, t).permute(0, 3, 4, 1, 2)

    def count_parts(self, t: int, h: int, w: int) -> int:
        return h * w

    def part_of(self, positions: Tensor, t: int, h: int, w: int) -> Tensor:
        return positions % (h * w)


# NONLOCAL.REACH
SPANS: dict[str, Span] = {"spacetime": FrameGroups(), "space": FrameGroups(1), "time": Locations()}

# What takes the place of the whole clip where clips are long.
LONG_CLIP_GROUPS = FrameGroups(4)


def span_of(reach: str, grouped: bool = False) -> Span:
    """The span that NONLOCAL.REACH names, in its grouped form for long clips. Raises UserError for any other name."""
    if reach not in SPANS:
        raise UserError(f"NONLOCAL.REACH: expected one of {', '.join(SPANS)}, got {reach!r}")
    return LONG_CLIP_GROUPS if grouped and reach == "spacetime" else SPANS[reach]
