"""The network: the legacy program's numbers in a reduced form, and what every option does."""

import json
import logging
import math
from pathlib import Path

import check_references as references
import numpy as np
import pytest
import reference_recipe as recipe
import torch
from torch import nn
from torch.nn import functional as F

from core.config import load_config
from engine.replicas import Replicas
from formats.blobs import model_blobs
from models import model_builder_video
from models.affinities import AFFINITIES
from models.complexity import count_operations
from models.inference import for_inference
from models.model_builder_video import create_model, log_architecture, nonlocal_places
from models.nonlocal_helper import NonLocalBlock
from models.resnet_helper import FrozenAffine
from utils.errors import UserError

NUMBERS = Path(__file__).parent / "data/reference"
FORWARD = json.loads((NUMBERS / "forward.json").read_text())
BLOBS = json.loads((NUMBERS / "blobs.json").read_text())


# ------------------------------------------------------------------------------- the legacy program's numbers


@pytest.mark.parametrize("case", FORWARD)
def test_blobs_and_counts_of_the_legacy_program(case, monkeypatch):
    meta = FORWARD[case]
    monkeypatch.setattr(model_builder_video, "initialize", lambda *_: None)  # shapes need no values
    with torch.device("meta"):
        model = create_model(references.reference_cfg(meta), meta["split"])
    assert {name: list(blob.shape) for name, blob in model_blobs(model).items()} == BLOBS[meta["blobs"]]
    assert count_operations(model, tuple(meta["input_shape"][1:])) == (meta["flops"], meta["params"])


def test_there_are_twelve_cases():
    assert len(FORWARD) == 12


# One of each kind that a processor does in seconds; the others need check_references.py and the full numbers.
@pytest.mark.parametrize("case", [
    "fwd_c2d_baseline_8x8_val", "fwd_i3d_nlnet_8x8_val", "fwd_dotproduct_nlnet_8x8_val", "fwd_c2d_nlnet_8x8_fcn256",
])
def test_scores_of_the_legacy_program(case):
    meta = FORWARD[case]
    model = references.reference_model(meta, references.reference_cfg(meta), meta["split"])
    clips = recipe.clips(meta["input_shape"], "data", meta["seed"])
    [scores], [probabilities] = references.scores_and_probabilities(model, clips[:1])
    assert probabilities.argmax() == meta["argmax"]
    points = meta["points"]
    assert np.abs(probabilities[points] - meta["softmax"]).max() <= references.SOFTMAX_BAR
    assert np.abs(scores[points] - meta["pred"]).max() <= references.PRED_BAR * meta["pred_max"]


def test_the_first_training_iteration_of_the_legacy_program():
    meta = json.loads((NUMBERS / "train_i3d_nlnet_8x8.json").read_text())
    [(expected, lr, losses, blobs, _)] = references.run_training(meta, Replicas(meta["ngpu"]))
    assert lr == expected["lr"]
    np.testing.assert_allclose(losses, expected["losses"], rtol=1e-5)
    # Legacy's CPU build took the biased batch variance into the running one (_riv), PyTorch and GPUs the unbiased.
    bars = {name: 1e-2 if name.endswith("_rm") else 5e-4 for name in expected["params"] if not name.endswith("_riv")}
    errors = {name: references.sampled_error(blobs[name], expected["params"][name]) for name in bars}
    assert not {name: error for name, error in errors.items() if error > bars[name]}


# ------------------------------------------------------------------------------------------------ tiny networks

TINY = {"MODEL.MODEL_NAME": "resnet_video", "MODEL.NUM_CLASSES": 6, "RESNETS.WIDTH_PER_GROUP": 4,
        "RESNETS.STEM_OUT_CHANNELS": 8, "NUM_GPUS": 1}


def tiny_cfg(**options):
    """Configuration of a narrow network; keys with __ for the dots."""
    options = TINY | {key.replace("__", "."): value for key, value in options.items()}
    return load_config(None, [word for pair in options.items() for word in map(str, pair)])


def tiny(split="val", **options):
    return create_model(tiny_cfg(**options), split)


@pytest.fixture(scope="module")
def varied():
    """A narrow network for testing whose blobs all matter (drawn, none of them 0 or 1)."""
    model = tiny("test", MODEL__VIDEO_ARC_CHOICE=2)
    recipe.fill(model, 1)
    return model


def clips(frames=4, height=224, width=224, n=1, seed=0):
    return torch.randn(n, 3, frames, height, width, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("size", [(256, 256), (224, 320), (288, 224)])
@torch.inference_mode()
def test_testing_averages_the_probabilities_of_all_positions(varied, size):
    x = clips(4, *size)
    features = nn.Sequential(*(getattr(varied, name) for name in varied.trunk))(x)
    weight, bias = varied.pred.weight, varied.pred.bias
    expected = []
    for row in range(features.shape[3] - 6):
        for column in range(features.shape[4] - 6):
            window = features[0, :, :, row:row + 7, column:column + 7]
            expected.append((weight @ window.mean((1, 2, 3)) + bias).softmax(0))
    positions = {(256, 256): 4, (224, 320): 4, (288, 224): 3}[size]
    assert len(expected) == positions
    assert max((a - b).abs().max() for a in expected for b in expected) > 1e-3
    torch.testing.assert_close(varied(x)[0], torch.stack(expected).mean(0), rtol=1e-4, atol=1e-6)


@torch.inference_mode()
def test_training_and_val_return_scores():
    model = tiny("val")
    recipe.fill(model, 1)
    x = clips(2, n=2)
    scores = model(x)
    assert scores.shape == (2, 6)
    model.output = "softmax"
    torch.testing.assert_close(model(x), scores.softmax(1))


@pytest.mark.parametrize(("name", "frames", "left"), [
    ("resnet_video", 2, 1), ("resnet_video", 5, 2), ("resnet_video", 7, 3),
    ("resnet_video_org", 7, 1), ("resnet_video_org", 8, 1), ("resnet_video_org", 32, 4),
])
def test_any_number_of_frames(name, frames, left):
    with torch.device("meta"):
        model = tiny(MODEL__MODEL_NAME=name, MODEL__VIDEO_ARC_CHOICE=2)
        found = []
        model.res5_2.register_forward_hook(lambda _, inputs, output: found.append(output.shape))
        assert model(torch.empty(1, 3, frames, 224, 224)).shape == (1, 6)
    assert found == [(1, 32 * TINY["RESNETS.STEM_OUT_CHANNELS"], left, 7, 7)]


@pytest.mark.parametrize(("name", "size", "message"), [
    ("resnet_video", (1, 224, 224), "at least 2 frames, got 1"),
    ("resnet_video_org", (6, 224, 224), "at least 7 frames, got 6"),
    ("resnet_video", (2, 196, 224), "at least 197 x 197 pixels, got 196 x 224"),
    ("resnet_video", (2, 224, 2), "at least 197 x 197 pixels, got 224 x 2"),
])
def test_clips_too_small_are_told(name, size, message):
    with torch.device("meta"):
        model = tiny(MODEL__MODEL_NAME=name)
        with pytest.raises(UserError, match=message):
            model(torch.empty(1, 3, *size))


def test_the_smallest_clips():
    with torch.device("meta"):
        assert tiny()(torch.empty(1, 3, 2, 197, 197)).shape == (1, 6)


@torch.no_grad()
def test_dropout_is_for_training_alone():
    x = clips(2)
    training = tiny("train", TRAIN__DROPOUT_RATE=0.5).apply(lambda m: m.eval() if isinstance(m, nn.BatchNorm3d) else m)
    torch.manual_seed(0)
    assert not torch.equal(training(x), training(x))
    for split in ("val", "test"):
        model = tiny(split, TRAIN__DROPOUT_RATE=0.5)
        assert torch.equal(model(x), model(x))
    never = tiny("train", TRAIN__DROPOUT_RATE=0.0).apply(lambda m: m.eval() if isinstance(m, nn.BatchNorm3d) else m)
    assert torch.equal(never(x), never(x))


# ------------------------------------------------------------------------------------------------ initialisation


def assert_gaussian(values, std):
    """Mean 0 and this standard deviation, within 6 standard errors."""
    values, n = values.double(), values.numel()
    assert abs(values.mean()) < 6 * std / math.sqrt(n)
    assert abs(values.std() / std - 1) < 6 / math.sqrt(2 * n)


def test_initial_values():
    model = tiny(MODEL__VIDEO_ARC_CHOICE=2, MODEL__BN_INIT_GAMMA=0.25, NONLOCAL__BN_INIT_GAMMA=0.5,
                 NONLOCAL__CONV_INIT_STD=0.03, MODEL__FC_INIT_STD=0.02, MODEL__NUM_CLASSES=50)
    blobs = model_blobs(model)
    checked = 0
    for name, blob in blobs.items():
        if name.endswith(("_bn_rm", "_bn_b", "_b")):
            assert (blob == 0).all(), name
        elif name.endswith("_bn_riv"):
            assert (blob == 1).all(), name
        elif name.endswith("_bn_s"):
            gamma = 0.25 if "branch2c" in name else 0.5 if name.startswith("nonlocal") else 1
            assert (blob == gamma).all(), name
        elif name == "pred_w":
            assert_gaussian(blob, 0.02)
        elif name.startswith("nonlocal"):
            assert_gaussian(blob, 0.03)
        else:
            fan_out = blob.shape[0] * math.prod(blob.shape[2:])
            assert_gaussian(blob, math.sqrt(2 / fan_out))
            checked += 1
    assert checked == 1 + 4 + 3 * 16  # conv1, projections, three a block


def test_the_spread_of_grouped_convolutions():
    model = tiny(RESNETS__NUM_GROUPS=8)
    weight = model.res5_2.branch2b.weight
    assert weight.shape == (256, 32, 1, 3, 3)
    assert_gaussian(weight, math.sqrt(2 / (256 * 9)))


def test_zero_init_of_the_output_convolution():
    blobs = model_blobs(tiny(NONLOCAL__USE_ZERO_INIT_CONV=True))
    outs = [name for name in blobs if name.startswith("nonlocal") and name.endswith("_out_w")]
    assert len(outs) == 5
    assert all((blobs[name] == 0).all() for name in outs)
    assert all((blobs[name.replace("_out_w", "_g_w")] != 0).any() for name in outs)


def test_frozen_layers_start_as_the_identity():
    blobs = model_blobs(tiny(MODEL__USE_AFFINE=True, MODEL__BN_INIT_GAMMA=0.0, NONLOCAL__USE_BN=False))
    scales = [blob for name, blob in blobs.items() if name.endswith("_bn_s")]
    assert len(scales) == 1 + 4 + 3 * 16
    assert all((blob == 1).all() for blob in scales)
    assert all((blob == 0).all() for name, blob in blobs.items() if name.endswith("_bn_b"))


def test_initial_values_follow_from_seed_and_name():
    one, again, other = (model_blobs(tiny(RNG_SEED=seed)) for seed in (1, 1, 2))
    bare = model_blobs(tiny(RNG_SEED=1, NONLOCAL__CONV3_NONLOCAL=False))
    drawn = [name for name in one if name.endswith("_w")]
    for name in drawn:
        assert torch.equal(one[name], again[name])
        assert not torch.equal(one[name], other[name])
        if name in bare:
            assert torch.equal(one[name], bare[name])
    same_shape = one["res3_1_branch2a_w"], one["res3_2_branch2a_w"]
    assert same_shape[0].shape == same_shape[1].shape
    assert not torch.equal(*same_shape)


# -------------------------------------------------------------------------------------------- the non-local block


def drawn_block(**options):
    torch.manual_seed(3)
    return NonLocalBlock(8, 4, **options).double().requires_grad_(False)


def transcription(block, x, use_maxpool, affinity, use_scale):
    """Paper equations 1 to 6 for one clip C x T x H x W, position by position."""
    def project(convolution, positions):
        weight = convolution.weight[:, :, 0, 0, 0].numpy()
        bias = 0 if convolution.bias is None else convolution.bias.numpy()
        return positions @ weight.T + bias

    c, t, h, w = x.shape
    x = x.numpy()
    pooled = x
    if use_maxpool:
        pooled = x[:, :, :h // 2 * 2, :w // 2 * 2].reshape(c, t, h // 2, 2, w // 2, 2).max((3, 5))
    theta, phi = x.reshape(c, -1).T, pooled.reshape(c, -1).T
    g = project(block.g, phi)
    if affinity != "gaussian":
        theta, phi = project(block.theta, theta), project(block.phi, phi)
    if affinity == "concatenation":
        weight = block.f.weight.numpy().ravel()
        f = np.array([[max(weight @ np.concatenate([a, b]), 0) for b in phi] for a in theta]) / len(phi)
    elif affinity == "dot_product":
        f = theta @ phi.T / len(phi)
    else:
        f = np.exp(theta @ phi.T * (theta.shape[1] ** -0.5 if use_scale else 1))
        f /= f.sum(1, keepdims=True)
    return x + project(block.out, f @ g).T.reshape(x.shape)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("use_maxpool", [True, False])
@pytest.mark.parametrize(("affinity", "use_scale"), [
    ("embedded_gaussian", True), ("embedded_gaussian", False), ("gaussian", True), ("gaussian", False),
    ("dot_product", True), ("concatenation", True),
])
def test_block_against_the_papers_equations(use_maxpool, affinity, use_scale, bias):
    block = drawn_block(use_maxpool=use_maxpool, affinity=affinity, use_scale=use_scale, bias=bias)
    x = 3 * torch.randn(2, 8, 3, 5, 6, dtype=torch.float64)
    expected = [transcription(block, clip, use_maxpool, affinity, use_scale) for clip in x]
    np.testing.assert_allclose(block(x).numpy(), expected, rtol=1e-10, atol=1e-12)
    # In float32 too.
    largest = np.abs(expected).max()
    np.testing.assert_allclose(block.float()(x.float()).numpy(), expected, rtol=0, atol=1e-6 * largest)


@pytest.mark.parametrize("affinity", AFFINITIES)
def test_the_grouped_form_is_the_block_on_every_group(affinity):
    grouped, plain = drawn_block(grouped=True, affinity=affinity), drawn_block(affinity=affinity)
    x = torch.randn(2, 8, 12, 4, 6, dtype=torch.float64)
    expected = torch.cat([plain(x[:, :, start:start + 4]) for start in (0, 4, 8)], 2)
    torch.testing.assert_close(grouped(x), expected)
    assert (grouped(x) - plain(x)).abs().max() > 1e-4


@pytest.mark.parametrize("affinity", AFFINITIES)
def test_blocks_that_reach_over_space_or_time_alone(affinity):
    x = torch.randn(2, 8, 3, 4, 6, dtype=torch.float64)
    plain = drawn_block(affinity=affinity)
    expected = torch.cat([plain(x[:, :, t:t + 1]) for t in range(3)], 2)
    torch.testing.assert_close(drawn_block(affinity=affinity, reach="space")(x), expected)
    plain = drawn_block(affinity=affinity, use_maxpool=False)
    rows = [torch.cat([plain(x[:, :, :, h:h + 1, w:w + 1]) for w in range(6)], 4) for h in range(4)]
    torch.testing.assert_close(drawn_block(affinity=affinity, reach="time")(x), torch.cat(rows, 3))


def test_the_papers_numbers_and_stages_of_blocks():
    def places(**options):
        with torch.device("meta"):
            return [name for name in tiny(**options).trunk if name.startswith("nonlocal")]

    # Table 2b and c: right before the last block of a stage; after every block of res3 and res4.
    assert places(NONLOCAL__AFTER="['res4_4']") == ["nonlocal_conv4_4"]
    assert places(NONLOCAL__AFTER="['res5_1','res2_1']") == ["nonlocal_conv2_1", "nonlocal_conv5_1"]
    assert len(places(NONLOCAL__LAYER_MOD=1)) == 10


@torch.inference_mode()
@pytest.mark.parametrize("options", [
    {"NONLOCAL__AFFINITY": "gaussian"}, {"NONLOCAL__AFFINITY": "concatenation"}, {"NONLOCAL__REACH": "time"},
    {"NONLOCAL__REACH": "space", "NONLOCAL__AFTER": "['res2_1','res5_1']"},
])
def test_other_blocks_in_a_network_add_blobs_and_change_none(options):
    model, usual = tiny("test", **options), model_blobs(tiny())
    blobs = model_blobs(model)
    kept = [name for name in usual if not name.startswith("nonlocal")]
    assert all(torch.equal(blobs[name], usual[name]) for name in kept)
    assert {name for name in blobs if not name.startswith("nonlocal")} == set(kept)
    assert ("nonlocal_conv3_1_f_w" in blobs) == (options.get("NONLOCAL__AFFINITY") == "concatenation")
    recipe.fill(model, 1, {"^nonlocal.*_w": 0.3})
    x = clips(4)
    assert model(x).sum() == pytest.approx(1, abs=1e-5)
    torch.testing.assert_close(for_inference(model)(x), model(x), rtol=0, atol=1e-5)
    operations, _ = count_operations(model, (3, 4, 224, 224))
    assert operations > count_operations(tiny(NONLOCAL__CONV3_NONLOCAL=False, NONLOCAL__CONV4_NONLOCAL=False),
                                         (3, 4, 224, 224))[0]


def test_groups_need_a_multiple_of_four_frames():
    with pytest.raises(UserError, match="a multiple of 4 frames, got 6"):
        drawn_block(grouped=True)(torch.zeros(1, 8, 6, 2, 2, dtype=torch.float64))


def test_only_res3_of_a_frozen_network_is_grouped():
    def grouped(**options):
        return {name for name, module in tiny(**options).named_modules() if getattr(module, "grouped", False)}

    assert grouped(MODEL__USE_AFFINE=True, NONLOCAL__USE_BN=False) == {"nonlocal_conv3_1", "nonlocal_conv3_3"}
    assert grouped() == set()


@pytest.mark.parametrize(("options", "kinds"), [
    ({}, {"_w", "_b", "_bn_s", "_bn_b", "_bn_rm", "_bn_riv"}),
    ({"NONLOCAL__NO_BIAS": 1}, {"_w", "_bn_s", "_bn_b", "_bn_rm", "_bn_riv"}),
    ({"NONLOCAL__USE_BN": False}, {"_w", "_b"}),
    ({"NONLOCAL__USE_BN": False, "NONLOCAL__USE_AFFINE": True}, {"_w", "_b", "_bn_s", "_bn_b"}),
])
def test_blobs_of_a_block(options, kinds):
    prefix = "nonlocal_conv3_1_"
    names = {name.removeprefix(prefix) for name in model_blobs(tiny(**options)) if name.startswith(prefix)}
    convolutions = {f"{layer}{kind}" for layer in ("theta", "phi", "g", "out") for kind in kinds & {"_w", "_b"}}
    assert names == convolutions | {kind[1:] for kind in kinds if kind.startswith("_bn")}


@pytest.mark.parametrize(("depth", "options", "expected"), [
    (50, {}, {3: {1, 3}, 4: {1, 3, 5}}),
    (50, {"NONLOCAL__LAYER_MOD": 3}, {3: {2}, 4: {2, 5}}),
    (50, {"NONLOCAL__CONV3_NONLOCAL": False}, {4: {1, 3, 5}}),
    (50, {"NONLOCAL__CONV4_NONLOCAL": False}, {3: {1, 3}}),
    (101, {}, {3: {1, 3}, 4: {6, 13, 20}}),
])
def test_places_of_the_blocks(depth, options, expected):
    after = {f"res{stage}_{i}" for stage, places in expected.items() for i in places}
    assert nonlocal_places(tiny_cfg(**options).NONLOCAL, depth) == after
    with torch.device("meta"):
        model = tiny(MODEL__DEPTH=depth, MODEL__VIDEO_ARC_CHOICE=1 if depth == 50 else 3, **options)
    names = {name for name in model.trunk if name.startswith("nonlocal")}
    assert names == {f"nonlocal_conv{stage}_{i}" for stage, places in expected.items() for i in places}


@pytest.mark.parametrize(("options", "lines"), [
    ({"MODEL__VIDEO_ARC_CHOICE": 2}, [
        "resnet_video_test", "--------------- ResNet-50 1x4d-bottleneck_transformation_3d, mine ---------------",
        "[[2], [1, 1, 1], [1, 0, 1, 0], [1, 0, 1, 0, 1, 0], [0, 1, 0]]",
        "[[1], [1, 1, 1], [1, 1, 1, 1], [1, 1, 1, 1, 1, 1], [1, 1, 1]]"]),
    ({"MODEL__VIDEO_ARC_CHOICE": 1, "MODEL__MODEL_NAME": "resnet_video_org", "RESNETS__NUM_GROUPS": 2}, [
        "resnet_video_org_test", "--------------- ResNet-50 2x4d-bottleneck_transformation_3d, mine ---------------",
        "[[0], [0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0, 0, 0], [0, 0, 0]]",
        "[[2], [1, 1, 1], [1, 1, 1, 1], [1, 1, 1, 1, 1, 1], [1, 1, 1]]"]),
])
def test_the_banner_of_depth_and_arcs(options, lines, caplog):
    cfg = tiny_cfg(DATASET="mine", RESNETS__TRANS_FUNC="bottleneck_transformation_3d", **options)
    model = create_model(cfg, "test")
    with caplog.at_level(logging.INFO):
        log_architecture(model, cfg, "test")
    assert caplog.messages == lines


def test_batch_norm_options_reach_their_layers():
    model = tiny(MODEL__BN_EPSILON=1e-3, MODEL__BN_MOMENTUM=0.75, NONLOCAL__BN_EPSILON=1e-2, NONLOCAL__BN_MOMENTUM=0.5)
    # Caffe2's momentum is the share of the old value, PyTorch's that of the new one.
    assert (model.res_conv1_bn.eps, model.res_conv1_bn.momentum) == (1e-3, 0.25)
    assert (model.res5_2.branch2c_bn.eps, model.res5_2.branch2c_bn.momentum) == (1e-3, 0.25)
    assert (model.nonlocal_conv4_5.bn.eps, model.nonlocal_conv4_5.bn.momentum) == (1e-2, 0.5)


# ------------------------------------------------------------------------------------------- frozen affine layers


def test_frozen_affine():
    layer = FrozenAffine(2)
    layer.weight.copy_(torch.tensor([2.0, 3.0]))
    layer.bias.copy_(torch.tensor([-1.0, 0.5]))
    x = torch.randn(2, 2, 3, 4, 5, requires_grad=True)
    y = layer(x)
    torch.testing.assert_close(y, torch.stack([x[:, 0] * 2 - 1, x[:, 1] * 3 + 0.5], 1))
    y.sum().backward()
    assert (x.grad[:, 0] == 2).all() and (x.grad[:, 1] == 3).all()
    assert list(layer.parameters()) == []


def test_frozen_affine_layers_stay_in_bfloat16_and_keep_nothing_of_their_input():
    layer = FrozenAffine(3)
    # Factors between the numbers of bfloat16, with which float32 computes exactly, in whatever order.
    layer.weight.copy_(torch.tensor([1 + 3 / 256, -2 - 5 / 256, 0.5]))
    layer.bias.copy_(torch.tensor([1 + 1 / 1024, -1 / 1024, -0.25]))
    x, towards = (torch.randint(-100, 100, (2, 3, 4, 5, 6)).div(16).bfloat16() for _ in range(2))
    x.requires_grad_()
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t), \
            torch.autocast("cpu", torch.bfloat16):
        y = layer(x)
    y.backward(towards)
    weight, bias = layer.weight.view(3, 1, 1, 1), layer.bias.view(3, 1, 1, 1)
    assert torch.equal(y, (x.float() * weight + bias).bfloat16())
    assert torch.equal(x.grad, (towards.float() * weight).bfloat16())
    assert all(tensor.numel() == 3 for tensor in kept)


def test_a_frozen_network_trains_everything_but_its_affine_layers():
    model = tiny("train", MODEL__USE_AFFINE=True, NONLOCAL__USE_BN=False, NONLOCAL__USE_AFFINE=True)
    # Eight frames: four are left in res3, where groups of four attend.
    F.cross_entropy(model(clips(8)), torch.tensor([1])).backward()
    trained = dict(model.named_parameters())
    assert not [name for name in trained if "bn" in name]
    assert all(parameter.grad is not None for parameter in trained.values())
    blobs = set(model_blobs(model))
    assert blobs >= {"res_conv1_bn_s", "nonlocal_conv3_1_bn_s"}
    assert not [name for name in blobs if name.endswith(("_rm", "_riv"))]


# -------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(("options", "message"), [
    ({"MODEL__MODEL_NAME": "resnet"}, "MODEL.MODEL_NAME: expected one of resnet_video, resnet_video_org, got 'resnet'"),
    ({"RESNETS__TRANS_FUNC": "basic"}, "RESNETS.TRANS_FUNC: expected one of .*, got 'basic'"),
    ({"MODEL__VIDEO_ARC_CHOICE": 3}, "VIDEO_ARC_CHOICE 3 does not go with MODEL.DEPTH 50: .*3 with DEPTH 101"),
    ({"MODEL__DEPTH": 101}, "VIDEO_ARC_CHOICE 1 does not go with MODEL.DEPTH 101: .*1 with DEPTH 50"),
    ({"MODEL__VIDEO_ARC_CHOICE": 5}, "VIDEO_ARC_CHOICE 5 does not go with"),
    ({"MODEL__NUM_CLASSES": -1}, "MODEL.NUM_CLASSES: expected a positive number, got -1"),
    ({"NONLOCAL__AFFINITY": "cosine"}, "NONLOCAL.AFFINITY: expected one of gaussian, .*, got 'cosine'"),
    ({"NONLOCAL__REACH": "width"}, "NONLOCAL.REACH: expected one of spacetime, space, time, got 'width'"),
    ({"NONLOCAL__AFTER": "['res4_6']"}, "NONLOCAL.AFTER: expected .*res2_0 to res5_2, got 'res4_6'"),
    ({"NONLOCAL__USE_AFFINE": True}, "NONLOCAL.USE_BN and NONLOCAL.USE_AFFINE"),
])
def test_options_that_make_no_network(options, message):
    with pytest.raises(UserError, match=message) as error:
        tiny(**options)
    assert "\n" not in str(error.value)


def test_unknown_split():
    with pytest.raises(UserError, match="expected 'train', 'val' or 'test', got 'vla'"):
        tiny("vla")


def test_both_names_of_the_bottleneck_mean_the_same():
    names = ("bottleneck_transformation", "bottleneck_transformation_3d")
    one, other = (model_blobs(tiny(RESNETS__TRANS_FUNC=name)) for name in names)
    assert all(torch.equal(one[name], other[name]) for name in one | other)
