"""The shell scripts in scripts/ and process_data/kinetics/, run with an interpreter that only records its calls."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest

IMAGENET = "../data/pretrained_model/r50_pretrain_c2_model_iter450450_clean.pkl"
AFFINE = "../data/pretrained_model/run_i3d_baseline_400k/affine_model_400k.pkl"
AFFINE_32F = "../data/pretrained_model/run_i3d_baseline_400k_32f/affine_model_400k.pkl"
LONG, SHORT, SHORT_4, LONG_4, FROZEN = (
    f"../configs/DBG_kinetics_resnet_{name}.yaml" for name in (
        "8gpu_c2d_nonlocal_400k", "8gpu_c2d_nonlocal_300k", "4gpu_c2d_nonlocal_300k",
        "4gpu_c2d_nonlocal_600k", "8gpu_c2d_nonlocal_affine_400k",
    )
)
# script: config, weights, decoder threads, non-local, arc, dropout, (frames, stride) of resnet_video_org
TRAINING = {
    "run_c2d_baseline_400k": (LONG, IMAGENET, "5", "False", "1", "0.5", None),
    "run_c2d_baseline_400k_32f": (LONG, IMAGENET, "5", "False", "1", "0.5", ("32", "2")),
    "run_c2d_nlnet_400k": (LONG, IMAGENET, "5", "True", "1", "0.5", None),
    "run_c2d_nlnet_400k_32f": (LONG, IMAGENET, "5", "True", "1", "0.5", ("32", "2")),
    "run_i3d_baseline_300k": (SHORT, IMAGENET, "5", "False", "2", "0.5", None),
    "run_i3d_baseline_300k_4gpu": (SHORT_4, IMAGENET, "5", "False", "2", "0.0", None),
    "run_i3d_baseline_400k": (LONG, IMAGENET, "5", "False", "2", "0.5", None),
    "run_i3d_baseline_400k_32f": (LONG, IMAGENET, "5", "False", "2", "0.5", ("32", "2")),
    "run_i3d_baseline_600k_4gpu": (LONG_4, IMAGENET, "5", "False", "2", "0.5", None),
    "run_i3d_baseline_affine_400k": (FROZEN, AFFINE, "2", "False", "2", "0.5", None),
    "run_i3d_baseline_affine_400k_128f": (FROZEN, AFFINE_32F, "2", "False", "2", "0.5", ("128", "1")),
    "run_i3d_nlnet_400k": (LONG, IMAGENET, "5", "True", "2", "0.5", None),
    "run_i3d_nlnet_400k_32f": (LONG, IMAGENET, "5", "True", "2", "0.5", ("32", "2")),
    "run_i3d_nlnet_affine_400k": (FROZEN, AFFINE, "2", "True", "2", "0.5", None),
    "run_i3d_nlnet_affine_400k_128f": (FROZEN, AFFINE_32F, "2", "True", "2", "0.5", ("128", "1")),
}
# script: LMDB, clips x crops, and the option that selects the crops
TESTS = {
    "run_test_multicrop": ("multicrop", None, {"TEST.TEST_FULLY_CONV": "True"}),
    "run_test_flipcrop": ("flipcrop", "60", {"TEST.TEST_FULLY_CONV_FLIP": "True"}),
    "run_test_singlecrop": ("singlecrop", "10", {}),
    "run_test_fullsize": ("singlecrop", "10", {"TEST.TEST_FULL_SIZE": "True"}),
}


def options_of(script):
    """(tool, config, {key: value}) that a script must pass."""
    options = {
        "CHECKPOINT.DIR": f"../data/checkpoints/{script}",
        "DATADIR": "../data/lmdb/kinetics_lmdb_multicrop/",
        "FILENAME_GT": "../process_data/kinetics/vallist.txt",
    }
    if script in TESTS:
        lmdb, clips, kind = TESTS[script]
        options["DATADIR"] = f"../data/lmdb/kinetics_lmdb_{lmdb}/"
        options |= {"TEST.NUM_TEST_CLIPS": clips} if clips else {}  # None: 30, from the file
        weights = "../data/checkpoints/run_i3d_nlnet_400k/checkpoints/c2_model_iter400000.pkl"
        return "../tools/test_net_video.py", LONG, options | {
            "TEST.PARAMS_FILE": weights, "VIDEO_DECODER_THREADS": "5", "NONLOCAL.CONV3_NONLOCAL": "True",
            "NONLOCAL.CONV4_NONLOCAL": "True", "MODEL.VIDEO_ARC_CHOICE": "2", "TRAIN.DROPOUT_RATE": "0.5",
            "NUM_GPUS": "4", "TRAIN.BATCH_SIZE": "32", "TEST.BATCH_SIZE": "32",
        } | kind
    config, weights, threads, blocks, arc, dropout, clip = TRAINING[script]
    options |= {
        "TRAIN.PARAMS_FILE": weights, "VIDEO_DECODER_THREADS": threads, "MODEL.VIDEO_ARC_CHOICE": arc,
        "NONLOCAL.CONV3_NONLOCAL": blocks, "NONLOCAL.CONV4_NONLOCAL": blocks, "TRAIN.DROPOUT_RATE": dropout,
    }
    if clip:
        options |= {
            "TRAIN.VIDEO_LENGTH": clip[0], "TRAIN.SAMPLE_RATE": clip[1], "TEST.VIDEO_LENGTH": clip[0],
            "TEST.SAMPLE_RATE": clip[1], "MODEL.MODEL_NAME": "resnet_video_org",
        }
    return "../tools/train_net_video.py", config, options


@pytest.fixture
def checkout(repo, tmp_path):
    """A copy of the scripts in a folder with a space in its name, next to a stub interpreter."""
    root = tmp_path / "my checkout"
    for folder in ("scripts", "process_data/kinetics"):
        (root / folder).mkdir(parents=True)
        for script in (repo / folder).glob("*.sh"):
            shutil.copy(script, root / folder)
    stub = tmp_path / "python-stub"
    stub.write_text(f"""#!{sys.executable}
import json, os, signal, sys, time
with open({str(tmp_path / "calls.jsonl")!r}, "a") as file:
    print(json.dumps([sys.argv[1:], os.getcwd()]), file=file)
print("to stdout")
print("to stderr", file=sys.stderr, flush=True)
def stop(number, frame):
    print("stopped by", number, flush=True)
    time.sleep(0.2)
    print("last line", flush=True)
    sys.exit(42)
if "STUB_WAITS" in os.environ:
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    print("ready", flush=True)
    time.sleep(30)
sys.exit(int(os.environ.get("STUB_STATUS", "0")))
""")
    stub.chmod(0o755)
    return root


def start(script, *words, cwd, stub, **env):
    return subprocess.Popen(["bash", str(script), *words], cwd=cwd, stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT, text=True, env=os.environ | {"PYTHON": str(stub)} | env)


def calls(tmp_path):
    return [json.loads(line) for line in (tmp_path / "calls.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("script", [*TRAINING, *TESTS])
def test_script(script, checkout, tmp_path):
    tool, config, expected = options_of(script)
    # The interpreter's path is relative to the folder that the script is started from.
    process = start(checkout / "scripts" / f"{script}.sh", "NUM_GPUS", "1", "DATASET", "two words",
                    cwd=tmp_path, stub="./python-stub", STUB_STATUS="7", CDPATH="/tmp")
    output = process.communicate(timeout=20)[0]
    assert process.returncode == 7
    [(argv, cwd)] = calls(tmp_path)
    assert cwd == str(checkout / "scripts")
    assert argv[:4] == ["-u", tool, "--config_file", config]
    keys, values = argv[4::2], argv[5::2]
    assert dict(zip(keys, values, strict=True)) == expected | {"NUM_GPUS": "1", "DATASET": "two words"}
    assert argv[-4:] == ["NUM_GPUS", "1", "DATASET", "two words"]
    log = checkout / "data/checkpoints" / script / "log.txt"
    assert output == log.read_text() == "to stdout\nto stderr\n"


def test_every_run_script_is_tested(repo):
    scripts = {path.stem for path in (repo / "scripts").glob("run_*.sh")}
    assert {script for script in scripts if re.match("run_(c2d|i3d|test)_", script)} == {*TRAINING, *TESTS}
    assert len(TRAINING) == 15


def test_a_second_run_appends_to_the_log(checkout, tmp_path):
    for _ in range(2):
        process = start(checkout / "scripts/run_i3d_nlnet_400k.sh", cwd="/", stub=tmp_path / "python-stub")
        process.communicate()
    log = checkout / "data/checkpoints/run_i3d_nlnet_400k/log.txt"
    assert log.read_text().count("to stdout\n") == 2


def test_the_log_is_written_to_the_users_checkpoint_folder(checkout, tmp_path):
    process = start(checkout / "scripts/run_i3d_nlnet_400k.sh", "CHECKPOINT.DIR", str(tmp_path / "my run"),
                    cwd="/", stub=tmp_path / "python-stub")
    process.communicate()
    assert process.returncode == 0
    assert (tmp_path / "my run/log.txt").read_text() == "to stdout\nto stderr\n"
    assert not (checkout / "data").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_reach_the_tool_and_its_last_lines_are_logged(checkout, tmp_path, number):
    process = start(checkout / "scripts/run_i3d_nlnet_400k.sh", cwd="/", stub=tmp_path / "python-stub",
                    STUB_WAITS="1")
    head = [process.stdout.readline() for _ in range(3)]
    assert head[-1] == "ready\n"
    process.send_signal(number)
    rest = process.communicate(timeout=20)[0]
    assert process.returncode == 42
    assert rest == f"stopped by {int(number)}\nlast line\n"
    log = checkout / "data/checkpoints/run_i3d_nlnet_400k/log.txt"
    assert log.read_text() == "".join(head) + rest


def test_the_status_shows_that_the_tool_was_killed(checkout, tmp_path):
    (tmp_path / "python-stub").write_text("#!/bin/sh\nkill -9 $$\n")
    process = start(checkout / "scripts/run_i3d_nlnet_400k.sh", cwd="/", stub=tmp_path / "python-stub")
    process.communicate()
    assert process.returncode == 137


@pytest.mark.parametrize("script", ["scripts/run_i3d_nlnet_400k.sh", "process_data/kinetics/run_createdb_test.sh"])
def test_without_python_the_environment_of_the_repository_is_used(script, checkout, tmp_path):
    venv = checkout / ".venv/bin"
    venv.mkdir(parents=True)
    (tmp_path / "python-stub").rename(venv / "python")
    environment = {key: value for key, value in os.environ.items() if key != "PYTHON"}
    subprocess.run(["bash", str(checkout / script)], cwd="/", env=environment, check=True, capture_output=True)
    assert len(calls(tmp_path)) == 1


LMDB = "../../data/lmdb/kinetics_lmdb_"


@pytest.mark.parametrize(("script", "expected"), [
    ("run_createdb.sh", [
        ("create_video_lmdb.py", f"{LMDB}multicrop/train", "trainlist_shuffle_rep.txt"),
        ("create_video_lmdb.py", f"{LMDB}multicrop/val", "vallist.txt"),
    ]),
    ("run_createdb_test.sh", [("create_video_lmdb_test.py", f"{LMDB}singlecrop/test", "vallist.txt")]),
    ("run_createdb_test_multicrop.sh", [
        ("create_video_lmdb_test_multicrop.py", f"{LMDB}multicrop/test", "vallist.txt"),
        ("create_video_lmdb_test_flipcrop.py", f"{LMDB}flipcrop/test", "vallist.txt"),
    ]),
])
@pytest.mark.parametrize("status", [0, 7])
def test_createdb_script(script, expected, status, checkout, tmp_path):
    folder = checkout / "process_data/kinetics"
    process = start(folder / script, cwd=tmp_path, stub="./python-stub", STUB_STATUS=str(status))
    process.communicate(timeout=20)
    assert process.returncode == (1 if status else 0)
    assert calls(tmp_path) == [
        [["-u", program, "--dataset_dir", out, "--list_file", list_file], str(folder)]
        for program, out, list_file in expected
    ]


def test_createdb_script_stops_at_ctrl_c(checkout, tmp_path):
    process = subprocess.Popen(["bash", str(checkout / "process_data/kinetics/run_createdb.sh")], cwd="/",
                               env=os.environ | {"PYTHON": str(tmp_path / "python-stub"), "STUB_WAITS": "1"},
                               stdout=subprocess.PIPE, text=True, start_new_session=True)
    while process.stdout.readline() != "ready\n":
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)
    process.communicate(timeout=20)
    assert process.returncode == 130
    assert len(calls(tmp_path)) == 1
