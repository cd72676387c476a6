"""A GPU computes what a CPU does: single operations, whole training steps, the legacy program's numbers."""

import json

import check_references as references
import numpy as np
import pytest
import reference_recipe as recipe
import torch
from test_models import FORWARD, NUMBERS, clips, tiny
from torch import distributed
from torch.nn import functional as F

from engine.replicas import Replicas, forward_backward
from models.affinities import AFFINITIES
from models.convolution import Conv3d
from models.model_builder_video import create_model
from models.nonlocal_helper import NonLocalBlock
from models.precision import autocast, set_precision

# Relative error (norms) of a product with a thousand terms. TF32 and bfloat16 have 10 and 7 bits of mantissa.
BARS = {"float32": 2e-6, "tf32": 1e-3, "bfloat16": 2e-2}
CL = torch.channels_last_3d
RESULTS = ("loss", "gradients", "statistics")


def difference(value, exact):
    return ((value.double().cpu() - exact.double().cpu()).norm() / exact.double().cpu().norm()).item()


@pytest.mark.parametrize("precision", BARS)
@pytest.mark.parametrize("kind", ["product", "over space", "over time", "over both", "attention"])
def test_errors_of_operations(device, precision, kind):
    """Forward and backward, against float64 on the CPU."""
    torch.manual_seed(0)
    set_precision(precision)
    kernels = {"over space": (1, 3, 3), "over time": (3, 1, 1), "over both": (5, 7, 7)}
    if kind == "product":
        layer, x = torch.nn.Linear(1024, 512), torch.randn(64, 1024)
    elif kind == "attention":
        layer, x = NonLocalBlock(128, 64), torch.randn(2, 128, 4, 14, 14)
    else:
        kernel = kernels[kind]
        layer = Conv3d(64, 32, kernel, padding=tuple(k // 2 for k in kernel))
        x = torch.randn(2, 64, 6, 14, 14)
    exact_x = x.double().requires_grad_()
    exact = layer.double()(exact_x)
    towards = torch.randn_like(exact)
    exact.backward(towards)
    layer.float().to(device)
    gradient = layer.weight.grad.clone() if hasattr(layer, "weight") else layer.g.weight.grad.clone()
    layer.zero_grad()
    x = x.to(device)
    x = (x.contiguous(memory_format=CL) if x.dim() == 5 else x).requires_grad_()
    with autocast(precision, device):
        y = layer(x)
    y.backward(towards.to(device, y.dtype))
    found = layer.weight.grad if hasattr(layer, "weight") else layer.g.weight.grad
    errors = [difference(y, exact), difference(x.grad, exact_x.grad), difference(found, gradient)]
    print(f"\n{kind}, {precision}: " + ", ".join(f"{error:.1e}" for error in errors))
    assert max(errors) <= BARS[precision]


def one_step(model, batch, device, precision):
    replicas = Replicas(len(batch), device=device)
    batch = [(x.to(device).contiguous(memory_format=CL), labels.to(device)) for x, labels in batch]
    results = forward_backward(model, batch, replicas, seed=1, it=0, precision=precision)
    return (results.cpu(), {name: p.grad.cpu() for name, p in model.named_parameters() if p.requires_grad},
            {name: b.cpu() for name, b in model.named_buffers() if b.is_floating_point()})


def drawn(model):
    recipe.fill(model, 3)
    model.dropout.p = 0.0  # each device draws its own
    return model.train()


@pytest.mark.parametrize("options", [
    {"MODEL__VIDEO_ARC_CHOICE": 1}, {"MODEL__VIDEO_ARC_CHOICE": 2},
    *({"MODEL__VIDEO_ARC_CHOICE": 2, "NONLOCAL__AFFINITY": name} for name in AFFINITIES),
    {"MODEL__VIDEO_ARC_CHOICE": 2, "MODEL__USE_AFFINE": True, "NONLOCAL__USE_BN": False, "NONLOCAL__USE_AFFINE": True},
    {"MODEL__VIDEO_ARC_CHOICE": 4, "MODEL__DEPTH": 101}, {"RESNETS__NUM_GROUPS": 4},
    {"MODEL__MODEL_NAME": "resnet_video_org"}, {"TRAIN__CHECKPOINT_ACTIVATIONS": True},
], ids=lambda options: " ".join(f"{name.split('__')[1]}={value}" for name, value in options.items()))
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_step_on_both_devices(device, options, precision):
    """Loss, gradient of every parameter and running statistics of a narrow network, with two replicas.

    The device is not much farther from float64 than the CPU is (a ReLU that switches makes a gradient jump).
    """
    set_precision(precision)
    cpu = torch.device("cpu")
    batch = [(clips(8, n=2, seed=r), torch.tensor([1, 4])) for r in range(2)]
    # In float64 on the device, as PyTorch has no fast convolutions of that type for CPUs.
    doubled = drawn(tiny("train", **options)).double().to(device)
    exact = one_step(doubled, [(x.double(), y) for x, y in batch], device, "float32")
    here = errors(one_step(drawn(tiny("train", **options)), batch, cpu, precision), exact)
    there = errors(one_step(drawn(tiny("train", **options)).to(device), batch, device, precision), exact)
    print("\n" + "; ".join(f"{what}: {there[what]:.1e} (CPU {here[what]:.1e})" for what in RESULTS))
    for what in RESULTS:
        assert there[what] <= 10 * here[what] + 1e-6, what


def errors(found, exact):
    """The largest relative error of each kind of result; gradients that are zero but for rounding count less."""
    largest = max(g.norm() for g in exact[1].values())
    assert found[1].keys() == exact[1].keys()
    assert all(bool(gradient.isfinite().all()) for gradient in found[1].values())
    of_gradients = [(found[1][name] - g).norm() / max(g.norm(), 1e-3 * largest) for name, g in exact[1].items()]
    return {"loss": difference(found[0][:, 0], exact[0][:, 0]), "gradients": float(max(of_gradients)),
            "statistics": max((difference(found[2][name], value) for name, value in exact[2].items()), default=0.0)}


@pytest.mark.parametrize("case", FORWARD)
def test_scores_of_the_legacy_program(device, case):
    if device.type == "cpu" and not case.startswith("fwd_c2d_baseline_8x8_val"):
        pytest.skip("takes long on a CPU")
    set_precision("float32")
    meta = FORWARD[case]
    model = references.reference_model(meta, references.reference_cfg(meta), meta["split"]).to(device)
    x = torch.as_tensor(recipe.clips(meta["input_shape"], "data", meta["seed"])[:1]).to(device)
    with torch.inference_mode():
        model.output = "pred"
        scores = model(x).cpu().numpy()[0]
        model.output = "softmax"
        probabilities = model(x).cpu().numpy()[0]
    assert probabilities.argmax() == meta["argmax"]
    points = meta["points"]
    assert np.abs(probabilities[points] - meta["softmax"]).max() <= references.SOFTMAX_BAR
    assert np.abs(scores[points] - meta["pred"]).max() <= references.PRED_BAR * meta["pred_max"]


def test_the_first_training_iteration_of_the_legacy_program(device):
    if device.type == "cpu":
        pytest.skip("takes long on a CPU")
    set_precision("float32")
    meta = json.loads((NUMBERS / "train_i3d_nlnet_8x8.json").read_text())
    [(expected, lr, losses, blobs, _)] = references.run_training(meta, Replicas(meta["ngpu"], device=device))
    assert lr == expected["lr"]
    np.testing.assert_allclose(losses, expected["losses"], rtol=1e-5)
    # Legacy's CPU build took the biased batch variance into the running one (_riv), PyTorch and GPUs the unbiased.
    bars = {name: 1e-2 if name.endswith("_rm") else 5e-4 for name in expected["params"] if not name.endswith("_riv")}
    errors = {name: references.sampled_error(blobs[name], expected["params"][name]) for name in bars}
    assert not {name: error for name, error in errors.items() if error > bars[name]}


def test_reduced_gradients(device, tmp_path):
    """DistributedDataParallel in a world of one: the same gradients as without."""
    set_precision("float32")
    torch.backends.cudnn.deterministic = True
    batch = [(clips(4, n=2, seed=r), torch.tensor([1, 4])) for r in range(2)]
    expected = one_step(drawn(tiny("train")).to(device), batch, device, "float32")[1]
    backend = "nccl" if device.type == "cuda" else "gloo"
    distributed.init_process_group(backend, init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        model = drawn(tiny("train")).to(device)
        parallel = Replicas(2, processes=2, device=device).parallel(model)  # 2: or it would not wrap
        replicas = Replicas(2, device=device)
        placed = [(x.to(device).contiguous(memory_format=CL), labels.to(device)) for x, labels in batch]
        forward_backward(parallel, placed, replicas, seed=1, it=0)
        for name, p in model.named_parameters():
            torch.testing.assert_close(p.grad.cpu(), expected[name], rtol=1e-5, atol=1e-7)
    finally:
        distributed.destroy_process_group()
        torch.backends.cudnn.deterministic = False


@pytest.mark.parametrize("precision", ["tf32", "bfloat16"])
def test_a_compiled_step(device, precision):
    from models.compilation import compiled_for_training

    if device.type == "cpu":
        pytest.skip("takes long on a CPU")
    set_precision(precision)
    batch = [(clips(8, n=2), torch.tensor([1, 4]))]
    expected = one_step(drawn(tiny("train", MODEL__VIDEO_ARC_CHOICE=2)).to(device), batch, device, precision)
    model = drawn(tiny("train", MODEL__VIDEO_ARC_CHOICE=2)).to(device)
    network = compiled_for_training(model, "always", 1, False, device)
    placed = [(x.to(device).contiguous(memory_format=CL), labels.to(device)) for x, labels in batch]
    results = forward_backward(network, placed, Replicas(1, device=device), seed=1, it=0, precision=precision)
    assert difference(results[:, 0], expected[0][:, 0]) <= 2e-2
    cosine = F.cosine_similarity(model.conv1.weight.grad.cpu().flatten(), expected[1]["conv1.weight"].flatten(), 0)
    assert cosine >= 0.98


def test_layouts(device):
    """A network and its gradients lie in memory as the clips do."""
    model = create_model_on(device)
    one_step(model, [(clips(4, n=2), torch.tensor([1, 4]))], device, "float32")
    for name, p in model.named_parameters():
        if p.dim() == 5:
            assert p.is_contiguous(memory_format=CL) and p.grad.is_contiguous(memory_format=CL), name


def create_model_on(device):
    from test_models import tiny_cfg

    return create_model(tiny_cfg(), "train").to(device)
