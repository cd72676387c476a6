"""How the processes of a run find each other: at MASTER_ADDR:MASTER_PORT, as torchrun and others tell them."""

import logging
import os
import socket
import time
from dataclasses import dataclass
from datetime import timedelta
from typing import Self

import torch
from torch import distributed
from torch.distributed import PrefixStore, Store, TCPStore

from utils.errors import UserError

logger = logging.getLogger(__name__)

# A process that waits says so after the first time, and then every so often.
FIRST_NEWS_SECONDS, NEWS_SECONDS = 5.0, 60.0
_POLL_SECONDS = 0.2


@dataclass(frozen=True)
class Place:
    """This process's place among the processes of a run, and where they meet."""

    rank: int
    processes: int
    host: str
    port: int

    @classmethod
    def from_environment(cls) -> Self | None:
        """None if no launcher has set RANK and WORLD_SIZE. Raises UserError for values that are none."""
        if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
            return None
        processes = _number("WORLD_SIZE", 1, 2**31)
        rank = _number("RANK", 0, processes)
        if processes == 1:
            return cls(rank, processes, "", 0)
        if not (host := os.environ.get("MASTER_ADDR")):
            raise UserError(f"MASTER_ADDR: expected the host of rank 0, with WORLD_SIZE {processes}; got nothing")
        return cls(rank, processes, host, _number("MASTER_PORT", 1, 2**16))

    def __str__(self) -> str:
        return f"{self.host}:{self.port} (MASTER_ADDR:MASTER_PORT)"


def _number(name: str, low: int, end: int) -> int:
    text = os.environ.get(name, "")
    if not text.isdecimal() or not low <= int(text) < end:
        raise UserError(f"{name}: expected a number from {low} to {end - 1} in the environment, got {text!r:.100}")
    return int(text)


def join_processes(place: Place, device: torch.device, seconds: float, timeout: float) -> None:
    """Make the process group of torch.distributed, with all the other processes.

    Args:
        place: this process's.
        device: what it computes on.
        seconds: JOIN_SECONDS; how long to wait for the others to come; 0: forever.
        timeout: how long a process may keep the others waiting later, in seconds.

    Raises:
        UserError: they have not come by then, or the connections fail.
    """
    patience = _Patience(place, seconds)
    try:
        store = _open_store(place, patience)
        store.set(str(place.rank), socket.gethostname())
        while missing := [rank for rank in range(place.processes) if not store.check([str(rank)])]:
            patience.wait_for(missing)
        on_gpu = device.type == "cuda"
        distributed.init_process_group(
            "cpu:gloo,cuda:nccl" if on_gpu else "gloo", store=store, rank=place.rank, world_size=place.processes,
            timeout=timedelta(seconds=timeout), device_id=device if on_gpu else None)
    except RuntimeError as error:
        reason = "the address is already in use" if "EADDRINUSE" in str(error) else str(error).split("\n", 1)[0]
        raise UserError(f"{place}: the processes cannot connect there: {reason}") from error


def _open_store(place: Place, patience: "_Patience") -> Store:
    """What the processes tell each other where they are by. Waits until there is one."""
    # torchrun may have one of its own, which outlives a restart; otherwise rank 0 has it.
    is_of_torchrun = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    if place.rank == 0 and not is_of_torchrun:
        return TCPStore(place.host, place.port, place.processes, is_master=True, wait_for_workers=False)
    while not _is_listening(place):
        patience.wait_for([0])
    store = TCPStore(place.host, place.port, place.processes, is_master=False, wait_for_workers=False)
    # The count of a machine that comes back starts anew: where rank 0 has the store, it must not matter.
    return PrefixStore(f"run {os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", store) if is_of_torchrun else store


def _is_listening(place: Place) -> bool:
    # TCPStore would try by itself, and tell every failure.
    try:
        socket.create_connection((place.host, place.port), timeout=5).close()
    except OSError:
        return False
    return True


class _Patience:
    """How long this process has waited, and goes on waiting."""

    def __init__(self, place: Place, seconds: float) -> None:
        self._place, self._seconds = place, seconds
        self._begun = time.monotonic()
        self._next_news = FIRST_NEWS_SECONDS

    def wait_for(self, ranks: list[int]) -> None:
        """Wait a moment. Raises UserError if it was long enough."""
        place, waited = self._place, time.monotonic() - self._begun
        names = ", ".join(map(str, ranks[:10])) + (", ..." if len(ranks) > 10 else "")
        missing = f"rank{'s' * (len(ranks) > 1)} {names} of {place.processes}"
        if self._seconds and waited > self._seconds:
            raise UserError(f"rank {place.rank} has waited {self._seconds:g} seconds (JOIN_SECONDS) at {place} for "
                            f"{missing}: were all processes started, and does this address lead to rank 0?")
        if waited > self._next_news:
            self._next_news += NEWS_SECONDS
            limit = f", up to {self._seconds:g} (JOIN_SECONDS)" if self._seconds else ""
            logger.warning("rank %d waits for %s at %s: %.0f seconds so far%s", place.rank, missing, place, waited,
                           limit)
        time.sleep(_POLL_SECONDS)
