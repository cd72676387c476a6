"""Cache of what decoding a video revealed: frame count, damage. In memory, and in a file that runs may share."""

import json
import logging
import os
import stat
import zlib
from dataclasses import astuple, dataclass, field
from threading import Lock
from types import NoneType
from typing import NamedTuple

from video.container import DECODER
from video.formats import UNSAFE_FORMATS
from video.pixels import TURNS, Turn

logger = logging.getLogger(__name__)

MAX_FRAMES = 10000  # of a video; the rest is ignored

_LONGEST_LINE = 1 << 20  # bytes of the file; paths and reports of damage are far shorter


class Fingerprint(NamedTuple):
    """Identifies the content of a video: if the content changes, so does this.

    content: size of a file in bytes, or a checksum. modified: time of the last change in nanoseconds. as_stored: see
    sampling.open_video; with several streams, another one may be read.
    """

    content: int
    modified: int
    as_stored: bool = False


@dataclass(frozen=True, slots=True)
class VideoFacts:
    """What is known of a video.

    Attributes:
        count: F, the number of frames that decode; 0 for a bad video.
        damage: what is damaged (None: nothing found), or the reason for a bad video. The loaders do not cache bad
            videos, only the data check does: it can identify a video that crashes the decoder.
        skips: whether packets may be left out (skip_check.py); None: not tried.
        reorder: if so, how many packets must follow a frame's to know its place (packets.reorder_depth).
        closed: if so, whether reading may begin at any keyframe (skip_check.py).
        turn: how frames are turned and mirrored (pixels.Turn), if they are not wanted as stored.
        remarks: {kind: what is unusual about a sound video}; kinds are those of survey.py.
        format: name of the container's format, which need not be found out again, where packets may be left out.
        length: the container's stated_length; another one shows that the content has changed. None: not noted.
    """

    count: int
    damage: str | None
    skips: bool | None = None
    reorder: int = 0
    closed: bool = False
    turn: Turn = None
    remarks: dict[str, str] = field(default_factory=dict)
    format: str = ""
    length: int | None = field(default=None, compare=False)

    def __post_init__(self):
        """Facts also come from files and other processes: TypeError or ValueError for what cannot be any."""
        if isinstance(self.turn, list):  # from JSON
            object.__setattr__(self, "turn", tuple(self.turn))
        for name, kinds in _KINDS.items():
            if type(getattr(self, name)) not in kinds:
                raise TypeError(f"{name}: expected {kinds}, got {getattr(self, name)!r}")
        if not (0 <= self.count <= MAX_FRAMES and 0 <= self.reorder < 1 << 31):
            raise ValueError(f"numbers out of range: {self.count}, {self.reorder}")
        if self.turn not in (None, *TURNS):
            raise ValueError(f"expected a quarter turn, got {self.turn}")
        if not all(type(text) is str for text in (*self.remarks, *self.remarks.values())):
            raise TypeError(f"expected texts, got {self.remarks}")
        if not UNSAFE_FORMATS.isdisjoint(self.format.split(",")):
            raise ValueError(f"expected the format of a video, got {self.format}")


_KINDS: dict[str, tuple[type, ...]] = {
    "count": (int,), "damage": (str, NoneType), "skips": (bool, NoneType), "reorder": (int,), "closed": (bool,),
    "turn": (tuple, NoneType), "remarks": (dict,), "format": (str,), "length": (int, NoneType),
}  # fmt: skip


class VideoFactsCache:
    """The facts of every video decoded so far; threads may share it. A video that has changed is unknown again.

    With a file, it also outlives the process. The file has a line per video, appended when the video is first decoded
    and read when the next process starts. Processes may share it: a line is appended by a single write and carries its
    checksum, so whatever else the file contains is ignored. A problem with the file is only a warning: without it,
    videos are decoded to their end again.
    """

    def __init__(self, file: str | os.PathLike | None = None):
        self._facts: dict[str, tuple[Fingerprint, VideoFacts]] = {}
        self._lock = Lock()
        self._file = file
        if file is not None:
            self._warn_of_problems(self._load)

    def get(self, name: str, fingerprint: Fingerprint) -> VideoFacts | None:
        """The facts of the video of this name and fingerprint, or None."""
        known, facts = self._facts.get(name, (None, None))
        return facts if known == fingerprint else None

    def all(self) -> list[VideoFacts]:
        """The facts of every video, in the order in which they came."""
        return [facts for _, facts in self._facts.values()]

    def put(self, name: str, fingerprint: Fingerprint, facts: VideoFacts) -> None:
        """Remember the facts of the video of this name and fingerprint."""
        with self._lock:
            self._facts[name] = fingerprint, facts
            if self._file is not None:
                self._warn_of_problems(self._append, name, fingerprint, facts)

    def _warn_of_problems(self, action, *arguments):
        """Call action; after a failure continue without the file."""
        try:
            action(*arguments)
        except OSError as error:
            logger.warning("Frame counts are not remembered in %s: %s", self._file, error.strerror or error)
            self._file = None

    def _load(self):
        with open(self._open(os.O_RDONLY), "rb") as lines:
            for line in iter(lambda: lines.readline(_LONGEST_LINE), b""):
                if (entry := _decode(line)) is not None:
                    name, fingerprint, facts = entry
                    self._facts[name] = fingerprint, facts

    def _append(self, name, fingerprint, facts):
        descriptor = self._open(os.O_WRONLY | os.O_APPEND)
        try:
            os.write(descriptor, _encode(name, fingerprint, facts))
        finally:
            os.close(descriptor)

    def _open(self, flags):
        # O_NONBLOCK, as opening a FIFO would block forever.
        descriptor = os.open(self._file, flags | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise OSError("it is not a regular file")
        return descriptor


def _encode(name, fingerprint, facts):
    """A line, with its newline in front: a line that a killed process left unfinished spoils no other."""
    content = json.dumps([DECODER, name, fingerprint, astuple(facts)]).encode()
    return b"\n%08x %s" % (zlib.crc32(content), content)


def _decode(line):
    """(name, Fingerprint, VideoFacts), or None if the line is not such an entry of this decoder."""
    checksum, _, content = line.rstrip(b"\n").partition(b" ")
    if not content or checksum != b"%08x" % zlib.crc32(content):
        return None
    try:
        decoder, name, fingerprint, facts = json.loads(content)
        if decoder != DECODER or not isinstance(name, str):
            return None
        return name, Fingerprint(*fingerprint), VideoFacts(*facts)
    except (TypeError, ValueError, RecursionError):  # a line of another version, of another shape
        return None
