"""The NUM_GPUS replicas of a training, on the available devices.

A replica corresponds to one GPU of legacy: a share of the batch with its own batch statistics and its own dropout. How
the replicas are distributed over processes affects only the order of floating-point sums.
"""

import contextlib
import socket
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

import torch
from torch import distributed, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from models.precision import autocast
from utils.bn_helper import running_statistics_frozen
from utils.errors import SharedError, UserError
from utils.metrics import topk_errors

T = TypeVar("T")


@dataclass(frozen=True)
class Replicas:
    """This process's part of the NUM_GPUS replicas.

    Process `rank` of `processes` runs the replicas `local`, one after another, on `device`. The methods are collective:
    every process must call them, in the same order.
    """

    total: int
    rank: int = 0
    processes: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def is_root(self) -> bool:
        return self.rank == 0

    @property
    def local(self) -> range:
        """Indices of the replicas of this process."""
        per_process = self.total // self.processes
        return range(self.rank * per_process, (self.rank + 1) * per_process)

    def sum(self, tensor: torch.Tensor) -> torch.Tensor:
        """Sum a tensor over the processes, in place; every process gets the result."""
        if self.processes > 1:
            distributed.all_reduce(tensor)
        return tensor

    def max(self, tensor: torch.Tensor) -> torch.Tensor:
        """Elementwise maximum of a tensor over the processes, in place; every process gets the result."""
        if self.processes > 1:
            distributed.all_reduce(tensor, distributed.ReduceOp.MAX)
        return tensor

    def gather(self, value: T) -> list[T]:
        """The picklable values of all processes, ordered by rank; every process gets the list."""
        if self.processes == 1:
            return [value]
        values: list[Any] = [None] * self.processes
        distributed.all_gather_object(values, value)
        return values

    def together(self, act: Callable[[], T]) -> list[T]:
        """What act() returns in each process, ordered by rank. A UserError in one is a SharedError in all."""
        if self.processes == 1:
            return [act()]
        value, problem = None, None
        try:
            value = act()
        except UserError as error:
            problem = str(error)
        outcomes = self.gather((value, problem, socket.gethostname()))
        for rank, (_, problem, host) in enumerate(outcomes):
            if problem is not None:
                raise SharedError(f"process {rank} on {host}: {problem}" if rank else problem)
        return [cast(T, value) for value, _, _ in outcomes]

    def from_root(self, act: Callable[[], T]) -> T:
        """What act() returns in the root, where alone it is called. Its UserError is a SharedError in all."""
        return cast(T, self.together(act if self.is_root else lambda: None)[0])

    @torch.no_grad()
    def broadcast(self, tensors: Iterable[torch.Tensor]) -> None:
        """Copy the root's values to every process."""
        if self.processes > 1:
            for tensor in tensors:
                # Over the CPU, in one layout: neither devices nor layouts need to agree.
                values = tensor.detach().cpu().contiguous()
                distributed.broadcast(values, 0)
                tensor.copy_(values)

    def parallel(self, model: nn.Module) -> nn.Module:
        """Wrap a model for training passes: gradients are reduced in buckets during the backward pass."""
        if self.processes == 1:
            return model
        device_ids = [self.device] if self.device.type == "cuda" else None
        parallel = DistributedDataParallel(model, device_ids, gradient_as_bucket_view=True)
        # The constructor has made all buffers equal. Passes must not: it would cost a broadcast each, for statistics
        # that only the root collects. (The argument for this is called differently before PyTorch 2.13.)
        parallel.broadcast_buffers = False
        return parallel


def forward_backward(parallel_model: nn.Module, batch: Iterable[tuple[torch.Tensor, torch.Tensor]], replicas: Replicas,
                     seed: int, it: int, precision: str = "float32") -> torch.Tensor:
    """Forward and backward passes of one iteration: every `.grad` becomes the mean over all replicas.

    Args:
        parallel_model: network in training mode, from Replicas.parallel.
        batch: for each local replica (clips N x 3 x T x H x W, normalised; labels N, int64).
        replicas: this process's replicas.
        seed: RNG_SEED. Dropout is determined by seed, iteration and replica.
        it: 0-based iteration.
        precision: MODEL.PRECISION.

    Returns:
        Tensor (NUM_GPUS, 3) on the device of the replicas: the loss of each local replica divided by NUM_GPUS, and its
        numbers of top-1 and top-5 errors. Rows of replicas in other processes are zero.
    """
    results = torch.zeros(replicas.total, 3, device=replicas.device)
    for replica, (clips, labels) in zip(replicas.local, batch, strict=True):
        torch.manual_seed(zlib.crc32(f"dropout {seed} {it} {replica}".encode()))
        # Gradients of the local replicas accumulate; the last backward pass reduces the sum over the processes.
        is_last = replica == replicas.local[-1]
        reduced = is_last or replicas.processes == 1
        local_only = contextlib.nullcontext() if reduced else cast(DistributedDataParallel, parallel_model).no_sync()
        # Only the root replica updates the running statistics, because legacy saved only those.
        with running_statistics_frozen(parallel_model, frozen=replica != 0), local_only:
            with autocast(precision, clips.device):
                scores = parallel_model(clips)
            loss = F.cross_entropy(scores, labels)
            # The reduction averages over the processes; this averages over the local replicas.
            (loss / len(replicas.local)).backward()
        with torch.no_grad():
            results[replica, 0] = loss / replicas.total
            results[replica, 1:] = topk_errors(scores, labels)
    return results
