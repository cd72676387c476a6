"""The parts of the demo are consistent: script, videos and configuration."""

import re
import subprocess

import torch
from test_make_motion_videos import script  # noqa: F401  (fixture)

from core.config import load_config
from models.model_builder_video import create_model


def test_configuration_matches_the_generated_videos(repo, script):  # noqa: F811
    cfg = load_config(repo / "configs/demo.yaml")
    counts = re.search(r"--train (\d+) --val (\d+)", (repo / "scripts/run_demo.sh").read_text())
    classes = len(script.CLASSES)
    assert classes == cfg.MODEL.NUM_CLASSES
    assert [classes * int(n) for n in counts.groups()] == [cfg.TRAIN.DATASET_SIZE, cfg.TEST.DATASET_SIZE]
    assert script.LENGTHS[0] >= cfg.TRAIN.VIDEO_LENGTH * cfg.TRAIN.SAMPLE_RATE  # no clip wraps around


def test_network_has_non_local_blocks_in_both_stages_and_fits_the_test_crop(repo):
    cfg = load_config(repo / "configs/demo.yaml")
    model = create_model(cfg, "test")
    stages = {name.split(".")[0][:14] for name, _ in model.named_parameters() if name.startswith("nonlocal")}
    assert stages == {"nonlocal_conv3", "nonlocal_conv4"}
    crop = cfg.TRAIN.JITTER_SCALES[0]
    positions = []
    model.pred.register_forward_hook(lambda module, args, output: positions.append(output.shape))
    with torch.inference_mode():
        scores = model(torch.zeros(1, 3, cfg.TRAIN.VIDEO_LENGTH, crop, crop))
    assert scores.shape == (1, 4) and torch.allclose(scores.sum(), torch.tensor(1.0))
    assert positions == [(1, 4, 4)]  # 2 x 2 positions, as with a crop of 256


def test_script_is_valid_shell(repo):
    subprocess.run(["bash", "-n", repo / "scripts/run_demo.sh"], check=True)
