"""Running the ffmpeg program."""

import re
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path

from utils.errors import UserError
from video.formats import UNSAFE_FORMATS

# Lines that say that it failed, after a line that says why.
UNSPECIFIC = (
    "Could not write header", "Error initializing output stream", "Error while opening encoder", "Conversion failed",
    "Task finished with error", "Terminating thread", "Nothing was written into output file",
)


class FfmpegError(Exception):
    """Why ffmpeg failed, in one line."""


class ContainerError(FfmpegError):
    """The output's container cannot hold one of the streams."""


class Ffmpeg:
    """The ffmpeg program, for several threads. It reads the given file only, and none that this one names.

    Raises UserError if the program at a path is not ffmpeg.
    """

    def __init__(self, program: str):
        self.program = program
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[bytes]] = set()
        self._stopped = False
        formats = re.findall(r"^ *D[E ]? ?d? +(\S+)", self._list("-demuxers"), re.MULTILINE)
        if not formats:
            raise UserError(f"{program}: expected ffmpeg, got a program that lists no formats with -demuxers")
        self._formats = ",".join(sorted(set(formats) - UNSAFE_FORMATS))

    def has_encoder(self, name: str) -> bool:
        return re.search(rf"^ *V\S* +{name} ", self._list("-encoders"), re.MULTILINE) is not None

    def convert(self, source: Path, target: Path, options: Sequence[str]) -> None:
        """Write `target` anew. Raises FfmpegError."""
        status, messages = self._run(source, [*options, f"file:{target}"])
        if status:
            kind = ContainerError if "Could not write header" in messages else FfmpegError
            raise kind(f"ffmpeg ended with status {status}: {reason(messages)}")
        if not target.exists() or not target.stat().st_size:
            raise FfmpegError(f"ffmpeg wrote nothing: {reason(messages)}")

    def check_video(self, source: Path) -> None:
        """Raise FfmpegError if a file has no video stream (cover art is none), or is a text that names other files."""
        # Without this, ffmpeg would write the audio or the cover art alone. V is any video stream but cover art.
        options = ["-map", "0:V", "-c", "copy", "-t", "0", "-f", "null", "-"]
        _, messages = self._run(source, options, ["-format_whitelist", self._formats])
        if script := re.search(r"^\[(\S+) @ .*not on whitelist", messages, re.MULTILINE | re.IGNORECASE):
            raise FfmpegError(f"expected a video, got a text or playlist (to ffmpeg: {script[1]})")
        if "matches no streams" in messages:
            raise FfmpegError("has no video stream")
        # Whether it can be read is for the conversion to say.

    def stop(self) -> None:
        """End what runs; nothing more is started."""
        with self._lock:
            self._stopped = True
            for process in self._running:
                process.kill()

    def _run(self, source: Path, output: Sequence[str], limits: Sequence[str] = ()) -> tuple[int, str]:
        """The exit status, and the messages. Raises FfmpegError if the program was killed or stop() called."""
        # file:, as a name may look like a protocol; only files, as a video may be a playlist of addresses.
        command = [
            self.program, "-nostdin", "-v", "error", "-y", "-protocol_whitelist", "file", *limits,
            "-i", f"file:{source}", *output,
        ]
        with self._lock:
            if self._stopped:
                raise FfmpegError("stopped")
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
            )
            self._running.add(process)
        try:
            with process:
                messages = process.communicate()[1]
        finally:
            with self._lock:
                self._running.discard(process)
        if process.returncode < 0:
            raise FfmpegError(f"ffmpeg was killed by signal {-process.returncode}")
        return process.returncode, messages.decode(errors="replace")

    def _list(self, what: str) -> str:
        done = subprocess.run([self.program, "-v", "error", what], stdin=subprocess.DEVNULL, capture_output=True)
        return done.stdout.decode(errors="replace")


def reason(messages: str) -> str:
    """The last line of ffmpeg's messages that says something specific, shortened."""
    lines = [re.sub(r" @ 0x[0-9a-f]+\]", "]", line.strip()) for line in messages.split("\n") if line.strip()]
    specific = [line for line in lines if not any(words in line for words in UNSPECIFIC)]
    return (specific or lines or ["no message"])[-1][:300]
