"""Runs one process per device, from a single command line or under torchrun."""

import contextlib
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import torch
from torch import distributed

from engine.devices import describe, set_up_device
from engine.joining import Place, join_processes
from engine.replicas import Replicas
from utils import stopping
from utils.cli import ERROR_FILE
from utils.collections import AttrDict
from utils.errors import LostPeer, SharedError, UserError
from utils.stopping import EXIT_INTERRUPTED

logger = logging.getLogger(__name__)

# work(cfg, replicas) -> exit status; None is 0.
Work: TypeAlias = Callable[[AttrDict, Replicas], int | None]

# Time that the other processes have to exit after one has died, before they are killed.
GRACE_SECONDS = 1.0
# Time that the first process of a machine has to notice the loss of another one before the others speak.
PEER_GRACE_SECONDS = 15.0
# Passed to the processes that launch() starts: a pipe that closes when their parent dies, however it dies.
PARENT_PIPE = "NLNET_PARENT_PIPE"


def launch(work: Work, cfg: AttrDict) -> int:
    """Call work(cfg, replicas) in one process per device, and return the exit status.

    Under torchrun (RANK and WORLD_SIZE are set), this process is already one of them. Otherwise, if several devices are
    used, this program starts itself once per device, waits, and forwards SIGTERM and SIGINT. When one process dies, the
    others are killed and its error is shown once.

    Raises:
        UserError: NUM_GPUS is not a multiple of the number of processes, the processes cannot connect to each other, or
            a device fails or runs out of memory.
    """
    if (place := Place.from_environment()) is not None:
        return _work_in_world(work, cfg, place)
    processes = _choose_processes(cfg)
    if processes == 1:
        return _do(work, cfg, Replicas(cfg.NUM_GPUS, device=set_up_device(cfg.ROOT_GPU_ID, cfg.MODEL.PRECISION)))
    return _start_processes(processes)


def _choose_processes(cfg: AttrDict) -> int:
    """The largest divisor of NUM_GPUS that the devices and NUM_PROCESSES allow."""
    wanted = cfg.NUM_PROCESSES
    if torch.cuda.is_available():
        visible = torch.cuda.device_count() - cfg.ROOT_GPU_ID
        if visible < 1:
            raise UserError(f"ROOT_GPU_ID: expected 0 to {torch.cuda.device_count() - 1}, got {cfg.ROOT_GPU_ID}")
        limit = min(visible, wanted) if wanted else visible
    elif cfg.ROOT_GPU_ID:
        raise UserError(f"ROOT_GPU_ID: expected 0 because no GPU is available, got {cfg.ROOT_GPU_ID}")
    else:
        limit = wanted or 1
    return max(d for d in range(1, cfg.NUM_GPUS + 1) if cfg.NUM_GPUS % d == 0 and d <= limit)


def _work_in_world(work: Work, cfg: AttrDict, place: Place) -> int:
    """Do the work as one of the processes that the environment describes."""
    rank, processes = place.rank, place.processes
    if cfg.NUM_GPUS % processes:
        raise UserError(f"NUM_GPUS: expected a multiple of the {processes} processes (WORLD_SIZE), got {cfg.NUM_GPUS}")
    _end_with_parent()
    device = set_up_device(cfg.ROOT_GPU_ID + int(os.environ.get("LOCAL_RANK", rank)), cfg.MODEL.PRECISION)
    if processes == 1:
        return _do(work, cfg, Replicas(cfg.NUM_GPUS, device=device))
    if device.type == "cpu":
        # Divide the cores among the processes, regardless of what the launcher has set.
        here = int(os.environ.get("LOCAL_WORLD_SIZE", processes))
        torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // here))
    # A process that waits for a hanging video is not dead: its own watchdog must speak first.
    join_processes(place, device, cfg.JOIN_SECONDS, max(cfg.PEER_SECONDS, 2 * cfg.DATALOADER.HANG_SECONDS))
    if rank:
        logging.getLogger().setLevel(logging.CRITICAL)  # only the root logs
    try:
        status = _do(work, cfg, Replicas(cfg.NUM_GPUS, rank, processes, device))
    except SharedError:
        if rank == 0 or ERROR_FILE in os.environ:  # there whoever is first is shown
            raise
        return 1
    except LostPeer:
        if os.environ.get("LOCAL_RANK", "0") == "0" or ERROR_FILE in os.environ or not _is_ended_soon():
            raise
        return 1
    if not stopping.asked():  # then the others may be gone
        distributed.destroy_process_group()
    return status


def _do(work: Work, cfg: AttrDict, replicas: Replicas) -> int:
    """work(cfg, replicas), reporting a device that fails or is out of memory in one line."""
    try:
        logger.info("%s", describe(replicas))
        return work(cfg, replicas) or 0
    except RuntimeError as error:
        first_line = str(error).split("\n", 1)[0]
        if isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in first_line:
            raise UserError(f"{replicas.device}: out of memory: reduce TRAIN.BATCH_SIZE and TEST.BATCH_SIZE, or "
                            f"increase the number of replicas (NUM_GPUS); {first_line}") from error
        if stopping.asked() and replicas.processes > 1:
            return EXIT_INTERRUPTED  # another process has ended before this one could
        if replicas.processes > 1 and (reason := _lost_connection(error)):
            raise LostPeer(f"rank {replicas.rank} of {replicas.processes}: another process of this run has ended or "
                           f"cannot be reached ({reason}): everything saved so far is intact, run the same command on "
                           "all machines again to resume") from error
        # A failed assertion on the device is a bug in this program and keeps its traceback.
        if first_line.startswith("CUDA error") and "assert" not in first_line:
            raise UserError(f"{replicas.device}: {first_line}; everything saved so far is intact, run the same command "
                            "again to resume") from error
        raise


def _is_ended_soon() -> bool:
    """Whether this process is asked to end within some seconds: then the first one of the machine has said it all, and
    the launcher ends the others. One that exits at once could have that one ended before it notices."""
    for _ in range(int(PEER_GRACE_SECONDS / 0.1)):
        if stopping.asked():
            return True
        time.sleep(0.1)
    return False


def _lost_connection(error: RuntimeError) -> str | None:
    """What an error of gloo or NCCL tells; None for other errors."""
    text = str(error)
    if isinstance(error, distributed.DistError):
        return text.split("\n", 1)[0]
    found = re.search(r"gloo/\S+\] (.*?)(\. |\n|$)", text)  # what follows the first sentence is advice
    return found[1] if found else None


def _end_with_parent() -> None:
    """Exit when the launching process dies, so that no orphan occupies a device."""
    if PARENT_PIPE not in os.environ:
        return
    pipe = int(os.environ[PARENT_PIPE])

    def wait() -> None:
        os.read(pipe, 1)  # returns when the pipe closes: nothing is ever written to it
        stopping.do_last_acts()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def _start_processes(count: int) -> int:
    """Run this command line in `count` processes. Returns the exit status of the first that failed, else theirs."""
    stopping.hold()  # signals are passed on; this process ends after the others
    try:
        with tempfile.TemporaryDirectory(prefix="nlnet-") as folder:
            return _run_processes(count, Path(folder))
    finally:
        stopping.release(end=False)


def _run_processes(count: int, folder: Path) -> int:
    with contextlib.ExitStack() as stack:
        read_end, write_end = os.pipe()
        stack.callback(os.close, write_end)
        stack.callback(os.close, read_end)
        children: list[subprocess.Popen[bytes]] = []
        stack.callback(_end_all, children)
        environment = os.environ | {
            "WORLD_SIZE": str(count),
            "LOCAL_WORLD_SIZE": str(count),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": os.environ.get("MASTER_PORT") or str(_free_port()),
            PARENT_PIPE: str(read_end),
        }
        environment.setdefault("GLOO_SOCKET_IFNAME", "lo")  # local, whatever the host name resolves to
        for rank in range(count):
            error_file = {ERROR_FILE: str(folder / str(rank))}
            # In new sessions, so that Ctrl-C reaches them only once, through this process.
            with stopping.blocked():
                children.append(subprocess.Popen(
                    [sys.executable, *sys.orig_argv[1:]], start_new_session=True, pass_fds=[read_end],
                    env=environment | error_file | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
                ))
        failed = _wait(children, folder)
        if failed is not None:
            return _report(failed, children, folder)
        return max(child.returncode for child in children)


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def _wait(children: list[subprocess.Popen[bytes]], folder: Path) -> int | None:
    """Wait for all. Returns None if all succeeded or stopped on request, else the rank of the first that failed."""
    passed_on = 0
    while True:
        if stopping.asked() != passed_on:
            passed_on = stopping.asked()
            for child in children:
                child.send_signal(passed_on)
        statuses = [child.poll() for child in children]
        failed = [rank for rank, status in enumerate(statuses) if status not in (None, 0, EXIT_INTERRUPTED)]
        if failed:
            # Processes that lose a peer fail as well, but later: the first error written is the cause.
            errors = [rank for rank in failed if (folder / str(rank)).exists()]
            silent = [rank for rank in failed if rank not in errors]
            return silent[0] if silent else min(errors, key=lambda rank: (folder / str(rank)).stat().st_mtime_ns)
        if None not in statuses:
            return None
        time.sleep(0.02)


def _end_all(children: list[subprocess.Popen[bytes]]) -> None:
    for child in children:
        if child.poll() is None:
            child.kill()
    for child in children:
        child.wait()


def _report(rank: int, children: list[subprocess.Popen[bytes]], folder: Path) -> int:
    """Show the error of the process that failed first. Returns the exit status for this program."""
    status = children[rank].returncode
    deadline = time.monotonic() + GRACE_SECONDS
    for child in children:
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(max(0, deadline - time.monotonic()))
    if status < 0:
        name = signal.Signals(-status).name
        raise UserError(f"process {rank} of {len(children)} (pid {children[rank].pid}) was killed by {name}; "
                        "existing checkpoints are intact")
    error = folder / str(rank)
    if error.exists():
        sys.stdout.flush()
        sys.stderr.write(error.read_text())
    return status
