import gc
import signal
import subprocess
import sys
import time

import pytest
import torch

from data.buffer_pool import BufferPool

HOLD = {
    "tensor": lambda tensor: tensor,
    "part": lambda tensor: tensor[1:, 2],
    "part of a part": lambda tensor: tensor[1:][:, 2].view(-1),
    "array": lambda tensor: tensor.numpy(),
    "part of an array": lambda tensor: tensor[1].numpy()[2:],
    "array of a part of an array": lambda tensor: torch.from_numpy(tensor.numpy()[1])[2:].numpy(),
}


@pytest.mark.parametrize("hold", HOLD.values(), ids=HOLD)
def test_memory_in_use_is_left_alone(hold):
    blocks = BufferPool()
    held = hold(blocks.tensor((2, 3, 500)).fill_(7))
    gc.collect()
    others = [blocks.tensor((2, 3, 500)).fill_(9) for _ in range(3)]
    assert (held == 7).all()
    assert len({other.data_ptr() for other in others}) == 3


@pytest.mark.parametrize("hold", HOLD.values(), ids=HOLD)
def test_memory_comes_back(hold):
    blocks = BufferPool()
    tensor = blocks.tensor((2, 3, 500))
    held, address = hold(tensor), tensor.data_ptr()
    del tensor
    assert blocks.tensor((2, 3, 500)).data_ptr() != address
    del held
    again = [blocks.tensor((5,)) for _ in range(2)]
    assert address in [tensor.data_ptr() for tensor in again]


def test_shapes_change():
    blocks = BufferPool()
    for shape in ((4, 10), (2, 3), (0, 7), (100,), (50, 2)):
        tensor = blocks.tensor(shape)
        assert tensor.shape == shape and tensor.dtype == torch.uint8 and tensor.is_contiguous()
        del tensor
    assert [use.block.size for use in blocks._ended] == [100] and len(blocks._uses) == 1


PROGRAM = """
import sys
sys.path.insert(0, sys.argv[1])
from data.buffer_pool import BufferPool
blocks = BufferPool()
print("running", flush=True)
while True:
    blocks.tensor((4, 4))
"""


def test_no_interrupt_is_lost(repo):
    """Python drops an exception that is raised while something is collected."""
    for attempt in range(5):
        process = subprocess.Popen([sys.executable, "-c", PROGRAM, repo / "lib"], stdout=-1, stderr=-1, text=True)
        try:
            assert process.stdout.readline() == "running\n"
            time.sleep(attempt / 100)
            process.send_signal(signal.SIGINT)
            assert "KeyboardInterrupt" in process.communicate(timeout=20)[1]
        finally:
            process.kill()
