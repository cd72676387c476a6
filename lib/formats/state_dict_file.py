"""Weights as a plain PyTorch file: {parameter name: tensor}, which torch.load reads with weights_only=True.

The blob of a parameter is formats.blobs.blob_name of its name. The counters `num_batches_tracked` are left out:
nothing reads them, and load_state_dict does without them.
"""

import io
import warnings
from os import PathLike
from pathlib import Path

import torch
from torch import nn

from formats.blobs import blob_name, check_finite, named_tensors
from utils.errors import UserError
from utils.files import is_regular


def blob_names(model: nn.Module) -> dict[str, str]:
    """{parameter or buffer name: blob name}, the map between the two kinds of file."""
    return {name: blob_name(name) for name in named_tensors(model)}


def write_state_dict(model: nn.Module, path: str | PathLike) -> None:
    """Write the tensors of a model, float32 on the CPU, with torch.save."""
    buffer = io.BytesIO()
    torch.save({name: tensor.detach().cpu().contiguous() for name, tensor in named_tensors(model).items()}, buffer)
    Path(path).write_bytes(buffer.getbuffer())


def load_state_dict(model: nn.Module, path: str | PathLike) -> None:
    """Load such a file into a model, all of it or nothing. Code in the file is never run.

    Raises:
        UserError: the file cannot be read, or does not hold exactly the model's tensors in their shapes, or what they
            hold is not all finite.
    """
    targets, sources = named_tensors(model), _read(path)
    if not isinstance(sources, dict) or not all(isinstance(name, str) for name in sources):
        raise UserError(f"{path}: expected a state_dict {{parameter name: tensor}}, got a {type(sources).__name__}")
    sources = {name: value for name, value in sources.items() if not name.endswith(".num_batches_tracked")}
    lacking, foreign = (sorted(a.keys() - b.keys()) for a, b in ((targets, sources), (sources, targets)))
    if lacking or foreign:
        shown = ", ".join([*(f"no {name}" for name in lacking), *map(repr, foreign)][:3])
        raise UserError(f"{path}: expected the {len(targets)} parameters of the network, got {len(sources)}: "
                        f"{len(lacking)} are missing and {len(foreign)} do not belong to it ({shown:.200}): "
                        "is this of another architecture?")
    for name, target in targets.items():
        _check(sources[name], target, f"{path}: {name}")
    with torch.no_grad():
        for name, target in targets.items():
            target.copy_(sources[name])


def _read(path):
    try:
        if not is_regular(path):
            raise UserError(f"{path}: expected a file written by torch.save, got a folder or device")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the same problem as the error
            return torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error
    except UserError:
        raise
    except Exception as error:
        # A damaged or hostile file can make the reader raise anything.
        raise UserError(f"{path}: not a file of plain tensors that torch.load reads with "
                        f"weights_only=True ({type(error).__name__})") from error


def _check(source, target, what):
    plain = isinstance(source, torch.Tensor) and source.layout == torch.strided and source.device.type == "cpu"
    if not plain or source.is_quantized or not source.is_floating_point():
        raise UserError(f"{what}: expected a tensor of floats, got {_kind(source)}")
    if source.shape != target.shape:
        raise UserError(f"{what}: expected shape {tuple(target.shape)}, got {tuple(source.shape)}: "
                        "is this of another architecture?")
    check_finite(what, source)


def _kind(value):
    if isinstance(value, torch.Tensor):
        return f"a tensor of {value.dtype} on {value.device}"
    return f"a {type(value).__name__}"
