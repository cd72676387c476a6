"""Weights as a plain PyTorch file: {parameter name: tensor}, which torch.load reads with weights_only=True.

The blob of a parameter is `utils.checkpoints.blob_name` of its name. The counters `num_batches_tracked` are left out:
nothing reads them, and load_state_dict does without.
"""

import io
import stat
import warnings
from pathlib import Path

import torch

from utils.checkpoints import blob_name
from utils.errors import UserError


def model_tensors(model):
    """{parameter or buffer name: tensor} of a model, which are its own memory."""
    return {name: tensor for name, tensor in model.state_dict().items() if not name.endswith(".num_batches_tracked")}


def blob_names(model):
    """{parameter or buffer name: blob name}, the map between the two kinds of file."""
    return {name: blob_name(name) for name in model_tensors(model)}


def write_state_dict(model, path):
    """Write the tensors of a model, float32 on the CPU, to a file of torch.save."""
    buffer = io.BytesIO()
    torch.save({name: tensor.detach().cpu().contiguous() for name, tensor in model_tensors(model).items()}, buffer)
    Path(path).write_bytes(buffer.getbuffer())


def load_state_dict(model, path):
    """Load such a file into a model, all of it or nothing. No code from the file is run.

    Raises:
        UserError: the file cannot be read, or holds anything but the model's tensors in their shapes.
    """
    targets, sources = model_tensors(model), _read(path)
    if not isinstance(sources, dict) or not all(isinstance(name, str) for name in sources):
        raise UserError(f"{path}: expected a state_dict {{parameter name: tensor}}, got a {type(sources).__name__}")
    sources = {name: value for name, value in sources.items() if not name.endswith(".num_batches_tracked")}
    lacking, foreign = (sorted(a.keys() - b.keys()) for a, b in ((targets, sources), (sources, targets)))
    if lacking or foreign:
        shown = ", ".join([*(f"no {name}" for name in lacking), *map(repr, foreign)][:3])
        raise UserError(f"{path}: expected the {len(targets)} parameters of the network, got {len(sources)}: "
                        f"{len(lacking)} are missing and {len(foreign)} are not of it ({shown:.200}): "
                        "is this of another architecture?")
    for name, target in targets.items():
        _check(sources[name], target, f"{path}: {name}")
    with torch.no_grad():
        for name, target in targets.items():
            target.copy_(sources[name])


def _read(path):
    try:
        # Looked at before it is opened: opening a FIFO would wait for a writer.
        if not stat.S_ISREG(Path(path).stat().st_mode):
            raise UserError(f"{path}: expected a file of torch.save, got a folder or device")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what it stumbles over: the error tells
            return torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error
    except UserError:
        raise
    except Exception as error:
        # A damaged or hostile file can make the reader raise anything.
        raise UserError(f"{path}: not a file of plain tensors, as torch.save writes and torch.load reads with "
                        f"weights_only=True ({type(error).__name__})") from error


def _check(source, target, what):
    plain = isinstance(source, torch.Tensor) and source.layout == torch.strided and source.device.type == "cpu"
    if not plain or source.is_quantized or not source.is_floating_point():
        raise UserError(f"{what}: expected a tensor of floats, got {_kind(source)}")
    if source.shape != target.shape:
        raise UserError(f"{what}: expected shape {tuple(target.shape)}, got {tuple(source.shape)}: "
                        "is this of another architecture?")


def _kind(value):
    return f"one of {value.dtype} on {value.device}" if isinstance(value, torch.Tensor) else f"a {type(value).__name__}"
