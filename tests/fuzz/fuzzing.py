"""Hostile inputs in great number: what the areas of fuzz.py share.

An area makes a case of a random number generator, gives it to the code under test, and judges the result. Here are the
bounds that hold everywhere: nothing runs, nothing hangs, memory is a multiple of the input, and the only exception is
the project's own. Cases are tried in child processes, so that a crash is counted and not suffered.
"""

import contextlib
import mmap
import os
import random
import resource
import signal
import sys
import time
import tracemalloc

import numpy as np

COUNTERS = ("tried", "right", "refused", "executions", "hangs", "crashes", "wrong", "seconds", "memory")
_KILL_AFTER = 4  # times an area's bound: what an exception cannot end (a loop in C) is killed
_SPARE_MEMORY = 3 << 30  # bytes that a child may take beyond what it has at its start
_HARMLESS = {"builtins.id", "array.__new__"}
_SHOWN = 20  # violations told in full


class Wrong(Exception):
    """An outcome that must not be; the message says what is wrong."""


class Hang(BaseException):
    """The bound in seconds is over."""


class Area:
    """What an area defines.

    name, and error: the exception (a class) that refuses an input.
    seconds: the longest that a case may take.
    memory: (constant, multiple) such that a case may take constant + multiple * size bytes.
    allowed_events: audit events that the code under test may cause besides _HARMLESS and opening files to read.
    traced: every so many cases the memory that Python and numpy take is measured; 0: the process's memory, always.
    """

    seconds = 20
    memory = 300_000, 200
    allowed_events = frozenset()
    traced = 8
    fire = None  # set to a function: what an area has laid out as bait calls it with a description

    def make(self, rng):
        """A case: any object with the attribute `size`, in bytes."""
        raise NotImplementedError

    def load(self, case):
        """Give the case to the code under test; returns its result or raises `error`."""
        raise NotImplementedError

    def check(self, case, result):
        """Raise Wrong if the result is not what the case holds."""
        raise NotImplementedError

    def check_refusal(self, case, error):
        """Raise Wrong if the case should not have been refused, or the message does not say what it must."""
        raise NotImplementedError


class Counters(dict):
    """The counters of a run: the sums of its cases, but for seconds and memory, which are the largest."""

    @property
    def violations(self):
        return sum(self[name] for name in ("executions", "hangs", "crashes", "wrong"))


class _SharedCounters:
    """Counters, and the case at work and since when, in memory that parent and child share."""

    def __init__(self):
        fields = [*COUNTERS, "number", "since"]
        values = np.frombuffer(mmap.mmap(-1, 8 * len(fields)), np.float64)
        self._values, self._places = values, {name: place for place, name in enumerate(fields)}

    def __getitem__(self, name):
        return self._values[self._places[name]]

    def __setitem__(self, name, value):
        self._values[self._places[name]] = value


def run(area_of, count, seed, first, folder, told=print):
    """Try `count` cases from number `first` on; a case follows from the area's name, seed and number.

    Args:
        area_of: area_of(folder) makes the Area, in the child.
        folder: an empty folder for the files of the cases.
        told: called with a line for each of the first violations.

    Returns Counters.
    """
    shared = _SharedCounters()
    number, end = first, first + count
    while number < end:
        shared["number"], shared["since"] = -1, 0
        pid = os.fork()
        if not pid:
            _child(area_of, range(number, end), seed, folder, shared, told)
        status = _watch(pid, area_of, shared)
        if status == 0:
            break
        number = int(shared["number"])
        if number < 0:
            raise RuntimeError(f"the area cannot be set up (status {status})")
        kind = "hangs" if status == -signal.SIGALRM else "crashes"
        shared[kind] += 1
        told(f"{area_of.name} {number}: {kind}, the process ended with status {status}")
        number += 1
    return Counters({name: float(shared[name]) if name in ("seconds", "memory") else int(shared[name])
                     for name in COUNTERS})


def _watch(pid, area, shared):
    """Wait for the child; returns its status, -SIGALRM if it hung and had to be killed."""
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        since = shared["since"]
        if since and time.monotonic() - since > _KILL_AFTER * area.seconds:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return -signal.SIGALRM
        time.sleep(0.01)


def _child(area_of, numbers, seed, folder, shared, told):
    status = 1
    try:
        area = area_of(folder)
        _limit_memory()
        watch = _Watch(area)
        area.fire = watch.fire
        for number in numbers:
            shared["number"], shared["since"] = number, time.monotonic()
            problem = _attempt(area, watch, random.Random(f"{area.name} {seed} {number}"), shared)
            shared["tried"] += 1
            if problem:
                kind, what = problem
                shared[kind] += 1
                if sum(shared[name] for name in ("executions", "hangs", "wrong")) <= _SHOWN:
                    told(f"{area.name} {number}: {kind}: {what}"[:500])
            shared["since"] = 0
        status = 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _limit_memory():
    with open("/proc/self/statm") as statm:
        pages = int(statm.read().split()[0])
    limit = pages * resource.getpagesize() + _SPARE_MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _attempt(area, watch, rng, shared):
    """Try a case: None if all is well, else (counter, what is wrong)."""
    case = area.make(rng)
    result = refusal = None
    traced = area.traced and int(shared["number"]) % area.traced == 0
    try:
        with watch.armed(traced):
            result = area.load(case)
    except area.error as error:
        refusal = error
    except Hang:
        return "hangs", f"over {area.seconds} s"
    except Exception as error:
        return "wrong", f"{type(error).__name__}: {error!s:.200} ({case})"
    finally:
        shared["seconds"] = max(shared["seconds"], watch.seconds)
    if watch.events:
        return "executions", f"{watch.events[:3]} ({case})"
    constant, multiple = area.memory
    if watch.memory is not None:
        shared["memory"] = max(shared["memory"], (watch.memory - constant) / case.size)
        if watch.memory > constant + multiple * case.size:
            return "wrong", f"{watch.memory} bytes of memory for {case.size} bytes of input ({case})"
    try:
        if refusal is None:
            area.check(case, result)
            shared["right"] += 1
        else:
            if "MemoryError" in str(refusal):
                raise Wrong("asked for more memory than there is")
            area.check_refusal(case, refusal)
            shared["refused"] += 1
    except Wrong as wrong:
        return "wrong", f"{wrong} ({case})"
    return None


class _Watch:
    """Watches the code under test: audit events (sys.addaudithook), time, memory. One in a process."""

    def __init__(self, area):
        self._area = area
        self._armed = False
        self.events, self.seconds, self.memory = [], 0.0, None
        signal.signal(signal.SIGALRM, self._alarm)
        sys.addaudithook(self._hook)

    @contextlib.contextmanager
    def armed(self, traced):
        self.events, self.memory = [], None
        if traced:
            tracemalloc.start()
        elif not self._area.traced:
            before = _resident_reset()
        signal.setitimer(signal.ITIMER_REAL, self._area.seconds)
        start = time.perf_counter()
        self._armed = True
        try:
            yield
        finally:
            self._armed = False
            self.seconds = time.perf_counter() - start
            signal.setitimer(signal.ITIMER_REAL, 0)
            if traced:
                self.memory = tracemalloc.get_traced_memory()[1]
                tracemalloc.stop()
            elif not self._area.traced:
                self.memory = _resident("VmHWM") - before

    def fire(self, event):
        """Something ran that must not run. The hook calls it, and what an area has laid out as bait."""
        if self._armed:
            self.events.append(event)

    def _hook(self, event, arguments):
        # Whatever is not known to be harmless is not: this is a list of what may be.
        if not self._armed or event in _HARMLESS or event in self._area.allowed_events:
            return
        if event == "open" and not arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC):
            return
        self.fire(f"{event}{arguments!r:.100}")

    def _alarm(self, *_):
        if self._armed:
            raise Hang


def _resident_reset():
    """Forget the peak of the process's memory; returns the memory it has now."""
    with contextlib.suppress(OSError), open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    return _resident("VmRSS")


def _resident(field):
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith(field)) * 1024


# ------------------------------------------------------------------------------------------------ making damage


def mutate_bytes(rng, data, others=(), times=None):
    """The bytes with a few changes: bits flipped, bytes set, stretches cut, doubled, swapped or taken from others."""
    data = bytearray(data)
    for _ in range(times or rng.choice((1, 1, 1, 2, 3, 8))):
        at, size = _place(rng, data), 1 + int(rng.expovariate(0.15))
        kind = rng.randrange(8)
        if kind == 0 and data:
            data[at % len(data)] ^= 1 << rng.randrange(8)
        elif kind == 1 and data:
            data[at % len(data)] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
        elif kind == 2:
            data[at:at] = rng.randbytes(rng.randint(1, 4))
        elif kind == 3:
            del data[at : at + size]
        elif kind == 4:
            data[at:at] = data[at : at + size]
        elif kind == 5 and data:
            other = _place(rng, data)
            data[at : at + size], data[other : other + size] = data[other : other + size], data[at : at + size]
        elif kind == 6:
            del data[at:]
        elif kind == 7:
            source = rng.choice(others) if others else data
            start = _place(rng, source)
            data[at : at + rng.choice((0, size))] = source[start : start + size]
    return bytes(data)


def _place(rng, data):
    """A place in the bytes, as often as not near the start, where what matters is."""
    return rng.randint(0, min(len(data), rng.choice((40, 400, len(data)))))


def log_uniform(rng, low, high):
    """An integer from low to high, any number of digits as likely as another."""
    return int(low * (high / low) ** rng.random())
