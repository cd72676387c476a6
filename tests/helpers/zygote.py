"""Start the command-line tools without repeating their imports: a process that has imported them is forked.

    with Zygote() as zygote:
        run = zygote.start(["train_net_video", "--config_file", ...], log_path)

A tool is named as above, or by its path in the repository. Each run is a real process with its own process group, whose
standard output and error go to the log file. A prelude is Python code that the process executes before the tool, for
example to inject a fault. The processes that a launcher starts (`children` at most) are forks as well.
"""

import gc
import importlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import forked_children

REPO = Path(__file__).resolve().parents[2]
# What DistributedDataParallel imports.
FOR_SEVERAL_PROCESSES = ["torch._dynamo"]


def heed_signals():
    """Let the programs that this one starts heed SIGINT and SIGHUP, which one in the background or under nohup ignores.
    """
    for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, lambda *_: None)):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, handler)


class Run:
    """A forked tool: its pid, and its exit status once it has ended (negative: the signal that killed it)."""

    def __init__(self, zygote, pid):
        self._zygote, self.pid, self.status = zygote, pid, None

    def wait(self, timeout=600):
        """Wait for the run to end; returns its status, or None after `timeout` seconds."""
        if self.status is None:
            self.status = self._zygote.ask({"wait": self.pid, "timeout": timeout})
        return self.status

    def kill(self, number=signal.SIGKILL):
        if self.status is None:
            os.kill(self.pid, number)

    def kill_group(self, number=signal.SIGKILL):
        """Kill the run and all processes that it has started."""
        if self.status is None:
            os.killpg(self.pid, number)


class Zygote:
    """modules: what it imports at its start."""

    def __init__(self, modules=("test_net_video", "train_net_video")):
        self._modules = modules

    def __enter__(self):
        self._process = subprocess.Popen(
            [sys.executable, __file__, *self._modules], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"})
        return self

    def __exit__(self, *_):
        self._process.stdin.close()
        self._process.wait(timeout=60)

    def ask(self, request):
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def prepare(self, *modules):
        """Import what only some tools need."""
        self.ask({"import": modules})

    def start(self, argv, log, prelude="", children=0, errors=None):
        """Start a tool. With `errors`, its standard error goes to that file."""
        if children:
            self.prepare(*FOR_SEVERAL_PROCESSES)
        return Run(self, self.ask({"argv": [str(word) for word in argv], "log": str(log), "prelude": prelude,
                                   "children": children, "errors": str(errors or log)}))

    def run(self, argv, log, timeout=600, prelude="", children=0):
        return self.start(argv, log, prelude, children).wait(timeout)


def fork_tool(argv, log, prelude, children, errors):
    pid = os.fork()
    if pid:
        # Also here, so that the group exists before the caller learns the pid.
        os.setpgid(pid, pid)
        return pid
    os.setpgid(0, 0)
    for path, stream in ((log, 1), (errors, 2)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666), stream)
    # New ones, as the old ones have noted whether they could seek.
    sys.stdout = os.fdopen(1, "w", closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, errors="backslashreplace", closefd=False)
    tool = REPO / (argv[0] if argv[0].endswith(".py") else f"tools/{argv[0]}.py")
    sys.path.insert(0, str(tool.parent))
    try:
        exec(prelude, {})
        if children:
            forked_children.prepare(children)
        forked_children.run_script([str(tool), *argv[1:]])
    except BaseException:
        sys.excepthook(*sys.exc_info())
        os._exit(1)


def wait_for(pid, timeout):
    deadline = time.monotonic() + timeout
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() >= deadline:
            return None
        time.sleep(0.005)


def main():
    sys.path[:0] = [str(REPO / "tools"), str(REPO / "lib")]
    for name in sys.argv[1:]:
        importlib.import_module(name)
    for line in sys.stdin:
        request = json.loads(line)
        if "argv" in request:
            gc.freeze()  # a fork that searched all of this for garbage would copy it
            answer = fork_tool(**request)
        elif "import" in request:
            answer = [importlib.import_module(name).__name__ for name in request["import"]]
        else:
            answer = wait_for(request["wait"], request["timeout"])
        print(json.dumps(answer), flush=True)
    os._exit(0)  # to take apart what was imported takes seconds


if __name__ == "__main__":
    main()
