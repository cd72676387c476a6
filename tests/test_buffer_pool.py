import gc
import signal
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
from data.buffer_pool import BufferPool
blocks = BufferPool()
print("running", flush=True)
while True:
    blocks.tensor((4, 4))
"""


def test_no_interrupt_is_lost(zygote, tmp_path):
    """Python drops an exception that is raised while something is collected."""
    (tmp_path / "program.py").write_text(PROGRAM)
    for attempt in range(5):
        log = tmp_path / f"{attempt}.txt"
        run = zygote.start([tmp_path / "program.py"], log)
        try:
            while not log.exists() or log.read_text() != "running\n":
                assert run.wait(0.005) is None
            time.sleep(attempt / 100)
            run.kill(signal.SIGINT)
            assert run.wait(20) == 1 and "KeyboardInterrupt" in log.read_text()
        finally:
            run.kill()
