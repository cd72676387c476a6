#!/usr/bin/env bash
# Measure everything that the pages tell in figures, and write tests/figures.md. Takes about five hours of an otherwise
# idle machine with two cores.
#
#   bash tests/measure_all.sh [STEP]...
#
# STEPs (default: all) are the names of checks and benches below; the page keeps what it says of the others. The logs are
# in data/figures/. Set REFERENCES to a folder with the numbers of the Caffe2 program (check_references.py), and
# VIDEOS to one of videos, of which the benchmarks otherwise generate some.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash scripts/setup_env.sh requirements-dev.txt || exit
export PATH=$PWD/.venv/bin:$PATH
logs=data/figures page=tests/figures.md steps=" $* " failed=0
processor=$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)
videos=${VIDEOS:+' --videos "$VIDEOS"'}
# Where the processor has no AVX-512, a step in bfloat16 takes minutes.
bfloat16='' precision=float32
grep -qw avx512bw /proc/cpuinfo && bfloat16=' --build bfloat16' precision=bfloat16
mkdir -p "$logs"
part=$(mktemp -d)
trap 'rm -rf "$part"' EXIT
trap 'steps=" none " failed=130' INT TERM
touch "$page" && cp "$page" "$part/before"

# run NAME COMMAND: run a command and keep its output and circumstances. False where only other steps are asked for, or
# after an interruption.
run() {
    local name=$1 command=$2 begin=$SECONDS status=0
    [ "$steps" = "  " ] || [[ $steps == *" $name "* ]] || return
    [ "$name" != parity ] || [ -n "${REFERENCES:-}" ] || return
    [[ $name != *bfloat16* ]] || [ "$precision" = bfloat16 ] || return
    echo "$name: $command" >&2
    bash -c "$command" >"$logs/$name.part" 2>&1 </dev/null || status=$?
    tr '\r' '\n' <"$logs/$name.part" >"$logs/$name.log" && rm "$logs/$name.part"
    [ "$steps" != " none " ] || return
    when="$(date -u +%F), $(git rev-parse --short HEAD)$(
        git diff --quiet HEAD -- . ':!tests/figures.md' ':!tests/parity.md' || echo ' with changes'
    ), $processor, $((SECONDS - begin)) s"
    [ $status = 0 ] || { when+=", FAILED with status $status" failed=1; echo "$name failed: see $logs/$name.log" >&2; }
}

# check NAME PATTERN COMMAND: a row of the first table, with the part of the output that matches.
check() {
    if run "$1" "$3"; then
        local found
        found=$(grep -oE -- "$2" "$logs/$1.log" | tr -s ' \t' ' ' | paste -sd ';' | sed 's/;/; /g')
        echo "| $1 | \`$3\` | $found | $when |"
    else
        grep "^| $1 |" "$part/before"
    fi >>"$part/checks"
}

# bench NAME COMMAND [LINES]: a block with the tables of the output, which come after its first blank line, or with its
# last LINES.
bench() {
    if run "$1" "$2"; then
        printf '\n**%s**: `%s` (%s)\n```\n' "$1" "$2" "$when"
        sed '0,/^ *$/d' "$logs/$1.log" | grep -vE '^ *$|%\|' | tail -n "${3:-1000}" | cut -c1-220
        printf '```\n'
    else
        awk -v head="**$1**" 'index($0, head) == 1 {inside = 1; print ""} inside; /^```$/ && inside && ++fences == 2 {exit}' \
            "$part/before"
    fi >>"$part/benchmarks"
}

touch "$part/checks" "$part/benchmarks"
check parity "all within their bars|[0-9]+ over their bars" \
    'python tests/check_references.py "$REFERENCES" --markdown tests/parity.md'
check suite "[0-9]+ (passed|failed|skipped).*" "bash scripts/run_tests.sh"
demo="rm -rf data/checkpoints/figures; DEMO_NAME=figures bash scripts/run_demo.sh"
for seed in 1 2 3; do
    check "demo$seed" "top-1 accuracy: [0-9.]+ percent on .*videos" "$demo RNG_SEED $seed"
    check "demo$seed-bfloat16" "top-1 accuracy: [0-9.]+ percent on .*videos" \
        "$demo RNG_SEED $seed MODEL.PRECISION bfloat16"
done
check released "[0-9]+ of [0-9]+ models.*" "python tests/check_released.py"
check sliding "(ok|WRONG) .*" "python tests/check_sliding.py"
check kills "job .*|[a-z_]+ +SIG.*" "python tests/kill_runs.py --kills 200 --signal SIGKILL SIGTERM SIGHUP"
check pickles "area +.*|(pickles|records) +[0-9].*" "python tests/fuzz.py pickles records --count 200000 --seed 7"
check videos "area +.*|videos +[0-9].*" "python tests/fuzz.py videos --count 2000 --seed 7"
check unusual "area +.*|unusual +[0-9].*" "python tests/fuzz.py unusual --count 5000 --seed 7"
check texts "area +.*|(yaml|lists|scores) +[0-9].*" "python tests/fuzz.py yaml lists scores --seed 7"
check soak "[0-9,]+ clips:.*" "python tests/bench/soak_loader.py --minutes 30"

bench model 'python tests/bench/bench_model.py --repetitions 3 --build "+ norms folded" '\
'--build "+ fused attention" --build "activations recomputed"'"$bfloat16" 26
bench builds "python tests/bench/bench_model.py fwd_i3d_nlnet_8x8_val --batch 2"
bench roofline "python tests/bench/bench_roofline.py --precision $precision"
bench busy "python tests/bench/bench_busy.py"
bench busydemo "python tests/bench/bench_busy.py demo"
bench processes "python tests/bench/bench_processes.py"
bench decode "python tests/bench/bench_decode.py$videos"
bench clips "python tests/bench/bench_test_clips.py$videos"
bench rescaled "python tests/bench/bench_for_clips.py$videos"
bench loader "python tests/bench/bench_loader.py"
bench lock "python tests/bench/bench_lock.py"
bench lmdb "python tests/bench/bench_lmdb.py"
bench doctor "python tests/bench/bench_doctor.py"

{ printf '# Figures\n\nWritten by `bash tests/measure_all.sh`, which takes the names of single rows to measure them again.\n'
  printf 'Each was measured on two cores; its date, commit, processor and duration are given.\n'
  printf '\n## Checks\n\n'
  printf '| | command | result | date, commit, processor, duration |\n|---|---|---|---|\n'
  cat "$part/checks"
  printf '\n## Benchmarks\n'
  cat "$part/benchmarks"; } >"$page"
echo "$page"
exit $failed
