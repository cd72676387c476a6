"""What a user can get wrong, and the one line that tells: a command, and what standard error says."""

import os
import pickle
import shutil
import subprocess
import sys

import legacy_run
import numpy as np
import pytest
from video_files import write_list

import test_net_video
import train_net_video
from utils.caffe2_pickle import dump, load


def missing_yaml(folder, job):
    return train_net_video, ["--config_file", folder / "none.yaml"], \
        f"{folder}/none.yaml: cannot read the configuration: No such file or directory"


def broken_yaml(folder, job):
    (folder / "f.yaml").write_text("TRAIN: {BATCH_SIZE: [4")
    return train_net_video, ["--config_file", folder / "f.yaml"], f"{folder}/f.yaml: not valid YAML at line 1, "


def unknown_key(folder, job):
    return train_net_video, legacy_run.words(job.data, folder, TRAIN__BATCHSIZE=4), \
        "command line: TRAIN.BATCHSIZE = 4 (int): no such option; the nearest is TRAIN.BATCH_SIZE (int)"


def wrong_type(folder, job):
    return train_net_video, legacy_run.words(job.data, folder, SOLVER__MAX_ITER="many"), \
        "command line: SOLVER.MAX_ITER = 'many' (str): expected int"


def odd_number_of_words(folder, job):
    return test_net_video, ["NUM_GPUS"], "command line: expected pairs of KEY VALUE, got 1 words"


def indivisible_batch(folder, job):
    return train_net_video, legacy_run.words(job.data, folder, NUM_GPUS=3), \
        "TRAIN.BATCH_SIZE: expected a multiple of NUM_GPUS 3, got 4"


def unknown_network(folder, job):
    return train_net_video, legacy_run.words(job.data, folder, MODEL__MODEL_NAME="resnet"), "MODEL.MODEL_NAME: "


def too_few_rates(folder, job):
    return train_net_video, legacy_run.words(job.data, folder, SOLVER__LRS="[1,0.1]"), \
        "SOLVER.LRS: expected a value for step 2 of SOLVER.STEPS [0, 2, 3, 4], got [1, 0.1]"


def unknown_policy(folder, job):
    return train_net_video, legacy_run.words(job.data, folder, SOLVER__LR_POLICY="cosine"), \
        "SOLVER.LR_POLICY: expected one of steps_with_relative_lrs, steps_with_lrs, steps_with_decay, step, got 'cos"


def crop_larger_than_frame(folder, job):
    return train_net_video, legacy_run.words(job.data, folder, TRAIN__CROP_SIZE=208), \
        "TRAIN.CROP_SIZE 208 is larger than the short side 200 of TRAIN.JITTER_SCALES"


def crop_too_small_for_the_network(folder, job):
    return train_net_video, legacy_run.words(job.data, folder, TRAIN__CROP_SIZE=112), \
        "the network needs clips of at least 197 x 197 pixels, got 112 x 112"


def missing_lmdb(folder, job):
    return train_net_video, legacy_run.words(folder / "lmdb", folder), \
        f"no data for the split 'train': no LMDB {folder}/lmdb/train and no list {folder}/lmdb/train.txt"


def clips_lmdb_for_training(folder, job):
    (folder / "train").symlink_to(job.data / "lmdb/test")
    (folder / "val").symlink_to(job.data / "lmdb/val")
    return train_net_video, legacy_run.words(folder, folder), f"{folder}/train"


def training_lmdb_for_testing(folder, job):
    (folder / "test").symlink_to(job.data / "lmdb/train")
    return test_net_video, legacy_run.words(
        folder, folder, FILENAME_GT=job.data / "gt.txt", TEST__PARAMS_FILE=job.weights), f"{folder}/test"


def single_crop_lmdb_for_three_crops(folder, job):
    made = legacy_run.run_python("process_data/kinetics/create_video_lmdb_test.py", "--dataset_dir", folder / "test",
                                 "--list_file", job.data / "test.txt")
    assert made.returncode == 0, made.stderr
    return test_net_video, legacy_run.words(folder, folder, FILENAME_GT=job.data / "gt.txt",
                                            TEST__PARAMS_FILE=job.weights, TEST__TEST_FULLY_CONV=True), f"{folder}/test"


def truncated_lmdb(folder, job):
    (folder / "train").mkdir()
    whole = (job.data / "lmdb/train/data.mdb").read_bytes()
    (folder / "train/data.mdb").write_bytes(whole[:len(whole) // 2])
    return train_net_video, legacy_run.words(folder, folder), f"{folder}/train"


def bad_line_in_a_list(folder, job):
    (folder / "train.txt").write_text(f"{job.data}/tall.mp4 0\n{job.data}/wide.mp4\n")
    return train_net_video, legacy_run.words(folder, folder), \
        f"{folder}/train.txt:2: expected 'path label[,label...]', got "


def label_out_of_range(folder, job):
    write_list(folder / "train.txt", [job.data / "tall.mp4", job.data / "wide.mp4"], [0, 10])
    shutil.copy(job.data / "val.txt", folder)
    return train_net_video, legacy_run.words(folder, folder), "the label 10 is not in 0..9 (MODEL.NUM_CLASSES 10)"


def truth_of_another_length(folder, job):
    write_list(folder / "truth.txt", [job.data / "tall.mp4"], [0])
    return test_net_video, legacy_run.words(job.data, folder, FILENAME_GT=folder / "truth.txt",
                                            TEST__PARAMS_FILE=job.weights), \
        f"{folder}/truth.txt: expected TEST.DATASET_SIZE 3 lines, got 1"


def clips_that_do_not_divide(folder, job):
    return test_net_video, legacy_run.words(job.data, folder, TEST__PARAMS_FILE=job.weights,
                                            TEST__TEST_FULLY_CONV=True, TEST__NUM_TEST_CLIPS=10), \
        "TEST.NUM_TEST_CLIPS: expected a multiple of the 3 crops of a clip, got 10"


def no_weights_to_test(folder, job):
    return test_net_video, legacy_run.words(job.data, folder), "TEST.PARAMS_FILE is not set"


def too_many_bad_videos(folder, job):
    write_list(folder / "train.txt", [folder / "a.mp4", folder / "b.mp4", job.data / "tall.mp4"], [0, 1, 2])
    shutil.copy(job.data / "val.txt", folder)
    return train_net_video, legacy_run.words(folder, folder, DATALOADER__MAX_BAD_IMAGES=1), \
        "2 bad videos, DATALOADER.MAX_BAD_IMAGES is 1: "


def weights(folder, job, path):
    return train_net_video, legacy_run.words(job.data, folder, TRAIN__PARAMS_FILE=path)


def missing_weights(folder, job):
    return *weights(folder, job, folder / "none.pkl"), f"{folder}/none.pkl: cannot read: No such file or directory"


def truncated_pickle(folder, job):
    (folder / "cut.pkl").write_bytes(job.weights.read_bytes()[:100_000])
    return *weights(folder, job, folder / "cut.pkl"), f"{folder}/cut.pkl: "


def pickle_with_a_foreign_global(folder, job):
    (folder / "bad.pkl").write_bytes(pickle.dumps({"blobs": {"conv1_w": os.system}}, protocol=2))
    return *weights(folder, job, folder / "bad.pkl"), "posix.system"


def checkpoint_of_another_architecture(folder, job):
    options = {"TRAIN__PARAMS_FILE": job.weights, "RESNETS__WIDTH_PER_GROUP": 8}
    return train_net_video, legacy_run.words(job.data, folder, **options), \
        f"{job.weights}: res2_0_branch2a_w: expected shape (8, 64, 1, 1, 1), got (4, 64, 1, 1, 1): " \
        "is this a checkpoint of another architecture?"


def weights_without_a_rate(folder, job):
    blobs = {name: value for name, value in load(job.weights)["blobs"].items() if name != "lr"}
    dump(blobs, folder / "w.pkl")
    return *weights(folder, job, folder / "w.pkl"), f"{folder}/w.pkl: no lr in it"


def weights_of_something_else(folder, job):
    dump({"other_w": np.zeros(3, "f4"), "lr": 0.1}, folder / "other.pkl")
    return *weights(folder, job, folder / "other.pkl"), "none of the model's 267 blobs (conv1_w, ...) is in it"


def all_checkpoints_damaged(folder, job):
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints/c2_model_iter2.pkl").write_bytes(b"\x80\x02}")
    return train_net_video, legacy_run.words(job.data, folder), f"{folder}/checkpoints: no checkpoint can be read"


def folder_that_cannot_be_made(folder, job):
    (folder / "file").write_text("")
    return train_net_video, legacy_run.words(job.data, folder / "file"), f"{folder}/file"


WRONG = [
    unknown_key, wrong_type, odd_number_of_words, missing_yaml, broken_yaml, indivisible_batch,
    unknown_network, unknown_policy, too_few_rates, crop_larger_than_frame, crop_too_small_for_the_network,
    missing_lmdb, clips_lmdb_for_training, training_lmdb_for_testing, single_crop_lmdb_for_three_crops, truncated_lmdb,
    bad_line_in_a_list, label_out_of_range, too_many_bad_videos, truth_of_another_length, clips_that_do_not_divide,
    no_weights_to_test, missing_weights, truncated_pickle, pickle_with_a_foreign_global, weights_without_a_rate,
    weights_of_something_else, checkpoint_of_another_architecture, all_checkpoints_damaged,
    folder_that_cannot_be_made,
]  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: wrong.__name__)
def test_one_line_and_a_status(wrong, tmp_path, job, call_tool):
    tool, words, message = wrong(tmp_path, job)
    left = {path: path.read_bytes() for path in tmp_path.rglob("*.pkl")}
    status, _, errors = call_tool(tool, *words)
    assert status == 1
    [line] = errors.splitlines()
    assert line.startswith("error: ")
    assert message in line
    # Nothing that looks like a result is left behind.
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.pkl")} == left


@pytest.mark.parametrize("wrong", [label_out_of_range, pickle_with_a_foreign_global], ids=lambda wrong: wrong.__name__)
def test_the_same_from_a_process(wrong, tmp_path, job):
    tool, words, message = wrong(tmp_path, job)
    run = legacy_run.run_python(f"tools/{tool.__name__}.py", *words)
    assert run.returncode == 1
    [line] = run.stderr.splitlines()
    assert line.startswith("error: ") and message in line


@pytest.mark.parametrize(("script", "message"), [
    ("run_i3d_nlnet_400k",
     "../data/pretrained_model/r50_pretrain_c2_model_iter450450_clean.pkl: cannot read: No such file or directory"),
    ("run_test_multicrop", "cannot read the list ../process_data/kinetics/vallist.txt: No such file or directory"),
])
def test_scripts_without_their_data_say_what_is_missing(script, message, repo, tmp_path):
    shutil.copytree(repo / "scripts", tmp_path / "scripts")
    for folder in ("lib", "tools", "configs"):
        (tmp_path / folder).symlink_to(repo / folder)
    run = subprocess.run(["bash", tmp_path / f"scripts/{script}.sh"], cwd="/", capture_output=True, text=True,
                         env=os.environ | {"PYTHON": sys.executable, "CUDA_VISIBLE_DEVICES": ""})
    assert run.returncode == 1
    assert [line for line in run.stdout.splitlines() if line.startswith("error: ")] == [f"error: {message}"]
    assert "Traceback" not in run.stdout + run.stderr
