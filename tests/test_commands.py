"""Every command of the pages: run in a small copy of the repository, run by a test of its own, or at least parsed."""

import ast
import json
import os
import re
import shlex
import shutil
import subprocess
from functools import partial

import numpy as np
import pytest
import reference_recipe as recipe
from command_rules import NETWORK, PARSED, RUN, TAKEN
from page_commands import Command, blocks_of, section_commands
from recipe_blobs import values
from test_docs import PAGES, REPO
from torch.distributed.run import get_args_parser

from core.config import load_config
from data.lmdb_writer import clip_items, train_items, write_lmdb
from formats.caffe2_pickle import dump
from formats.options_file import options_beside
from models.model_builder_video import create_model

YAML = "configs/DBG_kinetics_resnet_8gpu_c2d_nonlocal_400k.yaml"
COMMANDS = [command for page in PAGES for _, _, block in blocks_of(REPO, page) for command in block]
# What a program writes, by the option that names it.
WRITTEN = re.compile(r" --(?:output|csv|json|timeline|write_clean_list) (\S+)")


# ------------------------------------------------------------------------------------------------- a rule for each


def taken():
    """The text of the commands that tests of their own take from a page."""
    return {text: test for test, where in TAKEN.items() for text in section_commands(REPO, *where)}


def rule_of(command):
    """The first rule for a command: an entry of PARSED, the name of a test, a Run; None: there is none."""
    parsed = next((rule for rule in PARSED if re.fullmatch(rule[0], command.text)), None)
    run = next((rule for rule in RUN if re.fullmatch(rule.pattern, command.text)), None)
    return parsed or taken().get(command.text) or run


def test_each_command_has_a_rule_and_each_rule_a_command():
    rules = {command: rule_of(command) for command in COMMANDS}
    assert len(rules) > 90
    assert [command for command, rule in rules.items() if rule is None] == []
    assert [rule for rule in (*PARSED, *TAKEN, *RUN) if rule not in rules.values()] == []


@pytest.mark.parametrize("test", TAKEN)
def test_a_test_of_their_own_takes_the_commands_from_the_page(test):
    calls = [node for node in ast.walk(ast.parse((REPO / "tests" / test).read_text()))
             if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "section_commands"]
    found = [[argument.value for argument in call.args if isinstance(argument, ast.Constant)] for call in calls]
    assert list(TAKEN[test]) in found


def test_a_command_without_a_rule_is_found():
    assert rule_of(Command("README.md", "", "python tools/predict_video.py --weights w.pkl")) in RUN
    assert rule_of(Command("README.md", "", "python tools/new_tool.py")) is None


# ------------------------------------------------------------------------------------------------- parsed


@pytest.mark.parametrize("page", sorted({command.page for command in COMMANDS}))
def test_bash_reads_every_block(page):
    for _, block, _ in blocks_of(REPO, page):
        done = subprocess.run(["bash", "-n"], input=block, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, ""), block


# Ends a program where it has read its command line.
ONLY_PARSE = """
import argparse, os
os.chdir({folder!r})
parse = argparse.ArgumentParser.parse_args
def parse_and_end(parser, *args, **kwargs):
    found = parse(parser, *args, **kwargs)
    argparse.ArgumentParser.parse_args = parse
    if getattr(found, "opts", None) and getattr(found, "config_file", None):
        from core.config import load_config
        load_config(found.config_file, found.opts)
    print("accepted", flush=True)
    os._exit(0)
argparse.ArgumentParser.parse_args = parse_and_end
"""


def program_of(words):
    """(script, its words) that a command starts, with paths from the folder that it is started in; None: another's."""
    while "=" in words[0]:
        words = words[1:]
    if words[0] == "torchrun":
        found = get_args_parser().parse_args(words[1:])
        return found.training_script, found.training_script_args
    if words[0] == "bash" or words[0] == "python" and words[1].endswith(".py"):
        return words[1], words[2:]
    return None


@pytest.mark.parametrize("command", [command for command in COMMANDS if rule_of(command) in PARSED],
                         ids=lambda command: command.text)
def test_what_is_not_run_is_parsed(command, zygote, tmp_path):
    words = shlex.split(command.text)
    if "-c" in words:
        ast.parse(words[-1])
    if "pytest" in words:
        assert (REPO / words[-1]).exists()
    if not (program := program_of(words)):
        return
    script, words = program
    folder = REPO / "scripts" if script.startswith("../") else REPO
    if script.endswith(".sh"):
        done = subprocess.run(["bash", "-n", folder / script], capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")
        return
    if ".parse_args()" not in (source := (folder / script).read_text()):  # it takes no words, and would do its work
        assert ast.parse(source) and not words
        return
    log = tmp_path / "log.txt"
    prelude = ONLY_PARSE.format(folder=str(folder))
    assert zygote.run([str((folder / script).resolve()), *words], log, prelude=prelude) == 0, log.read_text()
    assert log.read_text() == "accepted\n"


def test_a_word_that_a_program_does_not_know_is_found(zygote, tmp_path):
    prelude = ONLY_PARSE.format(folder=str(REPO))
    for words in (["tests/fuzz.py", "pickle"], ["tools/train_net_video.py", "--config_file", YAML, "TRAIN.BATCH", "8"]):
        assert zygote.run([str(REPO / words[0]), *words[1:]], tmp_path / "log.txt", prelude=prelude)
    assert "accepted" not in (tmp_path / "log.txt").read_text()


def test_the_options_of_the_demo_in_the_walk_through():
    """They are the demo's where its network and clips differ from those of fine-tuning."""
    texts = section_commands(REPO, "DATASET.md", "With the demo's videos")
    words = [word for text in texts if text.startswith("numbers=")
             for word in text.removeprefix('numbers="$numbers ').rstrip('"').split()]
    found, base = load_config(REPO / "configs/finetune.yaml", words), load_config(REPO / "configs/finetune.yaml")
    demo = load_config(REPO / "configs/demo.yaml")
    for group in ("MODEL", "RESNETS", "NONLOCAL"):
        for name in demo[group].keys() - {"NUM_CLASSES", "BN_INIT_GAMMA"}:
            assert found[group][name] == demo[group][name], name
    for name in ("VIDEO_LENGTH", "SAMPLE_RATE", "CROP_SIZE", "JITTER_SCALES"):
        assert found.TRAIN[name] == demo.TRAIN[name], name
    assert found.TEST.SCALE == demo.TEST.SCALE and found.SOLVER.MAX_ITER < base.SOLVER.MAX_ITER


# ------------------------------------------------------------------------------------------------- run


# Weights by where they are, with the options of their networks.
WEIGHTS = {
    "pretrained_model/r50_pretrain_c2_model_iter450450_clean.pkl": "MODEL.VIDEO_ARC_CHOICE 1",
    "pretrained_model/r101_pretrain_c2_model_iter450450_clean.pkl": "MODEL.DEPTH 101 MODEL.VIDEO_ARC_CHOICE 3",
    "pretrained_model/i3d_nonlocal_8x8_IN_pretrain_400k.pkl": "MODEL.VIDEO_ARC_CHOICE 2 NONLOCAL.CONV3_NONLOCAL True "
                                                              "NONLOCAL.CONV4_NONLOCAL True",
    "checkpoints/run_i3d_baseline_400k/checkpoints/c2_model_iter400000.pkl": "MODEL.VIDEO_ARC_CHOICE 2",
    "checkpoints/run_i3d_baseline_400k_32f/checkpoints/c2_model_iter400000.pkl":
        "MODEL.VIDEO_ARC_CHOICE 2 MODEL.MODEL_NAME resnet_video_org",
    "checkpoints/run_demo/checkpoints/c2_model_iter240.pkl": "MODEL.VIDEO_ARC_CHOICE 1",
}
VIEW = "TRAIN.VIDEO_LENGTH 2 TRAIN.SAMPLE_RATE 1 TEST.SCALE 200 TEST.BATCH_SIZE 6 TRAIN.BATCH_SIZE 2 NUM_GPUS 1"


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A folder as data/, with small networks under the names of the pages; each has its options beside it."""
    folder = tmp_path_factory.mktemp("weights")
    for name, words in WEIGHTS.items():
        without = "NONLOCAL.CONV3_NONLOCAL False NONLOCAL.CONV4_NONLOCAL False"
        cfg = load_config(REPO / YAML, f"{without} {NETWORK} {VIEW} {words}".split())
        network = create_model(cfg, "train")
        recipe.fill(network, seed=1)
        blobs, path = values(network), folder / name
        if "_clean" in name:  # of a network of images
            blobs = {key: value[:, :, 0] if value.ndim == 5 else value for key, value in blobs.items()}
        path.parent.mkdir(parents=True, exist_ok=True)
        with options_beside(path, cfg, blobs["pred_w"]):
            dump({"blobs": blobs | {"lr": np.array(1e-5, np.float32)}}, path)
    return folder


@pytest.fixture
def checkout(weights, data, job, tmp_path):
    """A copy of what the commands need, with data; next to it, videos of Kinetics, and programs."""
    top = tmp_path / "checkout"
    for name in ("configs", "process_data", "scripts", "tools"):
        shutil.copytree(REPO / name, top / name, ignore=shutil.ignore_patterns("__pycache__"))
    (top / "lib").symlink_to(REPO / "lib")
    shutil.copytree(weights, top / "data")
    sound = top / "process_data/kinetics/vallist.txt"
    sound.write_text("".join(f"{data}/v{i}.mp4 {i}\n" for i in range(4)))
    lmdbs = top / "data/lmdb/kinetics_lmdb_multicrop"
    for split in ("train", "val"):
        write_lmdb(lmdbs / split, sound, train_items, sorted_keys=True)
    write_lmdb(lmdbs / "test", sound, partial(clip_items, spatial_positions=3), sorted_keys=False)
    (top / "data/mine").mkdir()
    shutil.copy(sound, top / "data/mine/train.txt")
    # A run with a test, and what is true of its videos.
    for run in ("run_i3d_nlnet_400k", "run_test_multicrop"):
        shutil.copytree(job.folder, top / "data/checkpoints" / run)
    (top / "truth").mkdir()
    shutil.copy(job.data / "gt.txt", top / "truth/vallist.txt")
    (top / "truth/classids.json").write_text(json.dumps({f"class {i}": i for i in range(10)}))
    for name in ("my.mp4", "a_folder/1.mp4"):
        (top / name).parent.mkdir(exist_ok=True)
        (top / name).symlink_to(data / "v7.mp4")
    for name in ("train/abseiling/1.mp4", "train/air drumming/2.mp4", "val/abseiling/3.mp4"):
        path = tmp_path / "kinetics" / name
        path.parent.mkdir(parents=True)
        path.symlink_to(data / "v0.mp4")
    return top


def adapted(command, rule, places):
    """The line that is run for a command."""
    text = command.text
    for there, here in rule.instead.items():
        text = text.replace(there, here)
    return f"{text} {rule.more}".format(**places) if rule.more or rule.instead else text


@pytest.mark.parametrize("page", sorted({command.page for command in COMMANDS if rule_of(command) in RUN}))
def test_the_commands_of_a_page_run(page, checkout, data, python, tmp_path):
    """In order, as one program of bash, with the stand-in for Python; what stands on several pages, once."""
    if page == "DATASET.md" and not shutil.which("ffmpeg"):
        pytest.skip("no ffmpeg here")
    if page != "tools/README.md":
        shutil.rmtree(checkout / "data/lmdb")  # what DATASET.md makes
    places = {"top": tmp_path, "data": data}
    first = {command.text: command for command in reversed(COMMANDS)}
    commands = [command for command in COMMANDS if command.page == page and rule_of(command) in RUN
                and command is first[command.text]]
    lines, failures = ["set -u", "numbers="], tmp_path / "failures"
    for number, command in enumerate(commands):
        folder = checkout / ("process_data/kinetics" if command.section == "Kinetics" else "")
        lines += [f"cd {shlex.quote(str(folder))}", "set -x",
                  f"{adapted(command, rule_of(command), places)} || echo {number} >>{shlex.quote(str(failures))}",
                  "{ set +x; } 2>/dev/null"]
    environment = {"PATH": f"{python.parent}:{os.environ['PATH']}", "PYTHON": str(python), "OMP_NUM_THREADS": "1"}
    run = subprocess.run(["bash", "-c", "\n".join(lines)], capture_output=True, text=True, timeout=600,
                         env=os.environ | environment)
    failed = failures.read_text().split() if failures.exists() else []
    assert [commands[int(number)].text for number in failed] == [], f"{run.stderr[-8000:]}\n{run.stdout[-8000:]}"
    assert run.returncode == 0, run.stderr[-8000:]
    for command in commands:
        for name in WRITTEN.findall(command.text):
            path = checkout / name
            assert path.stat().st_size and (path.is_file() or any(path.iterdir())), name
    logs = {path.parent.name for path in checkout.glob("data/checkpoints/*/log.txt")}
    started = {os.path.basename(command.text.split()[1]).removesuffix(".sh") for command in commands
               if command.text.startswith("bash scripts/run_")}
    assert started <= logs
