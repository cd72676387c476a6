"""Compiled networks: when they pay, and what happens where they cannot be had."""

import logging
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
    """A network for prediction, compiled at its first call; as it is, with a line in the log, where that fails."""

    def __init__(self, network):
        super().__init__()
        self.network = network
        # Freezing takes weights for constants, which it packs as the kernels like them.
        self.fast = torch.compile(network, options={"freezing": True})
        logger.info("Compiling the network: the first passes take longer")

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        if self.fast is not None:
            try:
                # A training before it may have let PyTorch run on with what fails.
                with torch._dynamo.config.patch(suppress_errors=False):
                    return self.fast(clips)
            except Exception as error:
                # A mistake in the input shows again below.
                logger.warning("The network cannot be compiled here and runs as it is: %s", _reason(error))
                self.fast = None
        return self.network(clips)


def compiled_for_training(network: nn.Module, choice: str, iterations: int, recomputing: bool,
                          device: torch.device) -> Callable[..., torch.Tensor]:
    """A network in training mode, compiled if the choice says so.

    Args:
        network: an nn.Module.
        choice: MODEL.COMPILE: 'always', 'never', or 'auto' for long runs on GPUs. On a CPU the gain is small, and a
            compiled run does not equal one that is not bit for bit.
        iterations: of the whole run.
        recomputing: whether activations are recomputed in the backward pass; 'auto' then leaves it.
        device: torch.device that trains.

    Where compiling fails, the parts that fail run as they are.
    """
    if choice == "auto":
        choice = "always" if device.type == "cuda" and iterations >= LONG_TRAINING and not recomputing else "never"
    if choice != "always":
        return network
    logger.info("Compiling the network: the first iterations take longer")
    torch._dynamo.config.suppress_errors = True
    return torch.compile(network)


def _reason(error):
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
