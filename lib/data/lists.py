"""Lists of videos: one `path label[,label...]` per line, separated by the last whitespace. The first label counts."""

import codecs
import os
from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from data.labels import first_label
from utils.errors import UserError

_INT32 = range(-(1 << 31), 1 << 31)


def numbered_lines(lines: Iterable[bytes]) -> Iterator[tuple[int, bytes]]:
    """Yield (number from 1, stripped line). Blank lines at the end do not count; others come as b""."""
    after = 0  # the last line that is not blank
    for number, line in enumerate(lines, start=1):
        if line := line.strip():
            for blank in range(after + 1, number):
                yield blank, b""
            after = number
            yield number, line


def list_lines(path: str | os.PathLike) -> Iterator[tuple[int, bytes]]:
    """numbered_lines of the list at path. Raises UserError as open_list does."""
    with open_list(path) as file:
        yield from numbered_lines(file)


def iter_list(lines: Iterable[bytes], name: str) -> Iterator[tuple[bytes, list[int]]]:
    """Yield (path, labels) of every line.

    Args:
        lines: an open binary file, for example. Blank lines are allowed only at the end, since a line's number is its
            video's index.
        name: identifies the list in errors.

    Raises:
        UserError: a line is not an entry; the message begins with name:number.
    """
    for number, line in numbered_lines(lines):
        if not line:
            raise UserError(f"{name}:{number}: an empty line where 'path label' was expected")
        try:
            entry = parse_line(line)
        except ValueError as error:
            raise UserError(f"{name}:{number}: {error}") from None
        first_label(entry[1], f"{name}:{number}", name)
        yield entry


def parse_line(line: bytes) -> tuple[bytes, list[int]]:
    """(path, labels) of a stripped line. Raises ValueError if it is not an entry."""
    path, text = split_line(line)
    try:
        labels = [int(label) for label in text.split(b",")]
    except ValueError:
        labels = []
    if not path or not labels or any(label not in _INT32 for label in labels):
        shown = line[:120].decode("utf-8", "backslashreplace")
        raise ValueError(f"expected 'path label[,label...]', got {shown!r}")
    return path, labels


def split_line(line: bytes) -> tuple[bytes, bytes]:
    """(path, labels) of a stripped line. The path is empty if there is no whitespace in the line."""
    parts = line.rsplit(None, 1)
    return (parts[0], parts[1]) if len(parts) == 2 else (b"", line)


def open_list(path: str | os.PathLike) -> BinaryIO:
    """Open a list to read its bytes. Raises UserError if that fails, or if it begins with a byte order mark.

    The mark would become part of the first path, and a list in UTF-16 contains no usable path.
    """
    try:
        file = open(path, "rb")  # noqa: SIM115
    except OSError as error:
        raise UserError(f"cannot read the list {path}: {error.strerror}") from None
    if file.peek(3).startswith((codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        file.close()
        raise UserError(f"{path}: begins with a byte order mark: expected plain UTF-8 (in an editor: without BOM)")
    return file


class VideoList:
    """A list in memory: its text, and 12 bytes per line."""

    def __init__(self, path: str | os.PathLike):
        """Read and check the list at path. Raises UserError for a bad line, an empty list, a missing file."""
        self.name = str(path)
        with open_list(path) as file:
            self._text = file.read()
        self._starts = array("Q")
        self._labels = array("i")
        for _, labels in iter_list(self._lines(), self.name):
            self._labels.append(labels[0])
        if not self._labels:
            raise UserError(f"{self.name}: the list is empty")

    def __len__(self) -> int:
        return len(self._labels)

    def path(self, index: int) -> str:
        """Path of the video of a line, counted from 0."""
        path, _ = split_line(self._line(self._starts[index]).strip())
        return path.decode("utf-8", "surrogateescape")

    def paths(self) -> list[str]:
        """Paths of all lines, in order."""
        return [self.path(index) for index in range(len(self))]

    def only_label(self) -> int | None:
        """The label of all lines; None if there are several."""
        first = self._labels[0]
        return first if all(label == first for label in self._labels) else None

    def label(self, index: int) -> int:
        """First label of a line, counted from 0."""
        return self._labels[index]

    def _lines(self):
        start = 0
        while start < len(self._text):
            self._starts.append(start)
            line = self._line(start)
            start += len(line)
            yield line

    def _line(self, start):
        end = self._text.find(b"\n", start)
        return self._text[start:] if end < 0 else self._text[start : end + 1]


def read_list(path: str | os.PathLike) -> VideoList:
    """The list at path, read and checked."""
    return VideoList(Path(path))
