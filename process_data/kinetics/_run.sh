# Sourced by the run_createdb*.sh scripts. Gives them
#
#     createdb SCRIPT DATASET_DIR LIST      write the LMDB of a list
#
# From here on the current folder is process_data/kinetics/. An LMDB that fails does not keep the next one from
# being written, but the script is to `exit "$failed"`.
set -uo pipefail
[[ ${PYTHON:-} != [!/]*/* ]] || PYTHON=$PWD/$PYTHON
unset CDPATH
cd "$(dirname "${BASH_SOURCE[0]}")" || exit 1
if [ -z "${PYTHON:-}" ]; then
    PYTHON=python3
    [ ! -x ../../.venv/bin/python ] || PYTHON=../../.venv/bin/python
fi

failed=0
trap 'exit 130' INT

createdb() {
    "$PYTHON" -u "$1" --dataset_dir "$2" --list_file "$3" || failed=1
}
