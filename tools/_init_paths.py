"""Adds lib/ to the path, so that the programs run from any folder without PYTHONPATH, and checks the version of Python.

Also decides how OpenMP's threads wait, unless the environment says how they should. By default they spin for
milliseconds, and beside other programs a training takes about twice its share (tests/bench/bench_busy.py). On a busy
machine they sleep instead. On an idle one, where sleeping costs some per cent, they spin for a fraction of that time.

Every program imports it first, so that Python 3.6 or later gets as far as this. The programs name its folder
themselves: with PYTHONSAFEPATH Python does not look for modules there.
"""

import os
import sys
import time
from pathlib import Path

if sys.version_info < (3, 11):  # noqa: UP036
    sys.exit("error: expected Python 3.11 or later, got {}.{}.{} ({}): see INSTALL.md".format(
        *sys.version_info[:3], sys.executable))

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "lib"))


def is_busy():
    """Whether other processes use more than a quarter of the cores, for 40 ms without a break."""
    for number in range(5):
        time.sleep(0.01 if number else 0)
        try:
            with open("/proc/stat") as file:
                running = next(int(line.split()[1]) for line in file if line.startswith("procs_running"))
        except (OSError, StopIteration):
            return True
        if running - 1 <= len(os.sched_getaffinity(0)) / 4:  # this process is one of them
            return False
    return True


# Read once, when PyTorch is loaded. Processes that a program starts inherit it.
if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"} & set(os.environ):
    os.environ.update({"OMP_WAIT_POLICY": "PASSIVE"} if is_busy() else {"GOMP_SPINCOUNT": "10000"})
