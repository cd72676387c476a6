"""What the first meeting of a video taught, remembered: in memory, and in a file that runs may share."""

import json
import logging
import os
import stat
import threading
import zlib
from dataclasses import astuple, dataclass

import cv2

logger = logging.getLogger(__name__)

# Another decoder may make more or less of a damaged file.
_DECODER = f"opencv-{cv2.__version__}"


@dataclass(frozen=True, slots=True)
class VideoFacts:
    """F, the number of a video's frames that decode, and what is damaged (None: nothing seen).

    F is 0 for a video that is bad; damage is the reason. The loaders do not remember bad videos, only
    dataset_check does: it can tell a video that crashes the decoder. skips: whether packets may be left out
    (skip_check.py); None: not tried.
    """

    count: int
    damage: str | None
    skips: bool | None = None


class VideoFactsCache:
    """What is VideoFacts of every video met; may be shared by threads. A changed file is met anew.

    With a file, it also outlives the process. The file has a line a video, which is appended when the video
    is met and read when the next process starts. Processes may share it: a line is appended by one write, and
    carries its checksum, so that whatever else may stand in the file is passed over. No problem with the file
    is more than a warning: without it, videos are met anew.
    """

    def __init__(self, file=None):
        self._known = {}
        self._lock = threading.Lock()
        self._file = file
        if file is not None:
            self._tell_problems(self._load)

    def get(self, path, status):
        """VideoFacts of the file at path with this os.stat_result, or None."""
        size, modified, known = self._known.get(path, (None, None, None))
        return known if (size, modified) == (status.st_size, status.st_mtime_ns) else None

    def put(self, path, status, known):
        """Remember what is VideoFacts of the file at path with this os.stat_result."""
        with self._lock:
            self._known[path] = status.st_size, status.st_mtime_ns, known
            if self._file is not None:
                self._tell_problems(self._append, path, status, known)

    def _tell_problems(self, action, *arguments):
        """Call action; after a failure go on without the file."""
        try:
            action(*arguments)
        except OSError as error:
            logger.warning("Frame counts are not remembered in %s: %s", self._file, error.strerror or error)
            self._file = None

    def _load(self):
        with open(self._open(os.O_RDONLY), "rb") as lines:
            for line in lines:
                if (entry := _decode(line)) is not None:
                    path, size, modified, *known = entry
                    self._known[path] = size, modified, VideoFacts(*known)

    def _append(self, path, status, known):
        descriptor = self._open(os.O_WRONLY | os.O_APPEND)
        try:
            os.write(descriptor, _encode(path, status.st_size, status.st_mtime_ns, *astuple(known)))
        finally:
            os.close(descriptor)

    def _open(self, flags):
        # O_NONBLOCK, as opening a FIFO would wait forever.
        descriptor = os.open(self._file, flags | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise OSError("it is no regular file")
        return descriptor


def _encode(path, size, modified, *known):
    """A line, with its newline in front: so what a process that died left behind spoils no line but its own."""
    content = json.dumps([_DECODER, path, size, modified, *known]).encode()
    return b"\n%08x %s" % (zlib.crc32(content), content)


def _decode(line):
    """[path, size, modified, count, damage, skips], or None if the line is none of ours."""
    checksum, _, content = line.rstrip(b"\n").partition(b" ")
    if not content or checksum != b"%08x" % zlib.crc32(content):
        return None
    decoder, *entry = json.loads(content)
    return entry if decoder == _DECODER else None
