"""Videos that cannot be used, or only in part: the exception, and a register of them for one run."""

import logging
import threading
from collections.abc import Mapping

from utils.errors import UserError

logger = logging.getLogger(__name__)


class BadVideo(Exception):
    """A video that yields no frame.

    Attributes:
        name: the video's name (str), usually its path.
        reason: what is wrong with it (str), one line.
        lasting: whether that follows from the video, and not from the state of the machine (disk, memory).
    """

    def __init__(self, name: str, reason: str, lasting: bool = True):
        super().__init__(f"{name}: {reason}")
        self.name = name
        self.reason = reason
        self.lasting = lasting


class BadVideos:
    """The bad, damaged and unusual videos of a run, each logged once. Loaders and threads may share one.

    Args:
        max_bad: more distinct bad videos than this raise a UserError that lists them; None: no limit.
    """

    def __init__(self, max_bad: int | None = None):
        self._max_bad = max_bad
        self._bad: dict[str, str] = {}
        self._damaged: dict[str, str] = {}
        self._remarks: set[tuple[str, str]] = set()
        self._lock = threading.Lock()

    @property
    def paths(self) -> list[str]:
        """Names of the bad videos so far, in the order in which they were found."""
        with self._lock:
            return list(self._bad)

    def known(self) -> tuple[dict[str, str], dict[str, str]]:
        """Everything noted so far, for merge() in another process."""
        with self._lock:
            return dict(self._bad), dict(self._damaged)

    def merge(self, known: tuple[Mapping[str, str], Mapping[str, str]]) -> None:
        """Note what another process has noted. Raises UserError if that makes too many bad videos."""
        bad, damaged = known
        for name, reason in bad.items():
            self.add(BadVideo(name, reason))
        for name, damage in damaged.items():
            self.add_damaged(name, damage)

    def add(self, error: BadVideo) -> None:
        """Note a bad video. Raises UserError if that makes too many."""
        with self._lock:
            if error.name not in self._bad:
                logger.warning("Bad video %r: %s", error.name, error.reason)
                self._bad[error.name] = error.reason
            if self._max_bad is not None and len(self._bad) > self._max_bad:
                listed = "; ".join(f"{name!r} ({reason})" for name, reason in self._bad.items())
                raise UserError(
                    f"{len(self._bad)} bad videos, DATALOADER.MAX_BAD_IMAGES is {self._max_bad}: {listed}"
                )

    def add_damaged(self, name: str, damage: str) -> None:
        """Note a video that is used although it is damaged."""
        with self._lock:
            if name not in self._damaged:
                logger.warning("Damaged video %r: %s", name, damage)
                self._damaged[name] = damage

    def add_remark(self, name: str, kind: str, remark: str) -> None:
        """Note what is unusual about a sound video; kind is one of survey.py."""
        with self._lock:
            if (name, kind) not in self._remarks:
                logger.warning("Unusual video %r: %s", name, remark)
                self._remarks.add((name, kind))
