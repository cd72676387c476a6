"""Running the scripts of process_data/kinetics/ as a user does."""

import os
import subprocess
import sys


def run_tool(repo, folder, name, *words, **env):
    """Run a script in a folder. Returns its status, its stdout and its stderr."""
    command = [sys.executable, str(repo / "process_data/kinetics" / name), *map(str, words)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=os.environ | env)
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout, done.stderr


def assert_one_line(result, *parts):
    status, _, stderr = result
    assert status == 1
    assert stderr.count("\n") == 1 and stderr.startswith("error: ")
    for part in parts:
        assert part in stderr
