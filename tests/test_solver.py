"""The update of Caffe2's MomentumSGDUpdate, against a plain numpy implementation."""

import logging

import numpy as np
import pytest
import torch
from torch import nn

from core.config import load_config
from engine.solver import Solver
from utils.lr_policy import get_lr_at_iter


def network():
    torch.manual_seed(0)
    model = nn.ModuleDict({"conv1": nn.Conv3d(2, 3, 1), "res_conv1_bn": nn.BatchNorm3d(3), "pred": nn.Linear(3, 2)})
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    return model.double()


BLOBS = {"conv1_w", "conv1_b", "res_conv1_bn_s", "res_conv1_bn_b", "pred_w", "pred_b"}


def make(model, momentum=0.9, nesterov=True, weight_decay=0.1, weight_decay_bn=0.3, scale_momentum=True):
    return Solver(model, momentum, nesterov, weight_decay, weight_decay_bn, scale_momentum)


@pytest.mark.parametrize("scale_momentum", [True, False])
@pytest.mark.parametrize(("momentum", "nesterov"), [(0.9, True), (0.9, False), (0.5, True), (0.0, True), (0.0, False)])
def test_updates_against_numpy(momentum, nesterov, scale_momentum):
    solver = make(network(), momentum, nesterov, scale_momentum=scale_momentum)
    assert set(solver.parameters) == BLOBS
    w = {name: p.detach().numpy().copy() for name, p in solver.parameters.items()}
    m = {name: np.zeros_like(value) for name, value in w.items()}
    rng = np.random.default_rng(0)
    old = None
    for it, lr in enumerate([0.1, 0.1, 0.01, 0.011, 0.05, 0.05]):
        gradients = {name: rng.standard_normal(value.shape) for name, value in w.items()}
        for name, g in gradients.items():
            g = g + (0.3 if "_bn" in name else 0.1) * w[name]
            if old is not None and scale_momentum:
                m[name] *= lr / old
            new = momentum * m[name] + lr * g
            w[name] -= (1 + momentum) * new - momentum * m[name] if nesterov else new
            m[name] = new
        old = lr
        solver.set_lr(lr, it)
        for name, p in solver.parameters.items():
            p.grad = torch.from_numpy(gradients[name])
        solver.step()
        for name, p in solver.parameters.items():
            np.testing.assert_allclose(p.detach().numpy(), w[name], rtol=1e-12, atol=1e-14)
            if momentum:
                np.testing.assert_allclose(solver.history[name].numpy(), m[name], rtol=1e-12, atol=1e-14)
            assert p.grad is None


def test_from_the_configuration():
    cfg = load_config(None, ["SOLVER.MOMENTUM", "0.5", "SOLVER.NESTEROV", "False", "SOLVER.WEIGHT_DECAY", "0.25",
                             "SOLVER.WEIGHT_DECAY_BN", "0.0", "SOLVER.SCALE_MOMENTUM", "True"])
    solver = Solver.from_config(network(), cfg)
    before = {name: p.detach().clone() for name, p in solver.parameters.items()}
    assert solver.scale_momentum
    for it in range(2):
        solver.set_lr(1.0, it)
        for p in solver.parameters.values():
            p.grad = torch.zeros_like(p)
        solver.step()
    for name, p in solver.parameters.items():
        # Without gradients: m' = wd w, then m'' = m' / 2 + wd (w - m').
        factor = 1 if "_bn" in name else 0.75 - (0.125 + 0.25 * 0.75)
        torch.testing.assert_close(p.detach(), factor * before[name])


def test_frozen_parameters_are_left_out():
    model = network()
    model["conv1"].requires_grad_(False)
    solver = make(model)
    assert set(solver.parameters) == set(solver.history) == BLOBS - {"conv1_w", "conv1_b"}


def lines(caplog):
    return [record.getMessage() for record in caplog.records]


@pytest.fixture
def informed(caplog):
    caplog.set_level(logging.INFO)
    return caplog


def test_a_change_of_the_rate_is_logged(informed):
    solver = make(network())
    solver.set_lr(0.01, 0)
    assert lines(informed) == []
    solver.history["pred_b"].fill_(1)
    solver.set_lr(0.001, 150000)
    assert lines(informed) == [
        "Setting learning rate to 0.001000 at iteration 150000",
        "Scaling update history by 0.100000 (new/old lr)",
    ]
    assert solver.history["pred_b"].tolist() == pytest.approx([0.1, 0.1])


def test_without_scaling_only_the_rate_is_logged(informed):
    solver = make(network(), scale_momentum=False)
    solver.set_lr(0.01, 0)
    solver.history["pred_b"].fill_(1)
    solver.set_lr(0.1, 7)
    assert lines(informed) == ["Setting learning rate to 0.100000 at iteration 7"]
    assert solver.history["pred_b"].tolist() == [1, 1]


@pytest.mark.parametrize(("ratio", "logged"), [(0.89, True), (0.91, False), (1.09, False), (1.11, True)])
def test_small_changes_scale_without_being_logged(informed, ratio, logged):
    solver = make(network())
    solver.set_lr(0.1, 0)
    solver.history["pred_b"].fill_(1)
    solver.set_lr(0.1 * ratio, 1)
    assert len(lines(informed)) == 2 * logged
    assert solver.history["pred_b"].tolist() == pytest.approx([ratio] * 2)


def test_a_change_within_rounding_error_is_applied_but_does_not_scale_the_history():
    solver = make(network())
    solver.set_lr(0.1, 0)
    solver.history["pred_b"].fill_(1)
    solver.set_lr(0.1 * (1 + 0.9e-7), 1)
    assert solver.lr == 0.1 * (1 + 0.9e-7)
    assert solver.history["pred_b"].tolist() == [1, 1]
    solver.set_lr(0.1 * (1 + 3e-7), 2)
    assert solver.history["pred_b"].tolist() != [1, 1]


def test_the_rate_is_the_policys_at_every_iteration_of_a_flat_warm_up():
    """A warm-up from a float32 number to the next but one: every change is within rounding."""
    start, end = np.float32(0.1), np.nextafter(np.nextafter(np.float32(0.1), np.float32(1)), np.float32(1))
    cfg = load_config(None, ["SOLVER.BASE_LR", repr(float(end)), "SOLVER.WARMUP.WARMUP_ON", "True",
                             "SOLVER.WARMUP.WARMUP_START_LR", repr(float(start)), "SOLVER.WARMUP.WARMUP_END_ITER", "6"])
    solver = make(network())
    applied = []
    for it in range(8):
        solver.set_lr(get_lr_at_iter(it, cfg), it)
        applied.append(solver.lr)
    assert applied == [get_lr_at_iter(it, cfg) for it in range(8)]
    assert len(set(applied)) == 3


def test_the_rate_of_the_file_is_the_old_rate(informed):
    solver = make(network())
    solver.history["pred_b"].fill_(1)
    solver.lr = 1.0  # as with TRAIN.RESET_START_ITER and a file without lr
    solver.set_lr(0.01, 0)
    assert lines(informed) == [
        "Setting learning rate to 0.010000 at iteration 0",
        "Scaling update history by 0.010000 (new/old lr)",
    ]
    assert solver.history["pred_b"].tolist() == pytest.approx([0.01, 0.01])


def test_a_warm_up_scales_the_history_at_every_iteration():
    """Every iteration multiplies the history by new/old, which telescopes to last/first."""
    cfg = load_config(None, ["SOLVER.BASE_LR", "0.1", "SOLVER.WARMUP.WARMUP_ON", "True",
                             "SOLVER.WARMUP.WARMUP_START_LR", "0.01", "SOLVER.WARMUP.WARMUP_END_ITER", "10"])
    solver = make(network())
    solver.set_lr(get_lr_at_iter(0, cfg), 0)
    solver.history["pred_b"].fill_(1)
    for it in range(1, 12):
        solver.set_lr(get_lr_at_iter(it, cfg), it)
    assert solver.history["pred_b"].tolist() == pytest.approx([10, 10])
