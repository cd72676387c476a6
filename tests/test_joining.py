"""How the processes of a run find each other, and what a process says that waits: real processes, with gloo."""

import re
import signal
import socket
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from zygote import Run

from engine.joining import Place
from utils.errors import UserError
from utils.stopping import EXIT_INTERRUPTED

PROGRAM = """
import sys
from utils import cli, stopping
stopping.stop_when_asked()
import torch
from engine import joining
joining.FIRST_NEWS_SECONDS, joining.NEWS_SECONDS = 0.3, 0.5
def main():
    cli.setup_logging()
    place = joining.Place.from_environment()
    joining.join_processes(place, torch.device("cpu"), float(sys.argv[1]), 60)
    everyone = [None] * place.processes
    torch.distributed.all_gather_object(everyone, place.rank)
    print("together:", everyone)
cli.run(main)
"""


@pytest.fixture
def port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@pytest.fixture
def start(zygote, tmp_path, port):
    """Start one of the processes: (rank, processes, seconds that it waits for the others) -> Process."""
    (tmp_path / "program.py").write_text(PROGRAM)
    started = []

    def start(rank, processes, seconds=60):
        meeting = {"RANK": str(rank), "WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1",
                   "MASTER_PORT": str(port), "GLOO_SOCKET_IFNAME": "lo"}
        output, errors = (tmp_path / f"{len(started)}.{kind}" for kind in ("txt", "errors"))
        run = zygote.start([tmp_path / "program.py", seconds], output, f"import os; os.environ.update({meeting!r})",
                           errors=errors)
        started.append(Process(run, output, errors))
        return started[-1]

    yield start
    for process in started:
        process.run.kill()
        process.run.wait()


@dataclass
class Process:
    """A zygote.Run, and the files of its standard output and error."""

    run: Run
    output: Path
    errors: Path

    def wait_for(self, text):
        """The output, once the text is in it."""
        while not self.output.exists() or text not in self.output.read_text():
            assert self.run.wait(0.01) is None, self.errors.read_text()
        return self.output.read_text()


def outcome(process):
    return process.run.wait(60), process.output.read_text(), process.errors.read_text()


def test_together(start):
    processes = [start(rank, 3) for rank in (2, 0, 1)]
    for process in processes:
        status, output, errors = outcome(process)
        assert status == 0, errors
        assert "together: [0, 1, 2]" in output


@pytest.mark.parametrize(("rank", "missing"), [(0, "ranks 1, 2"), (1, "rank 0")])
def test_a_process_that_waits_says_for_whom_and_where(rank, missing, start, port):
    status, output, errors = outcome(start(rank, 3, seconds=2))
    place = rf"127.0.0.1:{port} \(MASTER_ADDR:MASTER_PORT\)"
    news = re.findall(rf"rank {rank} waits for {missing} of 3 at {place}: \d seconds so far, up to 2 \(JOIN_SECONDS\)",
                      output)
    assert len(news) >= 3
    assert status == 1
    assert re.fullmatch(rf"error: rank {rank} has waited 2 seconds \(JOIN_SECONDS\) at {place} for {missing} of 3: "
                        r"were all processes started, and does this address lead to rank 0\?\n", errors)


def test_only_who_is_missing_is_waited_for(start):
    root, other = start(0, 3), start(1, 3, seconds=0)
    for process, rank in ((root, 0), (other, 1)):
        lines = process.wait_for("waits for rank 2 of 3").splitlines()
        assert all("waits for rank" in line for line in lines)
        [line, *_] = [line for line in lines if "waits for rank 2 of 3" in line]
        assert f"rank {rank} waits" in line
    assert "JOIN_SECONDS" not in line  # 0 is for ever
    last = start(2, 3)
    assert [outcome(process)[0] for process in (root, other, last)] == [0, 0, 0]


@pytest.mark.parametrize("rank", [0, 1])
def test_a_process_that_waits_can_be_stopped(rank, start):
    process = start(rank, 2)
    assert "waits for" in process.wait_for("\n").splitlines()[0]
    process.run.kill(signal.SIGTERM)
    begun = time.monotonic()
    assert outcome(process)[0] == EXIT_INTERRUPTED
    assert time.monotonic() - begun < 10


def test_another_service_at_the_port(start, port):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port))
        taken.listen()
        status, _, errors = outcome(start(0, 2))
    assert status == 1
    assert errors.splitlines()[-1] == (f"error: 127.0.0.1:{port} (MASTER_ADDR:MASTER_PORT): the processes cannot "
                                       "connect there: the address is already in use")


@pytest.mark.parametrize(("name", "value", "message"), [
    ("RANK", "one", "RANK: expected a number from 0 to 1 in the environment, got 'one'"),
    ("RANK", "2", "RANK: expected a number from 0 to 1 in the environment, got '2'"),
    ("WORLD_SIZE", "0", "WORLD_SIZE: expected a number from 1 to 2147483647 in the environment, got '0'"),
    ("MASTER_ADDR", None, "MASTER_ADDR: expected the host of rank 0, with WORLD_SIZE 2; got nothing"),
    ("MASTER_PORT", None, "MASTER_PORT: expected a number from 1 to 65535 in the environment, got ''"),
    ("MASTER_PORT", "70000", "MASTER_PORT: expected a number from 1 to 65535 in the environment, got '70000'"),
])
def test_an_environment_that_says_nothing(name, value, message, monkeypatch):
    for known, good in {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "29500"}.items():
        monkeypatch.setenv(known, good)
    monkeypatch.delenv(name) if value is None else monkeypatch.setenv(name, value)
    with pytest.raises(UserError) as error:
        Place.from_environment()
    assert str(error.value) == message


def test_no_launcher(monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    assert Place.from_environment() is None
