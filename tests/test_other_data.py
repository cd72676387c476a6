"""Other data than Kinetics-400: the commands of DATASET.md for 600 classes, up to a training, and what lists tell."""

import os
import re
import shlex

import numpy as np
import pytest
import reference_recipe as recipe
import tiny_job
from page_commands import section_commands
from video_files import write_video

import plan_training as tool
from core.config import load_config
from core.config_file import given_keys, write_config
from engine.dataset_plan import options_of_lists
from formats.blobs import load_blobs, model_blobs
from formats.caffe2_pickle import dump
from models.model_builder_video import create_model
from utils.collections import value_at
from utils.errors import UserError

CLASSES, TESTED = 600, 30  # of which some have a test video
# A small network, short clips and two iterations, as there are no days; and 600 videos need not be decoded.
TINY = {name: value for name, value in tiny_job.OPTIONS.items() if name not in ("MODEL.NUM_CLASSES",
                                                                            "TRAIN.DATASET_SIZE", "TEST.DATASET_SIZE")}
TINY |= {"SOLVER.MAX_ITER": 2, "SOLVER.STEP_SIZES": "[1,1,1]", "LOG_PERIOD": 1, "NUM_PROCESSES": 1,
         "CHECKPOINT.CHECKPOINT_PERIOD": 2, "TRAIN.EVAL_PERIOD": 9}
TINY_WORDS = [str(word) for pair in TINY.items() for word in pair]


@pytest.fixture(scope="module")
def commands(repo):
    """The commands of the section, as lists of words, in order; variables are filled in."""
    first, *lines = section_commands(repo, "DATASET.md", "Kinetics-600, Kinetics-700 and other data")
    name, value = first.split("=")
    return [shlex.split(line.replace(f"${name}", value)) for line in lines]


@pytest.fixture(scope="module")
def folder(repo, tmp_path_factory):
    """What the commands expect: configs/, ImageNet's weights, and videos of 600 classes, which share a few files."""
    folder = tmp_path_factory.mktemp("other")
    (folder / "configs").symlink_to(repo / "configs")
    rng = np.random.default_rng(0)
    files = [write_video(folder / f"{i}.mp4", rng.integers(0, 255, (8, 64, 80, 3), dtype=np.uint8)) for i in range(3)]
    for split, classes in (("train", CLASSES), ("val", TESTED)):
        for number in range(classes):
            of_class = folder / f"kinetics600/{split}/class {number:03}"
            of_class.mkdir(parents=True)
            (of_class / "v.mp4").symlink_to(files[number % 3])
    cfg = load_config(repo / "configs/finetune.yaml", [*TINY_WORDS, "MODEL.NUM_CLASSES", "9"])
    network = create_model(cfg, "train")
    recipe.fill(network, seed=1)
    blobs = {name: tensor.numpy() for name, tensor in model_blobs(network).items() if not name.startswith("pred")}
    weights = folder / "data/pretrained_model/r50_pretrain_c2_model_iter450450_clean.pkl"
    weights.parent.mkdir(parents=True)
    dump({"blobs": blobs | {"lr": np.array(1e-4, np.float32)}}, weights)
    return folder


def test_the_commands_of_the_page_lead_to_a_training_of_600_classes(repo, commands, folder, zygote):
    done = []
    for words in commands:
        name = os.path.basename(words[1])
        words = [word.replace("/data/kinetics600", str(folder / "kinetics600")) for word in words]
        if words[0] == "mkdir":
            (folder / words[-1]).mkdir(parents=True)
        elif words[0] == "cp":
            (folder / words[2]).write_bytes((folder / words[1]).read_bytes())
        else:
            extra = {"check_dataset.py": ["--no_decode"]}.get(name, [])
            tiny = TINY_WORDS if name in ("check_dataset.py", "train_net_video.py") else []
            log = folder / f"{len(done)}.txt"
            prelude = f"import os; os.chdir({str(folder)!r})"
            status = zygote.run([words[1], *extra, *words[2:], *tiny], log, prelude=prelude)
            assert status == 0, log.read_text()[-3000:]
        done.append(name)
    assert done[-3:] == ["plan_training.py", "check_dataset.py", "train_net_video.py"]

    cfg = load_config(folder / "data/kinetics600/options.yaml")
    data = str(folder / "data/kinetics600")
    facts = {"MODEL.NUM_CLASSES": CLASSES, "TRAIN.DATASET_SIZE": CLASSES, "TEST.DATASET_SIZE": TESTED, "DATADIR": data,
             "FILENAME_GT": f"{data}/test.txt", "DATASET": "kinetics600"}
    assert {key: value_at(cfg, key) for key in facts} == facts
    # The rest is as in the script, but for a schedule of as many epochs.
    script = (repo / "scripts/run_i3d_nlnet_400k.sh").read_text()
    words = dict(re.findall(r"^    ([A-Z][A-Z0-9_.]+) (\S+) \\$", script, re.MULTILINE))
    words["TRAIN.PARAMS_FILE"] = words["TRAIN.PARAMS_FILE"].removeprefix("../")
    base = load_config(repo / "configs/DBG_kinetics_resnet_8gpu_c2d_nonlocal_400k.yaml",
                       [word for pair in words.items() for word in pair])
    assert cfg.SOLVER.MAX_ITER == round(400000 * CLASSES / 234643) == sum(cfg.SOLVER.STEP_SIZES)
    assert cfg.SOLVER.BASE_LR == 0.01
    changed = {"MODEL": ["NUM_CLASSES"], "SOLVER": ["MAX_ITER", "STEP_SIZES", "STEPS"],
               "TRAIN": ["DATASET_SIZE", "EVAL_PERIOD"], "TEST": ["DATASET_SIZE"],
               "CHECKPOINT": ["CHECKPOINT_PERIOD", "DIR"]}
    for group, names in changed.items():
        for name in names:
            base[group][name] = cfg[group][name]
    for name in ("DATADIR", "FILENAME_GT", "DATASET"):
        base[name] = cfg[name]
    assert cfg == base

    trained = load_blobs(folder / "data/checkpoints/kinetics600/checkpoints/c2_model_iter2.pkl")
    assert trained["pred_w"].shape == (600, 256)
    assert re.search(r"train: 600 records, 600 videos", (folder / f"{done.index('check_dataset.py')}.txt").read_text())


def test_a_file_that_is_there_stays(commands, folder, call_tool, monkeypatch):
    monkeypatch.chdir(folder)
    (folder / "mine.yaml").write_text("NUM_GPUS: 3\n")
    words = ["--config_file", "configs/finetune.yaml", "--epochs", 20, "--output", "mine.yaml"]
    status, _, errors = call_tool(tool, *words)
    assert (status, errors) == (1, "error: mine.yaml: is there already: expected the name of a new file\n")
    assert (folder / "mine.yaml").read_text() == "NUM_GPUS: 3\n"


# ----------------------------------------------------------------------------------------------------- what lists tell


@pytest.fixture
def lists(tmp_path):
    """Writes two lists of the labels given; returns their paths."""
    def write(train, test):
        for name, labels in (("train.txt", train), ("test.txt", test)):
            (tmp_path / name).write_text("".join(f"v/{i}.mp4 {label}\n" for i, label in enumerate(labels)))
        return str(tmp_path / "train.txt"), str(tmp_path / "test.txt")

    return write


def test_what_is_given_stays(lists, tmp_path):
    cfg = load_config(None, ["MODEL.NUM_CLASSES", "9", "DATADIR", "lmdbs"])
    found = options_of_lists(cfg, *lists([0, 1, 1], [2]), ["MODEL.NUM_CLASSES", "DATADIR"])
    assert found == {"TRAIN.DATASET_SIZE": 3, "TEST.DATASET_SIZE": 1, "DATASET": tmp_path.name,
                     "FILENAME_GT": str(tmp_path / "test.txt")}


def test_classes_without_a_video_are_said(lists, tmp_path, caplog):
    found = options_of_lists(load_config(), *lists([0, 1, 3, 4], [0, 6]), [])
    assert found["MODEL.NUM_CLASSES"] == 7
    assert caplog.messages == [f"{tmp_path}/train.txt: no video of 3 of the classes 0 to 6: 2, 5, 6"]


@pytest.mark.parametrize(("train", "test", "words", "message"), [
    ([0, -1], [0], [], "train.txt:2: the label -1 is not in 0.."),
    ([0, 1], [0, 1, -2], [], "test.txt:3: the label -2 is not in 0.."),
    ([0, 1], [3], ["MODEL.NUM_CLASSES", "3"], r"test.txt:1: the label 3 is not in 0..2 \(MODEL.NUM_CLASSES 3\)"),
    ([0, 1, 2, 1000000], [0], [], "train.txt:4: the label 1000000 makes 1000001 classes, but there are training videos "
                                  "of 4: expected labels 0, 1, 2, ... without large gaps, or MODEL.NUM_CLASSES"),
    ([0, 1], [0, 9], [], "test.txt:2: the label 9 makes 10 classes, but there are training videos of 2"),
])
def test_labels_that_cannot_be_meant(train, test, words, message, lists):
    with pytest.raises(UserError, match=message):
        options_of_lists(load_config(None, words), *lists(train, test), words[::2])


@pytest.mark.parametrize("name", ["a b", "700", "None"])
def test_a_plan_without_a_file_says_what_to_append(name, repo, lists, call_tool, tmp_path):
    train, test = lists([0, 1, 2], [0, 1])
    (tmp_path / name).mkdir()
    for path in (train, test):
        os.rename(path, tmp_path / name / os.path.basename(path))
    tmp_path /= name
    train, test = tmp_path / "train.txt", tmp_path / "test.txt"
    base = repo / "configs/finetune.yaml"
    words = ["--config_file", base, "--train_list", train, "--test_list", test, "--epochs", 20]
    status, output, errors = call_tool(tool, *words)
    assert not status
    assert errors == f"Still needed: no data for the split 'val': no LMDB {tmp_path}/val and no list " \
                     f"{tmp_path}/val.txt\n"
    cfg = load_config(base, shlex.split(output.splitlines()[-1]))
    facts = {"MODEL.NUM_CLASSES": 3, "TRAIN.DATASET_SIZE": 3, "DATADIR": str(tmp_path), "DATASET": name}
    assert {key: value_at(cfg, key) for key in facts} == facts


# ------------------------------------------------------------------------------------------------- files of options


@pytest.mark.parametrize("words", [
    ["DATASET", "'600'"], ["DATADIR", "a b # c: d"], ["DATADIR", "/x\udcff/\u00e9\n"], ["FILENAME_GT", "None"],
    ["SOLVER.STEPS", "[0,5]"], ["NONLOCAL.AFTER", "['res4_4']"], ["SOLVER.WEIGHT_DECAY", "1e-7"], ["DATASET", "''"],
])
def test_a_written_file_is_read_as_what_was_written(words, repo, tmp_path):
    base = repo / "configs/DBG_kinetics_resnet_8gpu_c2d_nonlocal_400k.yaml"
    cfg, path = load_config(base, words), tmp_path / "f.yaml"
    with open(path, "w", encoding="utf-8") as file:
        write_config(file, cfg, given_keys(base, words), "a comment")
    assert load_config(path) == cfg
    assert given_keys(path) and set(given_keys(path)) == set(given_keys(base, words))
    text = path.read_text()
    assert text.startswith("# a comment\n\nDATADIR: ") and "  JITTER_SCALES: [256, 320]\n" in text
    assert value_at(cfg, words[0]) == value_at(load_config(path), words[0])
