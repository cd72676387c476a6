"""tests/measure_all.sh: what its page says of the steps that it runs, and of those that it ran before."""

import os
import shutil
import subprocess

import pytest

PYTHON = """#!/bin/sh
echo "$@" >> asked.txt
case "$*" in
    *bench_lock*)
        if [ "$LOCK" ]; then kill -INT $PPID; exit 130; fi
        printf 'reading\\rread\\n\\nthreads    us\\none      2.10\\n' ;;
    *check_references*) [ -d "$2" ] && echo "all within their bars" ;;
    *) echo "3 of 4 models predict the same"; exit 1 ;;
esac
"""


@pytest.fixture
def measure(repo, tmp_path):
    """Run the script on stand-ins for its programs: steps -> the process; the page is tests/figures.md."""
    for name in ("scripts", "tests", ".venv/bin"):
        (tmp_path / name).mkdir(parents=True)
    shutil.copy(repo / "tests/measure_all.sh", tmp_path / "tests")
    (tmp_path / "scripts/setup_env.sh").touch()
    (tmp_path / ".venv/bin/python").write_text(PYTHON)
    (tmp_path / ".venv/bin/python").chmod(0o755)
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    subprocess.run(["git", "-C", tmp_path, "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q",
                    "--allow-empty", "-m", "a"], check=True)

    def measure(*steps, **environment):
        environment = {name: value for name, value in os.environ.items() if name != "VIDEOS"} | environment
        return subprocess.run(["bash", tmp_path / "tests/measure_all.sh", *steps], capture_output=True, text=True,
                              env=environment)

    return measure


def test_a_page_of_single_steps(measure, tmp_path):
    folder = tmp_path / "a folder"
    folder.mkdir()
    run = measure("lock", "parity", REFERENCES=str(folder))
    page = (tmp_path / "tests/figures.md").read_text()
    assert run.returncode == 0, run.stderr
    command = 'python tests/check_references.py "$REFERENCES" --markdown tests/parity.md'
    assert f"| parity | `{command}` | all within their bars | 20" in page
    assert "**lock**: `python tests/bench/bench_lock.py` (20" in page
    assert "```\nthreads    us\none      2.10\n```" in page
    assert str(tmp_path) not in page and "check_released" not in page

    asked = (tmp_path / "asked.txt").read_text()
    shutil.rmtree(tmp_path / "data")  # in another clone the page is all that there is
    again = measure("released")
    page = (tmp_path / "tests/figures.md").read_text()
    assert (tmp_path / "asked.txt").read_text() == f"{asked}tests/check_released.py\n"
    assert again.returncode == 1 and "released failed: see data/figures/released.log" in again.stderr
    assert "| released | `python tests/check_released.py` | 3 of 4 models predict the same | 20" in page
    assert "FAILED with status 1" in page and page.count("all within their bars") == page.count("one      2.10") == 1

    assert measure("lock", LOCK="interrupted").returncode == 130
    assert (tmp_path / "tests/figures.md").read_text() == page
