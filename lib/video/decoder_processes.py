"""Videos decoded to their end in processes of their own, so that a crash of the decoder costs one video.

    with DecoderProcesses(workers=2, time_limit=60) as decoders:
        for path, outcome in decoders.decode(paths):
            ...

A worker is a keeper, a small process that has OpenCV imported, and the decoding process that it forks. They share one
end of a socket. A decoding process takes video after video as long as the videos are sound; one that has met a video
that is not, decodes no other: what a bad file may have done to its memory is gone with it. If it dies, the keeper
answers for the video that it died of, and forks the next.

Not a process for every video: to fork one, and to let it touch its memory anew, takes several times as long as a small
video takes to decode.
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
from dataclasses import astuple, dataclass
from itertools import islice
from pathlib import Path

import cv2

from video.capture import BadVideo
from video.decoder import sample_frames
from video.skip_check import skipping_is_exact

_LIB = str(Path(__file__).resolve().parents[1])
_PROGRAM = """
import sys
sys.path.insert(0, sys.argv[1])
from video.decoder_processes import keep
keep(sys.argv[2:])
"""

_WARNINGS = "32"  # FFmpeg's AV_LOG_WARNING

_AHEAD = 8  # videos that a worker has been told of: it need not wait for us between two
_MESSAGE = 1 << 16  # bytes; longer than any path, and than any answer
_REASON = 2000  # characters

# Exit status of a decoding process: nothing is left to do; another one shall go on.
_DONE, _NEXT = 0, 10

# Signals by which a process ends itself. Others come from outside: a lack of memory, somebody's kill.
_CRASHES = {signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL}


class _NothingKnown:
    """In place of VideoFactsCache: every video is met for the first time."""

    def get(self, path, status):
        return None

    def put(self, path, status, known):
        pass


@dataclass(frozen=True, slots=True)
class Outcome:
    """What decoding a video to its end gave.

    count is F, damage what is wrong with the video or None, as in video_facts.VideoFacts: F is 0 for a bad video, and
    damage the reason. skips: whether packets may be left out (skip_check.py); None: not tried. lasting: whether it all
    follows from the file, and not from the machine's state (time, memory).
    """

    count: int
    damage: str | None
    skips: bool | None = None
    lasting: bool = True


class DecoderProcesses:
    """So many workers, each decoding one video at a time, and no video longer than time_limit seconds.

    try_skipping: whether it is found out, too, of which videos packets may be left out (skip_check.py).
    """

    def __init__(self, workers, time_limit, try_skipping=False):
        self._time_limit = time_limit
        pairs = [socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(workers)]
        self._sockets = [ours for ours, _ in pairs]
        theirs = [str(their.fileno()) for _, their in pairs]
        # A session of its own: a Ctrl-C of the terminal is for us, and we can end all of it at once.
        self._keepers = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, _LIB, str(time_limit), str(int(try_skipping)), *theirs],
            pass_fds=map(int, theirs), stdin=subprocess.DEVNULL, start_new_session=True,
            env=os.environ | {"OPENBLAS_NUM_THREADS": "1"}  # threads are no good to a process that forks
            | ({"OPENCV_FFMPEG_LOGLEVEL": _WARNINGS} if try_skipping else {}),
        )  # fmt: skip
        for _, their in pairs:
            their.close()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()

    def close(self):
        """End all processes, whatever they are at."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._keepers.pid, signal.SIGKILL)
        self._keepers.wait()
        for ours in self._sockets:
            ours.close()

    def decode(self, paths):
        """Yield (path, Outcome) of every path, in the order in which they are done. Raises RuntimeError for a bug."""
        tasks = enumerate(paths)
        given = {ours: deque() for ours in self._sockets}
        with selectors.DefaultSelector() as selector:
            for ours in self._sockets:
                self._give(ours, given[ours], tasks)
                selector.register(ours, selectors.EVENT_READ)
            while any(given.values()):
                for key, _ in selector.select():
                    ours = key.fileobj
                    for number, *answer in _messages(ours):
                        # A process that was killed just after it had answered: its keeper has answered, too.
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
    """What has arrived: [number of the video, ...] each. Raises RuntimeError if the other side is gone."""
    flags = 0
    while True:
        try:
            message = ours.recv(_MESSAGE, flags)
        except BlockingIOError:
            return
        except ConnectionResetError:
            message = b""
        if not message:
            raise RuntimeError("a decoding process has failed; its traceback is above")
        yield json.loads(message)
        flags = socket.MSG_DONTWAIT


# ------------------------------------------------------------------------------------- the other side


def keep(arguments):
    """The program of the keepers, one for each socket.

    arguments (str): seconds a video, whether to try skipping (0 or 1), the sockets' descriptors.
    """
    time_limit, try_skipping, descriptors = float(arguments[0]), bool(int(arguments[1])), list(map(int, arguments[2:]))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    gc.freeze()  # what is here is not to be touched, hence copied, by those who are forked
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
    """Let decoding processes answer until there are no more videos, and answer for those that cannot."""
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
            with contextlib.suppress(BlockingIOError):  # nothing there: it was not decoding
                task = theirs.recv(_MESSAGE, socket.MSG_DONTWAIT)
                if not task:
                    return
                theirs.send(json.dumps([int(task.split(b" ", 1)[0]), "died", -status]).encode())
        elif status != _NEXT:
            return


def _decode(theirs, time_limit, try_skipping):
    """Decode and answer until a video is not sound. Returns an exit status.

    A task is taken off the socket when it is answered: the first one there is that which the process is at.
    """
    complaints = _Complaints() if try_skipping else None
    while task := theirs.recv(_MESSAGE, socket.MSG_PEEK):
        number, path = task.split(b" ", 1)
        # Nobody handles the alarm: it ends the process, even inside the decoder.
        signal.setitimer(signal.ITIMER_REAL, time_limit)
        outcome = decode_video(os.fsdecode(path), complaints)
        signal.setitimer(signal.ITIMER_REAL, 0)
        theirs.send(json.dumps([int(number), "decoded", *astuple(outcome)]).encode())
        theirs.recv(_MESSAGE)
        if outcome.damage:
            return _NEXT
    return _DONE


class _Complaints:
    """What FFmpeg says of the videos that this process decodes. OpenCV prints it, to C's standard output."""

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


def decode_video(path, complaints=None):
    """The Outcome of decoding a video to its end, in this process.

    With _Complaints, it says whether packets may be left out, too. Not of a video that FFmpeg complains of: how it
    conceals damage depends on all that it has decoded before.
    """
    skips = None
    if complaints is not None:
        complaints.come()  # those of the last video's check are not of this one
    try:
        known = sample_frames(path, lambda count: (), lambda places, frame: None, _NothingKnown())
        if complaints is not None and not known.damage:
            skips = not complaints.come() and skipping_is_exact(path, known.count)
    except BadVideo as error:
        return Outcome(0, error.reason[:_REASON])
    except (cv2.error, MemoryError) as error:
        text = " ".join(str(error).split()) or "out of memory"
        return Outcome(0, f"the decoder gives up: {text}"[:_REASON], lasting=False)
    return Outcome(known.count, known.damage, skips)
