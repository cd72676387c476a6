"""What a program does when it is asked to end, at any moment: real processes and signals."""

import os
import signal
import subprocess
import sys
import time

import pytest
from process_status import catches

from utils.stopping import EXIT_INTERRUPTED

ASKING = [signal.SIGTERM, signal.SIGINT, signal.SIGHUP]
TOOLS = ["train_net_video", "test_net_video", "extract_features"]

PREAMBLE = """
import os, signal, sys, time
sys.path.insert(0, sys.argv[1])
from utils import stopping
stopping.stop_when_asked()
from pathlib import Path
from utils import cli, files
def ready():
    print("ready", flush=True)
def never():
    while True:
        time.sleep(0.01)
"""


class Program:
    """A program that says when it is ready to be disturbed; its folder is its only argument."""

    def __init__(self, repo, folder, text, **arguments):
        self.folder = folder
        folder.mkdir(exist_ok=True)
        command = [sys.executable, "-c", PREAMBLE + text, repo / "lib", folder]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **arguments)
        assert self.process.stdout.readline() == "ready\n"

    def after(self, *signals, gap=0.1):
        """(status, output, errors) after some signals."""
        for number in signals:
            self.process.send_signal(number)
            time.sleep(gap)
        output, errors = self.process.communicate(timeout=60)
        return self.process.returncode, output, errors


@pytest.fixture
def start(repo, tmp_path):
    started = []

    def start(text, **arguments):
        started.append(Program(repo, tmp_path / "run", text, **arguments))
        return started[-1]

    yield start
    for program in started:
        program.process.kill()
        program.process.wait()


# ------------------------------------------------------------------------------------------------------ the mechanism


@pytest.mark.parametrize("number", ASKING)
def test_a_signal_ends_the_process_and_leaves_nothing(number, start):
    program = start("""
from engine.run_lock import only_run_in
folder = Path(sys.argv[2])
with only_run_in(folder), files.temporary_folder(folder, "x") as inner, files.atomic_write(folder / "y") as file:
    (inner / "part").touch()
    file.write(b"half")
    file.flush()
    cli.setup_logging()
    ready()
    never()
""")
    assert len(list(program.folder.iterdir())) == 3
    status, output, errors = program.after(number)
    assert (status, errors) == (EXIT_INTERRUPTED, "")
    assert output.endswith(f"{number.name}: stopping; run the same command again to resume\n")
    assert list(program.folder.iterdir()) == []


@pytest.mark.parametrize("swallowing", [
    "class Never:\n    def __del__(self): ready(); never()\nNever()",  # exceptions are only printed here
    "while True:\n    try: ready(); never()\n    except: pass",
    "import ctypes\nready()\nctypes.CFUNCTYPE(None)(never)()",
])
def test_nothing_can_swallow_it(swallowing, start):
    assert start(swallowing).after(signal.SIGTERM) == (EXIT_INTERRUPTED, "", "")


def test_inside_a_call_that_does_not_return(start):
    # A call without the interpreter's lock, as into a device or a network.
    program = start("import ctypes\nlibrary = ctypes.CDLL(None)\nready()\nwhile True: library.usleep(999_000)\n")
    begun = time.monotonic()
    assert program.after(signal.SIGTERM)[0] == EXIT_INTERRUPTED
    program = start("""
import ctypes
# sleep() that no signal interrupts: with all of them blocked in this thread
signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
ready()
ctypes.CDLL(None).sleep(50)
""")
    assert program.after(signal.SIGTERM)[0] == EXIT_INTERRUPTED
    assert time.monotonic() - begun < 20


def test_output_that_nobody_takes(start):
    program = start("""
cli.setup_logging()
ready()
sys.stdout.write("x" * 10_000_000)
""")
    time.sleep(0.2)
    program.process.send_signal(signal.SIGTERM)
    assert program.process.wait(20) == EXIT_INTERRUPTED


HOLDING = """
stopping.hold()
ready()
until = time.monotonic() + {seconds}
while time.monotonic() < until:
    time.sleep(0.01)
print("saved", stopping.asked(), flush=True)
stopping.release()
print("not reached")
"""


def test_what_is_to_be_saved_is_saved_first(start):
    status, output, _ = start(HOLDING.format(seconds=3)).after(signal.SIGTERM, signal.SIGTERM)
    assert (status, output) == (EXIT_INTERRUPTED, f"saved {int(signal.SIGTERM)}\n")


def test_a_second_ctrl_c_does_not_wait(start):
    program = start(HOLDING.format(seconds=50))
    assert program.after(signal.SIGINT, signal.SIGINT)[:2] == (EXIT_INTERRUPTED, "")


def test_an_error_while_saving_is_the_outcome(start):
    status, output, errors = start("""
from utils.errors import UserError
def main():
    with stopping.held():
        ready()
        while not stopping.asked():
            time.sleep(0.01)
        raise UserError("no space")
cli.run(main)
""").after(signal.SIGTERM)
    assert (status, output, errors) == (1, "", "error: no space\n")


def test_when_the_work_is_done_it_is_done(start):
    status, output, _ = start("""
import atexit
@atexit.register
def late():
    ready()
    time.sleep(0.5)
cli.run(lambda: 0)
""").after(signal.SIGTERM)
    assert status == 0


def test_nohup(start):
    program = start("ready()\ntime.sleep(1)", preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    assert program.after(signal.SIGHUP)[0] == 0


def test_a_fork_of_a_library_has_nothing_to_remove(start):
    program = start("""
with files.atomic_write(Path(sys.argv[2], "y")) as file:
    child = os.fork()
    if not child:
        never()
    os.kill(child, signal.SIGTERM)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGTERM
    ready()
""")
    assert program.after()[0] == 0
    assert os.listdir(program.folder) == ["y"]


@pytest.mark.parametrize("number", ASKING)
def test_other_tools_unwind(number, repo, tmp_path):
    program = """
import sys, time
sys.path.insert(0, sys.argv[1])
from utils import cli, files
def main():
    with files.atomic_write(sys.argv[2] + "/y"):
        print("ready", flush=True)
        while True:
            time.sleep(0.01)  # a signal just before a long sleep would not end it
cli.run(main)
"""
    run = subprocess.Popen([sys.executable, "-c", program, repo / "lib", tmp_path], stdout=subprocess.PIPE,
                           stderr=subprocess.PIPE, text=True)
    assert run.stdout.readline() == "ready\n"
    run.send_signal(number)
    assert run.communicate(timeout=20)[1] == "error: interrupted\n"
    assert run.returncode == 128 + number
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------------------------------------------- from the start


@pytest.mark.parametrize("tool", TOOLS)
def test_from_the_first_line_on(tool, repo):
    run = subprocess.Popen([sys.executable, repo / f"tools/{tool}.py", "--config_file", "none.yaml", "--list", "x"],
                           stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    begun = time.monotonic()
    while not catches(run.pid, signal.SIGTERM):
        assert run.poll() is None
    assert time.monotonic() - begun < 0.5 or os.getloadavg()[0] > 2  # importing PyTorch takes seconds
    run.send_signal(signal.SIGTERM)
    assert (run.communicate(timeout=60), run.returncode) == (("", ""), EXIT_INTERRUPTED)


def test_signals_that_come_before_the_first_line_wait_for_it(repo):
    from utils import stopping

    with stopping.blocked():
        run = subprocess.Popen([sys.executable, repo / "tools/train_net_video.py"], stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True)
    run.send_signal(signal.SIGINT)
    assert (run.communicate(timeout=60), run.returncode) == (("", ""), EXIT_INTERRUPTED)
