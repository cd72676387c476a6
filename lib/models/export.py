"""A network as a file that runs without this program: torch.export (.pt2) and ONNX (.onnx).

Both take clips `N x 3 x T x H x W` with any N; T, H and W are those of the clips it was exported with.
"""

import importlib.util
import io
import logging
import warnings
from collections.abc import Callable, Sequence
from os import PathLike
from pathlib import Path

import torch
from torch import Tensor, nn

from utils.errors import UserError

ONNX_PACKAGES = ("onnx", "onnxscript", "onnxruntime")


def write_torch_program(model: nn.Module, clips: Tensor, path: str | PathLike) -> None:
    """Write a network as a torch.export program. `clips` is an example, a batch of two or more."""
    buffer = io.BytesIO()
    torch.export.save(_traced(model, clips), buffer)
    Path(path).write_bytes(buffer.getbuffer())


def read_torch_program(path: str | PathLike) -> Callable[[Tensor], Tensor]:
    """The network of such a file, as a function from clips to scores."""
    with open(path, "rb") as file:
        return torch.export.load(io.BytesIO(file.read())).module()


def write_onnx(model, clips, path):
    """Write a network as ONNX, input `clips` and output `scores`. `clips` as above; see check_onnx_is_there."""
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it tells which other packages it could have used
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of PyTorch's own code
        program = torch.onnx.export(_traced(model, clips), dynamo=True, verbose=False, input_names=["clips"],
                                    output_names=["scores"])
    program.save(str(path), external_data=False)


def read_onnx(path: str | PathLike) -> Callable[[Tensor], Tensor]:
    """The network of such a file in onnxruntime on the CPU, as a function from clips to scores."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda clips: torch.from_numpy(session.run(["scores"], {"clips": clips.numpy()})[0])


def check_onnx_is_there() -> None:
    """Raise UserError if a package that writing or checking ONNX needs is not installed."""
    missing = [name for name in ONNX_PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f"ONNX needs packages that are not installed: pip install {' '.join(missing)}")


def random_clips(shape: tuple[int, ...], batch: int, seed: int = 0) -> Tensor:
    """Clips as of normalised noise: batch x shape, float32; the same for the same arguments."""
    return torch.randn((batch, *shape), generator=torch.Generator().manual_seed(seed))


@torch.inference_mode()
def largest_difference(network: Callable[[Tensor], Tensor], other: Callable[[Tensor], Tensor], shape: tuple[int, ...],
                       batches: Sequence[int] = (1, 3)) -> float:
    """Largest difference of two functions from clips to N x K, on random clips of several batch sizes.

    It is relative to the largest magnitude of the first one's outputs where that is above one (scores), and absolute
    below (probabilities); NaN if either gives one.
    """
    differences = []
    for batch in batches:
        clips = random_clips(shape, batch, seed=batch)
        expected, found = network(clips), other(clips)
        if found.shape != expected.shape:
            return float("inf")
        differences.append((found - expected).abs().max() / expected.abs().max().clamp(min=1))
    return torch.stack(differences).max().item()


def _traced(model, clips):
    with torch.no_grad():
        return torch.export.export(model, (clips,), dynamic_shapes=({0: torch.export.Dim("batch")},))
