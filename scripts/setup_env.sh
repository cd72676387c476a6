#!/usr/bin/env bash
# Make the virtual environment .venv at the top of the repository with the pinned packages of a requirements
# file. Does nothing when that has been done for the same file contents. Usage: setup_env.sh [requirements.txt]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
requirements=${1:-requirements.txt}
stamp=.venv/installed-$(cat requirements*.txt | cksum | cut -d' ' -f1)-$(basename "$requirements" .txt)
[ -f "$stamp" ] && exit 0
echo "Setting up .venv from $requirements (once)"
[ -x .venv/bin/python ] || "${PYTHON:-python3}" -m venv .venv
.venv/bin/python -m pip install --quiet --disable-pip-version-check -r "$requirements"
touch "$stamp"
