# Sourced by the _run.sh files before they change the folder. Sets PYTHON to the interpreter that runs the program: the
# one that PYTHON names, else the repository's .venv if it exists, else python3.
unset CDPATH # with it, cd may go elsewhere, and print
[[ ${PYTHON:-} != [!/]*/* ]] || PYTHON=$PWD/$PYTHON
if [ -z "${PYTHON:-}" ]; then
    PYTHON=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)/.venv/bin/python
    [ -x "$PYTHON" ] || PYTHON=python3
fi
