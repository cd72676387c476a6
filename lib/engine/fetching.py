"""Results that are fetched from a GPU while it computes the next ones."""

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import numpy as np
import torch

T = TypeVar("T")


def fetch(values: torch.Tensor) -> Callable[[], np.ndarray]:
    """Begin to fetch a tensor (as float32) from its device.

    Returns:
        Function that waits for the values, but for nothing that the device is given to do later.
    """
    fetched = values.float().to("cpu", non_blocking=True)
    if values.device.type == "cpu":
        return fetched.numpy
    arrived = torch.cuda.Event()
    arrived.record()

    def wait():
        arrived.synchronize()
        return fetched.numpy()

    return wait


def begun_early(items: Iterable[T], count: int) -> Iterator[T]:
    """Yield the items, each when `count` further ones have been taken, or there are no more."""
    remaining = iter(items)
    taken = deque(itertools.islice(remaining, count))
    for item in remaining:
        taken.append(item)
        yield taken.popleft()
    yield from taken
