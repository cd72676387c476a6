"""Optimisations of speed and memory must not change what a training step computes."""

import logging

import pytest
import torch
from test_inference import filled
from test_models import clips
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F

from core.config import load_config
from engine.replicas import Replicas, forward_backward
from models.affinities import DotProduct
from models.compilation import compiled_for_training
from models.convolution import Conv3d
from models.model_builder_video import create_model
from models.nonlocal_helper import NonLocalBlock
from models.precision import autocast, set_precision


def plain_block(block, x):
    """The non-local block with its explicit P x Q matrix, from the paper's equations."""
    def project(convolution, value):
        return F.conv3d(value, convolution.weight, convolution.bias).flatten(2)

    pooled = F.max_pool3d(x, (1, 2, 2)) if block.use_maxpool else x
    theta, phi, g = project(block.theta, x), project(block.phi, pooled), project(block.g, pooled)
    f = theta.transpose(1, 2) @ phi
    f = f / phi.shape[2] if isinstance(block.affinity, DotProduct) else (f * theta.shape[1] ** -0.5).softmax(2)
    y = (g @ f.transpose(1, 2)).reshape(x.shape[0], -1, *x.shape[2:])
    return x + F.conv3d(y, block.out.weight, block.out.bias)


@pytest.mark.parametrize("affinity", ["embedded_gaussian", "dot_product"])
def test_gradients_of_the_non_local_block_agree_with_float64(affinity):
    torch.manual_seed(0)
    block = NonLocalBlock(32, 16, affinity=affinity)
    x = torch.randn(2, 32, 4, 12, 12).contiguous(memory_format=torch.channels_last_3d).requires_grad_()
    towards = torch.randn(2, 32, 4, 12, 12)
    (block(x) * towards).sum().backward()
    found = [x.grad, *(p.grad for p in block.parameters())]

    exact, x64 = NonLocalBlock(32, 16, affinity=affinity).double(), x.detach().double().requires_grad_()
    exact.load_state_dict(block.state_dict())
    (plain_block(exact, x64) * towards).sum().backward()
    largest = max(p.grad.abs().max() for p in exact.parameters())
    for gradient, p in zip(found, [x64, *exact.parameters()], strict=True):
        # Some gradients are zero in exact arithmetic (phi's bias under softmax), so compare with the largest.
        assert (gradient.double() - p.grad).abs().max() <= 2e-6 * max(p.grad.abs().max(), largest)


def step(model, precision="float32", replicas=1):
    """Forward and backward pass of one iteration: (results, gradients, running statistics)."""
    torch.manual_seed(0)
    batch = [(clips(2, n=2, seed=r), torch.tensor([1, 4])) for r in range(replicas)]
    results = forward_backward(model, batch, Replicas(replicas), seed=1, it=0, precision=precision)
    gradients = {name: p.grad.clone() for name, p in model.named_parameters()}
    return results, gradients, {
        name: buffer.clone() for name, buffer in model.named_buffers() if buffer.is_floating_point()}


@pytest.mark.parametrize("replicas", [1, 2])
def test_recomputed_activations_give_the_same_step(replicas):
    options = {"MODEL__VIDEO_ARC_CHOICE": 2, "TRAIN__DROPOUT_RATE": 0.5}
    plain = step(filled("train", **options), replicas=replicas)
    recomputed = step(filled("train", **options, TRAIN__CHECKPOINT_ACTIVATIONS=True), replicas=replicas)
    assert torch.equal(plain[0], recomputed[0])
    for expected, found in zip(plain[1:], recomputed[1:], strict=True):
        assert expected.keys() == found.keys()
        assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_recomputing_keeps_less_than_half_of_the_activations():
    def kept(**options):
        model, sizes = filled("train", MODEL__VIDEO_ARC_CHOICE=2, **options), {}
        weights = {p.data_ptr() for p in model.parameters()}

        def pack(tensor):
            if tensor.data_ptr() not in weights:
                sizes[tensor.data_ptr()] = tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            loss = model(clips(4)).sum()
        del loss
        return sum(sizes.values())

    assert kept(TRAIN__CHECKPOINT_ACTIVATIONS=True) <= 0.5 * kept()


def test_bfloat16_keeps_at_most_three_fifths_of_what_float32_keeps(repo):
    """For frozen affine layers at full size, with tensors that have no values; copies of the weights count."""
    config = repo / "configs/DBG_kinetics_resnet_8gpu_c2d_nonlocal_affine_400k.yaml"
    model = create_model(load_config(config, ["MODEL.VIDEO_ARC_CHOICE", "2", "TRAIN.VIDEO_LENGTH", "8"]), "train")
    weights = {p.untyped_storage()._cdata for p in (*model.parameters(), *model.buffers())}

    def kept(precision):
        storages = {}

        def pack(tensor):
            storage = tensor.untyped_storage()
            if storage._cdata not in weights:
                storages[storage._cdata] = storage  # held, so that no other gets its address
            return tensor

        with FakeTensorMode(allow_non_fake_inputs=True), autocast(precision, torch.device("cpu")), \
                torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            loss = model(torch.empty(1, 3, 8, 224, 224).contiguous(memory_format=torch.channels_last_3d))
        del loss
        return sum(storage.nbytes() for storage in storages.values())

    assert 0.4 < kept("bfloat16") / kept("float32") < 0.6


def test_bfloat16_step_is_close_to_float32_and_keeps_float32_weights():
    exact = step(filled("train"))
    rough = step(filled("train"), "bfloat16")
    loss, expected_loss = rough[0][0, 0].item(), exact[0][0, 0].item()
    assert loss == pytest.approx(expected_loss, rel=0.02) and loss != expected_loss
    for name, gradient in rough[1].items():
        assert gradient.dtype == torch.float32, name
    assert F.cosine_similarity(exact[1]["pred.weight"].flatten(), rough[1]["pred.weight"].flatten(), 0) > 0.99
    for name, buffer in rough[2].items():
        assert buffer.dtype == torch.float32, name
        assert (buffer - exact[2][name]).norm() <= 0.03 * exact[2][name].norm(), name


@pytest.mark.parametrize(("kernel", "stride"), [((3, 1, 1), 1), ((5, 7, 7), (1, 2, 2)), ((5, 7, 7), 2)])
@pytest.mark.parametrize("frames", [1, 2, 3, 4, 5])
def test_gradients_are_right_for_clips_shorter_than_the_kernel(kernel, stride, frames):
    torch.manual_seed(0)
    convolution = Conv3d(16, 8, kernel, stride, tuple(k // 2 for k in kernel), bias=False)
    x = torch.randn(2, 16, frames, 13, 13).contiguous(memory_format=torch.channels_last_3d)
    towards = torch.randn_like(convolution(x))

    def gradient(precision):
        for exponent in (10, 14, 18):
            torch.full((2**exponent,), torch.nan)  # fills memory that is then freed, and could be read by mistake
        with autocast(precision, x.device):
            y = convolution(x)
        return torch.autograd.grad(y, convolution.weight, towards.to(y.dtype))[0]

    weight = convolution.weight.detach().double().requires_grad_()
    y = F.conv3d(x.double(), weight, None, stride, convolution.padding)
    exact = torch.autograd.grad(y, weight, towards.double())[0]
    for precision, tolerance in (("float32", 1e-5), ("bfloat16", 0.02)):
        assert (gradient(precision) - exact).abs().max() <= tolerance * exact.abs().max(), precision


def test_set_precision_selects_the_rounding_of_gpu_products():
    """All of PyTorch's options agree, and stay readable: PyTorch itself reads older and newer ones."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    try:
        for precision in ("float32", "tf32", "bfloat16", "float32"):
            set_precision(precision)
            rounds = precision != "float32"
            assert (matmul.allow_tf32, cudnn.allow_tf32) == (rounds, rounds)
            assert torch.get_float32_matmul_precision() == ("high" if rounds else "highest")
            for option in (matmul.fp32_precision, cudnn.conv.fp32_precision):
                assert (option == "tf32") == rounds  # else "ieee", or "none", which is the same
            with cudnn.flags(benchmark=True, allow_tf32=rounds):
                pass
    finally:
        set_precision("float32")


def test_autocast_applies_only_to_bfloat16():
    layer, x = torch.nn.Linear(2, 2), torch.ones(1, 2)
    for precision, dtype in (("float32", torch.float32), ("tf32", torch.float32), ("bfloat16", torch.bfloat16)):
        with autocast(precision, torch.device("cpu")):
            assert layer(x).dtype == dtype


def test_only_long_training_runs_on_gpus_are_compiled_by_default(caplog):
    layer = torch.nn.Linear(2, 2)
    cpu, cuda = torch.device("cpu"), torch.device("cuda")

    def is_compiled(device, choice="auto", iterations=400000, recomputing=False):
        return compiled_for_training(layer, choice, iterations, recomputing, device) is not layer

    with caplog.at_level(logging.INFO):
        assert not is_compiled(cpu)
        assert not caplog.records
        assert is_compiled(cuda)
        assert "Compiling" in caplog.text
    assert not is_compiled(cuda, iterations=100)
    assert not is_compiled(cuda, recomputing=True)
    assert not is_compiled(cuda, "never")
    assert is_compiled(cpu, "always", iterations=100, recomputing=True)


def test_a_training_step_without_a_compiler(no_compiler, caplog):
    """One line, and the step of the network as it is; no other network is affected."""
    model = torch.nn.Sequential(torch.nn.Conv3d(3, 8, 3), torch.nn.AvgPool3d(2), torch.nn.Flatten(1))
    clips = torch.randn(2, 3, 4, 8, 8)
    with caplog.at_level(logging.WARNING):
        network = compiled_for_training(model, "always", 1, False, torch.device("cpu"))
        results = network(clips)
        results.square().sum().backward()
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "cannot be compiled" in caplog.text and "\n" not in caplog.records[0].getMessage()
    assert torch.equal(results, model(clips))
    ours, model[0].weight.grad = model[0].weight.grad, None
    model(clips).square().sum().backward()
    assert torch.equal(ours, model[0].weight.grad)
    assert torch._dynamo.config.suppress_errors is False
