"""How the programs start: from any folder, with PYTHONSAFEPATH, under a Python that is too old, with any encoding."""

import ast
import io
import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import legacy_run
import pytest
from video_files import H264, read_items

from utils import cli

REPO = legacy_run.REPO
PROGRAMS = [path for path in [*REPO.glob("tools/*.py"), *REPO.glob("process_data/*/*.py")]
            if path.stem not in ("_init_paths", "convert_to_finetune")]  # these are imported
NAMES = [path.stem for path in PROGRAMS]
PYENV = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"), "versions")
OLD_PYTHONS = [python for minor in range(6, 11) for python in PYENV.glob(f"3.{minor}.*/bin/python")]


def python(*words, cwd="/", **environment):
    return subprocess.run([sys.executable, *map(str, words)], cwd=cwd, env=os.environ | environment,
                          capture_output=True, text=True)


# ---------------------------------------------------------------------------------------------------- PYTHONSAFEPATH


@pytest.fixture(scope="module")
def skeleton(tmp_path_factory):
    """A copy of the programs that say that they have found lib/, and end."""
    folder = tmp_path_factory.mktemp("skeleton")
    for name in ("tools", "process_data"):
        shutil.copytree(REPO / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    with (folder / "tools/_init_paths.py").open("a") as file:
        file.write("sys.exit(f'found {sys.path[0]}')\n")
    return folder


@pytest.mark.parametrize("program", PROGRAMS, ids=NAMES)
@pytest.mark.parametrize("flags", [[], ["-P"]], ids=["unsafe", "safe"])
def test_they_find_lib(skeleton, program, flags):
    started = python("-S", *flags, skeleton / program.relative_to(REPO))
    assert (started.returncode, started.stderr) == (1, f"found {skeleton}/lib\n")


@pytest.mark.parametrize("program", ["tools/plot_log.py", "process_data/convert_models/modify_blob_rm.py"])
def test_they_start_with_pythonsafepath(program, tmp_path):
    (tmp_path / "link.py").symlink_to(REPO / program)
    started = python(tmp_path / "link.py", "--help", PYTHONSAFEPATH="1")
    assert started.returncode == 0 and started.stdout.startswith("usage: ")


@pytest.mark.parametrize("program", PROGRAMS, ids=NAMES)
def test_they_tell_their_version(program, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [str(program), "--version"])
    monkeypatch.setattr("utils.stopping.stop_when_asked", lambda: None)  # these tests go on
    monkeypatch.setattr(sys, "path", [str(program.parent), *sys.path])
    with pytest.raises(SystemExit) as ending:
        runpy.run_path(str(program), run_name="__main__")
    assert (ending.value.code, capsys.readouterr().out) == (0, f"video-nonlocal-net {cli.VERSION}\n")


@pytest.mark.parametrize("others, setting", [(0, {"GOMP_SPINCOUNT": "40000"}), (1000, {"OMP_WAIT_POLICY": "PASSIVE"})])
@pytest.mark.parametrize("given", [{}, {"OMP_WAIT_POLICY": "ACTIVE"}, {"GOMP_SPINCOUNT": "5"}, {"KMP_BLOCKTIME": "1"}])
def test_how_threads_wait(tmp_path, monkeypatch, given, others, setting):
    (tmp_path / "stat").write_text(f"cpu  1 2 3 4\nprocs_running {others + 1}\nprocs_blocked 3\n")
    names = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
    monkeypatch.setattr(os, "environ", {name: os.environ[name] for name in os.environ if name not in names} | given)
    source = (REPO / "tools/_init_paths.py").read_text().replace("/proc/stat", str(tmp_path / "stat"))
    monkeypatch.setattr(sys, "path", sys.path[:])
    asked = []
    monkeypatch.setattr("ctypes.CDLL", lambda _: SimpleNamespace(syscall=lambda *words: asked.append(words)))
    exec(compile(source, REPO / "tools/_init_paths.py", "exec"), {"__file__": str(REPO / "tools/_init_paths.py")})
    assert {name: os.environ[name] for name in names if name in os.environ} == (given or setting)
    assert len(asked) == (not given and others > 0)


def test_short_slices():
    """Linux says how long a slice is now, also of threads that are started later, and the niceness stays."""
    program = """
import ctypes, os, struct, sys, threading
from _init_paths import ask_for_short_slices

def call(x86, arm, *arguments):
    return ctypes.CDLL(None).syscall({"x86_64": x86, "aarch64": arm}[os.uname().machine], 0, *arguments, 0)

def attributes():
    found = ctypes.create_string_buffer(56)
    assert call(315, 275, found, 56) == 0
    return struct.unpack("IIQiIQQQII", found.raw)

os.nice(3)
before = attributes()
permitted = call(314, 274, struct.pack("IIQiIQQQII", *before)) == 0
ask_for_short_slices()
thread = threading.Thread(target=lambda: print(before[3], permitted and before[5] != 0, *attributes()[3:6:2]))
thread.start()
thread.join()
"""
    done = python("-c", program, PYTHONPATH=str(REPO / "tools"), OMP_WAIT_POLICY="PASSIVE")
    assert not done.stderr
    niceness, is_told, *after = done.stdout.split()
    if is_told == "False":
        pytest.skip("this kernel has no slices to ask for, or does not permit it")
    assert after == [niceness, "100000"]


# --------------------------------------------------------------------------------------------------------- old Pythons


@pytest.mark.parametrize("program", [*PROGRAMS, REPO / "tools/_init_paths.py"], ids=[*NAMES, "_init_paths"])
def test_an_old_python_can_read_them(program):
    ast.parse(program.read_text(), feature_version=(3, 7))


@pytest.mark.parametrize("program", PROGRAMS, ids=NAMES)
def test_an_old_python_is_told_so_first(program, monkeypatch):
    monkeypatch.setattr(sys, "version_info", (3, 10, 13, "final", 0))
    monkeypatch.setattr(sys, "path", [str(program.parent), *sys.path])
    for module in ("_init_paths", "convert_to_finetune"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    with pytest.raises(SystemExit) as ending:
        runpy.run_path(str(program), run_name="__main__")
    assert ending.value.code == f"error: expected Python 3.11 or later, got 3.10.13 ({sys.executable}): see INSTALL.md"


@pytest.mark.skipif(not OLD_PYTHONS, reason="no old Python here")
@pytest.mark.parametrize("old", OLD_PYTHONS, ids=[path.parts[-3] for path in OLD_PYTHONS])
def test_with_an_old_python(old):
    for program in PROGRAMS:
        started = subprocess.run([old, program, "--help"], capture_output=True, text=True)
        assert (started.returncode, started.stdout, started.stderr.count("\n")) == (1, "", 1), started.stderr
        assert started.stderr.startswith("error: expected Python 3.11 or later, got 3.")


@pytest.mark.parametrize("version", ["Python 2.7.18", "Python 3.9.18", "Python 3.10.13", "Python 3.14.0", "Python 3.1"])
@pytest.mark.parametrize("there", [False, True], ids=["PYTHON", ".venv"])
def test_the_set_up_with_another_python(tmp_path, version, there):
    for path in ("scripts/setup_env.sh", "requirements.txt", "requirements.lock"):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        shutil.copy(REPO / path, tmp_path / path)
    stub = tmp_path / (".venv/bin/python" if there else "python")
    stub.parent.mkdir(parents=True, exist_ok=True)
    stub.write_text(f"#!/bin/sh\n[ \"$*\" = -V ] && echo {version}\n")
    stub.chmod(0o755)
    before = sorted(tmp_path.rglob("*"))
    made = subprocess.run(["bash", tmp_path / "scripts/setup_env.sh"], env=os.environ | {"PYTHON": str(stub)},
                          capture_output=True, text=True)
    where = ".venv/bin/python): remove .venv" if there else f"{stub}): name one with PYTHON=python3.11"
    assert (made.returncode, made.stdout) == (1, "")
    assert made.stderr == f"error: expected Python 3.11 to 3.13, got {version} ({where} and run this again\n"
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("build", ["cpu", "cuda", "", "rocm"])
def test_the_set_up_chooses_the_build_of_pytorch(tmp_path, build):
    for path in ("scripts/setup_env.sh", "requirements.txt", "requirements.lock"):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        shutil.copy(REPO / path, tmp_path / path)
    stub = tmp_path / ".venv/bin/python"
    stub.parent.mkdir(parents=True)
    stub.write_text(f"#!/bin/sh\n[ \"$*\" = -V ] && echo Python 3.11.7 || echo \"$*\" >>{tmp_path}/asked\n"
                    "case \"$*\" in *show*) exit 1 ;; esac\n")
    stub.chmod(0o755)
    made = subprocess.run(["bash", tmp_path / "scripts/setup_env.sh"], env=os.environ | {"TORCH_BUILD": build},
                          capture_output=True, text=True)
    if build == "rocm":
        assert (made.returncode, made.stderr) == (1, "error: TORCH_BUILD: expected cpu or cuda, got rocm\n")
        return
    assert made.returncode == 0, made.stderr
    without_gpu = build == "cpu" or not build and not Path("/proc/driver/nvidia/version").exists()
    assert ("requirements-cpu.lock" in (tmp_path / "asked").read_text()) == without_gpu


def test_the_set_up_without_python(tmp_path):
    for path in ("scripts/setup_env.sh", "requirements.txt", "requirements.lock"):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        shutil.copy(REPO / path, tmp_path / path)
    made = subprocess.run(["bash", tmp_path / "scripts/setup_env.sh"], env=os.environ | {"PYTHON": "/no/python"},
                          capture_output=True, text=True)
    assert (made.returncode, made.stdout) == (1, "")
    assert made.stderr == ("error: expected Python 3.11 to 3.13, got nothing (/no/python): name one with "
                           "PYTHON=python3.11 and run this again\n")


# ----------------------------------------------------------------------------------------------------------- encodings

NAME = os.fsdecode("zürich 中 ".encode() + b"\xff.mp4")
SHOWN = {"ascii": "z\\xfcrich \\u4e2d \\udcff.mp4", "latin-1": "z\xfcrich \\u4e2d \\udcff.mp4",
         "utf-8": "z\xfcrich 中 \\udcff.mp4"}


@pytest.mark.parametrize("encoding", SHOWN)
def test_what_cannot_be_encoded_is_escaped(tmp_path, encoding):
    (tmp_path / "list.txt").write_text(f"{NAME} 0\n", errors="surrogateescape")
    words = [REPO / "tools/check_dataset.py", "--list", "list.txt", "--no_decode"]
    checked = subprocess.run([sys.executable, *words], cwd=tmp_path, env=os.environ | {"PYTHONIOENCODING": encoding},
                             capture_output=True)
    assert checked.returncode == 1 and b"Traceback" not in checked.stderr
    assert f"\n    {SHOWN[encoding]}: No such file or directory (list.txt:1)\n" in checked.stdout.decode(encoding)


@pytest.mark.parametrize("encoding", SHOWN)
def test_errors_too(tmp_path, encoding):
    told = subprocess.run([sys.executable, REPO / "tools/plot_log.py", NAME], cwd=tmp_path, capture_output=True,
                          env=os.environ | {"PYTHONIOENCODING": encoding})
    expected = f"error: {SHOWN[encoding]}: cannot read this log: No such file or directory\n"
    assert (told.returncode, told.stderr.decode(encoding)) == (1, expected)


def test_errors_with_a_closed_output(tmp_path):
    told = subprocess.run(["sh", "-c", '"$@" >&-', "sh", sys.executable, REPO / "tools/plot_log.py", "none.log"],
                          cwd=tmp_path, capture_output=True, text=True)
    assert (told.returncode, told.stderr) == (1, "error: none.log: cannot read this log: No such file or directory\n")


def test_the_error_of_one_of_several_processes(tmp_path, monkeypatch):
    told = python("-c", "import sys; sys.path.insert(0, sys.argv[1])\nfrom utils import cli, errors\n"
                        "def main(): raise errors.UserError('z\\xfc\\udcff')\ncli.run(main)", REPO / "lib",
                  NLNET_ERROR_FILE=str(tmp_path / "error"), PYTHONUTF8="0", PYTHONCOERCECLOCALE="0", LC_ALL="C")
    assert (told.returncode, told.stderr) == (1, "")
    assert (tmp_path / "error").read_text() == "error: z\\xfc\\udcff\n"


def test_predictions_under_another_encoding(job, tmp_path, monkeypatch):
    """The run goes on, and what it writes to files is whole."""
    import predict_video

    shutil.copy(H264, tmp_path / "zürich 中.mp4")
    shutil.copy(H264, tmp_path / NAME)
    words = legacy_run.words(job.data, job.data, TEST__PARAMS_FILE=job.weights)
    monkeypatch.setattr(sys, "argv", ["predict_video.py", "--video", str(tmp_path), "--views", "1x1", "--json",
                                      str(tmp_path / "r.json"), "--csv", str(tmp_path / "r.csv"), *words])
    screen = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", screen)
    with pytest.raises(SystemExit) as ending:
        cli.run(predict_video.main)
    screen.flush()
    assert ending.value.code == 1  # PyAV opens no file whose name is not UTF-8
    assert f"{tmp_path}/z\\xfcrich \\u4e2d.mp4\n   1  " in screen.buffer.getvalue().decode("ascii")
    assert (tmp_path / "r.json").read_text(encoding="ascii").count('"video": ') == 2
    assert (tmp_path / "r.csv").read_bytes().count(b"z\xc3\xbcrich \xe4\xb8\xad") == 1 + 5


def test_an_lmdb_under_any_name(tmp_path, call_tool):
    (tmp_path / "list.txt").write_text("a.mp4 0\n")
    made = python(REPO / "process_data/kinetics/create_video_lmdb.py", "--dataset_dir", tmp_path / NAME, "--list_file",
                  tmp_path / "list.txt", PYTHONIOENCODING="ascii")
    assert made.returncode == 0, made.stderr
    os.rename(tmp_path / NAME, tmp_path / "plain")
    assert len(read_items(tmp_path / "plain")) == 1
