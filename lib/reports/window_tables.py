"""Predictions for the windows of long videos as CSV and JSON, written window by window: nothing is kept."""

import csv
import io
from collections.abc import Callable
from typing import IO

from utils.collections import to_json


def clock_time(seconds: float) -> str:
    """Seconds as h:mm:ss, with what digits after the point there are."""
    whole, millionths = divmod(round(seconds * 1_000_000), 1_000_000)
    minutes, second = divmod(whole, 60)
    text = f"{minutes // 60}:{minutes % 60:02}:{second:02}"
    return f"{text}.{millionths:06}".rstrip("0") if millionths else text


def as_line(start: float, end: float, top: list[dict]) -> str:
    """A line for the screen: when, and the first of the classes, which are as in prediction_tables.as_text."""
    best = top[0]
    name = best["class_name"] or f"class {best['class_id']}"
    return f"{clock_time(start):>10} - {clock_time(end):<10} {100 * best['probability']:6.2f} %  {name}"


class WindowCsv:
    """A row for each window: video, start, end, then id, name and probability of its classes; one for an error.

    Args:
        write: takes bytes; called with whole rows (utils.files.growing_file).
        top: number of classes.
    """

    def __init__(self, write: Callable[[bytes], None], top: int):
        self._write, self._video = write, ""
        names = (f"{name}_{rank}" for rank in range(1, top + 1) for name in ("class_id", "class_name", "probability"))
        self._columns = ["video", "start", "end", *names, "error"]
        self._row(dict(zip(self._columns, self._columns, strict=True)))

    def begin(self, video: str) -> None:
        """The windows of a video follow."""
        self._video = video

    def add(self, start: float, end: float, top: list[dict]) -> None:
        """A window, in seconds, and its classes as in prediction_tables.as_text."""
        row = {"video": self._video, "start": start, "end": end}
        for rank, best in enumerate(top, start=1):
            row |= {f"{name}_{rank}": value for name, value in best.items()}
        self._row(row)

    def end(self, damage: str | None, error: str | None) -> None:
        """The end of a video, or what is in the way of reading it further."""
        if error is not None:
            self._row({"video": self._video, "error": error})

    def finish(self) -> None:
        """All videos have been added: every row is in the file already."""

    def _row(self, row):
        text = io.StringIO()
        csv.DictWriter(text, self._columns, lineterminator="\n").writerow(row)
        self._write(text.getvalue().encode("utf-8", "surrogateescape"))


class WindowJson:
    """{**about, "videos": [{"video": path, "windows": [{"start", "end", "top"}, ...], "damage" or "error"}, ...]}.

    Args:
        file: open for writing text; the JSON in it is complete after finish().
        about: what to say of all videos.
    """

    def __init__(self, file: IO[str], **about: object):
        self._file, self._between = file, ""
        file.write(to_json(about)[:-1] + ', "videos": [')
        self._between_videos = "\n"

    def begin(self, video: str) -> None:
        """As WindowCsv."""
        self._file.write(f'{self._between_videos}{{"video": {to_json(video)}, "windows": [')
        self._between_videos, self._between = ",\n", "\n"

    def add(self, start: float, end: float, top: list[dict]) -> None:
        """As WindowCsv."""
        self._file.write(self._between + to_json({"start": start, "end": end, "top": top}))
        self._between = ",\n"

    def end(self, damage: str | None, error: str | None) -> None:
        """As WindowCsv."""
        said = {"damage": damage, "error": error}
        self._file.write("]" + "".join(f', "{key}": {to_json(text)}' for key, text in said.items() if text) + "}")

    def finish(self) -> None:
        """All videos have been added."""
        self._file.write("\n]}\n")
