"""Adds lib/ to the path, so that the programs run from any folder without PYTHONPATH, and checks the version of Python.

Also decides how OpenMP's threads wait, unless the environment says how they should. By default they spin for
milliseconds, and beside other programs a training takes two to three times its share (tests/bench/bench_busy.py). On a
busy machine they sleep instead, and run in shorter slices. On an idle one, where sleeping costs some per cent, they
spin for a fraction of that time.

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


def ask_for_short_slices():
    """Ask Linux (6.12 or later; sched_setattr(2)) to let the threads of this process run for 0.1 ms at a time.

    Their share stays the same, but a thread that all others wait for at a barrier gets its turn sooner.
    """
    import ctypes
    import struct

    if sys.platform != "linux" or os.sched_getscheduler(0) != os.SCHED_OTHER:
        return
    call = {"x86_64": 314, "aarch64": 274}.get(os.uname().machine)
    if call is None:
        return
    niceness, nanoseconds = os.getpriority(os.PRIO_PROCESS, 0), 100000
    attributes = struct.pack("IIQiIQQQII", 56, os.SCHED_OTHER, 0, niceness, 0, nanoseconds, 0, 0, 0, 0)
    ctypes.CDLL(None).syscall(call, 0, attributes, 0)  # where that is not permitted, slices stay as they are


# What OpenMP's threads do while they wait. On an idle machine fewer rounds of spinning cost a step time; more of them,
# where the machine becomes busy (tests/bench/bench_busy.py).
WHEN_BUSY, WHEN_IDLE = {"OMP_WAIT_POLICY": "PASSIVE"}, {"GOMP_SPINCOUNT": "40000"}
# Both are inherited by the processes that a program starts. The environment is read once, when PyTorch is loaded.
if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"} & set(os.environ):
    if is_busy():
        os.environ.update(WHEN_BUSY)
        ask_for_short_slices()
    else:
        os.environ.update(WHEN_IDLE)
