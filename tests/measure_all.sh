#!/usr/bin/env bash
# Measure everything that the pages tell in figures, and write tests/figures.md. Takes about five hours of an otherwise
# idle machine with two cores.
#
#   bash tests/measure_all.sh [STEP]...
#
# STEPs (default: all) are the names in the list below; the page keeps what others have measured before. The logs are in
# data/figures/. REFERENCES is a folder with the numbers of the Caffe2 program (see check_references.py), VIDEOS one of
# videos; without them their steps are left out, and benchmarks generate their videos.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash scripts/setup_env.sh requirements-dev.txt || exit
export PATH=$PWD/.venv/bin:$PATH
logs=data/figures page=tests/figures.md chosen=" $* " failed=0
references=${REFERENCES:-} videos=${VIDEOS:+--videos "$VIDEOS"}
mkdir -p "$logs"
part=$(mktemp "$logs/page.XXXXXX")
trap 'rm -f "$part"' EXIT

# measure NAME TITLE PATTERN COMMAND: run a command, and put the lines of its output that match on the page.
measure() {
    local name=$1 title=$2 pattern=$3 command=$4 log=$logs/$1.log begin=$SECONDS status=0
    if [ "$chosen" = "  " ] || [[ $chosen == *" $name "* ]]; then
        echo "$name: $command"
        bash -c "$command" >"$log.part" 2>&1 </dev/null || status=$?
        printf '%s, commit %s%s, %d s%s\n' "$(date -u +%F)" "$(git rev-parse --short HEAD)" \
            "$(git diff --quiet HEAD -- . ':!tests/figures.md' ':!tests/parity.md' || echo ' with changes')" \
            $((SECONDS - begin)) "$([ $status = 0 ] || echo ", FAILED with status $status")" >"$logs/$name.when"
        mv "$log.part" "$log"
        [ $status = 0 ] || { failed=1 && echo "$name failed: see $log"; }
    fi
    [ -f "$log" ] || return 0
    { printf '\n## %s\n\n`%s` (%s)\n\n```\n' "$title" "$command" "$(cat "$logs/$name.when")"
      tr '\r' '\n' <"$log" | grep -E -- "$pattern" | cut -c1-140; printf '```\n'; } >>"$part"
}

{ printf '# Figures\n\nWritten by `bash tests/measure_all.sh`, on %s cores of %s, with %s GiB of memory.\n' \
    "$(nproc)" "$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)" "$(free -g | awk '/^Mem/ {print $2}')"
  printf 'Each part names its command, and the date, commit and duration of its run.\n'; } >"$part"

rows='^\S.*  +\S*[0-9]' # of a table
[ -z "$references" ] || measure parity "Agreement with the Caffe2 program: [parity.md](parity.md)" "[0-9]+ (ok|checks)" \
    "python tests/check_references.py '$references' --markdown tests/parity.md"
measure suite "The tests" "passed|failed|^real" "time bash scripts/run_tests.sh"
for seed in 1 2 3; do
    measure "demo$seed" "The demo, seed $seed" "top-[15] accuracy:|^real" \
        "rm -rf data/checkpoints/run_demo; time bash scripts/run_demo.sh RNG_SEED $seed"
done
measure model "The network" '^(fwd|r101|inference:|training:|   )' \
    'python tests/bench/bench_model.py --repetitions 3 --build "plain, compiled" --build "+ norms folded" \
    --build "+ fused attention" --build "activations recomputed"'
measure builds "One optimisation after another" "$rows|^fwd" \
    'python tests/bench/bench_model.py i3d_nlnet_8x8_val --batch 2 --repetitions 3'
measure roofline "What bounds a training step" "$rows|measured" "python tests/bench/bench_roofline.py"
measure busy "Beside busy programs" "$rows|^Seconds" "python tests/bench/bench_busy.py"
measure processes "Several processes" "$rows|^Train" "python tests/bench/bench_processes.py"
measure decode "Decoding" "$rows|^Times" "python tests/bench/bench_decode.py $videos"
measure clips "Thirty clips of a video" "$rows|^Times" "python tests/bench/bench_test_clips.py $videos"
measure rescaled "Rescaled videos" "$rows" "python tests/bench/bench_for_clips.py $videos"
measure loader "Loading" "$rows" "python tests/bench/bench_loader.py"
measure lock "Python's lock" "$rows" "python tests/bench/bench_lock.py"
measure lmdb "LMDBs" "$rows" "python tests/bench/bench_lmdb.py"
measure doctor "Checking data" "$rows" "python tests/bench/bench_doctor.py"
measure released "Released models without options" "^[0-9]+ of|same" "python tests/check_released.py"
measure sliding "Two hours of video" "MB|windows" "python tests/check_sliding.py"
measure kills "Killed and restarted" "$rows|survived" "python tests/kill_runs.py --kills 200 --signal SIGKILL SIGTERM"
measure pickles "Hostile pickles and records" "right|refused" "python tests/fuzz.py pickles records --count 200000 --seed 7"
measure videos "Damaged videos" "right|refused" "python tests/fuzz.py videos --count 2000 --seed 7"
measure unusual "Unusual videos" "right|refused" "python tests/fuzz.py unusual --count 5000 --seed 7"
measure texts "Hostile lists, options and scores" "right|refused" "python tests/fuzz.py yaml lists scores --seed 7"
measure soak "Half an hour of loading" "$rows|Flat" "python tests/bench/soak_loader.py --minutes 30"

cat "$part" >"$page"
echo "$page"
exit $failed
