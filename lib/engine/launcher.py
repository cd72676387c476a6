"""One process per device, from one command line or under torchrun."""

import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import torch
from torch import distributed

from engine.interruption import EXIT_INTERRUPTED
from engine.malloc import keep_freed_memory
from engine.replicas import Replicas
from models.precision import set_precision
from utils.cli import ERROR_FILE
from utils.errors import UserError

logger = logging.getLogger(__name__)

# How long a process may take to end after another one has died, before it is killed.
GRACE_SECONDS = 1.0
# Set for the processes that launch() starts: a pipe that closes when their parent dies, however it dies.
PARENT_PIPE = "NLNET_PARENT_PIPE"


def launch(work, cfg):
    """Call work(cfg, replicas) in one process per device, and return the exit status.

    Under torchrun (RANK and WORLD_SIZE are set) this process is one of them already. Otherwise this program starts
    itself once per device if there are several, waits, and passes SIGTERM and SIGINT on; when one process dies the
    others are ended and its error is shown once.

    Raises:
        UserError: NUM_GPUS replicas do not divide among the processes, or the processes do not find each other.
    """
    if "RANK" in os.environ and "WORLD_SIZE" in os.environ:
        return _work_in_world(work, cfg)
    processes = _choose_processes(cfg)
    if processes == 1:
        return _do(work, cfg, Replicas(cfg.NUM_GPUS, device=_device(cfg, 0)))
    return _start_processes(processes)


def _choose_processes(cfg):
    """The largest number of processes that divides NUM_GPUS and that devices and NUM_PROCESSES allow."""
    wanted = cfg.NUM_PROCESSES
    if torch.cuda.is_available():
        visible = torch.cuda.device_count() - cfg.ROOT_GPU_ID
        if visible < 1:
            raise UserError(f"ROOT_GPU_ID: expected 0 to {torch.cuda.device_count() - 1}, got {cfg.ROOT_GPU_ID}")
        limit = min(visible, wanted) if wanted else visible
    elif cfg.ROOT_GPU_ID:
        raise UserError(f"ROOT_GPU_ID: expected 0, as there is no GPU here, got {cfg.ROOT_GPU_ID}")
    else:
        limit = wanted or 1
    return max(d for d in range(1, cfg.NUM_GPUS + 1) if cfg.NUM_GPUS % d == 0 and d <= limit)


def _device(cfg, local_rank):
    set_precision(cfg.MODEL.PRECISION)
    if not torch.cuda.is_available():
        keep_freed_memory()
        return torch.device("cpu")
    device = torch.device("cuda", cfg.ROOT_GPU_ID + local_rank)
    torch.cuda.set_device(device)
    return device


def _work_in_world(work, cfg):
    """Take this process's place in the world that the environment describes."""
    rank, processes = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    if cfg.NUM_GPUS % processes:
        raise UserError(f"NUM_GPUS: expected a multiple of the {processes} processes (WORLD_SIZE), got {cfg.NUM_GPUS}")
    _end_with_parent()
    if rank:
        logging.getLogger().setLevel(logging.CRITICAL)  # log lines come from the root
    device = _device(cfg, int(os.environ.get("LOCAL_RANK", rank)))
    if processes == 1:
        return _do(work, cfg, Replicas(cfg.NUM_GPUS, device=device))
    if device.type == "cpu":
        # Share the cores, whatever the launcher has set.
        here = int(os.environ.get("LOCAL_WORLD_SIZE", processes))
        torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // here))
    try:
        distributed.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
    except distributed.DistError as error:
        where = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
        reason = "the address is already in use" if "EADDRINUSE" in str(error) else str(error).split("\n", 1)[0]
        raise UserError(f"MASTER_ADDR:MASTER_PORT {where}: the processes cannot meet there: {reason}") from error
    status = _do(work, cfg, Replicas(cfg.NUM_GPUS, rank, processes, device))
    distributed.destroy_process_group()
    return status


def _do(work, cfg, replicas):
    """work(cfg, replicas), with a device that fails or is full told in one line."""
    try:
        return work(cfg, replicas)
    except RuntimeError as error:
        first_line = str(error).split("\n", 1)[0]
        if isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in first_line:
            raise UserError(f"{replicas.device}: out of memory: smaller TRAIN.BATCH_SIZE and TEST.BATCH_SIZE, or more "
                            f"replicas (NUM_GPUS), take less at a time; {first_line}") from error
        # A failed assertion on the device is a bug of this program: that keeps its traceback.
        if first_line.startswith("CUDA error") and "assert" not in first_line:
            raise UserError(f"{replicas.device}: {first_line}; what has been saved stands, and the same command goes "
                            "on from there") from error
        raise


def _end_with_parent():
    """End this process when the one that launched it is gone, so that no orphan holds a device."""
    if PARENT_PIPE not in os.environ:
        return
    pipe = int(os.environ[PARENT_PIPE])

    def wait():
        os.read(pipe, 1)  # nothing is ever written: this returns at the end of the pipe
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def _start_processes(count):
    """Run this program's command line in `count` processes; the exit status of the first that fails, else theirs."""
    with tempfile.TemporaryDirectory(prefix="nlnet-") as folder, contextlib.ExitStack() as stack:
        read_end, write_end = os.pipe()
        stack.callback(os.close, write_end)
        stack.callback(os.close, read_end)
        children = []
        stack.callback(_end_all, children)
        environment = os.environ | {
            "WORLD_SIZE": str(count),
            "LOCAL_WORLD_SIZE": str(count),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": os.environ.get("MASTER_PORT") or str(_free_port()),
            PARENT_PIPE: str(read_end),
        }
        environment.setdefault("GLOO_SOCKET_IFNAME", "lo")  # all on this machine, whatever its host name resolves to
        # In sessions of their own: a Ctrl-C of the terminal reaches them once, through us.
        with _forward_signals(children):
            for rank in range(count):
                error_file = {ERROR_FILE: str(Path(folder, str(rank)))}
                children.append(subprocess.Popen(
                    [sys.executable, *sys.orig_argv[1:]], start_new_session=True, pass_fds=[read_end],
                    env=environment | error_file | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
                ))
            failed = _wait(children, Path(folder))
        if failed is not None:
            return _report(failed, children, Path(folder))
        return max(child.returncode for child in children)


def _free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@contextlib.contextmanager
def _forward_signals(children):
    received = []

    def forward(number, _):
        received.append(number)
        for child in children:
            if child.poll() is None:
                child.send_signal(number)

    previous = {number: signal.signal(number, forward) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _wait(children, folder):
    """Wait until all have ended well or as asked to (None), or one has not (its rank: whose error came first)."""
    while True:
        statuses = [child.poll() for child in children]
        failed = [rank for rank, status in enumerate(statuses) if status not in (None, 0, EXIT_INTERRUPTED)]
        if failed:
            # Those that lost a peer fail too, after it: the first error written is the cause.
            errors = [rank for rank in failed if (folder / str(rank)).exists()]
            silent = [rank for rank in failed if rank not in errors]
            return silent[0] if silent else min(errors, key=lambda rank: (folder / str(rank)).stat().st_mtime_ns)
        if None not in statuses:
            return None
        time.sleep(0.02)


def _end_all(children):
    for child in children:
        if child.poll() is None:
            child.kill()
    for child in children:
        child.wait()


def _report(rank, children, folder):
    """Show the error of the process that failed first; returns the exit status for this program."""
    status = children[rank].returncode
    deadline = time.monotonic() + GRACE_SECONDS
    for child in children:
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(max(0, deadline - time.monotonic()))
    if status < 0:
        name = signal.Signals(-status).name
        raise UserError(f"process {rank} of {len(children)} (pid {children[rank].pid}) was ended by {name}; "
                        "checkpoints up to here are untouched")
    error = folder / str(rank)
    if error.exists():
        sys.stdout.flush()
        sys.stderr.write(error.read_text())
    return status
