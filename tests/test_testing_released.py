"""Testing the released models: scripts/test_released.sh, on narrow networks under their names."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
import recipe_blobs
from video_files import write_video

import test_released_models
from core.config import load_config
from engine.released_tests import spread
from formats.caffe2_pickle import dump
from models.model_builder_video import create_model
from models.released import RELEASED
from reports.released_table import Measurement, measured_beside_published, wilson_interval
from utils.stopping import EXIT_INTERRUPTED

NAMES = ["c2d_baseline_8x8_IN_pretrain_400k", "c2d_nonlocal_8x8_IN_pretrain_400k"]
# Cheaper than what is published: two frames of 200 pixels, 2 clips x 3 crops.
CHEAP = ["NUM_GPUS", "1", "TRAIN.VIDEO_LENGTH", "2", "TRAIN.SAMPLE_RATE", "2", "TRAIN.JITTER_SCALES", "[200,200]",
         "TEST.SCALE", "200", "TEST.NUM_TEST_CLIPS", "6", "TEST.BATCH_SIZE", "3"]


@pytest.fixture(scope="module")
def models(repo, tmp_path_factory):
    """A folder with two released models, of 4 classes and 2 channels."""
    folder = tmp_path_factory.mktemp("models")
    yaml = repo / "configs/DBG_kinetics_resnet_8gpu_c2d_nonlocal_400k.yaml"
    for name in NAMES:
        blocks = str("nonlocal" in name)
        network = create_model(load_config(yaml, [
            "RESNETS.WIDTH_PER_GROUP", "2", "RESNETS.STEM_OUT_CHANNELS", "8", "MODEL.NUM_CLASSES", "4",
            "NONLOCAL.CONV3_NONLOCAL", blocks, "NONLOCAL.CONV4_NONLOCAL", blocks]), "test")
        recipe_blobs.fill(network, 3)
        dump(recipe_blobs.values(network), folder / f"{name}.pkl")
    return folder


def words(models, data, folder, *more):
    return [*map(str, more), "--models", str(models), "DATADIR", str(data), "FILENAME_GT", str(data / "gt.txt"),
            "CHECKPOINT.DIR", str(folder), *CHEAP]


def table(text):
    """{model: the other cells of its row} of the last table of a log."""
    rows = [re.split(r"  +", line) for line in text.rpartition("videos scored\n")[2].splitlines()]
    return {row[0]: row[1:] for row in rows if row[0] in RELEASED}


@pytest.fixture(scope="module")
def whole(zygote, models, data, tmp_path_factory):
    """The log of an undisturbed run."""
    folder = tmp_path_factory.mktemp("whole")
    command = ["test_released_models", *words(models, data, folder)]
    assert zygote.run(command, folder / "log.txt") == 0, (folder / "log.txt").read_text()
    return folder / "log.txt"


def test_measured_beside_published(whole, models):
    text = whole.read_text()
    missing = re.findall(r"^not there: (\S+); from (\S+)$", text, re.MULTILINE)
    assert missing == [(f"{models}/{name}.pkl", model.link) for name, model in RELEASED.items() if name not in NAMES]
    assert text.count("Options from ") == 2 and text.count("2 clips of 2 frames with stride 2 x 3 crops of 200") == 2
    found = table(text)
    assert list(found) == NAMES
    reports = re.findall(r"top-1 accuracy: (\S+) percent\n.*top-5 accuracy: (\S+) percent", text)
    for (name, cells), (top1, top5) in zip(found.items(), reports, strict=True):
        model = RELEASED[name]
        # One of the four videos of the list is missing.
        measured1, measured5 = (float(accuracy) * 4 / 3 for accuracy in (top1, top5))
        assert cells == [f"{measured1:.2f}", f"{model.top1:.1f}", f"{measured1 - model.top1:+.2f}", f"{measured5:.2f}",
                         f"{model.top5:.1f}", f"{measured5 - model.top5:+.2f}", "3 of 4"]
    assert text.rstrip().endswith("the report of each test counts the others as wrong.")


def test_interrupted_and_resumed(zygote, models, data, whole, tmp_path):
    """In the second test: the first is not done again, the second goes on, and the numbers are the same."""
    command = ["test_released_models", *words(models, data, tmp_path / "run")]
    log = tmp_path / "log.txt"
    run = zygote.start(command, log)
    while not log.exists() or not re.search(rf"Testing {NAMES[1]}.*\]: 0/\d+ iter", log.read_text(), re.DOTALL):
        assert run.wait(0.005) is None, log.read_text()
    run.kill(signal.SIGTERM)
    assert run.wait() == EXIT_INTERRUPTED
    assert not list((tmp_path / "run").rglob("run.lock")) and "SIGTERM: stopping" in log.read_text()
    done = log.read_text().count(" iter (")
    log.unlink()
    assert zygote.run(command, log) == 0
    text = log.read_text()
    assert table(text) == table(whole.read_text())
    passes = whole.read_text().count(" iter (")
    first, second = text.split(f"Testing {NAMES[1]}")
    assert " iter (" not in first and 0 < second.count(" iter (") == passes - done
    # Other weights under the same name are tested.
    other = shutil.copytree(models, tmp_path / "other")
    os.replace(other / f"{NAMES[0]}.pkl", other / f"{NAMES[1]}.pkl")
    assert zygote.run(["test_released_models", *words(other, data, tmp_path / "run")], log) == 0
    assert log.read_text().count(" iter (") == second.count(" iter (") + passes // 2
    cells = table(log.read_text())[NAMES[1]], table(text)[NAMES[0]]
    assert cells[0][0] == cells[1][0] and cells[0][3] == cells[1][3]


def test_a_sample(call_tool, models, tmp_path, repo, capfd):
    """Of an LMDB, by a list of its own; named models only."""
    for i in range(6):
        write_video(tmp_path / f"v{i}.mp4", np.random.default_rng(i).integers(0, 255, (9, 64, 80, 3), dtype=np.uint8))
    (tmp_path / "gt.txt").write_text("".join(f"elsewhere/v{i}.mp4 {i % 4}\n" for i in range(6)))
    (tmp_path / "list.txt").write_text("".join(f"{tmp_path}/v{i}.mp4 {i % 4}\n" for i in range(6)))
    subprocess.run([sys.executable, repo / "process_data/kinetics/create_video_lmdb_test_multicrop.py", "--dataset_dir",
                    tmp_path / "lmdb/test", "--list_file", tmp_path / "list.txt"], check=True, capture_output=True)
    typed = words(models, tmp_path, tmp_path / "run", f"{NAMES[0]}.pkl", "--quick", 2)
    typed[typed.index("DATADIR") + 1] = str(tmp_path / "lmdb")
    outputs = []
    for _ in range(2):
        status, output, errors = call_tool(test_released_models, *typed)
        assert (status, errors) == (0, "")
        outputs.append(output)
    sample = (tmp_path / "run/quick_2/test.txt").read_text()
    assert sample == "".join(f"{tmp_path}/v{i}.mp4 {i % 4}\n" for i in spread(6, 2))
    assert " iter (" in outputs[0] and " iter (" not in outputs[1]
    [(name, cells)] = table(outputs[1]).items()
    assert name == NAMES[0] and cells[-1] == "2 of 2" and re.fullmatch(r"\S+ \(\S+ to \S+\)", cells[0])
    assert "95 % confidence intervals" in outputs[1] and "not there" not in outputs[1]
    status, _, errors = call_tool(test_released_models, *typed[:2], "7", *typed[3:])
    assert (status, errors) == (1, f"error: --quick: expected 1 to 6 videos, which {tmp_path}/lmdb has, got 7\n")


def test_a_sample_is_spread_over_the_list():
    for count in (1, 3, 50, 100):
        places = spread(100, count)
        parts = np.arange(count + 1) * 100 / count
        assert ((places >= np.floor(parts[:-1])) & (places < parts[1:])).all() and len(set(places.tolist())) == count
    assert spread(19761, 500).tolist() == spread(19761, 500).tolist() and spread(19761, 2)[1] > 9880


@pytest.mark.parametrize(("hits", "count", "low", "high"), [
    # Newcombe (1998), table I: the method "score without continuity correction".
    (81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718),
    (29, 29, 0.8830, 1.0), (0, 0, 0.0, 1.0),
])
def test_wilson(hits, count, low, high):
    assert wilson_interval(hits, count) == pytest.approx((low, high), abs=6e-5)


def test_a_model_of_which_nothing_could_be_read():
    model = RELEASED["i3d_nonlocal_8x8_IN_pretrain_400k"]
    assert "-       74.7           -      -       91.6           -         0 of 5" in measured_beside_published(
        [Measurement(model, 5, 0, 0, 0)], False)


def test_files_that_are_not_there(call_tool, models, tmp_path):
    model = RELEASED["i3d_nonlocal_32x4_I3D_pretrain_400k"]
    status, output, errors = call_tool(test_released_models, *words(models, tmp_path, tmp_path, model.name))
    assert (status, errors) == (1, f"error: {models}: expected {model.name}.pkl, which can be had from the above\n")
    assert f"not there: {models}/{model.name}.pkl; from {model.link}\n" in output
    status, output, errors = call_tool(test_released_models, *words(tmp_path, tmp_path, tmp_path))
    assert (status, errors) == (1, f"error: {tmp_path}: expected released models, which can be had from the above\n")
    assert output.count("not there: ") == 15


def test_a_damaged_file_is_noticed_before_the_first_test(call_tool, models, data, tmp_path):
    broken = shutil.copytree(models, tmp_path / "models") / f"{NAMES[1]}.pkl"
    broken.write_bytes(broken.read_bytes()[:10_000])
    status, output, errors = call_tool(test_released_models, *words(broken.parent, data, tmp_path / "run"))
    assert (status, errors) == (1, f"error: {broken}: the pickle is truncated or empty\n")
    assert "Testing" not in output and not (tmp_path / "run").exists()


def test_the_script(repo, tmp_path):
    """What it calls, and where its log is."""
    root = tmp_path / "my checkout"
    (root / "scripts").mkdir(parents=True)
    for name in ("_run.sh", "_interpreter.sh", "test_released.sh"):
        shutil.copy(repo / "scripts" / name, root / "scripts")
    stub = tmp_path / "python"
    stub.write_text(f"#!{sys.executable}\nimport json, os, sys\nprint(json.dumps([sys.argv[1:], os.getcwd()]))\n"
                    "sys.exit(75)\n")
    stub.chmod(0o755)
    for typed, log in ([["NAME", "--quick", "5"], root / "data/checkpoints/test_released/log.txt"],
                       [["NUM_GPUS", "1", "CHECKPOINT.DIR", f"{tmp_path}/my run"], tmp_path / "my run/log.txt"]):
        run = subprocess.run(["bash", root / "scripts/test_released.sh", *typed], cwd=tmp_path, capture_output=True,
                             text=True, env=os.environ | {"PYTHON": str(stub)})
        assert run.returncode == 75
        assert json.loads(run.stdout) == [["-u", "../tools/test_released_models.py", *typed], f"{root}/scripts"]
        assert log.read_text() == run.stdout
