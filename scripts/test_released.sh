#!/usr/bin/env bash
# Test the released models that are in data/pretrained_model/ on your Kinetics, with 10 clips x 3 crops per video, and
# print their accuracies beside the published ones. Started again, it continues with what is not done.
#
#     test_released.sh [NAME]... [--quick N] [KEY VALUE]...
source "$(dirname "${BASH_SOURCE[0]}")/_run.sh"

dir=../data/checkpoints/test_released
for ((i = 1; i < $#; i++)); do
    [ "${!i}" != CHECKPOINT.DIR ] || { i=$((i + 1)) && dir=${!i}; }
done
mkdir -p -- "$dir"
run_logged "$dir/log.txt" "$PYTHON" -u ../tools/test_released_models.py "$@"
