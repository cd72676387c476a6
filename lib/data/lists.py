"""Lists of videos: one `path label[,label...]` a line, the last blank separates. The first label counts."""

import codecs
from array import array
from pathlib import Path

from utils.errors import UserError

_INT32 = range(-(1 << 31), 1 << 31)


def iter_list(lines, name):
    """Yield (path, labels) of every line: bytes and a list of int.

    lines is an iterable of bytes (an open binary file), name tells it in errors. Blank lines are fine at
    the end only, since a line's number is its video's index. Raises UserError with file:line for a line
    that is no entry.
    """
    blank = None
    for number, line in enumerate(lines, start=1):
        line = line.strip()
        if not line:
            blank = blank or number
            continue
        if blank:
            raise UserError(f"{name}:{blank}: an empty line where 'path label' was expected")
        try:
            entry = parse_line(line)
        except ValueError as error:
            raise UserError(f"{name}:{number}: {error}") from None
        yield entry


def parse_line(line):
    """(path, labels) of a stripped line: bytes and a list of int. Raises ValueError if it is no entry."""
    path, labels = split_line(line)
    try:
        labels = [int(label) for label in labels.split(b",")]
    except ValueError:
        labels = None
    if not path or labels is None or any(label not in _INT32 for label in labels):
        shown = line[:120].decode("utf-8", "backslashreplace")
        raise ValueError(f"expected 'path label[,label...]', got {shown!r}")
    return path, labels


def split_line(line):
    """(path, labels) of a stripped line, both bytes; path is empty if there is no blank in the line."""
    parts = line.rsplit(None, 1)
    return (parts[0], parts[1]) if len(parts) == 2 else (b"", line)


def open_list(path):
    """Open a list to read its bytes. Raises UserError if it cannot be, or begins with a byte order mark.

    The mark would become part of the first path, and a list that is UTF-16 has no paths at all.
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
    """A list in memory: the text as it is, and 12 bytes a line beside it."""

    def __init__(self, path):
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

    def __len__(self):
        return len(self._labels)

    def path(self, index):
        """Path of the video of a line, counted from 0 (str)."""
        path, _ = split_line(self._line(self._starts[index]).strip())
        return path.decode("utf-8", "surrogateescape")

    def paths(self):
        """Paths of all lines, in order (list of str)."""
        return [self.path(index) for index in range(len(self))]

    def label(self, index):
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


def read_list(path):
    """The list at path, read and checked, as a VideoList."""
    return VideoList(Path(path))
