"""The device of these tests: the first GPU. With NLNET_DEVICE=cpu they try themselves out where there is none."""

import os

import pytest
import torch


@pytest.fixture(scope="session")
def device():
    name = os.environ.get("NLNET_DEVICE", "cuda")
    if name == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a GPU")
    return torch.device(name, 0) if name == "cuda" else torch.device(name)


@pytest.fixture(autouse=True)
def rounding():
    """Leaves the rounding of products as it was."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    yield
    matmul.allow_tf32, cudnn.allow_tf32 = before
