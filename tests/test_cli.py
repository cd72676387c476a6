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


LOST = """
import os, signal, time
from utils import cli

class Closing:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.1)

def main():
    Closing()
    print("all done")
    return {status}

cli.run(main)
"""


@pytest.mark.parametrize("status, expected", [(0, 143), (1, 1)])
def test_a_signal_that_got_lost_in_a_destructor_counts(repo, status, expected):
    run = subprocess.run([sys.executable, "-c", LOST.format(status=status)], capture_output=True, text=True, timeout=60,
                         env=os.environ | {"PYTHONPATH": str(repo / "lib")})
    assert run.returncode == expected
    assert "all done" in run.stdout and "Exception ignored" in run.stderr
    assert ("error: interrupted\n" in run.stderr) == (expected == 143)
