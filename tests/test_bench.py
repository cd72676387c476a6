"""The benchmarks run and print their tables; a shortened soak test of the loader passes."""

import os
import re
import shutil
import subprocess
import sys

import pytest
import torch
from video_files import make_videos


@pytest.fixture
def run(zygote, tmp_path_factory):
    """Run a program of tests/bench: its words -> its status, standard output and error."""
    def run(script, *words):
        output, errors = (tmp_path_factory.mktemp("log") / name for name in ("output", "errors"))
        run = zygote.start([f"tests/bench/{script}.py", *words], output, errors=errors)
        return run.wait(), output.read_text(), errors.read_text()

    return run


@pytest.mark.parametrize(
    ("script", "words", "rows"),
    [
        ("bench_decode", ["--repetitions", "1"], ["read everything, then index", "floor"]),
        ("bench_test_clips", ["--repetitions", "1"], ["thirty decodes", "one decode, uint8"]),
        (
            "bench_loader",
            ["--repetitions", "1", "--clips", "4", "--seconds", "0"],
            ["1 threads", "2 processes"],
        ),
        ("bench_lmdb", ["--records", "500", "--test_videos", "7"], ["train", "test"]),
        (
            "bench_doctor",
            ["--repetitions", "1", "--scanned", "5", "--records", "600"],
            ["the check's processes", "the command, again", "test"],
        ),
    ],
)
def test_a_benchmark_prints_its_table(run, tmp_path, script, words, rows):
    make_videos(tmp_path, 1, sizes=[(70, 64, 96)])
    status, printed, errors = run(script, *words, "--videos", tmp_path)
    assert status == 0, errors
    for row in rows:
        assert re.search(rf"^{row} .*\d", printed, re.MULTILINE), printed


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="no ffmpeg here")
def test_the_benchmark_of_rescaled_videos_prints_its_table(run, tmp_path):
    make_videos(tmp_path, 1, sizes=[(70, 64, 96)])
    words = ["--repetitions", "1", "--videos", tmp_path, "--options", "x264's defaults"]
    status, printed, errors = run("bench_for_clips", *words)
    assert status == 0, errors
    assert re.search(r"^x264's defaults +1\.00 +1\.00 .*\d$", printed, re.MULTILINE), printed


def test_a_benchmark_without_videos_says_so(run, tmp_path):
    status, _, errors = run("bench_decode", "--videos", tmp_path)
    assert status == 1 and errors == f"no readable video in {tmp_path}\n"


def test_loader_survives_a_short_soak(run):
    """With good, damaged and bad videos, memory stays flat, nothing is left over, and all counts are right."""
    status, printed, errors = run("soak_loader", "--minutes", "0.06")
    assert status == 0, errors
    assert re.search(r"[0-9,]+ clips: memory flat at \d+ MB, nothing left over, all counts right", printed)
    rows = re.findall(r"^[\d.]+ +\d+ +(\d+) +[\d.]+$", printed, re.MULTILINE)  # fewer beside other processes
    assert len(rows) >= 2, printed
    clips = [int(clips) for clips in rows]
    assert clips == sorted(clips) and clips[-1] > 100


def test_the_checks_for_gpus_in_their_small_form(repo, tmp_path):
    """Every step runs, and has its log; what it prints is the end of the logs."""
    environment = {name: value for name, value in os.environ.items() if name != "NLNET_DEVICE"}
    done = subprocess.run(["bash", repo / "tests/gpu/h100.sh", tmp_path / "logs", "--small"], capture_output=True,
                          text=True, env=environment | {"PYTHON": sys.executable})
    assert done.returncode == 0, done.stdout
    logs = {path.stem: path.read_text() for path in (tmp_path / "logs").iterdir()}
    assert logs.keys() == {"versions", "tests", "inference", "training"}
    assert f"PyTorch {torch.__version__}" in logs["versions"]
    assert re.search(r"^attention, float32: .*e-0[6-9]", logs["tests"], re.MULTILINE) and " passed" in logs["tests"]
    for name, builds in (("inference", ["plain", "+ flat convolutions"]), ("training", ["plain"])):
        assert re.findall(r"^(\S+(?: [a-z]+)*) +\d.* %", logs[name], re.MULTILINE) == builds
    for name, text in logs.items():
        assert f"== {name}\n" in done.stdout and text.splitlines()[-1] in done.stdout


def test_a_failing_check_does_not_keep_the_next_from_running(repo, tmp_path):
    stub = tmp_path / "python"
    stub.write_text("#!/bin/sh\necho \"$2\"\ncase \"$*\" in *pytest*) exit 3 ;; esac\n")
    stub.chmod(0o755)
    done = subprocess.run(["bash", repo / "tests/gpu/h100.sh", tmp_path / "logs"], capture_output=True, text=True,
                          env=os.environ | {"PYTHON": str(stub)})
    assert done.returncode == 1
    names = re.findall(r"^== (\w+)$", done.stdout, re.MULTILINE)
    assert names == ["versions", "training", "tests", "inference", "affine", "roofline", "loader", "compiled"]
    assert re.findall("!! .*", done.stdout) == ["!! tests: status 3"]
