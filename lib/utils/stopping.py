"""What a program does when it is asked to end: SIGTERM (a scheduler), SIGINT (Ctrl-C), SIGHUP (a closed terminal).

Tools whose work can go on later call stop_when_asked() in their first lines, before the imports that take seconds: from
there on such a signal ends the process at once, with status EXIT_INTERRUPTED and nothing left behind. While there is
work to be saved first, signals are held back: see hold(). Other tools unwind as after Ctrl-C: see interruptible().

Ending is not an exception: that could come anywhere, also in places that swallow it or cannot survive it (callbacks
from C++, destructors, imports of extension modules).
"""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator

# Exit status of a run that was asked to stop and can be resumed (EX_TEMPFAIL).
EXIT_INTERRUPTED = 75

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
# Time that the main thread has to end the process, before another thread does so. Inside a call that does not return
# (a device, a lost process) it answers no signal.
_PATIENCE = 2.0

_asked = 0  # number of the last signal
_ending = False
_holds = 0  # calls of hold() that are not undone
_last_acts: list[Callable[[], object]] = []


def stop_when_asked() -> None:
    """From here on, end this process with EXIT_INTERRUPTED when it is asked to."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    threading.Thread(target=_watch, args=(reading,), daemon=True).start()
    for number in _handled():
        signal.signal(number, _stop)
    os.register_at_fork(before=_block, after_in_parent=_unblock, after_in_child=_forget)
    _unblock()  # see blocked()


def _handled() -> list[signal.Signals]:
    # nohup ignores SIGHUP for the programs that it starts.
    return [number for number in _SIGNALS if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN]


def _block() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)


def _unblock() -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)


def _forget() -> None:
    """In a fork that a library has made: what is to be done last is not its own."""
    signal.set_wakeup_fd(-1)
    for number in _SIGNALS:
        if signal.getsignal(number) is _stop:
            signal.signal(number, signal.SIG_DFL)
    _unblock()


def _stop(number: int, _: object) -> None:
    global _asked
    impatient = _asked == signal.SIGINT == number
    _asked = number
    if not _holds or impatient:
        _end()


def _end() -> None:
    global _ending
    _ending = True
    do_last_acts()
    os._exit(EXIT_INTERRUPTED)


def _watch(signals: int) -> None:
    """End the process if the main thread does not."""
    global _asked
    while number := int.from_bytes(os.read(signals, 1), "little"):
        if number not in _SIGNALS or signal.getsignal(number) is not _stop or _holds:
            continue
        time.sleep(_PATIENCE)
        if _ending:  # and not done: it may be writing to a terminal that is halted
            os._exit(EXIT_INTERRUPTED)
        if not _holds:
            _asked = number
            _end()


def asked() -> int:
    """The number of the signal that this process was asked to end with; 0 if it was not."""
    return _asked


def hold() -> None:
    """From here on, only note signals; a second SIGINT still ends the process. Calls may be nested."""
    global _holds
    _holds += 1


def release(end: bool = True) -> None:
    """Undo hold(). With `end`, a signal that was held back ends the process now."""
    global _holds
    _holds -= 1
    if _asked and not _holds and end:
        _end()


@contextlib.contextmanager
def held() -> Iterator[None]:
    """hold() for the length of the block. If the block raises, that is what becomes of the process."""
    hold()
    try:
        yield
    except BaseException:
        release(end=False)
        raise
    release()


@contextlib.contextmanager
def blocked() -> Iterator[None]:
    """Let processes that are started in the block get signals only once they have called stop_when_asked()."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def ignore_from_here() -> None:
    """The work is done: what is left of a process that called stop_when_asked() ends by itself."""
    for number in _SIGNALS:
        if signal.getsignal(number) is _stop:
            signal.signal(number, signal.SIG_IGN)


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Turn every such signal into a KeyboardInterrupt, unless stop_when_asked() was called."""
    numbers = [number for number in _handled() if signal.getsignal(number) is not _stop]
    previous = {number: signal.signal(number, _interrupt) for number in numbers}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _interrupt(number: int, _: object) -> None:
    global _asked
    _asked = number
    raise KeyboardInterrupt


def interrupt_again() -> None:
    """Raise the KeyboardInterrupt of interruptible() once more if there was one: where it should have ended a tool, but
    got lost in a destructor or a callback, which Python only reports."""
    if _asked and signal.getsignal(_asked) is _interrupt:
        raise KeyboardInterrupt


def at_last(act: Callable[[], object]) -> None:
    """Have `act` called when a signal ends this process, in the middle of anything."""
    _last_acts.append(act)


def do_last_acts() -> None:
    """Call what at_last() was given, in that order: before an end without unwinding."""
    for act in _last_acts:
        with contextlib.suppress(Exception):
            act()
