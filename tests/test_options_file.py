"""The options beside a checkpoint: written with it, found with it, and refused where they are not its own."""

import json
import os
import shutil

import legacy_run
import numpy as np
import pytest
from test_checkpoints import momentum_of, tiny

import predict_video
import test_net_video
from core.config import load_config
from engine.weights_options import load_configuration, options_of_scores
from formats.caffe2_pickle import load
from formats.options_file import options_path
from utils import checkpoints, stopping
from utils.checkpoints import checkpoint_path, find_checkpoints, prune_checkpoints, save_checkpoint
from utils.errors import UserError


def names(folder):
    return sorted(path.name for path in (folder / "checkpoints").iterdir())


def save(folder, iteration, **changed):
    model = tiny(iteration)
    save_checkpoint(checkpoint_path(folder, iteration), model, momentum_of(model), 0.1, iteration,
                    options={"MODEL": {"DEPTH": 50}} | changed)


# ------------------------------------------------------------------------------------------------------------ writing


def test_a_training_writes_all_its_options(job):
    cfg = load_config(legacy_run.YAML, legacy_run.words(job.data / "lmdb", job.folder)[2:])
    for iteration in (2, 4):
        stored = json.loads((job.folder / f"checkpoints/c2_model_iter{iteration}.options.json").read_text())
        assert stored["options"] == cfg


def test_the_options_go_with_their_checkpoint(tmp_path):
    for iteration in (1, 2, 3):
        save(tmp_path, iteration)
    prune_checkpoints(tmp_path, 1, 3)
    assert names(tmp_path) == ["c2_model_iter3.options.json", "c2_model_iter3.pkl"]
    assert find_checkpoints(tmp_path) == [checkpoint_path(tmp_path, 3)]
    # What the Caffe2 program makes of the names in this folder.
    assert [int(name.replace(".pkl", "").replace("c2_model_iter", "")) for name in names(tmp_path)
            if name.endswith(".pkl") and name.startswith("c2_model_iter")] == [3]
    model = tiny()
    save_checkpoint(checkpoint_path(tmp_path, 3), model, momentum_of(model), 0.1, 3)  # by a program without options
    assert names(tmp_path) == ["c2_model_iter3.pkl"]


def test_a_kill_between_options_and_checkpoint(tmp_path, monkeypatch):
    """Only options are there, which nothing lists, and the next checkpoint clears away."""
    save(tmp_path, 1)
    pid = os.fork()
    if not pid:
        checkpoints.dump = lambda *_: os._exit(9)
        save(tmp_path, 2)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 9
    assert names(tmp_path) == ["c2_model_iter1.options.json", "c2_model_iter1.pkl", "c2_model_iter2.options.json"]
    assert find_checkpoints(tmp_path) == [checkpoint_path(tmp_path, 1)]
    save(tmp_path, 3)
    assert names(tmp_path) == [f"c2_model_iter{i}.{suffix}" for i in (1, 3) for suffix in ("options.json", "pkl")]

    pid = os.fork()
    if not pid:  # asked to end there
        checkpoints.dump = lambda *_: (stopping.do_last_acts(), os._exit(9))
        save(tmp_path, 4)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 9
    assert len(names(tmp_path)) == 4

    def full(*_):
        raise UserError("no space")

    monkeypatch.setattr(checkpoints, "dump", full)
    with pytest.raises(UserError):
        save(tmp_path, 4)
    assert len(names(tmp_path)) == 4


# ------------------------------------------------------------------------------------------------------------ reading


def copied(job, folder):
    """A copy of the job's weights and of their options, under another name."""
    shutil.copy(job.weights, folder / "w.pkl")
    shutil.copy(options_path(job.weights), folder / "w.options.json")
    return folder / "w.pkl"


def test_predicting_and_testing_without_any_option(job, tmp_path, call_tool):
    weights = copied(job, tmp_path)
    words = legacy_run.words(job.data, tmp_path, TEST__PARAMS_FILE=weights, TEST__NUM_TEST_CLIPS=3)
    common = ["--video", job.data / "tall.mp4", "--views", "1x1", "--json"]
    assert call_tool(predict_video, *common, tmp_path / "with.json", *words)[0] == 0
    status, _, errors = call_tool(predict_video, "--weights", weights, *common, tmp_path / "without.json")
    assert status == 0
    told = [line for line in errors.splitlines() if line.startswith("Options from ")]
    assert len(told) == 1 and told[0].startswith(f"Options from {tmp_path}/w.options.json: ")
    assert "TRAIN.VIDEO_LENGTH 2 " in told[0] and "DATADIR" not in told[0] and "CHECKPOINT" not in told[0]
    found, expected = (json.loads((tmp_path / f"{name}.json").read_text())["videos"] for name in ("without", "with"))
    assert found == expected

    assert call_tool(test_net_video, *words)[0] == 0
    expected = load(tmp_path / "results_probs.pkl")
    (tmp_path / "results_probs.pkl").unlink()
    status, output, errors = call_tool(
        test_net_video, "TEST.PARAMS_FILE", weights, "DATADIR", job.data, "FILENAME_GT", job.data / "gt.txt",
        "TEST.DATASET_SIZE", 3, "CHECKPOINT.DIR", tmp_path, "TEST.NUM_TEST_CLIPS", 3)
    assert (status, errors) == (0, "")
    assert f"]: Options from {tmp_path}/w.options.json: " in output
    assert "]: 0/" not in output  # the scores of the test above
    assert load(tmp_path / "results_probs.pkl") == expected


def test_the_users_word_outweighs_them(job, tmp_path):
    words = ["TEST.PARAMS_FILE", str(copied(job, tmp_path)), "TRAIN.SAMPLE_RATE", "7", "NUM_GPUS", "1"]
    cfg = load_configuration(None, words)
    assert (cfg.TRAIN.SAMPLE_RATE, cfg.TRAIN.VIDEO_LENGTH, cfg.NUM_GPUS, cfg.DATADIR) == (7, 2, 1, "")
    trained = load_config(legacy_run.YAML, legacy_run.words(job.data, job.folder, TRAIN__SAMPLE_RATE=7, NUM_GPUS=1)[2:])
    assert options_of_scores(cfg) == options_of_scores(trained)


def with_option(group, option, value):
    def change(stored):
        stored["options"][group][option] = value
    return change


@pytest.mark.parametrize(("change", "message"), [
    (with_option("MODEL", "NUM_CLASSES", 400),
     "expected the options of {w}: MODEL.NUM_CLASSES is 10 by the weights, got 400"),
    (with_option("MODEL", "DEPTH", 101), "expected the options of {w}: MODEL.DEPTH is 50 by the weights, got 101"),
    (with_option("MODEL", "USE_AFFINE", True), "MODEL.USE_AFFINE is False by the weights, got True"),
    (with_option("RESNETS", "WIDTH_PER_GROUP", 10**30),
     "RESNETS.WIDTH_PER_GROUP: expected an integer >= 1, got 1000000000"),
    (with_option("NONLOCAL", "CONV4_NONLOCAL", True), "nonlocal_conv4_1_theta_w: no such blob in the weights, shape "
     "(64, 128, 1, 1, 1) by these options"),
    (with_option("NONLOCAL", "AFFINITY", "cosine"), "NONLOCAL.AFFINITY: expected one of"),
    (with_option("MODEL", "MODEL_NAME", "vit"), "MODEL.MODEL_NAME: expected one of resnet_video, resnet_video_org"),
    (with_option("MODEL", "HEADS", 8), "MODEL.HEADS = 8 (int): no such option"),
    (with_option("TRAIN", "VIDEO_LENGTH", "eight"), "TRAIN.VIDEO_LENGTH = 'eight' (str): expected int"),
    (with_option("TRAIN", "SAMPLE_RATE", 0), "TRAIN.SAMPLE_RATE: expected"),
    (lambda stored: stored.update(classifier="0" * 64), "expected the options of {w}, got those of other weights"),
    (lambda stored: stored.update(options=3), "as this program writes them, got another kind of 'options'"),
    (lambda stored: stored.pop("classifier"), "as this program writes them, got no 'classifier'"),
])
def test_options_that_contradict_their_weights(change, message, job, tmp_path):
    weights = copied(job, tmp_path)
    stored = json.loads((tmp_path / "w.options.json").read_text())
    change(stored)
    (tmp_path / "w.options.json").write_text(json.dumps(stored))
    with pytest.raises(UserError) as error:
        load_configuration(None, ["TEST.PARAMS_FILE", str(weights)])
    text = str(error.value)
    assert text.startswith(f"{tmp_path}/w.options.json: ") and "\n" not in text and len(text) < 500
    assert message.format(w=weights) in text


def half(path):
    path.write_bytes(path.read_bytes()[:900])


def folder(path):
    path.unlink()
    path.mkdir()


def fifo(path):
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize(("damage", "message"), [
    (half, "got no JSON ("),
    (lambda path: path.write_bytes(b""), "got no JSON ("),
    (lambda path: path.write_bytes(b"\xff\xfe\x00"), "got no JSON ("),
    (lambda path: path.write_text("[" * 100_000), "got no JSON ("),
    (lambda path: path.write_text("[1]"), "got a list"),
    (lambda path: path.write_text(" " * (1 << 21)), "got more than 1048576 bytes"),
    (folder, "got a folder or device"),
    (fifo, "got a folder or device"),
])
def test_damaged_options(damage, message, job, tmp_path, call_tool):
    weights = copied(job, tmp_path)
    damage(tmp_path / "w.options.json")
    status, output, errors = call_tool(predict_video, "--weights", weights, "--video", job.data / "tall.mp4")
    assert (status, output) == (1, "") and errors.count("\n") == 1
    assert errors.startswith(f"error: {tmp_path}/w.options.json: expected the options of a training as this program "
                             "writes them, ") and message in errors


def test_without_options_the_name_or_the_user_must_tell(job, tmp_path):
    weights = copied(job, tmp_path)
    (tmp_path / "w.options.json").unlink()
    with pytest.raises(UserError, match=r"w.pkl: weights do not tell the clips .*: expected --config_file, or "
                                        r"w.options.json of their training, or a name with one of 8x8, "):
        load_configuration(None, ["TEST.PARAMS_FILE", str(weights)])
    weights.rename(tmp_path / "w_8x8.pkl")
    assert load_configuration(None, ["TEST.PARAMS_FILE", str(tmp_path / "w_8x8.pkl")]).TRAIN.VIDEO_LENGTH == 8


def test_numbers_survive_as_they_are(job):
    """BN_EPSILON and the like, which a shorter text would change."""
    cfg = load_configuration(None, ["TEST.PARAMS_FILE", str(job.weights)])
    assert np.float64(cfg.MODEL.BN_EPSILON).tobytes() == np.float64(1.0000001e-5).tobytes()
