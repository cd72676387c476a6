#!/usr/bin/env bash
# Create the virtual environment .venv at the top of the repository with the packages of a requirements file, at the
# versions and with the hashes of its lock file. Does nothing if this was done before for the same file contents.
# Usage: setup_env.sh [requirements.txt]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
requirements=${1:-requirements.txt}
lock=${requirements%.txt}.lock
[ -f "$lock" ] || { echo "error: expected requirements.txt or requirements-dev.txt, got $requirements" >&2; exit 1; }
stamp=.venv/installed-$(cat requirements*.txt requirements*.lock | cksum | cut -d' ' -f1)-$(basename "$lock" .lock)
[ -f "$stamp" ] && exit 0
echo "Setting up .venv from $lock (once)"
[ -x .venv/bin/python ] || "${PYTHON:-python3}" -m venv .venv

pip() { .venv/bin/python -m pip --disable-pip-version-check --quiet "$@"; }

# The locks are complete, so pip need not resolve dependencies.
locked() { pip install --require-hashes --no-deps -r "$1"; }

# If pip is configured with an index that has the CPU build of PyTorch (PyPI does not), use it. A PyTorch that is already
# in .venv is kept.
pip show torch >/dev/null 2>&1 || locked requirements-cpu.lock >/dev/null 2>&1 || true
locked "$lock"
# PyPI's build of PyTorch requires NVIDIA's libraries, the CPU build does not.
pip check >/dev/null 2>&1 || locked requirements-cuda.lock
pip check
touch "$stamp"
