"""tools/train_net_video.py as users run it: from LMDBs to the report of the final test."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import legacy_run
import numpy as np
import pytest

import test_net_video
import train_net_video
from formats.blobs import load_blobs
from formats.caffe2_pickle import dump, load

LEGACY_LOG = Path(__file__).parent / "data/legacy_log.txt"

# ----------------------------------------------------------------------------------------------- kinds of lines

RECORD = r"(?:\[[A-Z]+: \w+\.py: [ \d]{3}\d\]: |[A-Z]+:[\w.]+:)"  # the prefixes of this program and of the legacy log
PERCENT = r"(?:  \d| \d\d|\d{3})\.\d{3}"  # {:7.3f}
LOSS = r"(?: \d|\d\d)\.\d{4}"  # {:7.4f}
ETA = r"(?:\d+ days?, )?\d+:\d\d:\d\d"
KINDS = {
    "test iterations": RECORD + r"Test iters: \d+",
    "network": RECORD + r"--------------- ResNet-50 1x4d-bottleneck_transformation_3d,  ---------------",
    "layers over time": rf"(?:{RECORD})?\[\[\d\](?:, \[\d(?:, \d)+\]){{4}}\]",
    "start": RECORD + r"------------- Training model\.\.\. -------------",
    "weights of a test": RECORD + r"Initializing from pre-trained file for test\.\.\.",
    "weights file": RECORD + r"Initializing model params from file: \S+",
    "blob": RECORD + r"(\w+) loaded from weights file into: gpu_0/\1 \(\d+,(?: \d+(?:, \d+)*)?\)",
    "flops": RECORD + r"Total conv/fc/matMul FLOPs: \d+\.\d+\(e9\)",
    "params": RECORD + r"Total conv/fc params: \d+\.\d+\(e6\)",
    "train": rf"\| Train ETA: {ETA} LR: \d\.\d{{8}}  Iters \[\d+/\d+\] \[\d+\.\d\dep\]  Time \d+\.\d{{3}}  "
             rf"Loss {LOSS}  top1 {PERCENT} top5 {PERCENT}",
    "test": rf"\| Test: \[\d+/\d+\]  Time \d+\.\d{{3}}  top1 {PERCENT} \({PERCENT}\)  top5 {PERCENT} \({PERCENT}\)  "
            r"current batch \d+  aggregated batch \d+",
    "best": rf"\* Best model: top1: {PERCENT} top5: {PERCENT}",
    "finished": r"\* Finished #iters \[\d+\|\d+\]: top1: \d+\.\d{3} top5: \d+\.\d{3}",
    "json_stats": r"json_stats: \{.*\}",
    "precise BN": RECORD + r"Computing and updating BN stats at iter: \d+",
    "precise BN batch": RECORD + r"Computing BN \[\d+/\d+\]: \d+(?:\.\d+)?(?:e[+-]\d+)?s",
    "precise BN again": RECORD + r"BN of iter \d+ computed\. Update to GPU only\.",
    "rate": RECORD + r"Setting learning rate to \d+\.\d{6} at iteration \d+",
    "scaling": RECORD + r"Scaling update history by \d+\.\d{6} \(new/old lr\)",
    "checkpoint": RECORD + r"Saving model params to weights file \S*/checkpoints/c2_model_iter\d+\.pkl",
    "clips": RECORD + rf"\d+/\d+ iter \(\d+/\d+ videos\): Time: \d+\.\d{{3}} \(ETA: {ETA}\)\. ID: \[\d+(?:, \d+)*\]",
    "empty": RECORD + r"Num of empty videos: \d+",
    "corrupted": RECORD + r"Num of corrupted videos: \d+",
    "max": RECORD + r"Max num of clips in a video: \d+",
    "min": RECORD + r"Min num of clips in a video: \d+",
    "first clip": RECORD + r"Clip1 accuracy: \d+\.\d\d percent \(\d+/\d+\)",
    "clip": RECORD + r"Clip accuracy: \d+\.\d\d percent \(\d+/\d+\)",
    "rule": RECORD + r"-{80}",
    "top-1": RECORD + r"top-1 accuracy: \d+\.\d\d percent",
    "top-5": RECORD + r"top-5 accuracy: \d+\.\d\d percent",
    "end": RECORD + r"10-clip spatial fcn testing finished",
}


def kinds(text):
    """The kinds of all lines that have one, in order; consecutive equal kinds are merged."""
    found = [next((kind for kind, pattern in KINDS.items() if re.fullmatch(pattern, line)), None)
             for line in text.splitlines()]
    found = [kind for kind in found if kind]
    return [kind for kind, before in zip(found, [None, *found], strict=False) if kind != before]


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_line_has_the_same_format_in_both_programs(job, kind):
    for text in (LEGACY_LOG.read_text(), job.output):
        assert any(re.fullmatch(KINDS[kind], line) for line in text.splitlines())


def test_lines_are_in_the_same_order_as_in_the_legacy_log(job):
    def order(text):
        return [kind for kind in kinds(text) if kind != "best"]  # depends on the errors

    assert order(job.output) == order(LEGACY_LOG.read_text())


def test_the_complete_legacy_log_has_every_kind_of_line(shared, job):
    text = (shared / "reference/end_to_end/log.txt").read_text()
    assert set(kinds(text)) == set(KINDS)


def test_all_other_lines_are_log_records(job):
    # The configuration spans several lines.
    text = re.sub(r"\n[ {].*", "", job.output)
    others = [line for line in text.splitlines() if line and not line.startswith(("| ", "* ", "json_stats"))]
    assert [line for line in others if not re.match(r"\[[A-Z]+: \w+\.py: [ \d]{3}\d\]: ", line)] == []


def test_empty_lines_surround_best_model_and_json_stats(job):
    assert len(re.findall(r"\n\n\* Best model: .*\n\n", job.output)) >= 1
    assert len(re.findall(r"\n\njson_stats: .*\n\n", job.output)) == 2


def stats(text):
    return [json.loads(line.removeprefix("json_stats: ")) for line in text.splitlines() if line.startswith("json_st")]


def test_json_stats_has_the_legacy_keys_and_values(job):
    [legacy, _], found = stats(LEGACY_LOG.read_text()), stats(job.output)
    same = ("eval_period", "batchSize", "dataset", "num_classes", "momentum", "weightDecay", "nGPU", "LR",
            "bn_momentum", "current_learning_rate", "currentIter", "epoch")
    assert all(one.keys() == legacy.keys() for one in found)
    assert {name: found[0][name] for name in same} == {name: legacy[name] for name in same}
    assert [(one["currentIter"], one["epoch"], one["current_learning_rate"]) for one in found] == [
        (2, 0.5, float(np.float32(0.01))), (4, 1.5, float(np.float32(0.0001)))]
    assert re.fullmatch(r"\d+ MiB", found[0]["used_gpu_memory"])


def test_training_lines_show_rate_iteration_epoch_and_loss(job):
    lines = [line for line in job.output.splitlines() if line.startswith("| Train")]
    assert [re.search(r"LR: (\S+)  Iters \[(.*?)\] \[(.*?)\]", line).groups() for line in lines] == [
        ("0.01000000", "1/4", "0.50ep"), ("0.01000000", "2/4", "1.00ep"),
        ("0.00100000", "3/4", "1.50ep"), ("0.00010000", "4/4", "2.00ep")]
    losses = [float(re.search(r"Loss +(\S+)", line)[1]) for line in lines]
    assert 1.5 < losses[0] < 4  # ten classes, small random weights: about log 10
    averaged = [one["train_loss"] for one in stats(job.output)]
    assert averaged == pytest.approx([np.mean(losses[:2]), np.mean(losses[2:])], abs=1e-4)


# ------------------------------------------------------------------------------------------------ what it leaves behind


def test_nothing_is_written_to_standard_error(job):
    assert job.errors == ""


def test_bad_and_damaged_videos_are_reported_once_and_tolerated(job):
    training, testing = job.output.split("Setting test crop_size to:")
    for part in (training, testing):
        assert part.count(f"Bad video '{job.data}/gone.mp4': No such file or directory") == 1
        assert part.count(f"Damaged video '{job.data}/damaged.avi': ") == 1


def test_the_log_begins_with_the_configuration_and_the_starting_point(job):
    assert "No checkpoint found; training from scratch..." in job.output
    devices, configuration = job.output.splitlines()[:2]
    assert re.search(r"2 replicas in 1 process on 1 x .*; PyTorch ", devices)
    assert configuration.endswith("Training with config:")
    assert "'NUM_GPUS': 2" in job.output


def test_checkpoints_are_complete_and_differ(job):
    assert sorted(path.name for path in (job.folder / "checkpoints").iterdir()) == [
        "c2_model_iter2.options.json", "c2_model_iter2.pkl", "c2_model_iter4.options.json", "c2_model_iter4.pkl"]
    blobs = load_blobs(job.weights)
    assert (blobs["model_iter"], blobs["lr"]) == (4, np.float32(0.0001))
    values = [value for name, value in blobs.items() if name not in ("model_iter", "lr")]
    assert all(value.dtype == np.float32 and np.isfinite(value).all() for value in values)
    before = load_blobs(job.folder / "checkpoints/c2_model_iter2.pkl")
    # Weights, statistics and momentum change at all depths; inside branches that start at gamma 0, little changes.
    for name in ("conv1_w", "pred_w", "res_conv1_bn_rm", "res5_2_branch2c_bn_riv", "res3_0_branch1_w_momentum"):
        assert not np.array_equal(blobs[name], before[name]), name


def test_a_checkpoint_has_the_same_blobs_as_the_legacy_checkpoint(shared, job, tmp_path, call_tool):
    """For the network of the legacy run, the saved blobs have the names, shapes and types of its checkpoint."""
    legacy = load_blobs(shared / "reference/pickles/c2_model_iter4.pkl")
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    shutil.copy(shared / "reference/pickles/c2_model_iter4.pkl", folder)
    status, output, errors = call_tool(train_net_video, *legacy_run.words(
        job.data, tmp_path, MODEL__VIDEO_ARC_CHOICE=2, RESNETS__STEM_OUT_CHANNELS=64, SOLVER__MAX_ITER=5,
        SOLVER__STEP_SIZES="[9]", TRAIN__COMPUTE_PRECISE_BN=False, TEST__NUM_TEST_CLIPS=3))
    assert (status, errors) == (0, "")
    # It resumes where the legacy program stopped, with its learning rate and momentum, and completes its test.
    assert "not found" not in output
    assert "Iters [5/5]" in output
    assert "Setting learning rate to 0.010000 at iteration 4" in output
    assert "Scaling update history by 100.00" in output
    assert "top-1 accuracy" in output
    found = load_blobs(folder / "c2_model_iter5.pkl")
    assert found.keys() == legacy.keys()
    for name, value in legacy.items():
        assert type(found[name]) is type(value)
        assert (np.shape(found[name]), np.asarray(found[name]).dtype) == (np.shape(value), np.asarray(value).dtype)


def test_saved_scores_are_in_record_order_and_match_the_report(job):
    results = load(job.folder / "results_probs.pkl")
    # 90 records in bytewise order of their keys, without those of video 1, which is missing.
    videos = [int(key) // 30 for key in sorted(map(str, range(90)))]
    assert [video for video, _ in results] == [video for video in videos if video != 1]
    scores = np.array([vector for _, vector in results])
    np.testing.assert_allclose(scores.sum(1), 1, rtol=1e-5)
    correct = scores.argmax(1) == [video for video, _ in results]
    sums = [sum(np.array(vector) for video, vector in results if video == wanted) for wanted in (0, 2)]
    top1 = sum(int(total.argmax() == wanted) for total, wanted in zip(sums, (0, 2), strict=True))
    assert f"Clip accuracy: {100 * correct.mean():.2f} percent ({correct.sum()}/60)" in job.output
    assert f"top-1 accuracy: {100 * top1 / 3:.2f} percent" in job.output
    for line in ("Id: 1 count: 0", "Num of empty videos: 1", "Num of corrupted videos: 1",
                 "Max num of clips in a video: 30", "Min num of clips in a video: 0"):
        assert f"]: {line}\n" in job.output


# ------------------------------------------------------------------------------------------------------ resuming


def test_the_newest_checkpoint_is_tested_when_nothing_is_left_to_train(job, tmp_path, call_tool):
    shutil.copytree(job.folder / "checkpoints", tmp_path / "checkpoints")
    status, output, errors = call_tool(train_net_video, *legacy_run.words(
        job.data, tmp_path, SOLVER__MAX_ITER=3, TEST__NUM_TEST_CLIPS=3))
    assert (status, errors) == (0, "")
    assert "| Train" not in output and "Nothing to train: 4 iterations are done, SOLVER.MAX_ITER is 3" in output
    assert f"'PARAMS_FILE': '{tmp_path}/checkpoints/c2_model_iter4.pkl'" in output
    assert len(load(tmp_path / "results_probs.pkl")) == 6
    assert len(list((tmp_path / "checkpoints").glob("*.pkl"))) == 2


def test_a_nan_loss_ends_the_run(job, tmp_path, call_tool):
    contents = load(job.weights)
    contents["blobs"]["pred_w"] = np.sign(contents["blobs"]["pred_w"]) * np.float32(3e38)  # the scores are not finite
    checkpoint = tmp_path / "checkpoints/c2_model_iter4.pkl"
    checkpoint.parent.mkdir()
    dump(contents, checkpoint)
    before = checkpoint.read_bytes()
    status, output, errors = call_tool(train_net_video, *legacy_run.words(
        job.data, tmp_path, SOLVER__MAX_ITER=6, SOLVER__STEP_SIZES="[9]", CHECKPOINT__CHECKPOINT_PERIOD=1))
    assert status == 1
    assert re.search(r"^(\[ERROR: .*\]: )?ERROR: NaN losses on gpu_0$", output, re.MULTILINE)
    assert re.fullmatch("error: .* iteration 5.*\n", errors)
    assert list(checkpoint.parent.iterdir()) == [checkpoint]
    assert checkpoint.read_bytes() == before


def test_fine_tuning_starts_from_the_output_of_modify_blob_rm(job, tmp_path, call_tool, python):
    converted = legacy_run.run_python(
        "process_data/convert_models/modify_blob_rm.py", job.weights, tmp_path / "ft.pkl", python=python)
    assert converted.returncode == 0, converted.stderr
    status, output, errors = call_tool(train_net_video, *legacy_run.words(
        job.data, tmp_path, TRAIN__PARAMS_FILE=tmp_path / "ft.pkl", MODEL__NUM_CLASSES=7, SOLVER__MAX_ITER=1,
        TRAIN__COMPUTE_PRECISE_BN=False, TRAIN__TEST_AFTER_TRAIN=False, METRICS__EVAL_FIRST_N=True,
        METRICS__FIRST_N=2, TRAIN__EVAL_PERIOD=1))
    assert (status, errors) == (0, "")
    assert "pred_w not found" in output and "res_conv1_bn_rm not found" in output
    assert "Iters [1/1]" in output
    assert "Scaling" not in output  # its lr is 0.01, like BASE_LR
    # METRICS.EVAL_FIRST_N adds the errors among the first classes.
    assert re.search(rf"^\| Test: \[1/1\]  Time .* top5 {PERCENT} \({PERCENT}\) top1_N_way {PERCENT} \({PERCENT}\)  "
                     rf"top5_N_way {PERCENT} \({PERCENT}\)  current batch 4  aggregated batch 4$", output, re.MULTILINE)
    assert re.search(r"^\* Best: top1_N_way: .* top5_N_way: ", output, re.MULTILINE)
    [found] = stats(output)
    assert {"test_err_N_way", "test_err5_N_way"} < found.keys()
    pred = load_blobs(tmp_path / "checkpoints/c2_model_iter1.pkl")["pred_w"]
    assert pred.shape == (7, 256)


# -------------------------------------------------------------------------------------------------- command lines


@pytest.mark.parametrize("tool", [train_net_video, test_net_video])
def test_help_is_printed_without_arguments(tool, call_tool):
    status, output, errors = call_tool(tool)
    assert (status, errors) == (1, "")
    assert output.startswith("usage: ")
    assert "--config_file" in output and "KEY VALUE" in output


def test_the_training_tool_needs_a_configuration(call_tool):
    status, _, errors = call_tool(train_net_video, "NUM_GPUS", "1")
    assert status == 2
    assert errors.splitlines()[-1].endswith("error: the following arguments are required: --config_file")


def test_old_options_are_accepted(call_tool, tmp_path):
    status, output, errors = call_tool(train_net_video, "--node_id", "1", "--test_net", "False",
                                       *legacy_run.words(tmp_path, tmp_path, MODEL__DEPTH=7))
    assert status == 1 and "MODEL.DEPTH" in errors
    assert "--test_net and --node_id have no effect" in output


NAMES = """
import sys
sys.path.insert(0, sys.argv[1])
from core.config import (config, cfg_from_file, cfg_from_list, assert_and_infer_cfg, print_cfg, load_config)
from models.model_builder_video import create_model
from utils.checkpoints import initialize_params_from_file
from utils.collections import AttrDict
from utils.lr_policy import get_lr_at_iter
from utils.timer import Timer
import utils.bn_helper, utils.metrics, utils.misc
import torch

cfg_from_file(sys.argv[2])
cfg_from_list(["RESNETS.WIDTH_PER_GROUP", "4", "RESNETS.STEM_OUT_CHANNELS", "8", "MODEL.NUM_CLASSES", "10",
               "TEST.PARAMS_FILE", sys.argv[3], "NONLOCAL.CONV3_NONLOCAL", "False", "NONLOCAL.CONV4_NONLOCAL", "False"])
assert_and_infer_cfg()
assert isinstance(config, AttrDict) and get_lr_at_iter(0) == get_lr_at_iter(0, config)
assert isinstance(load_config(None, []), AttrDict)
for split in ("train", "val", "test"):
    model = create_model(config, split)
    assert isinstance(model, torch.nn.Module)
    model_iter, lr = initialize_params_from_file(model, config.TEST.PARAMS_FILE)
    assert (model_iter, round(lr, 7)) == (4, 0.0001)
    with torch.no_grad():
        output = model(torch.zeros(2, 3, 2, 224, 256))
    assert output.shape == (2, 10)
    assert bool(torch.allclose(output.sum(1), torch.ones(2))) == (split == "test")
"""


def test_public_names_can_be_imported_by_another_program(repo, job, tmp_path):
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    run = subprocess.run([sys.executable, "-c", NAMES, repo / "lib", legacy_run.YAML, job.weights], cwd=tmp_path,
                         env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
