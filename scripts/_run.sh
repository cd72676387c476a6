# Sourced by the run_*.sh scripts. Defines
#
#     train_net CONFIG [KEY VALUE]...      tools/train_net_video.py
#     test_net  CONFIG [KEY VALUE]...      tools/test_net_video.py
#
# and PYTHON (see _interpreter.sh). Changes to scripts/, which all relative paths start from, including those that the
# user appends. A later KEY VALUE overrides an earlier one.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/_interpreter.sh"
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
    run_logged "$dir/log.txt" "$PYTHON" -u "$tool" --config_file "$config" \
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

# run_logged LOG COMMAND...: show the command's output, append it to LOG, and exit with the command's status.
# Appended, because a run that is started again resumes from its checkpoint and continues its log.
run_logged() {
    local log=$1 command=$2 status=0 again=1 tee tool
    shift 2
    # -i: Ctrl-C is meant for the tool, whose last lines must be logged as well.
    exec 3> >(exec tee -a -i "$log")
    tee=$!
    # In the background, because bash defers signals while a foreground command runs, and what stops this script
    # (Ctrl-C, a scheduler's SIGTERM) must reach the tool. With job control, because without it a background process
    # ignores Ctrl-C.
    set -m
    "$command" "$@" >&3 2>&1 3>&- &
    tool=$!
    set +m
    local signal
    for signal in INT TERM HUP; do
        trap "kill -s $signal $tool 2>/dev/null && again=1" "$signal"
    done
    # A signal ends `wait` early; wait again to get the status of the tool itself.
    while [ "$again" = 1 ]; do
        again=0
        status=0
        wait "$tool" || status=$?
    done
    exec 3>&-
    wait "$tee" || true
    exit "$status"
}
