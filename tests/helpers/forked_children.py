"""Children of a forked tool that are forks as well, instead of Python processes that repeat all imports.

They are made before the tool begins, from a process that has imported everything, and wait until the tool starts a
Python script with subprocess.Popen. What a launcher sees of its children stays real: processes of its own with their
pids, sessions, signals and statuses, a given environment, and inherited pipes. Used by zygote.py.
"""

import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

_waiting = []  # (pid, our end of a socket) of each child that has no script yet


def prepare(count):
    """Fork `count` processes. From here on, subprocess.Popen([python, script, ...]) lets the next one run a script."""
    for _ in range(count):
        ours, theirs = socket.socketpair()
        pid = os.fork()
        if not pid:
            for other in (ours, *(end for _, end in _waiting)):
                other.close()  # so that all children see when the tool ends
            _be_a_child(theirs)
        theirs.close()
        _waiting.append((pid, ours))
    subprocess.Popen = Child
    if torchrun := sys.modules.get("torch.distributed.elastic.multiprocessing.subprocess_handler.subprocess_handler"):
        torchrun.Popen = Child


class Child:
    """What launchers use of subprocess.Popen."""

    def __init__(self, args, env=None, pass_fds=(), **_):
        self.args, self.returncode = args, None
        self.pid, end = _waiting.pop(0)
        request = {"args": [os.fspath(word) for word in args], "environment": dict(env or os.environ),
                   "descriptors": list(pass_fds), "folder": os.getcwd()}
        with end:
            socket.send_fds(end, [b"request "], pass_fds)
            end.sendall(json.dumps(request).encode())

    def poll(self):
        if self.returncode is None:
            ended, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if ended else None
        return self.returncode

    def wait(self, timeout=float("inf")):
        deadline = time.monotonic() + timeout
        while self.poll() is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(self.args, timeout)
            time.sleep(0.005)
        return self.returncode

    def send_signal(self, number):
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self):
        self.send_signal(signal.SIGKILL)


def _be_a_child(end):
    """Wait for a script, run it, and exit."""
    # As if inherited from a launcher that has blocked them: until the tool is ready for them.
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGINT, signal.SIGHUP))
    os.setsid()
    with end:
        begin, descriptors, *_ = socket.recv_fds(end, len(b"request "), 16)
        if not begin:
            os._exit(0)  # the tool has ended without it
        with end.makefile("rb") as rest:
            request = json.loads(rest.read())
    for descriptor, number in zip(descriptors, request["descriptors"], strict=True):
        os.dup2(descriptor, number)
        if descriptor != number:
            os.close(descriptor)
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    words = request["args"]
    while not words[0].endswith(".py"):  # python and its options
        words = words[1:]
    sys.path[0] = str(Path(words[0]).resolve().parent)
    run_script(words)


def run_script(words):
    """Run a script as the main program of this process, and exit."""
    sys.argv, sys.orig_argv = words, [sys.executable, *words]
    status = 1
    try:
        runpy.run_path(words[0], run_name="__main__")
        status = 0
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        status = 1 if isinstance(end.code, str) else int(end.code or 0)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for thread in threading.enumerate():  # as at the end of any other process
            if not thread.daemon and thread is not threading.current_thread():
                thread.join()
        os._exit(status)
