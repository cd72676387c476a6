"""Running a program with little memory."""

import subprocess
import sys

_PROGRAM = """
import resource, runpy, sys
import h5py, matplotlib.pyplot, numpy
limit = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize() + (512 << 20)
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def run_limited(script, *words):
    """Run a Python script that may take 512 MiB more than its libraries. Returns a CompletedProcess."""
    return subprocess.run([sys.executable, "-c", _PROGRAM, *map(str, (script, *words))], capture_output=True, text=True)
