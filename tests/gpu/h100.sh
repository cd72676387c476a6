#!/usr/bin/env bash
# Everything that only a GPU can show, in ten minutes on an H100: versions, the tests of this folder, and the tables of
# speed. Each step has a time limit and a log of its own; a step that fails does not keep the next from running.
# Usage: tests/gpu/h100.sh [FOLDER OF LOGS] [--small]    (--small: a trial of the script where there is no GPU)
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
out=${1:-gpu_logs}
small=${2:-}
mkdir -p "$out"
python=${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python3)}
device=cuda variants="fwd_i3d_nlnet_8x8_val" batch=8
if [ "$small" = --small ]; then
    device=cpu variants="fwd_c2d_baseline_8x8_val" batch=1
    export NLNET_DEVICE=cpu
fi
failed=0

step() {  # step SECONDS NAME COMMAND...
    local seconds=$1 name=$2 start=$SECONDS status=0
    shift 2
    echo "== $name"
    timeout --kill-after=5 "$seconds" "$@" >"$out/$name.log" 2>&1 || status=$?
    tail -n "${lines:-25}" "$out/$name.log"
    [ "$status" -eq 0 ] || { failed=1; echo "!! $name: status $status"; }
    echo "== $name: $((SECONDS - start)) s"
}

step 20 versions "$python" -c "
import subprocess, torch
print('PyTorch', torch.__version__, 'CUDA', torch.version.cuda, 'cuDNN', torch.backends.cudnn.version())
print(torch.cuda.get_device_name() if torch.cuda.is_available() else 'no GPU')
subprocess.run(['sh', '-c', 'nvidia-smi; nproc'])"
if [ "$small" = --small ]; then
    step 120 tests "$python" -m pytest -q -s tests/gpu -k "operations and float32 or stopped or layouts"
    step 120 training "$python" tests/bench/bench_model.py $variants --what training --batch 1 --repetitions 1 --build none
else
    step 120 training "$python" tests/bench/bench_model.py $variants --what training --batch $batch --device $device
    step 180 tests "$python" -m pytest -q -s tests/gpu
    step 60 inference "$python" tests/bench/bench_model.py $variants --what inference --batch 10 --device $device
    step 60 affine "$python" tests/bench/bench_model.py 32x4 --what training --batch $batch --device $device \
        --build bfloat16 --build "bfloat16, compiled"
    step 60 roofline "$python" tests/bench/bench_roofline.py --device $device --batch $batch
    step 60 roofline_compiled "$python" tests/bench/bench_roofline.py --device $device --batch $batch --compiled
    step 60 loader "$python" tests/bench/bench_loader.py
fi
exit $failed
