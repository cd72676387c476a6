"""scripts/train_slurm.sh, with stand-ins for SLURM's commands that start real processes, and for Python."""

import os
import signal
import socket
import subprocess
import sys
import time

import pytest
import tiny_job
from zygote import FOR_SEVERAL_PROCESSES

from formats.caffe2_pickle import load

# As srun does: starts the tasks, passes SIGTERM on to them, exits with the largest status.
SRUN = f"""#!{sys.executable}
import os, signal, subprocess, sys
command = [word for word in sys.argv[1:] if not word.startswith("--kill")]
numbers = [{{"SLURM_PROCID": number, "SLURM_LOCALID": number}} for number in "01"]
tasks = [subprocess.Popen(command, env=os.environ | number) for number in numbers]
signal.signal(signal.SIGTERM, lambda *_: [task.send_signal(signal.SIGTERM) for task in tasks])
open("srun.pid", "w").write(str(os.getpid()))
sys.exit(max(task.wait() for task in tasks))
"""
SCONTROL = """#!/usr/bin/env bash
case "$*" in
"show hostnames node[1-2]") echo 127.0.0.1; echo node2 ;;
"requeue 7") echo "$*" >> requeued ;;
*) exit 1 ;;
esac
"""


@pytest.fixture
def submit(repo, tmp_path, zygote, python):
    """A function that runs the script as a job: -> its Popen, and the file of its output."""
    for name, text in (("srun", SRUN), ("scontrol", SCONTROL)):
        path = tmp_path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)
    for folder in ("lib", "tools", "scripts", "configs"):
        (tmp_path / folder).symlink_to(repo / folder)
    spooled = tmp_path / "slurm_script"  # SLURM runs a copy
    spooled.write_text((repo / "scripts/train_slurm.sh").read_text())
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])

    zygote.prepare(*FOR_SEVERAL_PROCESSES)

    def run(*words):
        log = tmp_path / "log.txt"
        with open(log, "a") as output:
            return subprocess.Popen(
                ["bash", spooled, *words], cwd=tmp_path, stdout=output, stderr=output, env=os.environ | {
                    "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "PYTHON": str(python),
                    "SLURM_SUBMIT_DIR": str(tmp_path), "SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "node[1-2]",
                    "SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1",
                    "GLOO_SOCKET_IFNAME": "lo"}), log

    return run


def test_a_job_whose_time_is_over_is_queued_again(submit, repo, data, tmp_path):
    words = tiny_job.command(repo, data, tmp_path / "run", TRAIN__COMPUTE_PRECISE_BN=False, TRAIN__EVAL_PERIOD=1000,
                             CHECKPOINT__CHECKPOINT_PERIOD=-1, JOIN_SECONDS=60)[2:]
    job, log = submit(*words)
    while "Iters [2/6]" not in log.read_text():
        assert job.poll() is None, log.read_text()
        time.sleep(0.05)
    os.kill(int((tmp_path / "srun.pid").read_text()), signal.SIGTERM)
    assert job.wait(60) == 75, log.read_text()
    assert (tmp_path / "requeued").read_text() == "requeue 7\n"
    job, log = submit(*words)
    assert job.wait(60) == 0, log.read_text()
    assert "Traceback" not in log.read_text() and log.read_text().count("Iters [1/6]") == 1
    assert load(tmp_path / "run/checkpoints/c2_model_iter6.pkl")["blobs"]["model_iter"] == 6
    assert (tmp_path / "requeued").read_text() == "requeue 7\n"


def test_other_failures_are_not_queued_again(submit, tmp_path):
    job, log = submit("configs/none.yaml")
    assert job.wait(60) == 1 and "configs/none.yaml: " in log.read_text()
    assert not (tmp_path / "requeued").exists()


def test_without_words_it_says_how_to_submit_it(submit):
    job, log = submit()
    assert job.wait(10) == 1 and "sbatch --nodes 2" in log.read_text() and "#!" not in log.read_text()
