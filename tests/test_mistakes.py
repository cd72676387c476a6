"""Every mistake that a user can make on a command line: what was typed, and the one line that it says.

A row of the table is

    name: (what is typed, the line on standard error, files that are there before)

In all of it {tmp} is an empty folder, {data} that of the small data set (lists; LMDBs in {data}/lmdb), {weights} a
checkpoint of the small network and {log} the log of its training. {job} stands for --config_file and the options of
that training, with {tmp}/run for CHECKPOINT.DIR; {test} for {job} and what its test needs.
"""

import fcntl
import logging
import os
import pickle
import runpy
import shlex
import shutil
import subprocess
import sys
import zipfile

import h5py
import legacy_run
import numpy as np
import pytest
import torch
from loader_threads import decoder_threads
from video_files import write_items

from core.config import load_config
from formats.caffe2_pickle import dump, load
from formats.state_dict_file import write_state_dict
from models.model_builder_video import create_model

REPO = legacy_run.REPO
TOOLS = {path.stem: path for path in [*REPO.glob("tools/*.py"), *REPO.glob("process_data/*/*.py")]}

# ------------------------------------------------------------------------- files: text, bytes, or what makes a file


def folder(path, job):
    path.mkdir(parents=True)


def lmdb_of(split):
    return lambda path, job: path.symlink_to(job.data / "lmdb" / split)


def lmdb_without_records(path, job):
    write_items(path, [])


def lmdb_of_noise(path, job):
    write_items(path, [(b"000000000", b"noise, noise")])


def half_an_lmdb(path, job):
    path.mkdir()
    whole = (job.data / "lmdb/train/data.mdb").read_bytes()
    (path / "data.mdb").write_bytes(whole[:len(whole) // 2])


def single_crop_lmdb(path, job):
    made = legacy_run.run_python("process_data/kinetics/create_video_lmdb_test.py", "--dataset_dir", path,
                                 "--list_file", job.data / "test.txt")
    assert made.returncode == 0, made.stderr


def list_in_utf16(path, job):
    path.write_text("a.mp4 0\n", encoding="utf-16")


def half_a_checkpoint(path, job):
    path.write_bytes(job.weights.read_bytes()[:100_000])


def log_of_the_job(path, job):
    path.write_text(job.output)


def scores_of_the_job(path, job):
    shutil.copy(job.folder / path.name, path)


def checkpoint_without_rate(path, job):
    dump({name: value for name, value in load(job.weights)["blobs"].items() if name != "lr"}, path)


def checkpoint_with(name, value):
    """A checkpoint in which one number of a blob is another; of its update history as well, where there is one."""
    def write(path, job):
        blobs = load(job.weights)["blobs"]
        blobs[name].flat[1] = value
        path.parent.mkdir(exist_ok=True, parents=True)
        dump({"blobs": blobs}, path)
    return write


def checkpoint_of_huge_scores(path, job):
    blobs = load(job.weights)["blobs"]
    dump(blobs | {"pred_w": np.sign(blobs["pred_w"]) * np.float32(3e38)}, path)


def state_dict_with_nan(path, job):
    model = create_model(load_config(legacy_run.YAML, legacy_run.words(job.data, path.parent)[2:]), "test")
    model.pred.bias.data[3] = float("nan")
    write_state_dict(model, path)


def checkpoint_with_state(change):
    def make(path, job):
        contents = load(job.weights)
        contents["state"] = change(contents["state"])
        dump(contents, path)

    return make


def checkpoint_of_something_else(path, job):
    dump({"other_w": np.zeros(3, "f4"), "lr": 0.1}, path)


def hdf5_file(path, job):
    h5py.File(path, "w").close()


def zip_file(path, job):
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("archive/data.pkl", "")


def old_torch_file(path, job):
    torch.save({"conv1_w": torch.zeros(3)}, path, _use_new_zipfile_serialization=False)


def npy_file(path, job):
    np.save(path.open("wb"), np.zeros(3))


def pickle_of_a_command(path, job):
    path.write_bytes(pickle.dumps({"blobs": {"conv1_w": os.system}}, protocol=2))


def norm_without_scale(path, job):
    dump({"a_bn_riv": np.zeros(3, "f4")}, path)


def norm_of_negative_variance(path, job):
    dump({f"a_bn_{part}": np.full(3, -1, "f4") for part in ("s", "b", "rm", "riv")}, path)


def name_with_line_break(path, job):
    path.mkdir(parents=True)
    (path / "a\nb.mp4").write_text("")


def lock_of_another_run(path, job):
    path.write_text('{"host": "node7", "process": 4711, "since": "2026-11-27 10:00:00+00:00", "machine": ""}')
    lock_of_another_run.file = open(path)  # noqa: SIM115
    fcntl.flock(lock_of_another_run.file, fcntl.LOCK_EX)


def copied(path, job):
    shutil.copy(job.weights, path)


def damaged_scores(path, job):
    data = bytearray((job.folder / "results_scores.h5").read_bytes())
    data[1000] ^= 1
    path.write_bytes(data)


def half_the_scores(path, job):
    path.write_bytes((job.folder / "results_scores.h5").read_bytes()[:1000])


def scores_with_a_damaged_row(path, job):
    shutil.copy(job.folder / "results_scores.h5", path)
    with h5py.File(path, "r+") as file:
        file["scores"][7, 0] = 2


GOOD = "{data}/tall.mp4 1\n"
WEB_PAGE = "<!DOCTYPE html>\n<html><head><title>403 Forbidden</title>"
LFS_POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
NO_PATH = "expected 'path label[,label...]', got"
STATE = "averages, finished, precise_bn, train_position, val_position"
NO_LOG = "expected a log with '| Train ETA: ...' or 'json_stats: ...' lines, found none"
NAMES = "".join(f"kind {i}\n" for i in range(10))
ENTRY = {"v/abseiling/a.mp4": ""}

# ------------------------------------------------------------------------------------------------------- the table

OPTIONS = {
    "no such file": (
        "train_net_video --config_file {tmp}/none.yaml",
        "{tmp}/none.yaml: cannot read the configuration: No such file or directory", {}),
    "a folder": (
        "train_net_video --config_file {tmp}",
        "{tmp}: cannot read the configuration: Is a directory", {}),
    "not closed": (
        "train_net_video --config_file {tmp}/f.yaml",
        "{tmp}/f.yaml: not valid YAML at line 2, column 1: expected ',' or ']', but got '<stream end>'",
        {"f.yaml": "TRAIN: {BATCH_SIZE: [4\n"}),
    "tabs": (
        "train_net_video --config_file {tmp}/f.yaml",
        "{tmp}/f.yaml: not valid YAML at line 2, column 1: found character '\\t' that cannot start any token",
        {"f.yaml": "TRAIN:\n\tBATCH_SIZE: 4\n"}),
    "no colon": (
        "train_net_video --config_file {tmp}/f.yaml",
        "{tmp}/f.yaml: expected a YAML mapping of options, got 'NUM_GPUS 4'", {"f.yaml": "NUM_GPUS 4"}),
    "twice in the file": (
        "train_net_video --config_file {tmp}/f.yaml",
        "{tmp}/f.yaml: not valid YAML at line 2, column 1: duplicate key 'NUM_GPUS'",
        {"f.yaml": "NUM_GPUS: 4\nNUM_GPUS: 8\n"}),
    "text in place of a number": (
        "train_net_video --config_file {tmp}/f.yaml",
        "{tmp}/f.yaml: SOLVER.BASE_LR = '1e-4x' (str): expected float, as of the default 0.1",
        {"f.yaml": "SOLVER:\n  BASE_LR: 1e-4x\n"}),
    "a number in place of text": (
        "train_net_video --config_file {tmp}/f.yaml",
        "{tmp}/f.yaml: DATASET = 2017 (int): expected str, as of the default '' (in quotes: \"'2017'\")",
        {"f.yaml": "DATASET: '2017'\n"}),
    "unknown in the file": (
        "train_net_video --config_file {tmp}/f.yaml",
        "{tmp}/f.yaml: TRAIN.BATCHSIZE = 4 (int): no such option; the nearest is TRAIN.BATCH_SIZE (int)",
        {"f.yaml": "TRAIN:\n  BATCHSIZE: 4\n"}),
    "unknown on the command line": (
        "train_net_video {job} train.batch_size 4",
        "command line: train.batch_size = 4 (int): no such option; the nearest is TRAIN.BATCH_SIZE (int)", {}),
    "a group": (
        "train_net_video {job} TRAIN 4",
        "command line: TRAIN = 4 (int): TRAIN is a group of options: expected e.g. TRAIN.PARAMS_FILE", {}),
    "an equals sign": (
        "train_net_video {job} NUM_GPUS=4",
        "command line: 'NUM_GPUS=4': separate key and value with a space: NUM_GPUS 4", {}),
    "dashes": (
        "train_net_video {job} --NUM_GPUS 4",
        "command line: '--NUM_GPUS': a KEY has no dashes; options with dashes must come first", {}),
    "the file last": (
        "train_net_video NUM_GPUS 4 --config_file f.yaml",
        "command line: '--config_file': a KEY has no dashes; options with dashes must come first", {}),
    "no file for the test": (
        "test_net_video NUM_GPUS 8",
        "no --config_file, and neither TEST.PARAMS_FILE nor MODEL.MODEL_NAME among the words: which network?", {}),
    "no file for the test, which its words describe": (
        "test_net_video MODEL.MODEL_NAME resnet_video MODEL.NUM_CLASSES 10 TEST.PARAMS_FILE {weights} FILENAME_GT ''",
        "FILENAME_GT is not set: expected the list of the test videos, or None for no scoring", {}),
    "no value": (
        "test_net_video NUM_GPUS 4 LOG_PERIOD",
        "command line: expected pairs of KEY VALUE, got 3 words; 'LOG_PERIOD' has no value", {}),
    "a stray word": (
        "test_net_video NUM_GPUS 4 please LOG_PERIOD 3",
        "command line: expected pairs of KEY VALUE, got 5 words; 'please' is not a KEY", {}),
    "wrong type": (
        "train_net_video {job} SOLVER.MAX_ITER many",
        "command line: SOLVER.MAX_ITER = 'many' (str): expected int, as of the default 500500", {}),
    "parentheses": (
        "train_net_video {job} TRAIN.JITTER_SCALES 256,320",
        "command line: TRAIN.JITTER_SCALES = (256, 320) (tuple): expected list, as of the default [256, 480] "
        "(in square brackets)", {}),
    "no text": (
        "train_net_video {job} DATADIR None", "DATADIR: expected text, got None", {}),
    "neither true nor false": (
        "train_net_video {job} MODEL.USE_AFFINE None", "MODEL.USE_AFFINE: expected True or False, got None", {}),
    "no GPUs": (
        "train_net_video {job} NUM_GPUS 0", "NUM_GPUS: expected an integer >= 1, got 0", {}),
    "a batch that does not divide": (
        "train_net_video {job} NUM_GPUS 3", "TRAIN.BATCH_SIZE: expected a multiple of NUM_GPUS 3, got 4", {}),
    "a GPU that is not there": (
        "train_net_video {job} ROOT_GPU_ID 3", "ROOT_GPU_ID: expected 0 because no GPU is available, got 3", {}),
    "unknown network": (
        "train_net_video {job} MODEL.MODEL_NAME resnet",
        "MODEL.MODEL_NAME: expected one of resnet_video, resnet_video_org, got 'resnet'", {}),
    "depth and arc": (
        "train_net_video {job} MODEL.DEPTH 101",
        "MODEL.VIDEO_ARC_CHOICE 1 does not go with MODEL.DEPTH 101: expected 1 with DEPTH 50, 2 with DEPTH 50, "
        "3 with DEPTH 101, 4 with DEPTH 101", {}),
    "number of classes forgotten": (
        "train_net_video {job} MODEL.NUM_CLASSES -1", "MODEL.NUM_CLASSES: expected a positive number, got -1", {}),
    "unknown policy": (
        "train_net_video {job} SOLVER.LR_POLICY cosine",
        "SOLVER.LR_POLICY: expected one of steps_with_relative_lrs, steps_with_lrs, steps_with_decay, step, "
        "got 'cosine'", {}),
    "too few rates": (
        "train_net_video {job} SOLVER.LRS [1,0.1]",
        "SOLVER.LRS: expected a value for step 2 of SOLVER.STEPS [0, 2, 3, 4], got [1, 0.1]", {}),
    "a crop larger than the frame": (
        "train_net_video {job} TRAIN.CROP_SIZE 208",
        "TRAIN.CROP_SIZE 208 is larger than the short side 200 of TRAIN.JITTER_SCALES", {}),
    "a crop larger than the test's frame": (
        "test_net_video {test} TEST.SCALE 180",
        "TRAIN.CROP_SIZE 200 is larger than the short side 180 of TEST.SCALE", {}),
    "a crop too small for the network": (
        "train_net_video {job} TRAIN.CROP_SIZE 112",
        "the network needs clips of at least 197 x 197 pixels, got 112 x 112: TRAIN.CROP_SIZE (in a full-size test "
        "TEST.SCALE) is too small", {}),
    "a clip too short for the network": (
        "train_net_video {job} TRAIN.VIDEO_LENGTH 1",
        "the network needs clips of at least 2 frames, got 1: TRAIN.VIDEO_LENGTH is too small", {}),
    "a clip of the test too short for the network": (
        "test_net_video {test} TRAIN.VIDEO_LENGTH 1",
        "the network needs clips of at least 2 frames, got 1: TRAIN.VIDEO_LENGTH is too small", {}),
    "unknown output": (
        "test_net_video {test} TEST.OUTPUT_NAME softmx",
        "TEST.OUTPUT_NAME 'softmx': not in this network; near ones: softmax", {}),
    "no text for the output": (
        "test_net_video {test} TEST.OUTPUT_NAME None", "TEST.OUTPUT_NAME: expected text, got None", {}),
    "a blob of whole frames": (
        "test_net_video {test} TEST.TEST_FULLY_CONV False TEST.TEST_FULL_SIZE True TEST.OUTPUT_NAME pool5",
        "TEST.OUTPUT_NAME: expected pred or softmax with TEST.TEST_FULL_SIZE, as other blobs have a size for each size "
        "of frames, got 'pool5'", {}),
    "an export of a blob": (
        "export_model --format state_dict --output {tmp}/o.pt {test} TEST.OUTPUT_NAME pool5",
        "TEST.OUTPUT_NAME: expected pred or softmax for an export, got 'pool5'", {}),
    "clips that do not divide": (
        "test_net_video {test} TEST.NUM_TEST_CLIPS 10",
        "TEST.NUM_TEST_CLIPS: expected a multiple of the 3 crops of a clip, got 10", {}),
    "a test of too few videos": (
        "test_net_video {test} TEST.DATASET_SIZE 2 FILENAME_GT None DATADIR {data}",
        "test record 60 (in key order) is of video 2, expected 0 to 1: TEST.DATASET_SIZE is 2", {}),
}

DATA = {
    "nothing there": (
        "train_net_video {job} DATADIR {tmp}",
        "no data for the split 'train': no LMDB {tmp}/train and no list {tmp}/train.txt", {}),
    "nothing to test": (
        "test_net_video {test} DATADIR {tmp}",
        "no data for the split 'test': no LMDB {tmp}/test and no list {tmp}/test.txt", {}),
    "a folder in the place of a list": (
        "train_net_video {job} DATADIR {tmp}",
        "no data for the split 'train': no LMDB {tmp}/train and no list {tmp}/train.txt", {"train.txt": folder}),
    "a folder that is not an LMDB": (
        "train_net_video {job} DATADIR {tmp}", "{tmp}/train is not an LMDB: it has no data.mdb", {"train": folder}),
    "an LMDB without records": (
        "train_net_video {job} DATADIR {tmp}", "the LMDB {tmp}/train has no records", {"train": lmdb_without_records}),
    "an LMDB of something else": (
        "train_net_video {job} DATADIR {tmp}",
        "record 000000000 of {tmp}/train is not a TensorProtos message: field 13 has the unknown wire type 6",
        {"train": lmdb_of_noise}),
    "a text in the place of an LMDB": (
        "train_net_video {job} DATADIR {tmp}",
        "{tmp}/train is not a readable LMDB: {tmp}/train: MDB_INVALID: File is not an LMDB file",
        {"train/data.mdb": "text " * 2000}),
    "half an LMDB": (
        "train_net_video {job} DATADIR {tmp}",
        "{tmp}/train/data.mdb is cut short: 6144 bytes of at least 12288", {"train": half_an_lmdb}),
    "training from the test LMDB": (
        "train_net_video {job} DATADIR {tmp}",
        "record 0 of {tmp}/train looks like one of a multi-crop test LMDB (4 tensors), expected a train or val LMDB "
        "(path, label)", {"train": lmdb_of("test"), "val": lmdb_of("val")}),
    "evaluating from the test LMDB": (
        "train_net_video {job} DATADIR {tmp}",
        "record 0 of {tmp}/val looks like one of a multi-crop test LMDB (4 tensors), expected a train or val LMDB "
        "(path, label)", {"train": lmdb_of("train"), "val": lmdb_of("test")}),
    "training from the single-crop test LMDB": (
        "train_net_video {job} DATADIR {tmp}",
        "record 0 of {tmp}/train looks like one of a single-crop test LMDB (3 tensors), expected a train or val LMDB "
        "(path, label)", {"train": single_crop_lmdb, "val": lmdb_of("val")}),
    "testing from the training LMDB": (
        "test_net_video {test} DATADIR {tmp}",
        "record 000000000 of {tmp}/test looks like one of a train or val LMDB (2 tensors), expected a multi-crop test "
        "LMDB (path, video, temporal, spatial index)", {"test": lmdb_of("train")}),
    "one crop from the training LMDB": (
        "test_net_video {test} TEST.TEST_FULLY_CONV False DATADIR {tmp}",
        "record 000000000 of {tmp}/test looks like one of a train or val LMDB (2 tensors), expected a test LMDB "
        "(path, video and temporal index)", {"test": lmdb_of("train")}),
    "three crops from the single-crop LMDB": (
        "test_net_video {test} DATADIR {tmp}",
        "record 0 of {tmp}/test looks like one of a single-crop test LMDB (3 tensors), expected a multi-crop test LMDB "
        "(path, video, temporal, spatial index)", {"test": single_crop_lmdb}),
    "six crops from the three-crop LMDB": (
        "test_net_video {test} TEST.TEST_FULLY_CONV False TEST.TEST_FULLY_CONV_FLIP True TEST.NUM_TEST_CLIPS 60",
        "the test LMDB {data}/lmdb/test has spatial indices 0..2; TEST.USE_MULTI_CROP 2 expects 0..5", {}),
    "an empty list": (
        "train_net_video {job} DATADIR {tmp}", "{tmp}/train.txt: the list is empty", {"train.txt": ""}),
    "a list of blank lines": (
        "train_net_video {job} DATADIR {tmp}", "{tmp}/train.txt: the list is empty", {"train.txt": "\n\n"}),
    "a blank line": (
        "train_net_video {job} DATADIR {tmp}", "{tmp}/train.txt:2: an empty line where 'path label' was expected",
        {"train.txt": GOOD + "\n" + GOOD}),
    "no label": (
        "train_net_video {job} DATADIR {tmp}", f"{{tmp}}/train.txt:2: {NO_PATH} '{{data}}/wide.mp4'",
        {"train.txt": GOOD + "{data}/wide.mp4\n"}),
    "a comma": (
        "train_net_video {job} DATADIR {tmp}", f"{{tmp}}/train.txt:1: {NO_PATH} '{{data}}/wide.mp4,1'",
        {"train.txt": "{data}/wide.mp4,1\n"}),
    "a word for a label": (
        "train_net_video {job} DATADIR {tmp}", f"{{tmp}}/train.txt:1: {NO_PATH} '{{data}}/wide.mp4 waving'",
        {"train.txt": "{data}/wide.mp4 waving\n"}),
    "two columns of numbers": (
        "train_net_video {job} DATADIR {tmp}",
        f"{{tmp}}/train.txt:1: {NO_PATH} 'frames/x 3 300': either 'frames/x' with the label '3', or 'frames/x 3' with "
        "the label '300'", {"train.txt": "frames/x 3 300\n"}),
    "digits with an underscore for a label": (
        "train_net_video {job} DATADIR {tmp}", f"{{tmp}}/train.txt:1: {NO_PATH} 'v.mp4 1_0'",
        {"train.txt": "v.mp4 1_0\n"}),
    "labels with spaces": (
        "train_net_video {job} DATADIR {tmp}", f"{{tmp}}/train.txt:1: {NO_PATH} 'v.mp4 3, 4'",
        {"train.txt": "v.mp4 3, 4\n"}),
    "a list with a byte order mark": (
        "train_net_video {job} DATADIR {tmp}",
        "{tmp}/train.txt: begins with a byte order mark: expected plain UTF-8 (in an editor: without BOM)",
        {"train.txt": "\ufeff" + GOOD}),
    "a list in UTF-16": (
        "create_video_lmdb --dataset_dir {tmp}/out --list_file {tmp}/list.txt",
        "{tmp}/list.txt: begins with a byte order mark: expected plain UTF-8 (in an editor: without BOM)",
        {"list.txt": list_in_utf16}),
    "label -1": (
        "train_net_video {job} DATADIR {tmp}",
        "record {tmp}/train.txt:1: the label -1 is not in 0..9 (MODEL.NUM_CLASSES 10)",
        {"train.txt": "{data}/tall.mp4 -1\n", "val.txt": GOOD}),
    "labels from 1 on, and Windows line ends": (
        "train_net_video {job} DATADIR {tmp}",
        "record {tmp}/train.txt:1: the label 10 is not in 0..9 (MODEL.NUM_CLASSES 10)",
        {"train.txt": b"x.mp4 10\r\n", "val.txt": GOOD}),
    "videos elsewhere": (
        "train_net_video {job} DATADIR {tmp}",
        "no record from {tmp}/train.txt:1 on has a good video; the last one: {tmp}/none.mp4: No such file or directory",
        {"train.txt": "{tmp}/none.mp4 1\n", "val.txt": GOOD}),
    "a folder for a video": (
        "train_net_video {job} DATADIR {tmp} DATALOADER.MAX_BAD_IMAGES 0",
        "1 bad videos, DATALOADER.MAX_BAD_IMAGES is 0: '{tmp}' (is a folder without frames: "
        "expected images 000001.jpg, 000002.jpg, ... (or img_00001.jpg; or png))",
        {"train.txt": "{tmp} 1\n", "val.txt": GOOD}),
    "a text for a video": (
        "train_net_video {job} DATADIR {tmp} DATALOADER.MAX_BAD_IMAGES 0",
        "1 bad videos, DATALOADER.MAX_BAD_IMAGES is 0: '{tmp}/val.txt' "
        "(is a text file (perhaps a playlist), not a video)",
        {"train.txt": "{tmp}/val.txt 1\n", "val.txt": GOOD}),
    "a truth of another length": (
        "test_net_video {test} FILENAME_GT {tmp}/gt.txt",
        "{tmp}/gt.txt: expected TEST.DATASET_SIZE 3 lines, got 1", {"gt.txt": GOOD}),
    "a truth of other classes": (
        "test_net_video {test} FILENAME_GT {tmp}/gt.txt",
        "{tmp}/gt.txt:3: the label 10 is not in 0..9 (MODEL.NUM_CLASSES 10)",
        {"gt.txt": GOOD + GOOD + "v.mp4\t10 7\n"}),
    "a truth with a label below 0": (
        "test_net_video {test} FILENAME_GT {tmp}/gt.txt",
        "{tmp}/gt.txt:1: the label -1 is not in 0..9 (MODEL.NUM_CLASSES 10)",
        {"gt.txt": "v.mp4 -1\n" + GOOD + GOOD}),
    "a truth that is not there": (
        "test_net_video {test} FILENAME_GT {tmp}/gt.txt",
        "cannot read the list {tmp}/gt.txt: No such file or directory", {}),
    "a truth that is a folder": (
        "test_net_video {test} FILENAME_GT {tmp}", "cannot read the list {tmp}: Is a directory", {}),
    "no truth": (
        "test_net_video {test} FILENAME_GT ''",
        "FILENAME_GT is not set: expected the list of the test videos, or None for no scoring", {}),
}

PICKLE = "{tmp}/w.pkl: expected a pickle of weights, got "
TEST_W = "test_net_video {test} TEST.PARAMS_FILE {tmp}/w.pkl"
WEIGHTS = {
    "not set": (
        "test_net_video {job}", "TEST.PARAMS_FILE is not set: give the weights to test", {}),
    "not there": (TEST_W, "{tmp}/w.pkl: cannot read: No such file or directory", {}),
    "a folder": (TEST_W, "{tmp}/w.pkl: expected a pickle file, got a folder", {"w.pkl": folder}),
    "an empty file": (TEST_W, "{tmp}/w.pkl: the pickle is truncated or empty", {"w.pkl": ""}),
    "half a file": (TEST_W, "{tmp}/w.pkl: the pickle is truncated or empty", {"w.pkl": half_a_checkpoint}),
    "a text": (TEST_W, PICKLE + "a text file", {"w.pkl": "To whom it may concern\n"}),
    "an HDF5 file": (TEST_W, PICKLE + "an HDF5 file", {"w.pkl": hdf5_file}),
    "a file of torch.save": (
        TEST_W, PICKLE + "a zip archive, as written by torch.save and numpy.savez", {"w.pkl": zip_file}),
    "a file of an old torch.save": (TEST_W, PICKLE + "a file written by an old torch.save", {"w.pkl": old_torch_file}),
    "a file of numpy.save": (TEST_W, PICKLE + "an array written by numpy.save", {"w.pkl": npy_file}),
    "a Git LFS pointer": (
        TEST_W, PICKLE + "a Git LFS pointer: fetch the actual file (git lfs pull)", {"w.pkl": LFS_POINTER}),
    "a web page": (TEST_W, PICKLE + "a web page (HTML or XML), as from a failed download", {"w.pkl": WEB_PAGE}),
    "an archive": (TEST_W, PICKLE + "a gzip archive: unpack it first", {"w.pkl": b"\x1f\x8b\x08\0\0\0\0\0"}),
    "an unfinished download": (
        TEST_W, PICKLE + "zero bytes, as from an unfinished download", {"w.pkl": bytes(5000)}),
    "a command": (
        TEST_W, "{tmp}/w.pkl: refused to unpickle: global 'posix.system' is not admitted",
        {"w.pkl": pickle_of_a_command}),
    "scores of a test": (
        "test_net_video {test} TEST.PARAMS_FILE {results}",
        "{results}: expected a checkpoint, a dictionary of arrays by blob name; got a value of type list", {}),
    "without a rate": (
        "train_net_video {job} TRAIN.PARAMS_FILE {tmp}/w.pkl",
        "{tmp}/w.pkl: no lr in it, which training needs to continue; TRAIN.RESET_START_ITER True takes the weights "
        "only",
        {"w.pkl": checkpoint_without_rate}),
    "of something else": (
        "train_net_video {job} TRAIN.PARAMS_FILE {tmp}/w.pkl",
        "{tmp}/w.pkl: none of the model's 267 blobs (conv1_w, ...) is in it: is this a checkpoint of another "
        "architecture?", {"w.pkl": checkpoint_of_something_else}),
    "of another width": (
        "train_net_video {job} TRAIN.PARAMS_FILE {weights} RESNETS.WIDTH_PER_GROUP 8",
        "{weights}: res2_0_branch2a_w: expected shape (8, 8, 1, 1, 1), got (4, 8, 1, 1, 1): is this a checkpoint of "
        "another architecture?", {}),
    "of as many iterations as are wanted": (
        "train_net_video {job} TRAIN.PARAMS_FILE {weights} SOLVER.MAX_ITER 4",
        "nothing to train: 4 iterations are done, SOLVER.MAX_ITER is 4 (TRAIN.PARAMS_FILE '{weights}'; "
        "TRAIN.RESET_START_ITER True takes the weights only)", {}),
    "not a number": (
        TEST_W, "{tmp}/w.pkl: pred_b: expected finite numbers, got 1 of 10 that are NaN or infinite",
        {"w.pkl": checkpoint_with("pred_b", np.nan)}),
    "infinite, to predict with": (
        "predict_video --video {data}/tall.mp4 --views 1x1 --json {tmp}/r.json --classids {tmp}/n.txt {test} "
        "TEST.PARAMS_FILE {tmp}/w.pkl",
        "{tmp}/w.pkl: res_conv1_bn_riv: expected finite numbers, got 1 of 8 that are NaN or infinite",
        {"w.pkl": checkpoint_with("res_conv1_bn_riv", np.inf), "n.txt": NAMES}),
    "not a number, to train with": (
        "train_net_video {job} TRAIN.PARAMS_FILE {tmp}/w.pkl",
        "{tmp}/w.pkl: conv1_w: expected finite numbers, got 1 of 1176 that are NaN or infinite",
        {"w.pkl": checkpoint_with("conv1_w", np.nan)}),
    "not a number, to go on with": (
        "train_net_video {job} CHECKPOINT.DIR {tmp}/f",
        "{tmp}/f/checkpoints/c2_model_iter4.pkl: pred_b_momentum: expected finite numbers, got 1 of 10 that are NaN or "
        "infinite", {"f/checkpoints/c2_model_iter4.pkl": checkpoint_with("pred_b_momentum", -np.inf)}),
    "not a number, to export": (
        "export_model --format state_dict --output {tmp}/o.pth {test} TEST.PARAMS_FILE {tmp}/w.pkl",
        "{tmp}/w.pkl: conv1_w: expected finite numbers, got 1 of 1176 that are NaN or infinite",
        {"w.pkl": checkpoint_with("conv1_w", np.nan)}),
    "not a number in a state_dict": (
        "export_model --format pkl --output {tmp}/o.pkl --from_state_dict {tmp}/m.pth {job}",
        "{tmp}/m.pth: pred.bias: expected finite numbers, got 1 of 10 that are NaN or infinite",
        {"m.pth": state_dict_with_nan}),
    "of scores beyond all numbers, to predict with": (
        "predict_video --video {data}/tall.mp4 --views 1x1 --json {tmp}/r.json --classids {tmp}/n.txt {test} "
        "TEST.PARAMS_FILE {tmp}/w.pkl",
        "{tmp}/w.pkl: expected weights that give finite numbers, got NaN or infinity for {data}/tall.mp4: are the "
        "options those of the training?", {"w.pkl": checkpoint_of_huge_scores, "n.txt": NAMES}),
    "C2D for I3D": (
        "test_net_video {test} MODEL.VIDEO_ARC_CHOICE 2",
        "{weights}: conv1_w: expected shape (8, 3, 5, 7, 7), got (8, 3, 1, 7, 7): is this a checkpoint of another "
        "architecture?", {}),
    "without the non-local blocks": (
        "test_net_video {test} NONLOCAL.CONV3_NONLOCAL True",
        "{weights}: lacks 24 of the model's 291 blobs, or has them in another size (nonlocal_conv3_1_theta_w, "
        "nonlocal_conv3_1_theta_b, nonlocal_conv3_1_phi_w, ...): are the options those of its training?", {}),
    "of other classes": (
        "test_net_video {test} MODEL.NUM_CLASSES 7",
        "{weights}: lacks 2 of the model's 267 blobs, or has them in another size (pred_w, pred_b): are the options "
        "those of its training?", {}),
    "batch norms for affine layers": (
        "test_net_video {test} MODEL.USE_AFFINE True",
        "{weights}: the file holds batch norms and the model frozen affine layers, which need them folded: convert it "
        "with process_data/convert_models/modify_caffe2_ftvideo.py", {}),
}

OUTPUT = {
    "CHECKPOINT.DIR is a file": (
        "train_net_video {job} CHECKPOINT.DIR {tmp}/f", "{tmp}/f/checkpoints: cannot be created: Not a directory",
        {"f": ""}),
    "its checkpoints are a file": (
        "train_net_video {job} CHECKPOINT.DIR {tmp}/f", "{tmp}/f/checkpoints: cannot be created: File exists",
        {"f/checkpoints": ""}),
    "a folder in use": (
        "train_net_video {job}",
        "{tmp}/run/run.lock: another run uses this folder: process 4711 on node7, since 2026-11-27 10:00:00+00:00; "
        "wait for its end, or use another CHECKPOINT.DIR", {"run/run.lock": lock_of_another_run}),
    "a folder in use, for a test": (
        "test_net_video {test}",
        "{tmp}/run/run.lock: another run uses this folder: process 4711 on node7, since 2026-11-27 10:00:00+00:00; "
        "wait for its end, or use another CHECKPOINT.DIR", {"run/run.lock": lock_of_another_run}),
    "all checkpoints are damaged": (
        "train_net_video {job} CHECKPOINT.DIR {tmp}/f",
        "{tmp}/f/checkpoints: no checkpoint can be read (1 tried; the last error: {tmp}/f/checkpoints/"
        "c2_model_iter2.pkl: the pickle is truncated or empty); remove them or set CHECKPOINT.RESUME False to start "
        "from scratch", {"f/checkpoints/c2_model_iter2.pkl": b"\x80\x02}"}),
    **{f"a state that {what}": (
        "train_net_video {job} CHECKPOINT.DIR {tmp}/run SOLVER.MAX_ITER 5 SOLVER.STEP_SIZES [9]",
        f"{{tmp}}/run/checkpoints/c2_model_iter4.pkl: state: {message}: was this checkpoint written by another version "
        "of the program?", {"run/checkpoints/c2_model_iter4.pkl": checkpoint_with_state(change)})
       for what, change, message in [
           ("is a list", lambda state: [1], f"expected {STATE}, got list"),
           ("knows more", lambda state: state | {"zoom": 1}, f"expected {STATE}, got {STATE}, zoom"),
           ("knows nothing", lambda state: {}, f"expected {STATE}, got nothing"),
           ("has another number", lambda state: state | {"train_position": -1},
            "train_position: expected a number of records, got -1"),
           ("has text", lambda state: state | {"val_position": "0"},
            "val_position: expected a number of records, got '0'"),
           ("has an array", lambda state: state | {"finished": np.zeros(2)},
            "finished: expected True or False, got array([0., 0.])"),
           ("has other averages", lambda state: state | {"averages": {"sums": {"loss": "x"}, "weight": 1}},
            "averages: expected sums and their weight, got {'sums': {'loss': 'x'}, 'weight': 1}")]},
    "CHECKPOINT.DIR of the test is a file": (
        "test_net_video {test} CHECKPOINT.DIR {tmp}/f", "{tmp}/f: cannot be created: File exists", {"f": ""}),
    "the scores are a folder": (
        "test_net_video {test} CHECKPOINT.DIR {tmp}/f",
        "{tmp}/f/results_scores.h5: expected an HDF5 file, the scores of a test, got what cannot be opened as one "
        "(Is a directory)", {"f/results_scores.h5": folder}),
    "the scores are a text": (
        "test_net_video {test} CHECKPOINT.DIR {tmp}/f",
        "{tmp}/f/results_scores.h5: expected an HDF5 file, the scores of a test, got what cannot be opened as one "
        "(Unable to synchronously open file (file signature not found))",
        {"f/results_scores.h5": "scores"}),
    "scores that are damaged": (
        "test_net_video {test} CHECKPOINT.DIR {tmp}/f",
        "{tmp}/f/results_scores.h5: damaged: it was changed where nothing writes; remove the file to start over",
        {"f/results_scores.h5": damaged_scores}),
    "scores that are damaged, before the training": (
        "train_net_video {job} CHECKPOINT.DIR {tmp}/run TRAIN.TEST_AFTER_TRAIN True",
        "{tmp}/run/results_scores.h5: damaged: it was changed where nothing writes; remove the file to start over",
        {"run/results_scores.h5": damaged_scores}),
    "scores that are half": (
        "test_net_video {test} CHECKPOINT.DIR {tmp}/f",
        "{tmp}/f/results_scores.h5: damaged: its seal is damaged; remove the file to start over",
        {"f/results_scores.h5": half_the_scores}),
    "a FIFO for scores": (
        "test_net_video {test} CHECKPOINT.DIR {tmp}/f",
        "{tmp}/f/results_scores.h5: expected an HDF5 file, the scores of a test, got a FIFO",
        {"f/results_scores.h5": lambda path, job: os.mkfifo(path)}),
    "report of a damaged row": (
        "report_test {tmp}/r.h5 --truth {data}/test.txt",
        "{tmp}/r.h5: damaged: 1 of 90 rows (first row 7); the same test, started again, computes them again",
        {"r.h5": scores_with_a_damaged_row}),
}

CURVES = {
    "no log": (
        "plot_log {tmp}/log.txt --output {tmp}/c.png", "{tmp}/log.txt: cannot read this log: No such file or directory",
        {}),
    "a folder": ("plot_log {tmp} --output {tmp}/c.png", "{tmp}: cannot read this log: Is a directory", {}),
    "an empty log": ("plot_log {tmp}/log.txt --output {tmp}/c.png", f"{{tmp}}/log.txt: {NO_LOG}", {"log.txt": ""}),
    "a checkpoint": ("plot_log {weights} --output {tmp}/c.png", f"{{weights}}: {NO_LOG}", {}),
    "another format": (
        "plot_log {log} --output {tmp}/c.pdf", "--output: expected a name ending in .png, got {tmp}/c.pdf", {}),
    "no folder for the picture": (
        "plot_log {log} --output {tmp}/no/c.png", "{tmp}/no/c.png: cannot be written: No such file or directory", {}),
    "a folder for the picture": (
        "plot_log {log} --output {tmp}/c.png", "{tmp}/c.png: cannot be written: Is a directory", {"c.png": folder}),
}

PREPARATION = {
    "gen: the default folder": (
        "gen_py_list", "YOUR_DATASET_FOLDER/train/: cannot list the folder: No such file or directory", {}),
    "gen: a file": (
        "gen_py_list {data}/train.txt {tmp}/l.txt", "{data}/train.txt: cannot list the folder: Not a directory", {}),
    "gen: videos without class folders": (
        "gen_py_list {tmp}/v {tmp}/l.txt", "{tmp}/v: expected a folder for each class in it, got none",
        {"v/a.mp4": ""}),
    "gen: unknown class": (
        "gen_py_list {tmp}/v {tmp}/l.txt", "{tmp}/v/peting_cat: no such class; the nearest is 'petting_cat'. "
        "For classes of your own: --make_classids FILE",
        {"v/peting_cat/a.mp4": ""}),
    "gen: one class twice": (
        "gen_py_list {tmp}/v {tmp}/l.txt",
        "{tmp}/v: 'air drumming' and 'air_drumming' are the same class: expected one folder",
        {"v/air drumming/a.mp4": "", "v/air_drumming/a.mp4": ""}),
    "gen: no videos": (
        "gen_py_list {tmp}/v {tmp}/l.txt", "{tmp}/v: expected videos in its class folders, got none",
        {"v/abseiling": folder}),
    "gen: a line break in a name": (
        "gen_py_list {tmp}/v {tmp}/l.txt", "'{tmp}/v/abseiling/a\\nb.mp4': a list cannot hold this path: rename it",
        {"v/abseiling": name_with_line_break}),
    "gen: a name that is no path in a list": (
        "gen_py_list {tmp}/v {tmp}/l.txt", "'{tmp}/v/abseiling/a.mp4 3 b': a list cannot hold this path: rename it",
        {"v/abseiling/a.mp4 3 b": ""}),
    "gen: a folder for the list": ("gen_py_list {tmp}/v {tmp}", "{tmp}: cannot be written: Is a directory", ENTRY),
    "gen: no folder for the list": (
        "gen_py_list {tmp}/v {tmp}/no/l.txt", "{tmp}/no/l.txt: cannot be written: No such file or directory", ENTRY),
    "gen: no class ids": (
        "gen_py_list {tmp}/v {tmp}/l.txt --classids {tmp}/c.json",
        "{tmp}/c.json: cannot read the class ids: No such file or directory", ENTRY),
    "gen: class ids in YAML": (
        "gen_py_list {tmp}/v {tmp}/l.txt --classids {tmp}/c.json",
        "{tmp}/c.json: expected JSON {class name: id}, got: Expecting value: line 1 column 1 (char 0)",
        ENTRY | {"c.json": "abseiling: 0"}),
    "gen: class ids without ids": (
        "gen_py_list {tmp}/v {tmp}/l.txt --classids {tmp}/c.json",
        "{tmp}/c.json: expected {class name: id} with ids >= 0, got 'abseiling'", ENTRY | {"c.json": '["abseiling"]'}),
    "gen: an id twice": (
        "gen_py_list {tmp}/v {tmp}/l.txt --classids {tmp}/c.json",
        "{tmp}/c.json: class 'waving' or its id 0 occurs twice",
        ENTRY | {"c.json": '{"abseiling": 0, "waving": 0}'}),
    "change: no list": (
        "change_listname {tmp}/l.txt {tmp}/o.txt /a/ /b/",
        "cannot read the list {tmp}/l.txt: No such file or directory", {}),
    "change: nothing to change": (
        "change_listname {data}/train.txt {tmp}/o.txt /nowhere/ /b/",
        "{data}/train.txt: expected '/nowhere/' in its paths, got 5 lines without it", {}),
    "change: an empty name": (
        "change_listname {data}/train.txt {tmp}/o.txt '' /b/", "OLD: expected a folder name, got ''", {}),
    "change: a folder for the list": (
        "change_listname {data}/train.txt {tmp} mp4 avi", "{tmp}: cannot be written: Is a directory", {}),
    "shuffle: no list": (
        "shuffle_list_rep {tmp}/o.txt --list_file {tmp}/l.txt",
        "cannot read the list {tmp}/l.txt: No such file or directory", {}),
    "shuffle: a folder": (
        "shuffle_list_rep {tmp}/o.txt --list_file {tmp}", "cannot read the list {tmp}: Is a directory", {}),
    "shuffle: an empty list": (
        "shuffle_list_rep {tmp}/o.txt --list_file {tmp}/l.txt",
        "{tmp}/l.txt: expected a list of videos, got an empty file", {"l.txt": ""}),
    "shuffle: blank lines": (
        "shuffle_list_rep {tmp}/o.txt --list_file {tmp}/l.txt",
        "{tmp}/l.txt: expected a list of videos, got empty lines", {"l.txt": "\n \n"}),
    "shuffle: not once": (
        "shuffle_list_rep {tmp}/o.txt --list_file {data}/train.txt --repetitions 0",
        "expected --repetitions >= 1 and --seed >= 0, got 0 and 2", {}),
    "shuffle: a folder for the list": (
        "shuffle_list_rep {tmp} --list_file {data}/train.txt --repetitions 1",
        "{tmp}: cannot be written: Is a directory", {}),
    "lmdb: no list": (
        "create_video_lmdb_test_flipcrop --dataset_dir {tmp}/out --list_file {tmp}/l.txt",
        "cannot read the list {tmp}/l.txt: No such file or directory", {}),
    "lmdb: there already": (
        "create_video_lmdb --dataset_dir {tmp}/out --list_file {data}/train.txt",
        "{tmp}/out exists already; remove it or choose another --dataset_dir", {"out/data.mdb": ""}),
    "lmdb: in a file": (
        "create_video_lmdb --dataset_dir {tmp}/f/out --list_file {data}/train.txt",
        "{tmp}/f: cannot be created: File exists", {"f": ""}),
    "lmdb: an empty list": (
        "create_video_lmdb_test --dataset_dir {tmp}/out --list_file {tmp}/l.txt", "{tmp}/l.txt: the list is empty",
        {"l.txt": ""}),
    "lmdb: a bad line": (
        "create_video_lmdb_test_multicrop --dataset_dir {tmp}/out --list_file {tmp}/l.txt",
        f"{{tmp}}/l.txt:2: {NO_PATH} 'b.mp4'", {"l.txt": "a.mp4 0\nb.mp4\n"}),
    "rescale: nobody to work": (
        "downscale_video_joblib --list_file {data}/train.txt --folder {data} --out {tmp}/out --jobs 0",
        "--jobs: expected a number >= 1, got 0", {}),
    "rescale: in place": (
        "downscale_video_joblib --list_file {data}/train.txt --folder {tmp} --out {tmp}",
        "--out: expected another folder than --folder, got {tmp}", {}),
    "rescale: no videos": (
        "downscale_video_joblib --list_file {data}/train.txt --folder {tmp}/v --out {tmp}/out",
        "--folder: expected the folder of the videos, got {tmp}/v, which is not a folder", {}),
    "rescale: an empty list": (
        "downscale_video_joblib --list_file {tmp}/l.txt --folder {data} --out {tmp}/out",
        "{tmp}/l.txt: expected a list of videos, got an empty file", {"l.txt": ""}),
    "rescale: into a file": (
        "downscale_video_joblib --list_file {data}/train.txt --folder {data} --out {tmp}/f",
        "{tmp}/f: cannot be created: File exists", {"f": ""}),
    "convert: not there": (
        "modify_blob_rm {tmp}/w.pkl {tmp}/o.pkl", "{tmp}/w.pkl: cannot read: No such file or directory", {}),
    "convert: a list": (
        "modify_blob_rm {data}/train.txt {tmp}/o.pkl",
        "{data}/train.txt: expected a pickle of weights, got a text file", {}),
    "convert: twice": (
        "modify_caffe2_ftvideo {tmp}/w.pkl {tmp}/o.pkl",
        "{tmp}/w.pkl: no batch norm (_bn_riv) in it: is it converted already?",
        {"w.pkl": checkpoint_of_something_else}),
    "convert: half a batch norm": (
        "modify_caffe2_ftvideo {tmp}/w.pkl {tmp}/o.pkl",
        "{tmp}/w.pkl: a_bn_s: expected numbers of the shape of a_bn_riv, (3,)", {"w.pkl": norm_without_scale}),
    "convert: negative variances": (
        "modify_caffe2_ftvideo {tmp}/w.pkl {tmp}/o.pkl", "{tmp}/w.pkl: a_bn_riv: expected variances, got -1.0",
        {"w.pkl": norm_of_negative_variance}),
    "convert: into a folder": ("modify_blob_rm {weights} {tmp}", "{tmp}: cannot be written: Is a directory", {}),
    "convert: in a file": (
        "modify_caffe2_ftvideo {weights} {tmp}/f/o.pkl", "{tmp}/f: cannot be created: File exists", {"f": ""}),
    "demo: fewer than none": (
        "make_motion_videos {tmp}/v --train -1", "--seed, --train and --val: expected numbers of at least 0", {}),
    "demo: in a folder of another encoding": (
        "make_motion_videos {tmp}/\udcff",
        "{tmp}/\\udcff: expected a name in UTF-8: OpenCV writes no video under another", {}),
    "demo: in a file": (
        "make_motion_videos {tmp}/f --train 1", "{tmp}/f/train/fading: cannot be created: Not a directory", {"f": ""}),
}

# argparse says these, after the usage, and ends with status 2.
LOOKING = {
    "class names that are not there": (
        "predict_video --video {tmp}/v.mp4 --classids {tmp}/n.txt {test}",
        "{tmp}/n.txt: cannot read the class names: No such file or directory", {}),
    "windows of no time": (
        "predict_video --video {data}/tall.mp4 --sliding 0 --csv {tmp}/r.csv {test}",
        "--sliding: expected seconds between 0.1 and 86400, got '0'", {}),
    "a timeline of whole videos": (
        "predict_video --video {data}/tall.mp4 --timeline {tmp}/t.png {test}",
        "--timeline: expected --sliding SECONDS with it", {}),
    "a timeline of another format": (
        "predict_video --video {data}/tall.mp4 --sliding 2 --timeline {tmp}/t.pdf {test}",
        "--timeline: expected a name ending in .png, got {tmp}/t.pdf", {}),
    "a timeline of several videos": (
        "predict_video --video {data}/tall.mp4 {data}/wide.mp4 --sliding 2 --timeline {tmp}/t.png "
        "--classids {tmp}/n.txt {test}", "--timeline: expected one video for the picture, got 2", {"n.txt": NAMES}),
    "no folder for the timeline": (
        "predict_video --video {data}/tall.mp4 --sliding 2 --csv {tmp}/r.csv --timeline {tmp}/no/t.png "
        "--classids {tmp}/n.txt {test}", "{tmp}/no/t.png: cannot be written: No such file or directory",
        {"n.txt": NAMES}),
    "no folder for the rows": (
        "predict_video --video {data}/tall.mp4 --sliding 2 --csv {tmp}/no/r.csv --json {tmp}/r.json "
        "--classids {tmp}/n.txt {test}", "{tmp}/no/r.csv: cannot be written: No such file or directory",
        {"n.txt": NAMES}),
    "attention without a non-local block": (
        "visualize_attention --video {tmp}/v.mp4 --output {tmp}/a {test}",
        "the network has no non-local block: NONLOCAL.CONV3_NONLOCAL and CONV4_NONLOCAL are False", {}),
    "features of no list": (
        "extract_features --list {tmp}/l.txt --blob pool5 --output {tmp}/f.h5 {test}",
        "cannot read the list {tmp}/l.txt: No such file or directory", {}),
    "features of no blob": (
        "extract_features --list {data}/test.txt --blob pool6 --output {tmp}/f.h5 {test}",
        "blob 'pool6': not in this network; near ones: pool5, pool2, pool1", {}),
    "report of nothing": (
        "report_test {tmp}/r.pkl --truth {tmp}/t.txt", "{tmp}/r.pkl: cannot read: No such file or directory", {}),
    "report of a run that is not there": (
        "report_run {tmp}/r", "{tmp}/r: expected the folder of a run (its CHECKPOINT.DIR), got none", {}),
    "report of a log": ("report_run {log}", "{log}: expected the folder of a run (its CHECKPOINT.DIR), got a file", {}),
    "report of a folder without a log": (
        "report_run {tmp}",
        "{tmp}: expected the folder of a run, with the log.txt that the scripts write, found none", {}),
    "report of an empty log": ("report_run {tmp}/f", f"{{tmp}}/f/log.txt: {NO_LOG}", {"f/log.txt": ""}),
    "report of damaged scores": (
        "report_run {tmp}/f",
        "{tmp}/f/results_scores.h5: damaged: 1 of 90 rows (first row 7); the same test, started again, computes them "
        "again", {"f/log.txt": log_of_the_job, "f/results_scores.h5": scores_with_a_damaged_row}),
    "report with the list of other videos": (
        "report_run {tmp}/f --truth {tmp}/l.txt",
        "{tmp}/f/results_probs.pkl: expected video indices 0 to 0, as {tmp}/l.txt has 1 lines, got 0 to 2",
        {"f/log.txt": log_of_the_job, "f/results_probs.pkl": scores_of_the_job, "l.txt": "a.mp4 0\n"}),
    "report with the names of other classes": (
        "report_run {tmp}/f --classes {tmp}/n.txt",
        "{tmp}/n.txt: expected names for the classes 0 to 9, got 1",
        {"f/log.txt": log_of_the_job, "f/results_probs.pkl": scores_of_the_job, "n.txt": "one\n"}),
    "no folder for the report": (
        "report_run {tmp}/f --output {tmp}/no/r.html", "{tmp}/no/r.html: cannot be written: No such file or directory",
        {"f/log.txt": log_of_the_job}),
    "a checkpoint made of nothing": (
        "export_model --format pkl --output {tmp}/o.pkl {job}",
        "TEST.PARAMS_FILE is not set: give the weights to export", {}),
    "a model that was not released": (
        "test_released_models i3d_nonlocal_8x8 CHECKPOINT.DIR {tmp}",
        "'i3d_nonlocal_8x8': no released model has this name; the nearest is i3d_nonlocal_8x8_IN_pretrain_400k", {}),
    "a released model that is not there": (
        "test_released_models i3d_nonlocal_8x8_IN_pretrain_400k.pkl --models {tmp} CHECKPOINT.DIR {tmp}",
        "{tmp}: expected i3d_nonlocal_8x8_IN_pretrain_400k.pkl, which can be had from the above", {}),
    "weights in two ways": (
        "test_released_models --models {tmp} TEST.PARAMS_FILE {weights}",
        "TEST.PARAMS_FILE: expected no such word here: it follows from --models and FILENAME_GT", {}),
    "a state_dict made of one": (
        "export_model --format state_dict --output {tmp}/o.pth --from_state_dict {tmp}/m.pth {job}",
        "--from_state_dict: expected --format pkl or safetensors with it, got state_dict", {}),
    "options of other weights": (
        "predict_video --weights {tmp}/w.pkl --video {data}/tall.mp4",
        "{tmp}/w.options.json: expected the options of {tmp}/w.pkl: MODEL.NUM_CLASSES is 10 by the weights, got -1",
        {"w.pkl": copied, "w.options.json": '{"classifier": "", "options": {}}'}),
    "options that are no options": (
        "test_net_video TEST.PARAMS_FILE {tmp}/w.pkl",
        "{tmp}/w.options.json: expected the options of a training as this program writes them, got no 'options'",
        {"w.pkl": copied, "w.options.json": '{"videos": []}'}),
    "check of no LMDB": ("check_dataset --lmdb {tmp}", "{tmp} is not an LMDB: it has no data.mdb", {}),
    "a plan for no GPU": ("plan_training --gpus 0 {job}", "--gpus: expected a number > 0, got 0", {}),
    "a plan for half of the lists": (
        "plan_training --train_list {data}/train.txt {job}",
        "--train_list and --test_list go together: expected both or neither", {}),
    "a plan for lists and a number": (
        "plan_training --train_list {data}/train.txt --test_list {data}/test.txt --dataset_size 5 {job}",
        "--dataset_size: not with --train_list, whose lines are counted", {}),
    "a plan for a list of nothing": (
        "plan_training --train_list {tmp}/l.txt --test_list {data}/test.txt --output {tmp}/f.yaml {job}",
        "{tmp}/l.txt: the list is empty", {"l.txt": ""}),
    "a plan for a label too large": (
        "plan_training --train_list {data}/train.txt --test_list {tmp}/l.txt --output {tmp}/f.yaml {job}",
        "{tmp}/l.txt:2: the label 12 is not in 0..9 (MODEL.NUM_CLASSES 10)", {"l.txt": "a.mp4 1\nb.mp4 12\n"}),
    "a plan into no folder": (
        "plan_training --gpus 2 --output {tmp}/no/f.yaml {job}",
        "{tmp}/no/f.yaml: cannot be written: No such file or directory", {}),
    "a plan over another file": (
        "plan_training --gpus 2 --output {tmp}/f.yaml {job}",
        "{tmp}/f.yaml: is there already: expected the name of a new file", {"f.yaml": "NUM_GPUS: 1\n"}),
}

USAGE = {
    "no configuration": (
        "train_net_video NUM_GPUS 4", "train_net_video.py: error: the following arguments are required: --config_file"),
    "no log": ("plot_log", "plot_log.py: error: the following arguments are required: LOG"),
    "no weights": ("modify_blob_rm {weights}", "modify_blob_rm.py: error: the following arguments are required: OUT"),
    "no names": (
        "change_listname {data}/train.txt {tmp}/o.txt",
        "change_listname.py: error: the following arguments are required: old, new"),
    "no list": (
        "create_video_lmdb --dataset_dir {tmp}/out",
        "create_video_lmdb.py: error: the following arguments are required: --list_file"),
    "no number": (
        "shuffle_list_rep {tmp}/o.txt --repetitions many",
        "shuffle_list_rep.py: error: argument --repetitions: invalid int value: 'many'"),
    "no folder": ("make_motion_videos", "make_motion_videos.py: error: the following arguments are required: OUT"),
}

TABLES = {"options": OPTIONS, "data": DATA, "weights": WEIGHTS, "output": OUTPUT, "curves": CURVES,
          "preparation": PREPARATION, "looking": LOOKING}
ROWS = [pytest.param(*row, id=f"{table}: {name}") for table, rows in TABLES.items() for name, row in rows.items()]

# --------------------------------------------------------------------------------------------------------- the tests


@pytest.fixture
def filled_in(tmp_path, job):
    """Replaces {tmp}, {data}, ... in a text."""
    results = job.folder / "results_probs.pkl"
    log = job.folder / "log.txt"
    words = shlex.join(legacy_run.words(job.data, tmp_path / "run"))
    test = f"{words} DATADIR {job.data}/lmdb TEST.PARAMS_FILE {job.weights} TEST.TEST_FULLY_CONV True"
    values = {"{tmp}": tmp_path, "{data}": job.data, "{weights}": job.weights, "{log}": log, "{results}": results,
              "{job}": words, "{test}": test}

    def fill_in(text):
        for name, value in values.items():
            text = text.replace(name, str(value))
        return text

    return fill_in


@pytest.fixture
def run(monkeypatch, capfd, filled_in):
    """Runs a tool's file in this process as Python runs a script: what was typed -> status, stdout, stderr."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level

    def run(typed):
        tool, *words = shlex.split(filled_in(typed))
        monkeypatch.setattr(sys, "argv", [str(TOOLS[tool]), *words])
        monkeypatch.syspath_prepend(TOOLS[tool].parent)
        monkeypatch.setattr("utils.stopping.stop_when_asked", lambda: None)  # these tests go on
        with pytest.raises(SystemExit) as ending:
            runpy.run_path(str(TOOLS[tool]), run_name="__main__")
        return ending.value.code, *capfd.readouterr()

    yield run
    root.handlers[:], root.level = handlers, level


def make_files(folder, files, filled_in, job):
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if callable(content):
            content(path, job)
        else:
            path.write_bytes(content if isinstance(content, bytes) else filled_in(content).encode())


def contents(folder):
    """What is in a folder; a run may have made its own folder, and noted how many frames its videos have."""
    allowed = {"run", "run/checkpoints", "run/frame_counts.txt"}
    paths = {str(path.relative_to(folder)): path for path in folder.rglob("*")}
    return {name: path.read_bytes() if path.is_file() else None for name, path in paths.items() if name not in allowed}


def said(errors):
    """The lines on standard error but for progress bars, and what FFmpeg says if a test has opened it before us."""
    lines = [line for line in errors.splitlines() if line.strip()]
    return [line for line in lines if "B/s]" not in line and "repetition/s]" not in line and "[mjpeg @" not in line]


@pytest.mark.parametrize(("typed", "message", "files"), ROWS)
def test_one_line_and_nothing_else(typed, message, files, run, filled_in, tmp_path, job):
    if typed.startswith("downscale_video_joblib") and shutil.which("ffmpeg") is None:
        pytest.skip("no ffmpeg here")
    make_files(tmp_path, files, filled_in, job)
    before = contents(tmp_path)
    status, _, errors = run(typed)
    assert said(errors) == [f"error: {filled_in(message)}"]
    assert status == 1
    assert contents(tmp_path) == before
    # A thread that decodes on would hold up the end of the program, and could log after the message.
    assert decoder_threads() == []


@pytest.mark.parametrize(("typed", "message"), USAGE.values(), ids=USAGE)
def test_usage(typed, message, run, filled_in, tmp_path):
    status, _, errors = run(typed)
    assert errors.startswith("usage: ") and errors.splitlines()[-1] == message
    assert status == 2
    assert contents(tmp_path) == {}


def test_the_table_knows_every_tool():
    typed = {row[0].split()[0] for rows in (*TABLES.values(), USAGE) for row in rows.values()}
    assert {name for name in TOOLS if not name.startswith("_")} - typed == {"convert_to_finetune"}  # it is imported


def test_rescaling_without_ffmpeg(run, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    status, _, errors = run("downscale_video_joblib --list_file {data}/train.txt --folder {data} --out {tmp}/out")
    assert (status, errors) == (1, "error: ffmpeg: not found on PATH; install it, e.g. apt-get install ffmpeg\n")
    assert contents(tmp_path) == {}


def test_a_gpu_beyond_the_last(run, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    status, _, errors = run("train_net_video {job} ROOT_GPU_ID 2")
    assert (status, errors) == (1, "error: ROOT_GPU_ID: expected 0 to 1, got 2\n")


def test_a_mistake_of_the_programs_own_keeps_its_traceback(run, monkeypatch):
    monkeypatch.setattr("engine.solver.Solver.from_config", lambda model, cfg: 1 / 0)
    status, _, errors = run("train_net_video {job}")
    assert status == 1
    assert errors.startswith("Traceback (most recent call last):\n") and errors.endswith("ZeroDivisionError: division "
                                                                                         "by zero\n")


# ------------------------------------------------------------------------------------------------ as real processes


@pytest.mark.parametrize("name", ["weights: a command", "data: label -1", "options: an equals sign",
                                  "preparation: gen: unknown class"])
def test_the_same_from_a_process(name, filled_in, tmp_path, job, python):
    table, row = name.split(": ", 1)
    typed, message, files = TABLES[table][row]
    make_files(tmp_path, files, filled_in, job)
    tool, *words = shlex.split(filled_in(typed))
    process = subprocess.run([python, TOOLS[tool], *words], capture_output=True, text=True, cwd=tmp_path)
    assert (process.returncode, process.stderr) == (1, f"error: {filled_in(message)}\n")


@pytest.fixture(scope="module")
def installed(repo, tmp_path_factory):
    """A copy of the repository's scripts with nothing in data/."""
    folder = tmp_path_factory.mktemp("installed")
    shutil.copytree(repo / "scripts", folder / "scripts")
    shutil.copytree(repo / "process_data", folder / "process_data", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("lib", "tools", "configs"):
        (folder / name).symlink_to(repo / name)
    return folder


MAKE_IT = ": make it with process_data/kinetics/gen_py_list.py, or put the list of the Caffe2 program there (see " \
          "DATASET.md)"
WEIGHTS_MISSING = "../data/pretrained_model/r50_pretrain_c2_model_iter450450_clean.pkl: cannot read: " \
                  "No such file or directory"


@pytest.mark.parametrize(("script", "status", "messages"), [
    ("scripts/run_i3d_nlnet_400k.sh", 1, [f"error: {WEIGHTS_MISSING}"]),
    ("scripts/run_test_multicrop.sh", 1,
     [f"error: cannot read the list ../process_data/kinetics/vallist.txt: No such file or directory{MAKE_IT}"]),
    ("scripts/run_c2d_baseline_400k.sh NUM_GPUS=1", 1,
     ["error: command line: 'NUM_GPUS=1': separate key and value with a space: NUM_GPUS 1"]),
    ("scripts/setup_env.sh requirements.yaml", 1,
     ["error: expected requirements.txt or requirements-dev.txt, got requirements.yaml"]),
    ("process_data/kinetics/run_createdb.sh", 1,
     ["error: cannot read the list trainlist_shuffle_rep.txt: No such file or directory: make it with "
      "process_data/kinetics/shuffle_list_rep.py (see DATASET.md)",
      f"error: cannot read the list vallist.txt: No such file or directory{MAKE_IT}"]),
])
def test_scripts(script, status, messages, installed, python):
    process = subprocess.run(["bash", *script.split()], cwd=installed, capture_output=True, text=True,
                             env=os.environ | {"PYTHON": str(python), "CUDA_VISIBLE_DEVICES": ""})
    said = (process.stdout + process.stderr).splitlines()
    assert [line for line in said if line.startswith("error: ")] == messages
    assert process.returncode == status
    assert not any("Traceback" in line for line in said)
