"""What is installed, what may be executed, and the permissions of written files."""

import ast
import os
import re
import subprocess
from importlib import metadata

import legacy_run
import numpy as np
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from data.lmdb_writer import train_items, write_lmdb
from formats.caffe2_pickle import dump
from formats.result_file import ResultFile
from reports.log_parser import read_log
from reports.video_scores import write_results
from utils.visualize import plot_logs
from video.video_facts import Fingerprint, VideoFacts, VideoFactsCache

REPO = legacy_run.REPO
FOLDERS = [REPO / name for name in ("lib", "tools", "process_data", "scripts")]
PROGRAM = [path for folder in FOLDERS for path in sorted(folder.rglob("*.py"))]
SHELL = [path for folder in FOLDERS for path in sorted(folder.rglob("*.sh"))]

# ------------------------------------------------------------------------------------------------------- the lock files


def locked(name):
    """{package: version} of a lock. Checks that every entry has a hash."""
    text = (REPO / name).read_text()
    entries = re.findall(r"^(\S+)==(\S+)(?: ; .*?)?((?: \\\n +--hash=sha256:[0-9a-f]{64})+)\n", text, re.MULTILINE)
    lines = [line for line in text.splitlines() if line and not line.startswith(("#", " "))]
    assert len(entries) == len(lines)
    return {package: version for package, version, _ in entries}


@pytest.mark.parametrize("name", ["requirements", "requirements-dev"])
def test_a_lock_contains_its_requirements(name):
    text = (REPO / "requirements.txt").read_text() + (REPO / f"{name}.txt").read_text()
    wanted = dict(re.findall(r"^([\w-]+)==(\S+)$", text, re.MULTILINE))
    assert len(wanted) >= 8
    lock = locked(f"{name}.lock")
    assert {package: lock.get(canonicalize_name(package)) for package in wanted} == wanted


def test_a_lock_contains_the_dependencies_of_its_packages():
    lock = locked("requirements-dev.lock")
    assert locked("requirements.lock").items() <= lock.items()
    known = lock.keys() | locked("requirements-cuda.lock").keys()
    looked_at = 0
    for package, version in lock.items():
        try:
            distribution = metadata.distribution(package)
        except metadata.PackageNotFoundError:
            continue
        if distribution.version.split("+")[0] != version:
            continue
        looked_at += 1
        for requirement in map(Requirement, distribution.requires or ()):
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                assert canonicalize_name(requirement.name) in known, f"{package} wants {requirement}"
    assert looked_at > 5


def test_the_cpu_build_has_the_same_version():
    version = locked("requirements.lock")["torch"]
    assert locked("requirements-cpu.lock") == {"torch": f"{version}+cpu"}
    [digest] = re.findall(r"sha256:\w+", (REPO / "requirements-cpu.lock").read_text())
    assert digest in (REPO / "requirements.lock").read_text()


FAKE_PYTHON = """#!/usr/bin/env bash
echo "$*" >> "$CALLS"
case "$*" in
-V) echo Python 3.11.0 ;;
*"pip show torch"* | *" show torch") exit 1 ;;
*requirements-cpu.lock) [ -n "$CPU_BUILD" ] ;;
*requirements-cuda.lock) touch "$CALLS.cuda" ;;
*check) [ -n "$CPU_BUILD" ] || [ -e "$CALLS.cuda" ] ;;
esac
"""


@pytest.mark.parametrize(("cpu_build", "locks"), [
    ("yes", ["requirements-cpu.lock", "requirements.lock"]),
    ("", ["requirements-cpu.lock", "requirements.lock", "requirements-cuda.lock"]),
])
def test_the_setup_installs_nothing_without_a_hash(cpu_build, locks, tmp_path):
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts/setup_env.sh").write_text((REPO / "scripts/setup_env.sh").read_text())
    for path in REPO.glob("requirements*"):
        (tmp_path / path.name).write_text(path.read_text())
    python = tmp_path / ".venv/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text(FAKE_PYTHON)
    python.chmod(0o755)
    calls = tmp_path / "calls"
    for _ in range(2):  # the second call does nothing
        subprocess.run(["bash", tmp_path / "scripts/setup_env.sh"], check=True, capture_output=True,
                       env=os.environ | {"CALLS": str(calls), "CPU_BUILD": cpu_build})
    installs = [line for line in calls.read_text().splitlines() if " install " in line]
    assert [line.split()[-1] for line in installs] == locks
    assert all("--require-hashes --no-deps -r" in line for line in installs)
    assert calls.read_text().splitlines()[-1].endswith(" check")


# --------------------------------------------------------------------------------------------------- what may run

# Calls that execute the contents of a file or string, or download something.
FORBIDDEN = {
    "eval", "exec", "compile", "__import__", "os.system", "os.popen", "subprocess.getoutput",
    "subprocess.getstatusoutput", "pickle.load", "pickle.loads", "pickle.Unpickler", "marshal.load", "marshal.loads",
    "shelve.open", "torch.hub.load", "torch.hub.load_state_dict_from_url", "yaml.unsafe_load", "yaml.full_load",
    "yaml.load_all", "tempfile.mktemp",
}
FETCHING = {"urllib", "http", "ftplib", "requests", "httpx", "huggingface_hub", "smtplib", "telnetlib"}


def violations(text):
    """Forbidden calls and imports in Python source."""
    tree = ast.parse(text)
    safe_loaders = {node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef)
                    and [ast.unparse(base) for base in node.bases] == ["yaml.SafeLoader"]}
    found = []
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            found += [name for name in names if name.split(".")[0] in FETCHING]
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        wrong = name in FORBIDDEN or name == "torch.load" and given.get("weights_only") != "True"
        wrong = wrong or given.get("shell", "False") != "False" or given.get("allow_pickle", "False") != "False"
        if name == "yaml.load":
            wrong = not {ast.unparse(argument) for argument in node.args[1:]} & safe_loaders
        if name.startswith("subprocess.") and node.args:
            wrong = wrong or isinstance(node.args[0], (ast.Constant, ast.JoinedStr, ast.BinOp))  # a line, not a list
        if wrong:
            found.append(ast.unparse(node))
    return found


@pytest.mark.parametrize("path", PROGRAM, ids=lambda path: str(path.relative_to(REPO)))
def test_nothing_executes_or_downloads_the_contents_of_a_file(path):
    assert violations(path.read_text()) == []


@pytest.mark.parametrize("text", [
    "eval(word)", "exec(word)", "os.system(word)", "pickle.load(file)", "torch.load(file)",
    "torch.load(file, weights_only=w)", "subprocess.run(words, shell=True)", "subprocess.run(f'ls {path}')",
    "yaml.load(file, yaml.Loader)", "yaml.load(file)", "np.load(file, allow_pickle=True)", "import urllib.request",
    "from torch import hub\ntorch.hub.load(name)",
])
def test_forbidden_calls_are_detected(text):
    assert violations(text) != []


def test_all_of_the_program_is_checked():
    assert len(PROGRAM) > 45 and len(SHELL) > 20


@pytest.mark.parametrize("path", SHELL, ids=lambda path: str(path.relative_to(REPO)))
def test_scripts_neither_download_nor_evaluate(path):
    code = re.sub(r"(?m)(^| )#.*", "", path.read_text())
    assert re.findall(r"\b(eval|curl|wget|git clone)\b|\bsh -c\b", code) == []


# ------------------------------------------------------------------------------------------------- who may read it


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_file_modes_follow_the_umask(umask, tmp_path, job):
    (tmp_path / "list.txt").write_text("a.mp4 0\n")
    (tmp_path / "log.txt").write_text(job.output)
    video = tmp_path / "v.mp4"
    video.write_bytes(b"video")
    out = tmp_path / "out"
    out.mkdir()
    before = os.umask(umask)
    try:
        dump({"conv1_w": np.zeros(3, "f4")}, out / "c2_model_iter1.pkl")
        write_lmdb(out / "lmdb", tmp_path / "list.txt", train_items, True)
        ResultFile(out / "results_scores.h5", "scores", {}, 2, {"scores": (3,)}, {}).close()
        write_results(out / "results_probs.pkl", np.array([0]), np.zeros((1, 2), "f4"))
        VideoFactsCache(out / "frame_counts.txt").put(str(video), Fingerprint(1, 2), VideoFacts(3, None))
        plot_logs({"log": read_log(tmp_path / "log.txt")}, out / "curves.png")
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in out.rglob("*") if path.is_file()}
    assert modes == dict.fromkeys(["c2_model_iter1.pkl", "data.mdb", "results_scores.h5", "results_probs.pkl",
                                   "frame_counts.txt", "curves.png"], 0o666 & ~umask)


def test_no_file_of_a_job_is_executable_or_private(job):
    umask = os.umask(0)
    os.umask(umask)
    files = [path for folder in (job.folder, job.data) for path in folder.rglob("*") if path.is_file()]
    assert len(files) > 10
    assert {str(path) for path in files if path.stat().st_mode & 0o777 != 0o666 & ~umask} == set()
