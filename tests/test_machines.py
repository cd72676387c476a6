"""Two machines: network namespaces, joined by a cable that can be cut. Real torchrun, with gloo. Needs root, iproute2.

torchrun and its workers are forks of a process that has imported all they need; test_processes starts them anew.
"""

import contextlib
import importlib.util
import os
import re
import shutil
import signal
import subprocess
import time

import numpy as np
import pytest
import tiny_job

from formats.caffe2_pickle import load

PORT = 29500
STATIC = [["--node-rank", str(node), "--master-addr", "10.77.0.1", "--master-port", str(PORT)] for node in range(2)]
ELASTIC = [["--rdzv-backend", "c10d", "--rdzv-endpoint", f"10.77.0.1:{PORT}", "--rdzv-id", "run", "--max-restarts", "2",
            "--local-addr", f"10.77.0.{node + 1}",
            "--rdzv-conf", f"is_host={1 - node},keep_alive_interval=1,keep_alive_max_attempt=3"] for node in range(2)]
TORCHRUN = "torch.distributed.run"
# A prelude.
IN_NAMESPACE = """
import ctypes, os
with open("/var/run/netns/{name}") as namespace:
    assert ctypes.CDLL(None).setns(namespace.fileno(), 0x40000000) == 0  # CLONE_NEWNET
os.environ.update({environment})
os.chdir({folder!r})
"""


class Machines:
    """Two namespaces, each with an end of a cable: nodes 0 (10.77.0.1) and 1 (10.77.0.2)."""

    def __init__(self):
        self.names = [f"nlnet-{os.getpid()}-{node}" for node in range(2)]
        self.cards = [f"nl{os.getpid() % 100_000}-{node}" for node in range(2)]
        self.started = []

    def __enter__(self):
        for name in self.names:
            ip("netns", "add", name)
        ip("link", "add", self.cards[0], "type", "veth", "peer", "name", self.cards[1])
        for node, (name, card) in enumerate(zip(self.names, self.cards, strict=True)):
            ip("link", "set", card, "netns", name)
            ip("-n", name, "addr", "add", f"10.77.0.{node + 1}/24", "dev", card)
            for device in (card, "lo"):
                ip("-n", name, "link", "set", device, "up")
        return self

    def __exit__(self, *_):
        for process in self.started:
            kill(process)
        for name in self.names:
            subprocess.run(["ip", "netns", "del", name])

    def start(self, node, words, log, zygote, launcher=STATIC, children=2, **environment):
        """A torchrun of two processes on a node, which starts `children` at most: a zygote.Run."""
        words = ["--nnodes", "2", "--nproc-per-node", "2", *launcher[node], f"tools/{words[0]}.py", *words[1:]]
        environment |= {"GLOO_SOCKET_IFNAME": self.cards[node], "OMP_NUM_THREADS": "1"}
        zygote.prepare(TORCHRUN)
        there = IN_NAMESPACE.format(name=self.names[node], environment=environment, folder=os.getcwd())
        run = zygote.start([importlib.util.find_spec(TORCHRUN).origin, *words], log, there, children)
        self.started.append(run)
        return run

    def plug(self, state):
        """Cut the cable ('down') or mend it ('up')."""
        ip("-n", self.names[0], "link", "set", self.cards[0], state)


def ip(*words):
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


def kill(process):
    """Kill a torchrun and its workers, which it has put into sessions of their own: a machine without power."""
    def descendants(pid):
        with contextlib.suppress(OSError), open(f"/proc/{pid}/task/{pid}/children") as file:
            for child in map(int, file.read().split()):
                yield from descendants(child)
        yield pid

    for pid in [*descendants(process.pid)]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait()


@pytest.fixture
def machines():
    if not shutil.which("ip") or os.geteuid():
        pytest.skip("needs root and iproute2")
    try:
        with Machines() as both:
            yield both
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no network namespaces here: {error.stderr}")


@pytest.fixture
def job(repo, data, tmp_path, monkeypatch):
    """A function that makes the command line of a training of four replicas."""
    monkeypatch.chdir(repo)

    def make(folder, **options):
        return tiny_job.command(repo, data, folder, **{
            "NUM_GPUS": 4, "TRAIN__BATCH_SIZE": 4, "TEST__BATCH_SIZE": 4, "TRAIN__COMPUTE_PRECISE_BN": False,
            "TRAIN__EVAL_PERIOD": 1000, "SOLVER__BASE_LR": 0.0001, "SOLVER__MAX_ITER": 5, "JOIN_SECONDS": 60} | options)

    return make


def blobs(folder, iteration=5):
    return load(folder / f"checkpoints/c2_model_iter{iteration}.pkl")["blobs"]


def wait_for(text, log, processes, seconds=300):
    deadline = time.monotonic() + seconds
    while not log.exists() or text not in log.read_text():
        assert time.monotonic() < deadline and processes[0].wait(0.05) is None, log.read_text()


def errors_of(log):
    return [line for line in log.read_text().splitlines() if line.startswith("error: ")]


@pytest.fixture(scope="module")
def alone(repo, data, zygote, tmp_path_factory):
    """The blobs of the same training in one process."""
    folder = tmp_path_factory.mktemp("alone")
    words = tiny_job.command(repo, data, folder, NUM_GPUS=4, TRAIN__BATCH_SIZE=4, TEST__BATCH_SIZE=4,
                             TRAIN__COMPUTE_PRECISE_BN=False, TRAIN__EVAL_PERIOD=1000, SOLVER__BASE_LR=0.0001,
                             SOLVER__MAX_ITER=5)
    assert zygote.run(words, folder / "log.txt") == 0
    return blobs(folder)


def assert_close(ours, theirs):
    for name, value in theirs.items():
        scale = max(np.abs(value).max(), 1e-3)
        assert np.mean(np.abs(np.asarray(ours[name]) - value) / scale > 1e-5) <= 1e-3, name


def test_two_machines_with_folders_of_their_own(machines, job, alone, tmp_path, zygote):
    """Node 1 sees neither node 0's checkpoints nor its log; for a while, the cable is unplugged."""
    folders = [tmp_path / "0", tmp_path / "1"]
    logs = [tmp_path / "0.txt", tmp_path / "1.txt"]
    nodes = [machines.start(node, job(folders[node]), logs[node], zygote) for node in range(2)]
    wait_for("Iters [2/5]", logs[0], nodes)
    machines.plug("down")
    time.sleep(1)
    machines.plug("up")
    assert [node.wait(600) for node in nodes] == [0, 0], [log.read_text() for log in logs]
    assert_close(blobs(folders[0]), alone)
    assert "Iters" not in logs[1].read_text() and not (folders[1] / "checkpoints").exists()


def test_other_options_on_the_other_machine(machines, job, tmp_path, zygote):
    logs = [tmp_path / "0.txt", tmp_path / "1.txt"]
    nodes = [machines.start(node, job(tmp_path / "run", RNG_SEED=node), logs[node], zygote) for node in range(2)]
    assert [node.wait(600) for node in nodes] == [1, 1]
    [error] = errors_of(logs[0])
    assert error.startswith("error: RNG_SEED: process 2 on ") and errors_of(logs[1]) == []


@pytest.mark.parametrize("fault", ["power", "cable"])
def test_a_machine_that_is_lost(fault, machines, job, alone, tmp_path, zygote):
    """The other one says so within a bounded time. Afterwards one machine goes on alone, from the last checkpoint."""
    folder, logs = tmp_path / "run", [tmp_path / "0.txt", tmp_path / "1.txt"]
    options = {"PEER_SECONDS": 5, "DATALOADER__HANG_SECONDS": 2}
    nodes = [machines.start(node, job(folder, **options), logs[node], zygote) for node in range(2)]
    wait_for("Iters [3/5]", logs[0], nodes)
    begin = time.monotonic()
    if fault == "power":
        kill(nodes[1])
    else:
        machines.plug("down")
    assert nodes[0].wait(180) == 1
    assert time.monotonic() - begin < 30
    [error] = errors_of(logs[0])
    assert re.fullmatch(
        r"error: rank 0 of 4: another process of this run has ended or cannot be reached \(.+\): everything saved so "
        "far is intact, run the same command on all machines again to resume", error)
    kill(nodes[1])
    assert zygote.run(job(folder), tmp_path / "alone.txt") == 0
    assert "c2_model_iter2.pkl" in (tmp_path / "alone.txt").read_text()
    assert_close(blobs(folder), alone)


def test_a_machine_that_comes_back(machines, job, alone, tmp_path, zygote):
    """torchrun starts the processes anew when it is there again, and the training goes on from the last checkpoint."""
    folder, logs = tmp_path / "run", [tmp_path / "0.txt", tmp_path / "1.txt"]

    def start(node):
        return machines.start(node, job(folder, PEER_SECONDS=5, DATALOADER__HANG_SECONDS=2), logs[node], zygote,
                              ELASTIC, children=8, TORCH_DISABLE_SHARE_RDZV_TCP_STORE="1")

    nodes = [start(0), start(1)]
    wait_for("Iters [3/5]", logs[0], nodes)
    kill(nodes[1])
    time.sleep(5)  # for less, torchrun takes it for alive
    nodes[1] = start(1)
    assert [node.wait(300) for node in nodes] == [0, 0], [log.read_text() for log in logs]
    assert "Loaded: start_model_iter: 2" in logs[0].read_text()
    assert_close(blobs(folder), alone)
