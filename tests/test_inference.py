"""Networks transformed for prediction: the same results, faster."""

import logging

import pytest
import reference_recipe as recipe
import torch
from test_models import clips, tiny, tiny_cfg
from torch import nn

from models.compilation import Compiled, is_worth_compiling
from models.convolution import Conv3d
from models.inference import fold_norms, for_inference
from models.model_builder_video import load_model
from utils.checkpoints import save_checkpoint
from utils.errors import UserError


def filled(split="test", **options):
    """A narrow network whose blobs all matter, in inference mode."""
    model = tiny(split, **options)
    recipe.fill(model, 1)
    return model


VARIANTS = [
    {"MODEL__VIDEO_ARC_CHOICE": 1},
    {"MODEL__VIDEO_ARC_CHOICE": 2},
    {"MODEL__VIDEO_ARC_CHOICE": 1, "MODEL__MODEL_NAME": "resnet_video_org"},
    {"MODEL__VIDEO_ARC_CHOICE": 2, "MODEL__MODEL_NAME": "resnet_video_org", "RESNETS__NUM_GROUPS": 2},
    {"MODEL__USE_AFFINE": True, "NONLOCAL__USE_BN": False},
    {"MODEL__VIDEO_ARC_CHOICE": 2, "NONLOCAL__USE_SOFTMAX": False, "NONLOCAL__NO_BIAS": 1},
]


@pytest.mark.parametrize("options", VARIANTS)
@torch.inference_mode()
def test_the_transformed_network_predicts_the_same(options):
    model = tiny("test", **options)
    # Smaller weights where no batch norm holds the values together.
    recipe.fill(model, 1, {"^nonlocal.*_w": 0.3, "branch2c_bn_s": 0.5})
    x = clips(8, 224, 256, n=2)
    expected = model(x)
    assert expected.std(0).max() > 3e-4  # clips that the network tells apart, by far more than the bar
    torch.testing.assert_close(for_inference(model)(x), expected, rtol=0, atol=1e-5)


@torch.inference_mode()
def test_the_network_itself_stays_as_it_is():
    model = filled("train", MODEL__VIDEO_ARC_CHOICE=2)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    network = for_inference(model)
    assert model.training and not network.training
    assert not any(isinstance(module, nn.BatchNorm3d) for module in network.modules())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    x = clips(4)
    torch.testing.assert_close(network(x), model.eval()(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("kernel", "stride", "padding"), [
    ((1, 3, 3), (1, 2, 2), (0, 1, 1)), ((1, 7, 7), (2, 2, 2), (0, 3, 3)), ((3, 1, 1), (1, 1, 1), (1, 0, 0)),
    ((3, 1, 1), (2, 1, 1), (1, 0, 0)), ((1, 1, 1), (1, 2, 2), (0, 0, 0)), ((5, 7, 7), (2, 2, 2), (2, 3, 3)),
    ((3, 1, 1), (1, 2, 2), (1, 0, 0)),
])
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last_3d])
@torch.inference_mode()
def test_flat_convolutions(kernel, stride, padding, groups, layout):
    convolution = Conv3d(4, 6, kernel, stride, padding, groups=groups).double()
    x = torch.randn(2, 4, 6, 10, 9, dtype=torch.float64).contiguous(memory_format=layout)
    plain = nn.Conv3d.forward(convolution, x)
    torch.testing.assert_close(convolution(x), plain, rtol=1e-10, atol=1e-12)


@torch.inference_mode()
def test_folding_in_float64_is_exact():
    model = filled().double()
    x = clips(4).double()
    expected = model(x)
    fold_norms(model)
    torch.testing.assert_close(model(x), expected, rtol=1e-9, atol=1e-12)


@torch.inference_mode()
def test_bfloat16_stays_near_and_its_classifier_is_float32():
    model = filled(MODEL__VIDEO_ARC_CHOICE=2)
    x = clips(2, n=2)
    expected = model(x)
    network = for_inference(model, "bfloat16")
    assert network.conv1.weight.dtype == torch.bfloat16 and network.pred.weight.dtype == torch.float32
    found = network(x)
    assert found.dtype == torch.float32
    error = (found - expected).abs().max()
    # 8 bits of mantissa: seen far from float32's rounding, near enough to keep the classes.
    assert 1e-6 < error < 0.05
    assert torch.equal(found.argmax(1), expected.argmax(1))


def test_loading(tmp_path):
    model = filled(MODEL__VIDEO_ARC_CHOICE=2)
    history = {name: torch.zeros(1) for name in recipe.model_blobs(model)}
    save_checkpoint(tmp_path / "w.pkl", model, history, 0.1, 1)
    cfg = tiny_cfg(MODEL__VIDEO_ARC_CHOICE=2, MODEL__PRECISION="float32")
    network = load_model(cfg, tmp_path / "w.pkl", torch.device("cpu"), (3, 4, 224, 224))
    with torch.inference_mode():
        torch.testing.assert_close(network(clips(4)), model(clips(4)), rtol=0, atol=1e-5)
        with pytest.raises(UserError, match="at least 2 frames"):
            network(clips(1))


def test_only_long_runs_are_compiled():
    cpu = torch.device("cpu")
    assert not is_worth_compiling("auto", lambda: 1e12, cpu)
    assert is_worth_compiling("auto", lambda: 1e15, cpu)
    assert is_worth_compiling("always", None, cpu) and not is_worth_compiling("never", None, cpu)


class Small(nn.Module):
    """Enough of a network to compile in a second."""

    def forward(self, x):
        if x.shape[0] > 4:
            raise UserError("too many clips")
        return torch.relu(x * 2)


def test_without_a_compiler_the_network_runs_as_it_is(no_compiler, caplog):
    x = torch.randn(3, 5)
    with caplog.at_level(logging.INFO), torch.inference_mode():
        network = Compiled(Small(), constant=True)
        assert torch.equal(network(x), torch.relu(x * 2))
        assert torch.equal(network(x), torch.relu(x * 2))
    assert [record.levelname for record in caplog.records] == ["INFO", "WARNING"]
    assert "cannot be compiled" in caplog.records[-1].message


def test_a_mistake_in_the_input_is_told_by_a_compiled_network_too():
    with torch.inference_mode(), pytest.raises(UserError, match="too many clips"):
        Compiled(Small(), constant=True)(torch.randn(5, 5))
