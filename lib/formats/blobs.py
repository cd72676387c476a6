"""Blobs: the names and values of a network's weights in the Caffe2 program's files.

A checkpoint is a pickle {"blobs": {name: value}}, a converted file the inner dict alone; both are read. The values are
float32 arrays of the blobs, `<blob>_momentum` of the trainable ones, `lr`, and `model_iter` (the number of iterations
done).
"""

import hashlib
from dataclasses import dataclass
from os import PathLike

import numpy as np
import torch
from torch import Tensor, nn

from formats.caffe2_pickle import PickleError, load, load_with_digest
from formats.options_file import StoredOptions
from formats.safetensors_file import is_safetensors, read_safetensors
from utils.errors import UserError

# What a file holds besides weights and update histories.
NUMBERS = ("lr", "model_iter", "epoch")


def blob_name(parameter_name: str) -> str:
    """The Caffe2 blob of a parameter or buffer: `res2_0.branch2a_bn.weight` -> `res2_0_branch2a_bn_s`."""
    layer, _, kind = parameter_name.rpartition(".")
    suffixes = {"weight": "w", "bias": "b"}
    if layer.endswith("bn"):
        suffixes = {"weight": "s", "bias": "b", "running_mean": "rm", "running_var": "riv"}
    if not layer or kind not in suffixes:
        raise ValueError(f"no blob name for the parameter {parameter_name}")
    return f"{layer.replace('.', '_')}_{suffixes[kind]}"


def momentum_name(blob: str) -> str:
    """The blob of a parameter's update history."""
    return f"{blob}_momentum"


def is_weight(blob: str) -> bool:
    """Whether a blob of a file belongs to the network: neither a number of its training nor an update history."""
    return blob not in NUMBERS and not blob.endswith("_momentum")


def named_tensors(model: nn.Module) -> dict[str, Tensor]:
    """{parameter or buffer name: tensor} of everything that has a blob.

    These are parameters, frozen affine layers and running statistics, but not the counters `num_batches_tracked`,
    which nothing reads. The tensors are the model's own memory: writing into them changes the model.
    """
    return {name: tensor for name, tensor in model.state_dict().items() if not name.endswith(".num_batches_tracked")}


def model_blobs(model: nn.Module) -> dict[str, Tensor]:
    """{blob name: tensor} of a model, see named_tensors()."""
    return {blob_name(name): tensor for name, tensor in named_tensors(model).items()}


@dataclass(frozen=True)
class Checkpoint:
    """Contents of a checkpoint or converted file.

    Attributes:
        path: the file, for messages.
        blobs: {name: value}. Values may be of any kind that a pickle can hold.
        state: what utils.checkpoints.save_checkpoint was given as `state`; None in files of the Caffe2 program.
        digest: SHA-256 of the bytes that were read, hexadecimal; empty unless it was asked for.
        options: those of the training, where the file itself has them (.safetensors).
    """

    path: str | PathLike
    blobs: dict
    state: dict | None = None
    digest: str = ""
    options: StoredOptions | None = None

    @property
    def model_iter(self) -> int | None:
        """Number of iterations done; None if the file does not say. Raises UserError for a wrong value."""
        count = self._number("model_iter")
        if count is not None and (count < 0 or count != int(count)):
            raise UserError(f"{self.path}: model_iter: expected a number of iterations, got {count}")
        return None if count is None else int(count)

    @property
    def lr(self) -> float | None:
        """Learning rate of the last iteration; None if the file does not say. Raises UserError for a wrong value."""
        return self._number("lr")

    def tensor(self, name: str) -> Tensor:
        """The value of a blob as float32. Raises UserError if it is no array of finite numbers."""
        value = self.blobs[name]
        if not isinstance(value, np.ndarray) or value.dtype.kind not in "fiu":
            raise UserError(f"{self.path}: {name}: expected an array of numbers, got {describe(value)}")
        with np.errstate(over="ignore"):  # to infinity, which is refused
            tensor = torch.from_numpy(value.astype(np.float32, copy=False))
        check_finite(f"{self.path}: {name}", tensor)
        return tensor

    def _number(self, name: str) -> float | None:
        """A number stored as a Python or numpy one, or as an array of one element."""
        if name not in self.blobs:
            return None
        value = self.blobs[name]
        is_number = isinstance(value, int | float | np.number | np.ndarray) and not isinstance(value, bool)
        if (not is_number or np.size(value) != 1 or np.asarray(value).dtype.kind not in "fiu"
                or not np.isfinite(value)):
            raise UserError(f"{self.path}: {name}: expected one finite number, got {describe(value)}")
        return np.asarray(value).item()


def read_checkpoint(path: str | PathLike, with_digest: bool = False) -> Checkpoint:
    """Read a checkpoint or converted file, or weights in a .safetensors file; with the digest if that is needed.

    Raises:
        UserError: it is none of these; PickleError if its name does not end in .safetensors.
    """
    if is_safetensors(path):
        return _from_safetensors(path, with_digest)
    contents, digest = load_with_digest(path) if with_digest else (load(path), "")
    blobs, state = contents, None
    if isinstance(contents, dict) and "blobs" in contents:
        blobs, state = contents["blobs"], contents.get("state")
    if not isinstance(blobs, dict) or not any(isinstance(value, np.ndarray) for value in blobs.values()):
        raise PickleError(f"{path}: expected a checkpoint, a dictionary of arrays by blob name; got {describe(blobs)}")
    return Checkpoint(path, blobs, state, digest)


def _from_safetensors(path, with_digest):
    tensors, about, data = read_safetensors(path)
    blobs: dict = {}
    for name, tensor in tensors.items():
        try:
            blob = blob_name(name)
        except ValueError as error:
            raise UserError(f"{path}: expected the names of a network's parameters: {error!s:.100}") from None
        if blob in blobs:
            raise UserError(f"{path}: two of its tensors are the blob {blob}")
        blobs[blob] = tensor.numpy()
    if not blobs:
        raise UserError(f"{path}: expected the parameters of a network, got no tensors")
    numbers = about.numbers if about else {}
    if type(numbers.get("lr")) in (int, float):
        numbers = numbers | {"lr": np.array(float(numbers["lr"]), np.float32)}  # as in a checkpoint
    digest = hashlib.sha256(data).hexdigest() if with_digest else ""
    return Checkpoint(path, blobs | numbers, None, digest, about)


def load_blobs(path: str | PathLike) -> dict:
    """{name: value} of a checkpoint or converted file. Raises PickleError if it is neither."""
    return read_checkpoint(path).blobs


def check_finite(what: str, tensor: Tensor) -> None:
    """Raise UserError, which begins with `what`, if there is a NaN or an infinity in a tensor."""
    wrong = tensor.numel() - int(torch.isfinite(tensor).sum())
    if wrong:
        raise UserError(f"{what}: expected finite numbers, got {wrong} of {tensor.numel()} that are NaN or infinite")


def describe(value: object) -> str:
    """What a value from a file is, for error messages."""
    if isinstance(value, np.ndarray):
        return f"an array of shape {value.shape} and type {value.dtype}"
    if isinstance(value, dict):
        return "a dictionary without arrays"
    return f"a value of type {type(value).__name__}"
