#!/usr/bin/env bash
# A training under SLURM, one task for each GPU. Submit it from the top of the repository:
#
#     sbatch --nodes 2 --ntasks-per-node 4 --gpus-per-node 4 --cpus-per-task 12 --time 24:00:00 \
#         scripts/train_slurm.sh configs/F.yaml [KEY VALUE]...
#
# Five minutes before its time is over, or when SLURM wants the machines for another job, the training saves a checkpoint
# and ends with status 75; then the job is queued again, and goes on from there. All tasks need the data at the same
# path; CHECKPOINT.DIR is read and written by the first one alone.
#SBATCH --job-name=nonlocal
#SBATCH --signal=TERM@300
#SBATCH --requeue
#SBATCH --open-mode=append
set -euo pipefail
[ $# -gt 0 ] || { sed -n '2,9s/^# \{0,1\}//p' "$0"; exit 1; }
cd "${SLURM_SUBMIT_DIR:?expected to be run by sbatch}"
source scripts/_interpreter.sh

read -r MASTER_ADDR _ < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
export MASTER_ADDR MASTER_PORT=${MASTER_PORT:-29500} PYTHON
status=0
# Each task says for itself why it ends; the first to stop must not have the others killed.
srun --kill-on-bad-exit=0 bash -c '
    export RANK=$SLURM_PROCID WORLD_SIZE=$SLURM_NTASKS LOCAL_RANK=$SLURM_LOCALID
    export LOCAL_WORLD_SIZE=${SLURM_NTASKS_PER_NODE:-$SLURM_NTASKS}
    exec "$PYTHON" -u tools/train_net_video.py --config_file "$@"' train "$@" || status=$?
[ "$status" != 75 ] || scontrol requeue "$SLURM_JOB_ID"
exit "$status"
