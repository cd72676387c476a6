"""Batch norm statistics: precise ones, and running ones of the root replica alone."""

import json
import logging
from pathlib import Path

import check_references as references
import pytest
import torch
from torch import nn

from engine.replicas import Replicas
from utils.bn_helper import BatchStatistics, batch_norms, compute_precise_bn, running_statistics_frozen
from utils.errors import UserError

NUMBERS = Path(__file__).parent / "data/reference/precisebn_i3d_nlnet_8x8.json"


def network():
    torch.manual_seed(0)
    model = nn.Sequential()
    model.conv1 = nn.Conv3d(3, 4, 1)
    model.conv1_bn = nn.BatchNorm3d(4)
    model.relu = nn.ReLU()
    model.conv2 = nn.Conv3d(4, 5, 1)
    model.conv2_bn = nn.BatchNorm3d(5, momentum=0.3)
    return model.train()


def batches(iterations, replicas, n=2):
    generator = torch.Generator().manual_seed(1)
    return [[torch.randn(n, 3, 2, 3, 3, generator=generator) + i for _ in range(replicas)] for i in range(iterations)]


def state(model):
    """Copies of the parameters and running statistics."""
    return {name: value.clone() for name, value in model.state_dict().items() if value.is_floating_point()}


def test_against_direct_statistics():
    model, data = network(), batches(3, 2)
    double = network().double()
    means, squares = {"conv1_bn": 0, "conv2_bn": 0}, {"conv1_bn": 0, "conv2_bn": 0}
    for x in (clips.double() for iteration in data for clips in iteration):
        inputs = {"conv1_bn": double.conv1(x)}
        inputs["conv2_bn"] = double.conv2(double.relu(double.conv1_bn(inputs["conv1_bn"])))
        for name, values in inputs.items():
            mean = values.mean((0, 2, 3, 4))
            means[name] += mean / 6
            squares[name] += (values.var((0, 2, 3, 4), unbiased=False) + mean**2) / 6
    before = state(model)
    remaining = iter(data)
    compute_precise_bn(model, lambda: next(remaining), 3, Replicas(2), 0, 1000)
    for name, layer in batch_norms(model).items():
        torch.testing.assert_close(layer.running_mean.double(), means[name].detach(), rtol=1e-5, atol=1e-6)
        variance = (squares[name] - means[name] ** 2).detach()
        torch.testing.assert_close(layer.running_var.double(), variance, rtol=1e-5, atol=1e-6)
    after = state(model)
    assert all(torch.equal(after[name], before[name]) for name in before if "running" not in name)
    assert next(remaining, None) is None
    # Training goes on as it was: momentum and mode.
    assert (model.conv1_bn.momentum, model.conv2_bn.momentum) == (0.1, 0.3)
    assert model.conv1_bn.training
    assert all(p.grad is None for p in model.parameters())


def test_the_legacy_programs_statistics():
    meta = json.loads(NUMBERS.read_text())
    errors = list(references.precise_bn_errors(references.precise_bn_blobs(meta, Replicas(2), layers=5), meta["stats"]))
    assert [what for what, *_ in errors] == ["_bn_rm", "_bn_riv"]
    for what, error, bar in errors:
        assert error <= bar, what


def test_log_lines(caplog):
    caplog.set_level(logging.INFO)
    data = iter(batches(5, 1))
    compute_precise_bn(network(), lambda: next(data), 5, Replicas(1), 19, 2)
    lines = [record.getMessage() for record in caplog.records]
    assert lines[0] == "Computing and updating BN stats at iter: 20"
    assert [line.partition("]")[0] for line in lines[1:]] == ["Computing BN [2/5", "Computing BN [4/5"]


def test_a_variance_that_is_none_names_the_layer():
    model = network()
    with torch.no_grad():
        model.conv2.weight[2] = 0
    data = iter(batches(2, 1))
    with pytest.raises(UserError, match="precise BN at iteration 8: conv2_bn_riv: expected positive variances, got "):
        compute_precise_bn(model, lambda: next(data), 2, Replicas(1), 7, 1000)


def test_not_a_number_names_the_layer():
    data = iter([[torch.full((1, 3, 2, 3, 3), torch.nan)]])
    with pytest.raises(UserError, match="conv1_bn_riv: expected positive variances, got nan"):
        compute_precise_bn(network(), lambda: next(data), 1, Replicas(1), 7, 1000)


def test_an_interrupted_pass_leaves_the_layers_as_they_were():
    model = network()
    with pytest.raises(KeyboardInterrupt), BatchStatistics(model):
        raise KeyboardInterrupt
    assert (model.conv1_bn.momentum, model.conv2_bn.momentum) == (0.1, 0.3)
    assert not any(layer._forward_pre_hooks for layer in batch_norms(model).values())


def test_frozen_running_statistics():
    model = network()
    before, [[x]] = state(model), batches(1, 1)
    expected = network()(x)
    with running_statistics_frozen(model):
        frozen = model(x)
    assert torch.equal(frozen, expected)  # normalised with the batch's own statistics all the same
    assert all(torch.equal(value, before[name]) for name, value in state(model).items())
    with running_statistics_frozen(model, frozen=False):
        model(x)
    assert not torch.equal(model.conv1_bn.running_mean, before["conv1_bn.running_mean"])
