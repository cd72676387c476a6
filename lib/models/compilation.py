"""Compiled networks: when they pay, and what happens where they cannot be had."""

import logging
import sys
from collections.abc import Callable

import torch
from torch import nn

logger = logging.getLogger(__name__)

# Multiply-adds from which on a run is long: there the time that a compiled network saves is several times what
# compiling takes (on two CPU cores about 10 to 20 seconds a shape of clips, against a fifth of 12 minutes).
LONG_RUN = {"cpu": 1e14, "cuda": 1e16}
LONG_TRAINING = 1000  # iterations: compiling for training takes a minute or two


def is_worth_compiling(choice: str, operations: Callable[[], float], device: torch.device) -> bool:
    """Whether to compile a network for prediction.

    Args:
        choice: MODEL.COMPILE: 'always', 'never', or 'auto' for where the run is long.
        operations: function that returns the multiply-adds of the whole run.
        device: torch.device that they are done on.
    """
    if choice == "auto":
        return operations() >= LONG_RUN.get(device.type, float("inf"))
    return choice == "always"


class Compiled(nn.Module):
    """A network, compiled at its first call; as it is, with a line in the log, where that fails.

    Args:
        network: its parameters stay its own.
        constant: take the weights for constants, which are packed as the kernels like them; for prediction only.
    """

    def __init__(self, network: nn.Module, constant: bool) -> None:
        super().__init__()
        self.network = network
        self.fast: Callable[..., torch.Tensor] | None = torch.compile(network, options={"freezing": constant})
        logger.info("Compiling the network: the first %s take longer", "passes" if constant else "iterations")

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        if self.fast is not None:
            try:
                return self.fast(clips)
            except Exception as error:
                # A mistake in the input shows again below.
                logger.warning("The network cannot be compiled here and runs as it is: %s", _reason(error))
                self.fast = None
        return self.network(clips)


def forget_compiled() -> None:
    """Drop what has been compiled in this process, which limits how many networks of a kind it compiles."""
    if "torch._dynamo" in sys.modules:  # importing it takes seconds
        torch.compiler.reset()


def compiled_for_training(network: nn.Module, choice: str, iterations: int, recomputing: bool,
                          device: torch.device) -> nn.Module:
    """A network in training mode, compiled if the choice says so.

    Args:
        network: before it is wrapped for several processes.
        choice: MODEL.COMPILE: 'always', 'never', or 'auto' for long runs on GPUs. On a CPU the gain is small, and a
            compiled run does not equal one that is not bit for bit.
        iterations: of the whole run.
        recomputing: whether activations are recomputed in the backward pass; 'auto' then leaves it.
        device: torch.device that trains.
    """
    if choice == "auto":
        choice = "always" if device.type == "cuda" and iterations >= LONG_TRAINING and not recomputing else "never"
    return Compiled(network, constant=False) if choice == "always" else network


def _reason(error):
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
