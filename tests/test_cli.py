"""How a tool exits."""

import os
import subprocess
import sys

import pytest

PROGRAM = """
import atexit, os
from utils import cli
atexit.register(os.abort)  # stands for a library whose threads do not survive the interpreter's teardown
cli.run(lambda: print("last words") or 3)
"""


@pytest.mark.parametrize("environment, status", [({}, -6), ({"RANK": "1"}, 3)])
def test_one_of_several_processes_exits_without_teardown(repo, environment, status):
    environment = {name: value for name, value in os.environ.items() if name != "RANK"} | environment
    run = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60,
                         env=environment | {"PYTHONPATH": str(repo / "lib")})
    assert run.returncode == status
    assert "last words" in run.stdout
