"""Short runs of tests/fuzz.py and tests/kill_runs.py, and tests of the fuzzing itself."""

import collections
import contextlib
import os
import re
import signal
from dataclasses import dataclass

import fuzzing
import pytest


@pytest.fixture
def run(zygote, tmp_path):
    """Run a program of this folder: its words -> the words of each line of its output."""
    def run(*words):
        output, errors = tmp_path / "output", tmp_path / "errors"
        assert zygote.start(words, output, errors=errors).wait() == 0, output.read_text() + errors.read_text()
        return [line.split() for line in output.read_text().splitlines()]

    return run


@pytest.mark.parametrize(("area", "count"), [
    ("pickles", 1000), ("records", 4000), ("yaml", 100), ("lists", 500), ("scores", 100), ("videos", 20),
    ("unusual", 15),
])
def test_hostile_inputs_are_read_correctly_or_refused(run, area, count):
    count *= 10 if os.environ.get("NLNET_ALL_KINDS") else 1
    _, row = run("tests/fuzz.py", area, "--count", str(count), "--seed", "1")
    tried, right, refused, *violations = map(int, row[1:8])
    assert row[0] == area and tried == count and violations == [0, 0, 0, 0]
    # Both hostile and valid inputs occur.
    assert right + refused == count and min(right, refused) > count // 20


class Refused(Exception):
    pass


@dataclass
class Case:
    what: str
    size: int = 1000


class Forbidden(fuzzing.Area):
    """Code under test that commits every violation in turn."""

    name = "forbidden"
    error = Refused
    seconds = 0.2
    traced = 1

    def __init__(self, folder):
        self.folder = folder
        self.turns = iter(FORBIDDEN)

    def make(self, rng):
        return Case(next(self.turns))

    def load(self, case):
        return FORBIDDEN[case.what][0](self.folder)

    def check(self, case, result):
        if result == "wrong":
            raise fuzzing.Wrong("another value")

    def check_refusal(self, case, error):
        if str(error) != "good message":
            raise fuzzing.Wrong("bad message")


def loop(_):
    while True:
        pass


def refuse(message):
    raise Refused(message)


FORBIDDEN = {
    "right": (lambda folder: None, "right"),
    "refused": (lambda folder: refuse("good message"), "refused"),
    "command": (lambda folder: os.system("true"), "executions"),
    "evaluation": (lambda folder: eval("1"), "executions"),
    "writing": (lambda folder: (folder / "executed").touch(), "executions"),
    "import": (lambda folder: __import__("no_such_module"), "wrong"),
    "wrong": (lambda folder: "wrong", "wrong"),
    "bad message": (lambda folder: refuse("bad message"), "wrong"),
    "another exception": (lambda folder: {}["key"], "wrong"),
    "memory": (lambda folder: len(bytearray(1 << 24)), "wrong"),
    "endless": (loop, "hangs"),
}


def test_every_kind_of_violation_is_detected(tmp_path):
    reported = tmp_path / "reported"

    def report(line):
        with open(reported, "a") as file:
            file.write(f"{line}\n")

    counters = fuzzing.run(Forbidden, len(FORBIDDEN), 0, 0, tmp_path, report)
    expected = collections.Counter(counter for _, counter in FORBIDDEN.values())
    assert {name: counters[name] for name in expected} == expected
    assert counters["tried"] == len(FORBIDDEN) and counters.violations == len(FORBIDDEN) - 2
    found = re.findall(r"^forbidden (\d+): (\w+)", reported.read_text(), re.MULTILINE)
    kinds = [kind for _, kind in FORBIDDEN.values()]
    assert found == [(str(number), kind) for number, kind in enumerate(kinds) if kind not in ("right", "refused")]


class Fatal(Forbidden):
    """Three kinds of cases: a is right, b kills the process, c cannot be interrupted."""

    name = "fatal"

    def make(self, rng):
        return Case(rng.choice("abc"))

    def load(self, case):
        if case.what == "b":
            os.kill(os.getpid(), signal.SIGKILL)
        while case.what == "c":
            with contextlib.suppress(BaseException):
                loop(None)


def test_crashes_and_uninterruptible_hangs_are_counted(tmp_path):
    seed = 12  # for which the four cases are a, c, b, a
    counters = fuzzing.run(Fatal, 4, seed, 0, tmp_path, lambda line: None)
    assert (counters["right"], counters["crashes"], counters["hangs"]) == (2, 1, 1)


def test_killed_jobs_survive(run):
    _, *rows = run("tests/kill_runs.py", "--kills", "1", "--job", "lmdb", "--seed", "1")
    assert [row[:2] for row in rows] == [["lmdb", number] for number in ("SIGKILL", "SIGTERM")]
    assert all(row[2] == row[4] == "1" for row in rows)
