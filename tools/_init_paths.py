"""Adds lib/ to the path, so that the programs run from any folder without PYTHONPATH, and checks the version of Python.

Also makes OpenMP's threads sleep while they wait, unless the environment says how they should: by default they spin,
and beside other programs a training takes several times its share (tests/bench/bench_busy.py).

Every program imports it first, so that Python 3.6 or later gets as far as this. The programs name its folder
themselves: with PYTHONSAFEPATH Python does not look for modules there.
"""

import os
import sys
from pathlib import Path

if sys.version_info < (3, 11):  # noqa: UP036
    sys.exit("error: expected Python 3.11 or later, got {}.{}.{} ({}): see INSTALL.md".format(
        *sys.version_info[:3], sys.executable))

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "lib"))

# Read once, when PyTorch is loaded. Processes that a program starts inherit it.
if not {"GOMP_SPINCOUNT", "KMP_BLOCKTIME"} & set(os.environ):
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
