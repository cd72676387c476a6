"""Lists of videos: one `path label[,label...]` per line. The first label counts.

Which part of a line is what follows from parse_line() alone, for every reader of lists.
"""

import codecs
import hashlib
import logging
import os
import re
from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from data.labels import first_label
from utils.errors import UserError
from video.formats import VIDEO_SUFFIXES

logger = logging.getLogger(__name__)

_INT32 = range(-(1 << 31), 1 << 31)
_SUFFIXES = tuple(map(str.encode, VIDEO_SUFFIXES))
_LABELS = re.compile(rb"[+-]?[0-9]+(?:,[+-]?[0-9]*)*")  # also what a typing error has made of labels: `3,`

# The lists that the default options and the scripts name, and how to get them.
_MAKE_OR_BRING = ("make it with process_data/kinetics/gen_py_list.py, or put the list of the Caffe2 program there "
                  "(see DATASET.md)")
_ORIGINS = {
    "trainlist.txt": _MAKE_OR_BRING,
    "vallist.txt": _MAKE_OR_BRING,
    "val_all_list.txt": _MAKE_OR_BRING,
    "trainlist_shuffle_rep.txt": "make it with process_data/kinetics/shuffle_list_rep.py (see DATASET.md)",
}

_warned: set[str] = set()  # lists whose further columns have been logged


class Entry(NamedTuple):
    """A line of a list; `rest` is what stands after the label, which is ignored."""

    path: bytes
    labels: list[int]
    rest: bytes = b""


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
            entry = read_entry(line, name, number)
        except ValueError as error:
            raise UserError(f"{name}:{number}: {error}") from None
        yield entry.path, entry.labels


def read_entry(line: bytes, name: str, number: int) -> Entry:
    """parse_line(line). Columns after the label, and further labels, are logged, once per list."""
    entry = parse_line(line)
    first_label(entry.labels, f"{name}:{number}", name)
    if entry.rest and name not in _warned:
        _warned.add(name)
        logger.warning("%s:%d: what stands after the label is ignored, here and in other lines: %s", name, number,
                       _shown(entry.rest))
    return entry


def parse_line(line: bytes) -> Entry:
    """The entry in a stripped line.

    If the first field ends like a video file and the second is a label, these two are the entry, as in the Caffe2
    program. Otherwise the last field is the label, and everything before it the path, which may contain spaces.

    Raises:
        ValueError: the line is not an entry, or could be read in both ways, e.g. `frames/x 3 300`.
    """
    fields = line.split(maxsplit=2)
    if len(fields) < 2:
        raise ValueError(f"expected 'path label[,label...]', got {_shown(line)}")
    if len(fields) == 2:
        return Entry(fields[0], _label_values(fields[1], line))
    first, second, rest = fields
    if _is_label(second) and _is_video(first):
        return Entry(first, _label_values(second, line), rest)
    path, last = line.rsplit(maxsplit=1)
    if _is_label(second) and _is_label(last) and not _is_video(path):
        raise ValueError(f"expected 'path label[,label...]', got {_shown(line)}: either {_shown(first)} with the label "
                         f"{_shown(second)}, or {_shown(path)} with the label {_shown(last)}")
    return Entry(path, _label_values(last, line))


def path_of(line: bytes) -> bytes:
    """The path in a stripped line, for readers that need no label. Raises ValueError as parse_line does.

    A line that is not an entry is a path if it is one field, or ends like a video file.
    """
    try:
        return parse_line(line).path
    except ValueError:
        if len(line.split(maxsplit=1)) == 1 or _is_video(line):
            return line
        raise


def format_line(path: bytes, label: int) -> bytes:
    """The line of a video, without its end. Raises ValueError for a path that would not be read back."""
    line = b"%s %d" % (path, label)
    try:
        readable = b"\n" not in path and parse_line(line.strip()) == Entry(path, [label])
    except ValueError:
        readable = False
    if not readable:
        shown = path.decode("utf-8", "backslashreplace")
        raise ValueError(f"{shown!r}: a list cannot hold this path: rename it")
    return line


def _is_video(path: bytes) -> bool:
    return path.lower().endswith(_SUFFIXES)


def _is_label(field: bytes) -> bool:
    return _LABELS.fullmatch(field) is not None


def _label_values(field: bytes, line: bytes) -> list[int]:
    """The labels of a field. Raises ValueError, which shows the line."""
    if len(field) < 10 and field.isdigit():  # nearly every line of the 25 million of a training
        return [int(field)]
    try:
        labels = [int(label) for label in field.split(b",")] if _is_label(field) else []
    except ValueError:
        labels = []
    if not labels or not all(map(_INT32.__contains__, labels)):
        raise ValueError(f"expected 'path label[,label...]', got {_shown(line)}")
    return labels


def _shown(text: bytes) -> str:
    return repr(text[:120].decode("utf-8", "backslashreplace"))


def open_list(path: str | os.PathLike) -> BinaryIO:
    """Open a list to read its bytes. Raises UserError if that fails, or if it begins with a byte order mark.

    The mark would become part of the first path, and a list in UTF-16 contains no usable path.
    """
    try:
        file = open(path, "rb")  # noqa: SIM115
    except OSError as error:
        hint = origin_of(path) if isinstance(error, FileNotFoundError) else ""
        raise UserError(f"cannot read the list {path}: {error.strerror}{hint}") from None
    if file.peek(3).startswith((codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        file.close()
        raise UserError(f"{path}: begins with a byte order mark: expected plain UTF-8 (in an editor: without BOM)")
    return file


def origin_of(path: str | os.PathLike) -> str:
    """For messages about a missing list: `: how to get it` if the options or scripts name it by default, else ''."""
    origin = _ORIGINS.get(Path(path).name)
    return f": {origin}" if origin else ""


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
        path = parse_line(self._line(self._starts[index]).strip()).path
        return path.decode("utf-8", "surrogateescape")

    def paths(self) -> list[str]:
        """Paths of all lines, in order."""
        return [self.path(index) for index in range(len(self))]

    def digest(self) -> str:
        """SHA-256 of the file, hexadecimal."""
        return hashlib.sha256(self._text).hexdigest()

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
