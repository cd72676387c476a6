"""Videos decoded to their end in separate processes, so that a crash of the decoder costs one video.

    with DecoderProcesses(workers=2, time_limit=60) as decoders:
        for path, outcome in decoders.decode(paths):
            ...

A process takes video after video as long as the videos are sound. After one that is not, another process takes its
place: whatever a bad file has done to its memory is gone with it. A process for every video would be slow: starting one
takes several times as long as decoding a small video.
"""

import contextlib
import json
import os
import resource
import select
import signal
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import astuple, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Self

from video.bad_videos import BadVideo
from video.sampling import open_video
from video.video_facts import VideoFacts

_LIB = str(Path(__file__).resolve().parents[1])
_PROGRAM = """
import sys
sys.path.insert(0, sys.argv[1])
from video.decoder_processes import answer_tasks
answer_tasks(*map(float, sys.argv[2:]))
"""

_AHEAD = 8  # videos given to a process, so that it need not wait for us between two
_MESSAGE = 1 << 16  # bytes; longer than any path or answer
_REASON = 2000  # characters
_LEARNING = 2.5  # learning which packets may be left out takes at most twice as long as decoding

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
    """Processes that each decode one video at a time.

    Args:
        workers: their number.
        time_limit: seconds that a video may take to be decoded, and again to learn of it whether packets may be left
            out (skip_check.py); if that fails, the video is none the worse.
        as_stored: see sampling.open_video.
    """

    def __init__(self, workers: int, time_limit: float, as_stored: bool = False):
        self._time_limit = time_limit
        self._workers = [_Worker(time_limit, as_stored) for _ in range(workers)]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """End all processes, whatever they are doing."""
        for worker in self._workers:
            worker.end()

    def decode(self, paths: Iterable[str]) -> Iterator[tuple[str, Outcome]]:
        """Yield (path, Outcome) of every path, in order of completion. Raises RuntimeError for a bug."""
        paths = iter(paths)
        for worker in self._workers:
            worker.give(islice(paths, _AHEAD))
        while busy := [worker for worker in self._workers if worker.given]:
            for worker in select.select(busy, [], [])[0]:
                kind, value = worker.receive()
                if kind == "decoded":
                    worker.examined = VideoFacts(*value)
                    continue
                outcome = self._outcome(worker.examined, kind, value)
                yield worker.finish(sound=kind == "learnt" and not outcome.facts.damage), outcome
                worker.give(islice(paths, 1))

    def renew(self) -> None:
        """Start the processes now that decode() would have to start, as the last videos were not sound."""
        for worker in self._workers:
            worker.renew()

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


class _Worker:
    """A decoding process, and the paths given to it that it has not finished, the one being decoded first.

    examined: VideoFacts of that one, once it is decoded. spent: whether the process takes no more videos.
    """

    def __init__(self, time_limit: float, as_stored: bool):
        self.given: deque[str] = deque()
        self.examined: VideoFacts | None = None
        self._arguments = [str(time_limit), str(int(as_stored))]
        self._start()

    def fileno(self) -> int:
        """Of the socket that the process answers on."""
        return self._socket.fileno()

    def give(self, paths: Iterable[str]) -> None:
        for path in paths:
            self.given.append(path)
            if self.spent:
                self.renew()
            else:
                self._send(path)

    def finish(self, sound: bool) -> str:
        """Forget the video that was being decoded, after whose end no process is left if it was not sound.

        Returns its path.
        """
        self.examined = None
        path = self.given.popleft()
        self.spent = not sound
        if self.given:
            self.renew()
        return path

    def receive(self) -> list[Any]:
        """Wait for an answer (see answer_tasks), or for the end of the process: ["died", signal].

        Raises RuntimeError if it ends in another way.
        """
        try:
            message = self._socket.recv(_MESSAGE)
        except ConnectionResetError:  # it has ended, and comes before what was answered
            message = self._socket.recv(_MESSAGE)
        if message:
            return json.loads(message)
        status = self._process.wait()
        if status >= 0:
            raise RuntimeError("a decoding process failed; its traceback is above")
        return ["died", -status]

    def renew(self) -> None:
        """Start a process in place of one that takes no more videos."""
        if self.spent:
            self._process.wait()
            self._socket.close()
            self._start()
            for path in self.given:
                self._send(path)

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
        self._socket.close()

    def _start(self):
        self.spent = False
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            # In a new session, which a Ctrl-C at the terminal does not reach.
            self._process = subprocess.Popen(
                [sys.executable, "-c", _PROGRAM, _LIB, str(theirs.fileno()), *self._arguments],
                pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, start_new_session=True,
                env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},
            )  # fmt: skip

    def _send(self, path):
        try:
            self._socket.send(os.fsencode(path))
        except (BrokenPipeError, ConnectionResetError):
            if len(self.given) == 1:  # it died while it had nothing to do; otherwise receive() finds out
                self.spent = True
                self.renew()


# ------------------------------------------------------------------------------------- the other side


def answer_tasks(descriptor: float, time_limit: float, as_stored: float) -> None:
    """The program of a decoding process. Decodes and answers until a video is not sound, or nobody asks.

    Answers about a video, as JSON: ["decoded", VideoFacts], then ["learnt", VideoFacts]; or ["failed", [reason,
    lasting]].
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    theirs = socket.socket(fileno=int(descriptor))

    def answer(kind, value):
        # The alarm has no handler: it ends the process, even inside the decoder.
        signal.setitimer(signal.ITIMER_REAL, _LEARNING * time_limit if kind == "decoded" else 0)
        theirs.send(json.dumps([kind, value]).encode())

    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # nobody waits for answers any more
        sound = True
        while sound and (task := theirs.recv(_MESSAGE)):
            signal.setitimer(signal.ITIMER_REAL, time_limit)
            try:
                video = open_video(os.fsdecode(task), bool(as_stored))
                facts = video.learn(lambda facts: answer("decoded", astuple(facts)))
                sound = not facts.damage
                answer("learnt", astuple(facts))
            except BadVideo as error:
                sound = False
                answer("failed", [error.reason[:_REASON], error.lasting])
            except MemoryError:
                sound = False
                answer("failed", ["the decoder runs out of memory", False])
