"""A new affinity, learning-rate policy or option is one entry in one file: shown by throw-away ones."""

import json
import re

import h5py
import numpy as np
import pytest
import tiny_job
import torch
from torch.nn import functional as F

import extract_features
import train_net_video
import visualize_attention
from core import defaults
from core.config import load_config
from core.option import Option
from models.affinities import AFFINITIES, DotProduct
from utils.lr_policy import POLICIES


class Rectified(DotProduct):
    """f = ReLU(theta(x_i)^T phi(x_j)), C = the number of positions attended to."""

    def attend(self, block, theta, phi, g):
        return F.relu(theta @ phi.transpose(1, 2)) @ g / phi.shape[1]

    def matrix(self, block, theta, phi, attended):
        return F.relu(super().matrix(block, theta, phi, attended))


@pytest.fixture
def throw_away(monkeypatch):
    """Registers one of each."""
    monkeypatch.setitem(AFFINITIES, "rectified", Rectified)
    monkeypatch.setitem(defaults.OPTIONS["SOLVER"], "HALVING", Option(2, "Iterations to half the rate.", low=1))
    monkeypatch.setitem(POLICIES, "halving", lambda it, solver: solver.BASE_LR * 0.5 ** (it // solver.HALVING))


@pytest.fixture
def words(throw_away, repo, data, tmp_path):
    """The words of a tool's command line for the tiny job with the throw-away parts."""
    def of(tool, **options):
        chosen = {"NONLOCAL__AFFINITY": "rectified", "NONLOCAL__AFTER": "['res4_5']", "SOLVER__LR_POLICY": "halving",
                  "SOLVER__HALVING": 2, "NUM_GPUS": 1, "TRAIN__COMPUTE_PRECISE_BN": False, "TRAIN__BATCH_SIZE": 1,
                  "SOLVER__MAX_ITER": 3} | options
        return tiny_job.command(repo, data, tmp_path, tool, **chosen)[1:]

    return of


def test_training_attention_and_features_use_them(words, call_tool, data, tmp_path):
    status, output, errors = call_tool(train_net_video, *words("train_net_video", TRAIN__EVAL_PERIOD=100))
    assert (status, errors) == (0, "")
    rates = re.findall(r"^\| Train .* LR: (\S+) ", output, re.MULTILINE)
    base = load_config(words("")[1], words("")[2:]).SOLVER.BASE_LR
    assert [float(rate) for rate in rates] == pytest.approx([base, base, base / 2], abs=1e-8)

    weights = {"TEST__PARAMS_FILE": tmp_path / "checkpoints/c2_model_iter3.pkl", "TRAIN__VIDEO_LENGTH": 4}
    video = ["--video", str(data / "v7.mp4")]
    options = words("", TEST__TEST_FULLY_CONV=True, TEST__NUM_TEST_CLIPS=3, **weights)
    status, output, errors = call_tool(visualize_attention, *video, "--output", tmp_path / "attention", *options)
    assert (status, errors) == (0, "") and "nonlocal_conv4_5" in output
    assert {path.suffix for path in (tmp_path / "attention").iterdir()} == {".png", ".mp4"}

    features = tmp_path / "features.h5"
    blobs = ["--blob", "nonlocal_conv4_5_theta", "--blob", "pool5", "--output", features]
    status, _, errors = call_tool(extract_features, *video, *blobs, *options)
    assert (status, errors) == (0, "")
    with h5py.File(features) as file:
        assert json.loads(file.attrs["shapes"]).keys() == {"nonlocal_conv4_5_theta", "pool5"}
        assert np.abs(file["nonlocal_conv4_5_theta"][:]).max() > 0


def test_the_attention_matrix_is_that_of_the_forward_pass():
    theta, phi, g = torch.randn(3, 2, 10, 4).unbind()
    affinity, attended = Rectified(8, 4), torch.ones(10, 10, dtype=torch.bool)
    matrix = affinity.matrix(None, theta, phi, attended)
    torch.testing.assert_close(matrix @ g, affinity.attend(None, theta, phi, g))
    assert (matrix >= 0).all() and (matrix == 0).any()


def test_bounds_hold_for_the_option(words, call_tool):
    status, _, errors = call_tool(train_net_video, *words("", SOLVER__HALVING=0))
    assert status == 1 and errors == "error: SOLVER.HALVING: expected an integer >= 1, got 0\n"


def test_nothing_is_left_of_them():
    assert "rectified" not in AFFINITIES and "halving" not in POLICIES
    assert "HALVING" not in defaults.OPTIONS["SOLVER"]
