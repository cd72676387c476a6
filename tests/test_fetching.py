"""Results fetched from a device while it computes on."""

import numpy as np
import pytest
import torch

from engine.fetching import begun_early, fetch


@pytest.mark.parametrize("count", [0, 1, 2, 7])
def test_items_come_later_than_they_are_taken(count):
    taken, lead = [], []
    for item in begun_early((taken.append(i) or i for i in range(5)), count):
        assert taken[len(lead)] == item
        lead.append(len(taken) - 1 - item)
    assert lead == [min(count, 4 - i) for i in range(5)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_fetched_values(dtype):
    values = torch.arange(6).reshape(2, 3).to(dtype) / 4
    fetched = fetch(values)()
    assert fetched.dtype == np.float32
    assert fetched.tolist() == [[0, 0.25, 0.5], [0.75, 1, 1.25]]
