"""Videos decoded to their end in separate processes, so that a crash of the decoder costs one video.

    with DecoderProcesses(workers=2, time_limit=60) as decoders:
        for path, outcome in decoders.decode(paths):
            ...

A worker is a keeper, a small process that has OpenCV imported, and the decoding process that it forks. They share one
end of a socket. A decoding process takes video after video as long as the videos are sound; after one that is not, it
decodes no other: whatever a bad file has done to its memory is gone with it. If it dies, the keeper answers for the
video that killed it, and forks the next.

Not a process for every video: forking one, and page-faulting its memory again, takes several times as long as decoding
a small video.
"""

import contextlib
import ctypes
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
from dataclasses import astuple, dataclass
from itertools import islice
from pathlib import Path
from typing import Self

import cv2

from video.bad_videos import BadVideo
from video.sampling import open_video

_LIB = str(Path(__file__).resolve().parents[1])
_PROGRAM = """
import sys
sys.path.insert(0, sys.argv[1])
from video.decoder_processes import keep
keep(sys.argv[2:])
"""

_WARNINGS = "32"  # FFmpeg's AV_LOG_WARNING

_AHEAD = 8  # videos queued for a worker, so that it need not wait for us between two
_MESSAGE = 1 << 16  # bytes; longer than any path or answer
_REASON = 2000  # characters

# Exit status of a decoding process: nothing is left to do; another one is to continue.
_DONE, _NEXT = 0, 10

# Signals that a process brings on itself. Others come from outside: the out-of-memory killer, a user's kill.
_CRASHES = {signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL}


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of decoding a video to its end.

    count, damage and skips are those of video_facts.VideoFacts. lasting: whether they follow from the file alone, and
    not from the state of the machine (time, memory).
    """

    count: int
    damage: str | None
    skips: bool | None = None
    lasting: bool = True


class DecoderProcesses:
    """Workers that each decode one video at a time.

    Args:
        workers: their number.
        time_limit: seconds that a video may take.
        try_skipping: whether to find out, too, of which videos packets may be left out (skip_check.py).
    """

    def __init__(self, workers: int, time_limit: float, try_skipping: bool = False):
        self._time_limit = time_limit
        pairs = [socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(workers)]
        self._sockets = [ours for ours, _ in pairs]
        theirs = [str(their.fileno()) for _, their in pairs]
        # In a new session, which a Ctrl-C at the terminal does not reach, and which can be killed as a whole.
        self._keepers = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, _LIB, str(time_limit), str(int(try_skipping)), *theirs],
            pass_fds=[int(number) for number in theirs], stdin=subprocess.DEVNULL, start_new_session=True,
            env=os.environ | {"OPENBLAS_NUM_THREADS": "1"}  # a process that forks should have no threads
            | ({"OPENCV_FFMPEG_LOGLEVEL": _WARNINGS} if try_skipping else {}),
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
        with selectors.DefaultSelector() as selector:
            for ours in self._sockets:
                self._give(ours, given[ours], tasks)
                selector.register(ours, selectors.EVENT_READ, ours)
            while any(given.values()):
                for key, _ in selector.select():
                    ours = key.data
                    for number, *answer in _messages(ours):
                        # If a process was killed just after it had answered, its keeper has answered as well.
                        if given[ours] and given[ours][0][0] == number:
                            yield given[ours].popleft()[1], self._outcome(*answer)
                    self._give(ours, given[ours], tasks)

    def _give(self, ours, given, tasks):
        for number, path in islice(tasks, _AHEAD - len(given)):
            given.append((number, path))
            ours.send(b"%d " % number + os.fsencode(path))

    def _outcome(self, kind, *values):
        if kind == "decoded":
            return Outcome(*values)
        number = signal.Signals(values[0])
        if number == signal.SIGALRM:
            return Outcome(0, f"is not decoded after {self._time_limit:g} seconds", lasting=False)
        if number in _CRASHES:
            return Outcome(0, f"crashes the decoder ({number.name})")
        return Outcome(0, f"was being decoded when the process was ended by {number.name}", lasting=False)


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

    arguments: seconds per video, whether to try skipping (0 or 1), the descriptors of the sockets.
    """
    time_limit, try_skipping, descriptors = float(arguments[0]), bool(int(arguments[1])), list(map(int, arguments[2:]))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    gc.freeze()  # so that forked processes do not touch, and thereby copy, what exists now
    for descriptor in descriptors:
        if not os.fork():
            for other in descriptors:
                if other != descriptor:
                    os.close(other)
            _keep(socket.socket(fileno=descriptor), time_limit, try_skipping)
            os._exit(0)
    for descriptor in descriptors:
        os.close(descriptor)
    for _ in descriptors:
        os.wait()


def _keep(theirs, time_limit, try_skipping):
    """Let decoding processes answer until there are no more videos, and answer for those that died."""
    while True:
        pid = os.fork()
        if not pid:
            status = 1
            try:
                status = _decode(theirs, time_limit, try_skipping)
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


def _decode(theirs, time_limit, try_skipping):
    """Decode and answer until a video is not sound. Returns an exit status.

    A task stays on the socket until it is answered: the first one there is the one being decoded.
    """
    complaints = _Complaints() if try_skipping else None
    while task := theirs.recv(_MESSAGE, socket.MSG_PEEK):
        number, path = task.split(b" ", 1)
        # The alarm has no handler: it ends the process, even inside the decoder.
        signal.setitimer(signal.ITIMER_REAL, time_limit)
        outcome = decode_video(os.fsdecode(path), complaints)
        signal.setitimer(signal.ITIMER_REAL, 0)
        theirs.send(json.dumps([int(number), "decoded", *astuple(outcome)]).encode())
        theirs.recv(_MESSAGE)
        if outcome.damage:
            return _NEXT
    return _DONE


class _Complaints:
    """FFmpeg's messages about the videos that this process decodes. OpenCV prints them to C's standard output."""

    def __init__(self):
        self._flush = ctypes.CDLL(None).fflush
        descriptor = os.memfd_create("complaints")
        os.dup2(descriptor, 1)
        os.close(descriptor)

    def come(self):
        """Whether there were any since the last call."""
        self._flush(None)
        size = os.lseek(1, 0, os.SEEK_CUR)
        os.ftruncate(1, 0)
        os.lseek(1, 0, os.SEEK_SET)
        return size > 0


def decode_video(path: str, complaints: _Complaints | None = None) -> Outcome:
    """The Outcome of decoding a video to its end, in this process.

    With _Complaints, also finds out whether packets may be left out: never of a video that FFmpeg complains about, as
    how it conceals damage depends on everything decoded before.
    """
    skips = None
    if complaints is not None:
        complaints.come()  # those left by the check of the previous video are not about this one
    try:
        video = open_video(path)
        facts = video.examine()
        if complaints is not None and not facts.damage:
            skips = not complaints.come() and video.skipping_is_exact(facts.count)
    except BadVideo as error:
        return Outcome(0, error.reason[:_REASON])
    except (cv2.error, MemoryError) as error:
        text = " ".join(str(error).split()) or "out of memory"
        return Outcome(0, f"the decoder gives up: {text}"[:_REASON], lasting=False)
    return Outcome(facts.count, facts.damage, skips)
