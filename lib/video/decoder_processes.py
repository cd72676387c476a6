"""Videos decoded to their end in separate processes, so that a crash of the decoder costs one video.

    with DecoderProcesses(workers=2, time_limit=60) as decoders:
        for path, outcome in decoders.decode(paths):
            ...

A worker is a keeper, a small process that has PyAV imported, and the decoding process that it forks. They share one
end of a socket. A decoding process takes video after video as long as the videos are sound; after one that is not, it
decodes no other: whatever a bad file has done to its memory is gone with it. If it dies, the keeper answers for the
video that killed it, and forks the next.

Not a process for every video: forking one, and page-faulting its memory again, takes several times as long as decoding
a small video.
"""

import contextlib
import gc
import json
import os
import resource
import selectors
import signal
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import astuple, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Self

from video.bad_videos import BadVideo
from video.sampling import open_video
from video.video_facts import VideoFacts

_LIB = str(Path(__file__).resolve().parents[1])
_PROGRAM = """
import sys
sys.path.insert(0, sys.argv[1])
from video.decoder_processes import keep
keep(sys.argv[2:])
"""

_AHEAD = 8  # videos queued for a worker, so that it need not wait for us between two
_MESSAGE = 1 << 16  # bytes; longer than any path or answer
_REASON = 2000  # characters
_LEARNING = 2.5  # learning which packets may be left out takes at most twice as long as decoding

# Exit status of a decoding process: nothing is left to do; another one is to continue.
_DONE, _NEXT = 0, 10

# Signals that a process brings on itself. Others come from outside: the out-of-memory killer, a user's kill.
_CRASHES = {signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL}


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of decoding a video to its end.

    facts: VideoFacts; count 0 for a bad video. lasting: whether they follow from the file alone, and not from the state
    of the machine (time, memory).
    """

    facts: VideoFacts
    lasting: bool = True


class DecoderProcesses:
    """Workers that each decode one video at a time.

    Args:
        workers: their number.
        time_limit: seconds that a video may take to be decoded, and again to learn of it whether packets may be left
            out (skip_check.py); if that fails, the video is none the worse.
        as_stored: see sampling.open_video.
    """

    def __init__(self, workers: int, time_limit: float, as_stored: bool = False):
        self._time_limit = time_limit
        pairs = [socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(workers)]
        self._sockets = [ours for ours, _ in pairs]
        theirs = [str(their.fileno()) for _, their in pairs]
        # In a new session, which a Ctrl-C at the terminal does not reach, and which can be killed as a whole.
        self._keepers = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, _LIB, str(time_limit), str(int(as_stored)), *theirs],
            pass_fds=[int(number) for number in theirs], stdin=subprocess.DEVNULL, start_new_session=True,
            env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},  # a process that forks should have no threads
        )  # fmt: skip
        for _, their in pairs:
            their.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """End all processes, whatever they are doing."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._keepers.pid, signal.SIGKILL)
        self._keepers.wait()
        for ours in self._sockets:
            ours.close()

    def decode(self, paths: Iterable[str]) -> Iterator[tuple[str, Outcome]]:
        """Yield (path, Outcome) of every path, in order of completion. Raises RuntimeError for a bug."""
        tasks = enumerate(paths)
        given: dict[socket.socket, deque[tuple[int, str]]] = {ours: deque() for ours in self._sockets}
        examined: dict[socket.socket, VideoFacts] = {}
        with selectors.DefaultSelector() as selector:
            for ours in self._sockets:
                self._give(ours, given[ours], tasks)
                selector.register(ours, selectors.EVENT_READ, ours)
            while any(given.values()):
                for key, _ in selector.select():
                    ours = key.data
                    for number, *answer in _messages(ours):
                        # If a process was killed just after it had answered, its keeper has answered as well.
                        if not given[ours] or given[ours][0][0] != number:
                            continue
                        kind, value = answer
                        if kind == "decoded":
                            examined[ours] = VideoFacts(*value)
                            continue
                        yield given[ours].popleft()[1], self._outcome(examined.pop(ours, None), kind, value)
                    self._give(ours, given[ours], tasks)

    def _give(self, ours, given, tasks):
        for number, path in islice(tasks, _AHEAD - len(given)):
            given.append((number, path))
            ours.send(b"%d " % number + os.fsencode(path))

    def _outcome(self, facts, kind, value):
        """The last answer about a video; facts were known before, or are None."""
        if kind == "learnt":
            return Outcome(VideoFacts(*value))
        if kind == "failed":
            reason, lasting = value
            return Outcome(VideoFacts(0, reason), lasting)
        number = signal.Signals(value)
        crash = number in _CRASHES
        if facts is not None:
            return Outcome(replace(facts, skips=False) if crash else facts)
        if number == signal.SIGALRM:
            return Outcome(VideoFacts(0, f"is not decoded after {self._time_limit:g} seconds"), lasting=False)
        if crash:
            return Outcome(VideoFacts(0, f"crashes the decoder ({number.name})"))
        reason = f"was being decoded when the process was ended by {number.name}"
        return Outcome(VideoFacts(0, reason), lasting=False)


def _messages(ours):
    """Yield what has arrived: [number of the video, ...] each. Raises RuntimeError if the other side is gone."""
    flags = 0
    while True:
        try:
            message = ours.recv(_MESSAGE, flags)
        except BlockingIOError:
            return
        except ConnectionResetError:
            message = b""
        if not message:
            raise RuntimeError("a decoding process failed; its traceback is above")
        yield json.loads(message)
        flags = socket.MSG_DONTWAIT


# ------------------------------------------------------------------------------------- the other side


def keep(arguments: list[str]) -> None:
    """The program of the keepers, one for each socket.

    arguments: seconds per video, as_stored (0 or 1), the descriptors of the sockets.
    """
    time_limit, as_stored, descriptors = float(arguments[0]), bool(int(arguments[1])), list(map(int, arguments[2:]))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    gc.freeze()  # so that forked processes do not touch, and thereby copy, what exists now
    for descriptor in descriptors:
        if not os.fork():
            for other in descriptors:
                if other != descriptor:
                    os.close(other)
            _keep(socket.socket(fileno=descriptor), time_limit, as_stored)
            os._exit(0)
    for descriptor in descriptors:
        os.close(descriptor)
    for _ in descriptors:
        os.wait()


def _keep(theirs, time_limit, as_stored):
    """Let decoding processes answer until there are no more videos, and answer for those that died."""
    while True:
        pid = os.fork()
        if not pid:
            status = 1
            try:
                status = _decode(theirs, time_limit, as_stored)
            except (BrokenPipeError, ConnectionResetError):  # nobody waits for answers any more
                status = _DONE
            except BaseException:
                sys.excepthook(*sys.exc_info())
            finally:
                os._exit(status)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        if status < 0:
            with contextlib.suppress(BlockingIOError):  # no task there: it was not decoding
                task = theirs.recv(_MESSAGE, socket.MSG_DONTWAIT)
                if not task:
                    return
                theirs.send(json.dumps([int(task.split(b" ", 1)[0]), "died", -status]).encode())
        elif status != _NEXT:
            return


def _decode(theirs, time_limit, as_stored):
    """Decode and answer until a video is not sound. Returns an exit status.

    A task stays on the socket until its last answer: the first one there is the one being decoded.
    """
    while task := theirs.recv(_MESSAGE, socket.MSG_PEEK):
        number, path = task.split(b" ", 1)

        def answer(kind, value, number=number):
            # The alarm has no handler: it ends the process, even inside the decoder.
            signal.setitimer(signal.ITIMER_REAL, _LEARNING * time_limit if kind == "decoded" else 0)
            theirs.send(json.dumps([int(number), kind, value]).encode())

        signal.setitimer(signal.ITIMER_REAL, time_limit)
        try:
            facts = open_video(os.fsdecode(path), as_stored).learn(lambda facts: answer("decoded", astuple(facts)))
            answer("learnt", astuple(facts))
            sound = not facts.damage
        except BadVideo as error:
            answer("failed", [error.reason[:_REASON], error.lasting])
            sound = False
        except MemoryError:
            answer("failed", ["the decoder runs out of memory", False])
            sound = False
        theirs.recv(_MESSAGE)
        if not sound:
            return _NEXT
    return _DONE
