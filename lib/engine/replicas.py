"""NUM_GPUS replicas of a training, on whatever devices there are.

A replica is legacy's GPU: a share of the batch with its own batch statistics and its own dropout. How many
processes share the replicas, and how many of them one process hosts, changes nothing but the order of float sums.
"""

import contextlib
import zlib
from dataclasses import dataclass, field

import torch
from torch import distributed
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from models.precision import autocast
from utils.bn_helper import running_statistics_frozen
from utils.metrics import topk_errors


@dataclass(frozen=True)
class Replicas:
    """This process's place among the processes that share NUM_GPUS replicas.

    Process `rank` of `processes` hosts the replicas `local`, one after another, on `device`. The methods below are
    collective: every process calls them, in the same order.
    """

    total: int
    rank: int = 0
    processes: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def is_root(self):
        return self.rank == 0

    @property
    def local(self):
        """Numbers of the replicas that this process hosts."""
        per_process = self.total // self.processes
        return range(self.rank * per_process, (self.rank + 1) * per_process)

    def sum(self, tensor):
        """Sum of a tensor over the processes, in place, on all of them."""
        if self.processes > 1:
            distributed.all_reduce(tensor)
        return tensor

    def max(self, tensor):
        """Elementwise maximum of a tensor over the processes, in place, on all of them."""
        if self.processes > 1:
            distributed.all_reduce(tensor, distributed.ReduceOp.MAX)
        return tensor

    def gather(self, value):
        """The processes' picklable values, in order of rank, on all of them."""
        if self.processes == 1:
            return [value]
        values = [None] * self.processes
        distributed.all_gather_object(values, value)
        return values

    def broadcast_buffers(self, model):
        """Give every process the root's running statistics."""
        if self.processes > 1:
            for buffer in model.buffers():
                distributed.broadcast(buffer, 0)

    def parallel(self, model):
        """The model as training passes call it: gradients are reduced in buckets while the backward pass runs."""
        if self.processes == 1:
            return model
        device_ids = [self.device] if self.device.type == "cuda" else None
        return DistributedDataParallel(model, device_ids, forward_sync_buffers=False, gradient_as_bucket_view=True)


def forward_backward(parallel_model, batch, replicas, seed, it, precision="float32"):
    """One iteration's passes: leaves in every `.grad` the mean over the replicas of their gradients.

    Args:
        parallel_model: network in training mode, from Replicas.parallel.
        batch: per local replica (clips N x 3 x T x H x W normalised, labels N int64).
        seed, it: RNG_SEED and the 0-based iteration, from which with the replica's number its dropout follows.
        precision: MODEL.PRECISION.

    Returns:
        Tensor (NUM_GPUS, 3) on the replicas' device: each local replica's loss scaled by 1 / NUM_GPUS, and its counts
        of top-1 and top-5 errors; rows of other processes' replicas are zero.
    """
    results = torch.zeros(replicas.total, 3, device=replicas.device)
    for replica, (clips, labels) in zip(replicas.local, batch, strict=True):
        torch.manual_seed(zlib.crc32(f"dropout {seed} {it} {replica}".encode()))
        # Gradients of the local replicas add up; the last one's backward pass takes the sum to the other processes.
        is_last = replica == replicas.local[-1]
        local_only = contextlib.nullcontext() if is_last or replicas.processes == 1 else parallel_model.no_sync()
        # Running statistics follow the root replica alone, as what legacy saved did.
        with running_statistics_frozen(parallel_model, frozen=replica != 0), local_only:
            with autocast(precision, clips.device):
                scores = parallel_model(clips)
            loss = F.cross_entropy(scores, labels)
            # The reduction averages over the processes: what is left is to average over the local replicas.
            (loss / len(replicas.local)).backward()
        with torch.no_grad():
            results[replica, 0] = loss / replicas.total
            results[replica, 1:] = topk_errors(scores, labels)
    return results
