"""What the processes of a run have in common: options and data, which are compared, and the root's weights."""

import socket
import zlib
from collections.abc import Callable, Iterable, Mapping
from os import PathLike

from torch import Tensor, nn

from core.messages import shown
from engine.replicas import Replicas
from formats.blobs import read_checkpoint
from utils.checkpoints import load_weights
from utils.collections import AttrDict, leaves
from utils.errors import SharedError

# Options that may differ, as they say nothing of the result.
_OF_ONE_MACHINE = {"CHECKPOINT.DIR", "DATALOADER.HANG_SECONDS", "JOIN_SECONDS", "ROOT_GPU_ID", "VIDEO_DECODER_THREADS"}


def agree_on_options(cfg: AttrDict, replicas: Replicas) -> None:
    """Raise SharedError unless all processes have the same options."""
    agree(replicas, lambda: {key: value for key, value in leaves(cfg) if key not in _OF_ONE_MACHINE})


def agree(replicas: Replicas, facts: Callable[[], Mapping[str, object]]) -> None:
    """Compare facts() of all processes: {what: value}.

    Raises:
        SharedError: one has another value than the root, or raises a UserError.
    """
    if replicas.processes == 1:
        return
    (root_host, expected), *others = replicas.together(lambda: (socket.gethostname(), dict(facts())))
    for rank, (host, found) in enumerate(others, 1):
        for name in expected | found:
            if found.get(name) != expected.get(name):
                raise SharedError(
                    f"{name}: process {rank} on {host} has {shown(found.get(name))}, process 0 on {root_host} has "
                    f"{shown(expected.get(name))}: expected the same options and data for all processes of a run")


def load_for_all(model: nn.Module, weights_file: str | PathLike, replicas: Replicas) -> str:
    """Fill a model with the weights of a file, which only the root reads. Returns its SHA-256.

    Raises:
        UserError: the file cannot be read, or does not fill the whole model.
    """
    def load():
        checkpoint = read_checkpoint(weights_file, with_digest=True)
        load_weights(model, checkpoint).require_complete()
        return checkpoint.digest

    digest = replicas.from_root(load)
    replicas.broadcast(model.state_dict().values())
    return digest


def tensor_digest(tensors: Iterable[Tensor]) -> int:
    """A checksum of values, whatever their layout in memory."""
    checksum = 0
    for tensor in tensors:
        checksum = zlib.crc32(tensor.detach().cpu().contiguous().numpy().data, checksum)
    return checksum
