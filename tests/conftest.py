"""Shared fixtures: the repository, the full reference numbers if available, and small jobs that many tests use."""

import fcntl
import gc
import logging
import os
import pickle
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

# Before PyTorch is loaded: threads that wait at a barrier leave the core to the other processes of the tests.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
if "PYTEST_XDIST_WORKER" in os.environ:  # which share the cores
    os.environ.setdefault("OMP_NUM_THREADS", "1")
if os.environ.get("NLNET_DEVICE") != "cuda":  # see tests/gpu
    os.environ["CUDA_VISIBLE_DEVICES"] = ""

import legacy_run
import pytest
import tiny_job
from forking_python import forking_python
from zygote import Zygote, heed_signals

from utils import cli

heed_signals()

REPO = Path(__file__).resolve().parent.parent
# The files that take longest. They come first, so that none is left for one core at the end (see scripts/run_tests.sh).
LONG = ["processes", "commands", "bench", "features", "fuzz", "machines", "long_runs", "every_affinity", "mistakes",
        "visualize", "make_motion_videos", "export_model", "walkthrough", "models", "downscale", "tensorboard_events",
        "affinities", "agreement", "test_tool", "training_step", "inference", "kinetics_lists", "slurm"]


def pytest_collection_modifyitems(items):
    place = {f"test_{name}.py": number for number, name in enumerate(LONG)}
    items.sort(key=lambda item: place.get(item.path.name, len(LONG)))


def pytest_collection_finish():
    gc.freeze()  # what is imported stays: no need to search it for garbage again and again


@pytest.fixture(scope="session", autouse=True)
def as_the_tools_compute():
    from engine.malloc import keep_freed_memory  # here, as the process that starts the others does not need PyTorch
    from models.precision import leave_out_amx

    leave_out_amx()  # before any test has computed anything
    keep_freed_memory()


@pytest.fixture(scope="session")
def repo():
    return REPO


@pytest.fixture(scope="session")
def shared():
    """The folder with reference/ and videos/ (NLNET_REFERENCE, or ../shared next to the repository); else skips."""
    folder = Path(os.environ.get("NLNET_REFERENCE", REPO.parent / "shared"))
    if not (folder / "reference").is_dir():
        pytest.skip("the full reference numbers are not available")
    return folder


def find_python2(statement):
    """A Python 2 that can run a statement (NLNET_PYTHON2, python2.7 on the path, or one of pyenv's), or None."""
    candidates = [os.environ.get("NLNET_PYTHON2"), shutil.which("python2.7")]
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    candidates += map(str, sorted(pyenv.glob("versions/2.7*/bin/python")))
    for python in filter(None, candidates):
        if subprocess.run([python, "-c", statement], capture_output=True).returncode == 0:
            return python
    return None


@pytest.fixture(scope="session")
def python2():
    """A Python 2 with numpy; else skips."""
    return find_python2("import numpy") or pytest.skip("no Python 2.7 with numpy found (set NLNET_PYTHON2)")


@pytest.fixture(scope="session")
def bare_python2():
    """Any Python 2; else skips."""
    return find_python2("import pickle") or pytest.skip("no Python 2.7 found (set NLNET_PYTHON2)")


@pytest.fixture(scope="session")
def once(tmp_path_factory):
    """Make something for all processes of pytest-xdist: (name, make) -> make(folder), of which only one is called."""
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent

    def once(name, make):
        with open(shared / f"{name}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            made = shared / f"{name}.made"
            if not made.exists():
                result = make(Path(tempfile.mkdtemp(prefix=name, dir=shared)))
                made.write_bytes(pickle.dumps(result))
            return pickle.loads(made.read_bytes())

    return once


@pytest.fixture(scope="session")
def tiny_data(once):
    """Folder of small videos, lists and LMDBs (see legacy_run.make_data). Not to be changed."""
    return once("data", legacy_run.make_data)


@pytest.fixture(scope="session")
def job(tiny_data, once):
    """A tiny training run, shared by all tests (legacy_run.Job). Not to be changed."""
    return once("job", lambda folder: legacy_run.run_job(tiny_data, folder))


@pytest.fixture(scope="session")
def zygote():
    """Starts the tools as real processes without paying for their imports."""
    with Zygote() as running:
        yield running


@pytest.fixture(scope="session")
def python(zygote, tmp_path_factory):
    """A stand-in for Python that starts scripts as real processes without paying for their imports: its path."""
    with forking_python(zygote, tmp_path_factory.mktemp("bin")) as stand_in:
        yield stand_in


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    """Folder with the data of tiny_job."""
    folder = tmp_path_factory.mktemp("tiny")
    tiny_job.make_data(folder)
    return folder


@pytest.fixture(scope="session")
def undisturbed(zygote, data, once):
    """Folder of an undisturbed run of tiny_job in one process, without evaluations. Not to be changed."""
    def make(folder):
        words = tiny_job.command(REPO, data, folder, TRAIN__EVAL_PERIOD=1000)
        assert zygote.run(words, folder / "log.txt") == 0, (folder / "log.txt").read_text()
        return folder

    return once("undisturbed", make)


@pytest.fixture
def no_compiler(tmp_path, monkeypatch):
    """torch.compile finds no C++ compiler, and nothing that was compiled before."""
    from torch._inductor import config  # takes seconds

    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    with config.patch({"cpp.cxx": (str(tmp_path / "no-compiler"),)}):
        yield


@pytest.fixture
def call_tool(monkeypatch, capfd):
    """Runs a tool's command line in this process: (module, *words) -> status, stdout, stderr."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level

    def call(tool, *words):
        monkeypatch.setattr(sys, "argv", [f"{tool.__name__}.py", *map(str, words)])
        with pytest.raises(SystemExit) as ending:
            cli.run(tool.main)
        return ending.value.code, *capfd.readouterr()

    yield call
    root.handlers[:], root.level = handlers, level
