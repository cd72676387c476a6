"""One run a folder: the second is told who the first is, and what a dead run leaves behind stops nobody."""

import errno
import json
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from dataclasses import asdict

import pytest
import tiny_job

from engine import run_lock
from engine.run_lock import Holder, only_run_in
from utils.errors import UserError

HOLD = """
import sys
sys.path.insert(0, sys.argv[1])
from engine.run_lock import only_run_in
with only_run_in(sys.argv[2]):
    print("holding", flush=True)
    sys.stdin.read()
"""


class Holding:
    """Another process that holds the lock of a folder."""

    def __init__(self, repo, folder):
        self.process = subprocess.Popen([sys.executable, "-c", HOLD, repo / "lib", folder], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True)
        assert self.process.stdout.readline() == "holding\n"

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.communicate()

    def end(self):
        self.process.communicate()
        assert self.process.returncode == 0


@pytest.fixture
def other(repo, tmp_path):
    holding = Holding(repo, tmp_path)
    yield holding
    holding.kill()


@pytest.fixture
def log(caplog):
    caplog.set_level(logging.INFO)
    return caplog


def written(path, **changes):
    """Write a lock file that nobody has locked."""
    holder = asdict(Holder("node7", 4711, "2026-11-27 10:00:00+00:00", "another machine")) | changes
    (path / "run.lock").write_text(json.dumps(holder))


def assert_free(folder):
    with only_run_in(folder):
        pass
    assert list(folder.iterdir()) == []


def test_the_second_run_is_told_of_the_first(other, tmp_path):
    with pytest.raises(UserError) as refused, only_run_in(tmp_path):
        pass
    assert re.fullmatch(
        rf"{tmp_path}/run.lock: another run uses this folder: process {other.process.pid} on {socket.gethostname()}, "
        r"since \d{4}-\d\d-\d\d \d\d:\d\d:\d\d[+-]\d\d:\d\d; wait for its end, or use another CHECKPOINT.DIR",
        str(refused.value))
    other.end()
    assert_free(tmp_path)


def test_a_killed_run_leaves_a_lock_that_stops_nobody(other, tmp_path, log):
    other.kill()
    assert (tmp_path / "run.lock").exists()
    assert_free(tmp_path)
    assert f"process {other.process.pid} on " in log.text and "which has ended" in log.text


def test_an_error_frees_the_folder(tmp_path):
    with pytest.raises(ZeroDivisionError), only_run_in(tmp_path):
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def test_the_parts_of_one_run_share_its_lock(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path)
    with only_run_in(tmp_path):
        with only_run_in(tmp_path / "link"):
            pass
        assert (tmp_path / "run.lock").exists()


def test_never_two_at_once(repo, tmp_path):
    program = HOLD.partition("with")[0] + """
import os, time
from utils.errors import UserError
held = 0
while held < 20:
    try:
        with only_run_in(sys.argv[2]):
            os.mkdir(sys.argv[3])  # fails if another one is there
            time.sleep(0.0005)
            os.rmdir(sys.argv[3])
            held += 1
    except UserError:
        pass
"""
    (tmp_path / "run").mkdir()
    command = [sys.executable, "-c", program, repo / "lib", tmp_path / "run", tmp_path / "inside"]
    processes = [subprocess.Popen(command) for _ in range(3)]
    assert [process.wait(60) for process in processes] == [0, 0, 0]
    assert list((tmp_path / "run").iterdir()) == []


# ------------------------------------------------------------------------------------------------- another machine


@pytest.fixture
def short_silence(monkeypatch):
    monkeypatch.setattr(run_lock, "SILENCE_SECONDS", 0.4)


def test_another_machine_without_a_sign_of_life(short_silence, tmp_path, log):
    written(tmp_path)
    assert_free(tmp_path)
    assert "names process 4711 on node7, since 2026-11-27 10:00:00+00:00, a machine whose processes" in log.text
    assert "left behind by a run that has ended" in log.text


def test_another_machine_that_lives(short_silence, tmp_path):
    written(tmp_path)
    touching = threading.Timer(0.1, os.utime, [tmp_path / "run.lock"])
    touching.start()
    with pytest.raises(UserError, match="another run uses this folder: process 4711 on node7, since 2026"), \
            only_run_in(tmp_path):
        pass
    touching.join()


def test_another_machine_whose_run_ends_meanwhile(short_silence, tmp_path):
    written(tmp_path)
    removing = threading.Timer(0.1, os.unlink, [tmp_path / "run.lock"])
    removing.start()
    assert_free(tmp_path)


def test_a_run_shows_that_it_lives(tmp_path, monkeypatch):
    monkeypatch.setattr(run_lock, "TOUCH_SECONDS", 0.05)
    with only_run_in(tmp_path):
        assert run_lock._is_touched(tmp_path / "run.lock", 5)


# --------------------------------------------------------------------------------------------- where flock is missing


@pytest.fixture
def no_flock(monkeypatch):
    def flock(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(run_lock.fcntl, "flock", flock)


def test_without_flock_a_living_process_is_seen(no_flock, tmp_path, log):
    written(tmp_path, machine=run_lock._machine(), process=os.getppid())
    with pytest.raises(UserError, match=f"another run uses this folder: process {os.getppid()} on node7"), \
            only_run_in(tmp_path):
        pass
    assert "cannot be locked (No locks available): make sure that no other run uses this folder" in log.text


def test_without_flock_a_dead_process_is_seen(no_flock, other, tmp_path):
    other.kill()
    assert_free(tmp_path)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b'{"host": 1}', b"\xff" * 20,
                                     b'{"host": "a", "process": -1, "since": "b", "machine": "c"}'])
def test_a_file_that_names_nobody(content, tmp_path):
    (tmp_path / "run.lock").write_bytes(content)
    assert_free(tmp_path)


# ------------------------------------------------------------------------------------------------------ the tools


def test_a_run_in_the_folder_of_another(zygote, repo, data, undisturbed, tmp_path):
    folder, first_log, log = tmp_path / "run", tmp_path / "first.txt", tmp_path / "log.txt"
    words = tiny_job.command(repo, data, folder, TRAIN__TEST_AFTER_TRAIN=True, TRAIN__COMPUTE_PRECISE_BN=False,
                             TRAIN__EVAL_PERIOD=1000, NUM_GPUS=1, TRAIN__BATCH_SIZE=1, SOLVER__MAX_ITER=1)
    test = tiny_job.command(repo, data, folder, "test_net_video", TEST__TEST_FULLY_CONV=True,
                            TEST__PARAMS_FILE=undisturbed / "checkpoints/c2_model_iter6.pkl")
    first, lock = zygote.start(words, first_log), folder / "run.lock"
    while not (lock.exists() and lock.read_text()):
        assert first.wait(0.01) is None
    first.kill(signal.SIGSTOP)  # so that it is not done before the others have started
    try:
        for second in (words, test):
            log.unlink(missing_ok=True)
            assert zygote.run(second, log) == 1
            [error] = [line for line in log.read_text().splitlines() if line.startswith("error: ")]
            assert error.startswith(f"error: {lock}: another run uses this folder: process {first.pid} on ")
    finally:
        first.kill(signal.SIGCONT)
    assert first.wait() == 0, first_log.read_text()
    assert not lock.exists() and (folder / "results_probs.pkl").exists()
