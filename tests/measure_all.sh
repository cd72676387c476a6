#!/usr/bin/env bash
# Measure everything that the pages tell in figures, and write tests/figures.md. Takes about five hours of an otherwise
# idle machine with two cores.
#
#   bash tests/measure_all.sh [STEP]...
#
# STEPs (default: all) are the names of checks and benches below; the page keeps what others have measured before. The
# logs are in data/figures/. Set REFERENCES to a folder with the numbers of the Caffe2 program (check_references.py), and
# VIDEOS to one of videos, of which the benchmarks otherwise generate some.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash scripts/setup_env.sh requirements-dev.txt || exit
export PATH=$PWD/.venv/bin:$PATH
logs=data/figures page=tests/figures.md chosen=" $* " failed=0
videos=${VIDEOS:+' --videos "$VIDEOS"'}
mkdir -p "$logs"
part=$(mktemp -d)
trap 'rm -rf "$part"' EXIT

# run NAME COMMAND: unless only other steps are asked for, run a command; its output and circumstances are kept.
run() {
    local name=$1 command=$2 begin=$SECONDS status=0
    [ "$chosen" = "  " ] || [[ $chosen == *" $name "* ]] || return 0
    echo "$name: $command"
    bash -c "$command" >"$logs/$name.part" 2>&1 </dev/null || status=$?
    tr '\r' '\n' <"$logs/$name.part" >"$logs/$name.log" && rm "$logs/$name.part"
    printf '%s, %s%s, %d s%s\n' "$(date -u +%F)" "$(git rev-parse --short HEAD)" \
        "$(git diff --quiet HEAD -- . ':!tests/figures.md' ':!tests/parity.md' || echo ' with changes')" \
        $((SECONDS - begin)) "$([ $status = 0 ] || echo ", FAILED with status $status")" >"$logs/$name.when"
    [ $status = 0 ] || { failed=1 && echo "$name failed: see $logs/$name.log"; }
}

# check NAME PATTERN COMMAND: a row of the first table, with the part of the output that matches.
check() {
    run "$1" "$3"
    [ ! -f "$logs/$1.log" ] || echo "| \`$3\` | $(grep -oE -- "$2" "$logs/$1.log" | tr -s ' \n\t' ' ' | sed 's/ $//') |" \
        "$(cat "$logs/$1.when") |" >>"$part/checks"
}

# bench NAME LINES COMMAND: a block with the last lines of the output.
bench() {
    run "$1" "$3"
    [ ! -f "$logs/$1.log" ] || { printf '\n`%s` (%s):\n\n```\n' "$3" "$(cat "$logs/$1.when")"
        grep -v '^ *$' "$logs/$1.log" | tail -n "$2" | cut -c1-140; printf '```\n'; } >>"$part/benchmarks"
}

touch "$part/checks" "$part/benchmarks"
[ -z "${REFERENCES:-}" ] || check parity "all within their bars|[0-9]+ over their bars" \
    'python tests/check_references.py "$REFERENCES" --markdown tests/parity.md'
check suite "[0-9]+ (passed|failed|skipped).*" "bash scripts/run_tests.sh"
for seed in 1 2 3; do
    check "demo$seed" "top-1 accuracy: .*" \
        "rm -rf data/checkpoints/figures; DEMO_NAME=figures bash scripts/run_demo.sh RNG_SEED $seed"
done
check released "[0-9]+ of [0-9]+ models.*" "python tests/check_released.py"
check sliding "(ok|WRONG) .*" "python tests/check_sliding.py"
check kills "SIG.* [0-9].*" "python tests/kill_runs.py --kills 200 --signal SIGKILL SIGTERM"
check pickles "right.*|(pickles|records) .*" "python tests/fuzz.py pickles records --count 200000 --seed 7"
check videos "right.*|videos .*" "python tests/fuzz.py videos --count 2000 --seed 7"
check unusual "right.*|unusual .*" "python tests/fuzz.py unusual --count 5000 --seed 7"
check texts "right.*|(yaml|lists|scores) .*" "python tests/fuzz.py yaml lists scores --seed 7"
check soak "[0-9]{4} +[0-9]+ +[0-9]+ +[0-9.]+$|Flat.*" "python tests/bench/soak_loader.py --minutes 30"

bench model 30 'python tests/bench/bench_model.py --repetitions 3 --build "plain, compiled" --build "+ norms folded" '\
'--build "+ fused attention" --build "activations recomputed"'
bench builds 22 "python tests/bench/bench_model.py i3d_nlnet_8x8_val --batch 2 --repetitions 3"
bench roofline 16 "python tests/bench/bench_roofline.py"
bench busy 5 "python tests/bench/bench_busy.py"
bench processes 4 "python tests/bench/bench_processes.py"
bench decode 20 "python tests/bench/bench_decode.py$videos"
bench clips 8 "python tests/bench/bench_test_clips.py$videos"
bench rescaled 7 "python tests/bench/bench_for_clips.py$videos"
bench loader 14 "python tests/bench/bench_loader.py"
bench lock 6 "python tests/bench/bench_lock.py"
bench lmdb 6 "python tests/bench/bench_lmdb.py"
bench doctor 10 "python tests/bench/bench_doctor.py"

{ printf '# Figures\n\nWritten by `bash tests/measure_all.sh`, on %s cores (%s) with %s GiB of memory. Each command is ' \
    "$(nproc)" "$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)" "$(free -g | awk '/^Mem/ {print $2}')"
  printf 'named\nwith the date, the commit and the duration of its run.\n\n## Checks\n\n'
  printf '| command | result | date, commit, duration |\n|---|---|---|\n'
  cat "$part/checks"
  printf '\n## Benchmarks\n'
  cat "$part/benchmarks"; } >"$page"
echo "$page"
exit $failed
