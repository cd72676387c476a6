#!/usr/bin/env bash
# Run the linter, the type checker and the test suite (files side by side) in the virtual environment. Extra words are
# passed to pytest.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash scripts/setup_env.sh requirements-dev.txt
# The type checker needs one core: meanwhile, the other one compiles the tests.
.venv/bin/python -m pytest --collect-only >/dev/null &
trap 'kill $! 2>/dev/null' EXIT
.venv/bin/python -m ruff check .
.venv/bin/python -m mypy
wait
# One more than there are cores, as tests also wait for what they have started.
workers=$(($(nproc) + 1))
exec .venv/bin/python -m pytest --numprocesses $((workers < 4 ? workers : 4)) --dist loadfile --no-loadscope-reorder "$@"
