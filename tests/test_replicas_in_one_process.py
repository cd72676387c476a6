"""NUM_GPUS replicas run one after another in one process: losses, gradients, statistics and dropout."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from engine.replicas import Replicas, forward_backward

LABELS = torch.tensor([0, 2])


def classifier(dropout=0.0):
    torch.manual_seed(5)
    layers = nn.Conv3d(3, 5, 1), nn.BatchNorm3d(5), nn.ReLU(), nn.AdaptiveAvgPool3d(1), nn.Flatten()
    return nn.Sequential(*layers, nn.Dropout(dropout), nn.Linear(5, 3))


def clips(seed):
    return torch.randn(2, 3, 2, 3, 3, generator=torch.Generator().manual_seed(seed)) + seed


def run(model, *batches, seed=1, it=0):
    return forward_backward(model, [(x, LABELS) for x in batches], Replicas(len(batches)), seed, it)


def test_losses_and_gradients_are_the_mean_over_the_replicas():
    model, batches = classifier(), [clips(seed) for seed in range(3)]
    losses, gradients = [], []
    for x in batches:  # each replica normalises over its own batch only
        alone = classifier()
        loss = F.cross_entropy(alone(x), LABELS)
        gradients.append(torch.autograd.grad(loss, list(alone.parameters())))
        losses.append(loss.item())
    results = run(model, *batches)
    assert results[:, 0].tolist() == pytest.approx([loss / 3 for loss in losses])
    for parameter, *shares in zip(model.parameters(), *gradients, strict=True):
        torch.testing.assert_close(parameter.grad, sum(shares) / 3)


def test_errors_are_counted_for_each_replica():
    model = classifier()
    right = model(clips(0)).argsort(1, descending=True)
    results = forward_backward(model, [(clips(0), right[:, 0]), (clips(0), right[:, 1])], Replicas(2), 1, 0)
    assert results[:, 1].tolist() == [0, 2]
    assert results[:, 2].tolist() == [0, 0]


def test_running_statistics_follow_the_root_replica():
    model, alone = classifier(), classifier()
    alone(clips(0))
    run(model, clips(0), clips(1))
    torch.testing.assert_close(model[1].running_mean, alone[1].running_mean)
    torch.testing.assert_close(model[1].running_var, alone[1].running_var)
    assert model[1].track_running_stats


def dropout_losses(*batches, **options):
    return run(classifier(dropout=0.5), *batches, **options)[:, 0].tolist()


def test_dropout_is_determined_by_seed_iteration_and_replica():
    x = clips(0)
    losses = dropout_losses(x, x)
    assert losses[0] != losses[1]
    torch.manual_seed(99)
    assert dropout_losses(x, x) == losses
    assert dropout_losses(x, x, seed=2) != losses
    assert dropout_losses(x, x, it=1) != losses
