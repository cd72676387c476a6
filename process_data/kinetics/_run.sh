# Sourced by the run_createdb*.sh scripts. Defines
#
#     createdb SCRIPT DATASET_DIR LIST      write the LMDB of a list
#
# and changes to process_data/kinetics/. If one LMDB fails, the next one is still written, so the script must end with
# `exit "$failed"`.
set -uo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../../scripts/_interpreter.sh"
cd "$(dirname "${BASH_SOURCE[0]}")" || exit 1

failed=0
trap 'exit 130' INT

createdb() {
    "$PYTHON" -u "$1" --dataset_dir "$2" --list_file "$3" || failed=1
}
