"""Every tool with every affinity, and with every attention span. test_affinities has their combinations."""

import itertools
import json

import h5py
import numpy as np
import pytest
import tiny_job

import export_model
import extract_features
import predict_video
import test_net_video
import train_net_video
import visualize_attention
from formats.caffe2_pickle import load
from models.affinities import AFFINITIES
from models.attention_spans import SPANS

BLOCK = "nonlocal_conv4_5"


@pytest.mark.parametrize(("affinity", "reach"), list(zip(AFFINITIES, itertools.cycle(SPANS), strict=False)))
def test_every_tool(affinity, reach, repo, data, tmp_path, call_tool):
    options = tiny_job.command(
        repo, data, tmp_path, NONLOCAL__AFFINITY=affinity, NONLOCAL__REACH=reach, NONLOCAL__AFTER="['res4_5']",
        NUM_GPUS=1, TRAIN__VIDEO_LENGTH=4, TRAIN__COMPUTE_PRECISE_BN=False, TRAIN__BATCH_SIZE=1, SOLVER__MAX_ITER=1,
        TEST__DATASET_SIZE=4, TEST__NUM_TEST_CLIPS=3, TEST__TEST_FULLY_CONV=True,
        TEST__PARAMS_FILE=tmp_path / "checkpoints/c2_model_iter1.pkl")[1:]
    video = ["--video", data / "v7.mp4"]

    def run(tool, *words):
        status, output, errors = call_tool(tool, *words, *options)
        assert not status and errors == ""
        return output

    assert "Iters [1/1]" in run(train_net_video)
    assert "Test protocol: 1 clips" in run(test_net_video)
    assert {video_id for video_id, _ in load(tmp_path / "results_probs.pkl")} == {0, 1, 2}

    (tmp_path / "names.txt").write_text("one\ntwo\nthree\nfour\n")
    run(predict_video, *video, "--views", "1x3", "--classids", tmp_path / "names.txt", "--json", tmp_path / "p.json")
    [found] = json.loads((tmp_path / "p.json").read_text())["videos"]
    assert sum(row["probability"] for row in found["top"]) == pytest.approx(1)

    run(extract_features, *video, "--blob", f"{BLOCK}_g", "--blob", BLOCK, "--output", tmp_path / "features.h5")
    with h5py.File(tmp_path / "features.h5") as file:
        assert np.isfinite(file[BLOCK][:]).all() and np.abs(file[f"{BLOCK}_g"][:]).max() > 0

    assert BLOCK in run(visualize_attention, *video, "--output", tmp_path / "attention", "--number", 1)
    assert {path.suffix for path in (tmp_path / "attention").iterdir()} == {".png", ".mp4"}

    assert "written" in run(export_model, "--format", "state_dict", "--output", tmp_path / "w.pth")
