#!/usr/bin/env bash
# Everything that only a GPU can show, in ten minutes on an H100: versions, the tests of this folder, and the tables of
# speed. Each step has a time limit and a log of its own; a step that fails does not keep the next from running.
# Usage: tests/gpu/h100.sh FOLDER_OF_LOGS [--small] [STEP...]    (--small: a trial of the script where there is no GPU)
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
out=${1:?usage: tests/gpu/h100.sh FOLDER_OF_LOGS [--small] [STEP...]}
shift
small=
[ "${1:-}" = --small ] && { small=$1; shift; }
only=" $* "
mkdir -p "$out"
export PYTHONUNBUFFERED=1
python=${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python3)}
export NLNET_DEVICE=cuda
device=cuda variant=fwd_i3d_nlnet_8x8_val batch=8
if [ "$small" = --small ]; then
    device=cpu variant=fwd_c2d_baseline_8x8_val batch=1
    export NLNET_DEVICE=cpu
fi
tests=("$python" -m pytest -s -rf --tb=short tests/gpu)
table=("$python" tests/bench/bench_model.py $variant --batch $batch --device $device)
eager=(--build "+ channels last" --build "+ cudnn.benchmark" --build "+ fused attention"
    --build "+ norms folded" --build bfloat16 --build "bfloat16, two products"
    --build "activations recomputed")
failed=0

step() {  # step SECONDS NAME COMMAND...
    local seconds=$1 name=$2 start=$SECONDS status=0
    shift 2
    [[ $only = "  " || $only = *" $name "* ]] || return
    echo "== $name"
    timeout --kill-after=5 "$seconds" "$@" >"$out/$name.log" 2>&1 || status=$?
    tail -n 25 "$out/$name.log"
    [ "$status" -eq 0 ] || { failed=1; echo "!! $name: status $status"; }
    echo "== $name: $((SECONDS - start)) s"
}

step 20 versions "$python" -c "
import subprocess, torch
print('PyTorch', torch.__version__, 'CUDA', torch.version.cuda, 'cuDNN', torch.backends.cudnn.version())
print(torch.cuda.get_device_name() if torch.cuda.is_available() else 'no GPU')
subprocess.run(['sh', '-c', 'nvidia-smi; nproc'])"
if [ "$small" = --small ]; then
    step 200 tests "${tests[@]}" -k "operations and float32 or layouts"
    step 100 inference "${table[@]}" --what inference --repetitions 1 --build "+ flat convolutions"
    step 100 training "${table[@]}" --what training --repetitions 1 --build plain
else
    step 100 training "${table[@]}" --what training "${eager[@]}"
    step 200 tests "${tests[@]}"
    step 60 inference "${table[@]}" --what inference "${eager[@]}"
    step 50 affine "${table[@]/8x8_val/affine_32x4_val}" --what training --build bfloat16
    step 40 roofline "$python" tests/bench/bench_roofline.py --device $device --batch $batch
    step 60 loader "$python" tests/bench/bench_loader.py --seconds 5
    step 150 compiled "${table[@]}" --what training --build "bfloat16, compiled"
fi
exit $failed
