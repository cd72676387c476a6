"""The device of these tests: the first GPU with NLNET_DEVICE=cuda; with NLNET_DEVICE=cpu they try themselves out.

Without it they are skipped, and no test sees a GPU: most compare runs bit for bit, or with numbers of a CPU.
"""

import os

import pytest
import torch


@pytest.fixture(scope="session")
def device():
    if not (name := os.environ.get("NLNET_DEVICE")):
        pytest.skip("needs NLNET_DEVICE=cuda")
    if name == "cuda" and not torch.cuda.is_available():
        pytest.fail("NLNET_DEVICE=cuda, and no GPU that PyTorch can use")
    return torch.device(name, 0) if name == "cuda" else torch.device(name)


@pytest.fixture(autouse=True)
def rounding():
    """Leaves the rounding of products as it was."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    yield
    matmul.allow_tf32, cudnn.allow_tf32 = before
