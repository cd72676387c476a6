"""Runs the commands of the fine-tuning walk-through in DATASET.md, in order, in a copy of the repository."""

import os
import re
import shutil
import subprocess

import numpy as np
import pytest
import reference_recipe as recipe
from page_commands import section_commands
from video_files import moving_square, write_video

from core.config import load_config
from formats.blobs import load_blobs, model_blobs
from formats.caffe2_pickle import dump
from models.model_builder_video import create_model

CLASSES = {"jumping": 2, "my waving": 3}

# Appended to the commands that train or predict: a small network, short clips, few iterations.
TINY = {
    "MODEL.VIDEO_ARC_CHOICE": 1, "RESNETS.WIDTH_PER_GROUP": 2, "RESNETS.STEM_OUT_CHANNELS": 8, "NONLOCAL.LAYER_MOD": 4,
    "NONLOCAL.CONV4_NONLOCAL": False, "TRAIN.VIDEO_LENGTH": 8, "TRAIN.SAMPLE_RATE": 1, "TRAIN.CROP_SIZE": 200,
    "TRAIN.JITTER_SCALES": "[200,200]", "TEST.SCALE": 200, "TEST.NUM_TEST_CLIPS": 3, "TRAIN.BATCH_SIZE": 2,
    "TEST.BATCH_SIZE": 2, "TRAIN.ITER_COMPUTE_PRECISE_BN": 1, "SOLVER.MAX_ITER": 2, "SOLVER.STEP_SIZES": "[1,1]",
    "LOG_PERIOD": 1,
}  # fmt: skip
TINY_WORDS = " ".join(str(word) for pair in TINY.items() for word in pair)


@pytest.fixture(scope="module")
def commands(repo):
    """The commands of the walk-through as strings, in order."""
    return section_commands(repo, "DATASET.md", "Fine-tuning on your own videos")


@pytest.fixture
def checkout(repo, tmp_path):
    """A fresh copy of what the commands need; next to it, videos of two classes and initial weights."""
    for folder in ("configs", "lib", "process_data", "scripts", "tools"):
        shutil.copytree(repo / folder, tmp_path / "checkout" / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for number, (name, count) in enumerate(CLASSES.items()):
        (tmp_path / "videos" / name).mkdir(parents=True)
        for i in range(count):
            write_video(tmp_path / f"videos/{name}/{i}.mp4", moving_square(12, 64, 80, seed=10 * number + i))
    words = [*TINY_WORDS.split(), "MODEL.NUM_CLASSES", "9"]
    network = create_model(load_config(repo / "configs/finetune.yaml", words), "train")
    recipe.fill(network, seed=1)
    blobs = {name: tensor.numpy() for name, tensor in model_blobs(network).items()}
    dump({"blobs": blobs | {"lr": np.array(1e-5, np.float32), "model_iter": 400000}}, tmp_path / "model.pkl")
    return tmp_path / "checkout"


def adapted(command, folder):
    """A command, adapted to this test's videos, model and small network."""
    name = command.partition("=")[0]
    if name in ("videos", "model"):
        return f"{name}={folder / {'videos': 'videos', 'model': 'model.pkl'}[name]}"
    if command.startswith(("bash scripts/run_", "python tools/predict_video.py")):
        return f"{command} {TINY_WORDS}"
    return command


def test_every_command_works_in_order(commands, checkout, tmp_path, python):
    done = [command for command in commands if "setup_env.sh" not in command and "activate" not in command]
    assert len(commands) - len(done) == 2
    program = "\n".join(["set -eu", *(adapted(command, tmp_path) for command in done)])
    # The walk-through's `python` is that of the activated environment.
    environment = {"PATH": f"{python.parent}:{os.environ['PATH']}", "PYTHON": str(python)}
    run = subprocess.run(["bash", "-c", program], cwd=checkout, capture_output=True, text=True, timeout=300,
                         env=os.environ | environment)
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr

    data, runs = checkout / "data/mine", checkout / "data/checkpoints"
    listed = [(data / name).read_text().splitlines() for name in ("train.txt", "val.txt", "test.txt")]
    assert sorted(listed[0] + listed[1]) == sorted(
        f"{tmp_path}/videos/{name.replace(' ', '_')}/{i}.mp4 {label}"
        for label, (name, count) in enumerate(CLASSES.items()) for i in range(count)
    )
    assert len(listed[1]) == 2 and listed[1] == listed[2]
    for name in ("run_finetune", "run_finetune_32f"):
        log = (runs / name / "log.txt").read_text()
        assert "| Train ETA" in log and re.search("top-1 accuracy: .* percent", log)
        assert load_blobs(runs / name / "checkpoints/c2_model_iter2.pkl")["pred_w"].shape == (2, 256)
    long = load_blobs(runs / "run_finetune_32f/checkpoints/c2_model_iter2.pkl")
    assert not any(blob.endswith(("_rm", "_riv")) for blob in long)
    # The frozen layers are the first run's batch norms; all other layers were trained further.
    converted = load_blobs(checkout / "data/pretrained_model/finetune_affine.pkl")
    assert np.array_equal(long["nonlocal_conv3_3_bn_s"], converted["nonlocal_conv3_3_bn_s"])
    assert not np.array_equal(long["conv1_w"], converted["conv1_w"])
    assert (runs / "run_finetune/confusion.png").exists()
    assert "waving" in run.stdout.split("Temporary file saved to")[1]  # a prediction
