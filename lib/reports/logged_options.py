"""The options of a run, read back from its log, where core.config.print_cfg or the Caffe2 program wrote them."""

import ast
import re
from collections.abc import Iterable, Iterator
from typing import Any

from reports.log_parser import RECORD_PREFIX, log_lines
from utils.files import StrPath

_TITLE = re.compile(rf"{RECORD_PREFIX}Training with config:")
_BEGIN = re.compile(rf"{RECORD_PREFIX}(?P<text>\{{.*)")
_MOST_LINES = 2000  # of a configuration


def read_options(path: StrPath) -> list[dict[str, Any]]:
    """Every configuration in a log, in order, as nested dictionaries; damaged ones are skipped.

    A run that was resumed has several, and its test one of its own.

    Raises:
        UserError: the file cannot be read.
    """
    return list(find_options(log_lines(path)))


def find_options(lines: Iterable[str]) -> Iterator[dict[str, Any]]:
    """See read_options."""
    lines = iter(lines)
    for line in lines:
        if _TITLE.fullmatch(line.rstrip()) and (options := _read_dictionary(lines)) is not None:
            yield options


def _read_dictionary(lines: Iterator[str]) -> dict[str, Any] | None:
    match = _BEGIN.fullmatch(next(lines, "").rstrip())
    if match is None:
        return None
    text = [match["text"]]
    while not text[-1].endswith("}"):  # those of groups are followed by commas
        line = next(lines, None)
        if line is None or len(text) == _MOST_LINES:
            return None
        text.append(line.rstrip())
    try:
        options = ast.literal_eval("\n".join(text))
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None
    return options if isinstance(options, dict) else None
