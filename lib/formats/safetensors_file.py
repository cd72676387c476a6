"""Weights as a .safetensors file, which the package of that name reads and writes; it is needed for these files only.

The tensors have the names of PyTorch's parameters, as in a state_dict, so that other programs can load them with
load_state_dict. What else there is to know is in the file's metadata, as the JSON of formats.options_file.
"""

import importlib.util
import json
import os
from collections.abc import Mapping
from pathlib import Path

import torch

from formats.options_file import StoredOptions, parse
from utils.errors import UserError
from utils.files import StrPath, is_regular

SUFFIX = ".safetensors"
KEY = "nonlocal_net"  # of the metadata


def is_safetensors(path: StrPath) -> bool:
    """Whether a file's name says that it is one."""
    return os.fspath(path).endswith(SUFFIX)


def check_safetensors_is_there() -> None:
    """Raise UserError if the package is not installed."""
    if importlib.util.find_spec("safetensors") is None:
        raise UserError("files in the format of safetensors need a package that is not installed: pip install "
                        "safetensors")


def write_safetensors(tensors: Mapping[str, torch.Tensor], about: str, path: StrPath) -> None:
    """Write {parameter name: tensor}, as they are, on the CPU; `about` is the text of formats.options_file.as_text."""
    import safetensors.torch

    on_cpu = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    safetensors.torch.save_file(on_cpu, path, {"format": "pt", KEY: about})


def read_safetensors(path: StrPath) -> tuple[dict[str, torch.Tensor], StoredOptions | None, bytes]:
    """Read a file of floats: {parameter name: float32 tensor}, what it says of them, and its bytes.

    Raises:
        UserError: the package is missing, the file cannot be read, or it is damaged or holds anything else.
    """
    check_safetensors_is_there()
    import safetensors.torch

    try:
        if not is_regular(path):
            raise UserError(f"{path}: expected a file of tensors, got a folder or device")
        data = Path(path).read_bytes()
        tensors = safetensors.torch.load(data)
        metadata = json.loads(data[8:8 + int.from_bytes(data[:8], "little")]).get("__metadata__") or {}
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error
    except UserError:
        raise
    except Exception as error:
        # A damaged or hostile file can make the reader raise anything.
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{path}: not a file that the package safetensors reads as tensors ({reason:.100})") from error
    tensors = {name: tensor for name, tensor in tensors.items() if not name.endswith(".num_batches_tracked")}
    for name, tensor in tensors.items():
        if tensor.dtype not in (torch.float32, torch.float16, torch.bfloat16, torch.float64):
            raise UserError(f"{path}: {name!r:.100}: expected floats, got {tensor.dtype}")
    about = parse(metadata[KEY], str(path)) if KEY in metadata else None
    return {name: tensor.float() for name, tensor in tensors.items()}, about, data
