"""Running the scripts of process_data/kinetics/ as a user does."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path


def run_tool(repo, folder, name, *words, **env):
    """Run a script in a folder. Returns its status, its stdout and its stderr."""
    command = [sys.executable, str(repo / "process_data/kinetics" / name), *map(str, words)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=os.environ | env)
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout, done.stderr


def fork_tool(zygote, folder, name, *words, **env):
    """The same, without repeating the imports. All processes order their sets the same."""
    with tempfile.TemporaryDirectory() as place:
        output, errors = Path(place, "output"), Path(place, "errors")
        there = f"""import os
os.chdir({str(folder)!r})
os.environ.clear()
os.environ.update({dict(os.environ | env)!r})"""
        status = zygote.start([f"process_data/kinetics/{name}", *words], output, there, errors=errors).wait()
        assert "Traceback" not in errors.read_text()
        return status, output.read_text(), errors.read_text()


def assert_one_line(result, *parts):
    status, _, stderr = result
    assert status == 1
    assert stderr.count("\n") == 1 and stderr.startswith("error: ")
    for part in parts:
        assert part in stderr
