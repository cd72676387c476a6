#!/usr/bin/env bash
# Create the virtual environment .venv at the top of the repository with the packages of a requirements file, at the
# versions and with the hashes of its lock file. Does nothing if this was done before for the same file contents.
# Usage: [TORCH_BUILD=cpu|cuda] setup_env.sh [requirements.txt]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
requirements=${1:-requirements.txt}
lock=${requirements%.txt}.lock
[ -f "$lock" ] || { echo "error: expected requirements.txt or requirements-dev.txt, got $requirements" >&2; exit 1; }
case ${TORCH_BUILD:-cpu} in
    cpu | cuda) ;;
    *) echo "error: TORCH_BUILD: expected cpu or cuda, got $TORCH_BUILD" >&2; exit 1 ;;
esac
stamp=.venv/installed-$(cat requirements*.txt requirements*.lock | cksum | cut -d' ' -f1)-$(basename "$lock" .lock)
[ -f "$stamp" ] && exit 0
python=.venv/bin/python advice="remove .venv"
[ -x "$python" ] || { python=${PYTHON:-python3} advice="name one with PYTHON=python3.11"; }
version=$("$python" -V 2>&1) || version=nothing
if [[ ! $version =~ ^"Python 3."1[1-3]\. ]]; then
    echo "error: expected Python 3.11 to 3.13, got $version ($python): $advice and run this again" >&2
    exit 1
fi
echo "Setting up .venv from $lock (once)"
[ -x .venv/bin/python ] || "$python" -m venv .venv

pip() { .venv/bin/python -m pip --disable-pip-version-check --quiet "$@"; }

# The locks are complete, so pip need not resolve dependencies.
locked() { pip install --require-hashes --no-deps -r "$1"; }

# Without an NVIDIA GPU, use the CPU build of PyTorch if pip is configured with an index that has it (PyPI does not). A
# PyTorch that is already in .venv is kept.
build=${TORCH_BUILD:-$([ -e /proc/driver/nvidia/version ] && echo cuda || echo cpu)}
if [ "$build" = cpu ]; then
    pip show torch >/dev/null 2>&1 || locked requirements-cpu.lock >/dev/null 2>&1 || true
fi
locked "$lock"
# PyPI's build of PyTorch requires NVIDIA's libraries, the CPU build does not.
pip check >/dev/null 2>&1 || locked requirements-cuda.lock
pip check
touch "$stamp"
