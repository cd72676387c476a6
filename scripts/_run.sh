# Sourced by the run_*.sh scripts. Gives them
#
#     train_net CONFIG [KEY VALUE]...      tools/train_net_video.py
#     test_net  CONFIG [KEY VALUE]...      tools/test_net_video.py
#
# From here on the current folder is scripts/: that is what relative paths start from, those in words that
# the user appends too. A later KEY VALUE rules over an earlier one.
#
# PYTHON names the interpreter; without it, the repository's .venv if there is one, else python3.
set -euo pipefail
[[ ${PYTHON:-} != [!/]*/* ]] || PYTHON=$PWD/$PYTHON
unset CDPATH # with it, cd may go elsewhere, and print
cd "$(dirname "${BASH_SOURCE[0]}")"

train_net() { run_tool ../tools/train_net_video.py "$@"; }
test_net() { run_tool ../tools/test_net_video.py "$@"; }

run_tool() {
    local tool=$1 config=$2
    shift 2
    local dir
    dir=$(value_of CHECKPOINT.DIR "$@")
    dir=${dir:-../data/checkpoints/$(basename "$0" .sh)}
    mkdir -p -- "$dir"
    run_logged "$dir/log.txt" "$(interpreter)" -u "$tool" --config_file "$config" \
        CHECKPOINT.DIR "$dir" \
        DATADIR ../data/lmdb/kinetics_lmdb_multicrop/ \
        FILENAME_GT ../process_data/kinetics/vallist.txt \
        "$@"
}

# value_of KEY [KEY VALUE]...: the last value given for KEY, if any.
value_of() {
    local wanted=$1 value=
    shift
    while [ $# -ge 2 ]; do
        [ "$1" != "$wanted" ] || value=$2
        shift 2
    done
    echo "$value"
}

interpreter() {
    if [ -n "${PYTHON:-}" ]; then
        echo "$PYTHON"
    elif [ -x ../.venv/bin/python ]; then
        echo ../.venv/bin/python
    else
        echo python3
    fi
}

# run_logged LOG COMMAND...: show the command's output, add it to LOG, and exit with the command's status.
# It is added, not written anew: a run that is started again goes on from its checkpoint, and its log with it.
run_logged() {
    local log=$1 command=$2 status=0 again=1 tee tool
    shift 2
    # -i: Ctrl-C is for the tool, and its last lines shall be logged as well.
    exec 3> >(exec tee -a -i "$log")
    tee=$!
    # In the background, as bash holds signals back while something runs in the foreground: what stops this
    # script (Ctrl-C, a scheduler's SIGTERM) must reach the tool. Job control, as without it a background
    # process ignores Ctrl-C.
    set -m
    "$command" "$@" >&3 2>&1 3>&- &
    tool=$!
    set +m
    local signal
    for signal in INT TERM HUP; do
        trap "kill -s $signal $tool 2>/dev/null && again=1" "$signal"
    done
    # A signal ends `wait` early; wait again then, for the status of the tool itself.
    while [ "$again" = 1 ]; do
        again=0
        status=0
        wait "$tool" || status=$?
    done
    exec 3>&-
    wait "$tee" || true
    exit "$status"
}
