"""What a check has found."""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

# Kinds of findings, in the order of the report.
KINDS = {
    "options": "Options that do not fit the data",
    "split": "Splits that cannot be read",
    "wrong kind": "Records of a kind of LMDB other than the expected one",
    "record": "Records and lines that cannot be read",
    "label": "Labels out of range",
    "class": "Classes without a readable video",
    "test videos": "Test videos that do not fit TEST.DATASET_SIZE",
    "test clips": "Test videos whose clips do not fit TEST.NUM_TEST_CLIPS",
    "ground truth": "True labels (FILENAME_GT) that do not fit the test videos",
    "file": "Videos that cannot be opened",
    "undecodable": "Videos that do not decode",
    "damaged": "Damaged videos (used with the frames that decode)",
    "short": "Videos shorter than a clip (their frames are repeated)",
}

# What is unusual about sound data, in the order of the report: of a split, and the kinds of video.survey.
REMARKS = {
    "one class": "Training data of a single class (nothing can be learned from it)",
    "long": "Long videos",
    "size": "Videos whose picture changes its size (scaled to that of a clip's first frame)",
    "format": "Videos whose pixel format changes",
    "rotation": "Videos with a display matrix (turned as it says, unless DATALOADER.AS_STORED)",
    "streams": "Files with several video streams",
    "rate": "Videos whose frame rate changes or is far from 30 (a clip spans another time)",
}

_KEPT = 10_000  # findings of a kind that are kept; the rest are only counted


class Findings:
    """What was found, by kind: how often, and the first (where, what) of each. False if nothing was found.

    Args:
        titles: {kind: title} in the order of the report.
    """

    def __init__(self, titles: Mapping[str, str] = KINDS) -> None:
        self._titles = titles
        self.counts: Counter[str] = Counter()
        self.kept: dict[str, list[tuple[str, str]]] = {kind: [] for kind in titles}

    def __bool__(self) -> bool:
        return bool(self.counts)

    def add(self, kind: str, where: str, what: str) -> None:
        """Note a finding: a kind; the file, record or video; and what is wrong with it."""
        self.counts[kind] += 1
        if len(self.kept[kind]) < _KEPT:
            self.kept[kind].append((where, what))

    def as_dict(self) -> dict[str, dict[str, Any]]:
        """For JSON: {kind: {title, count, first: [{where, what}]}} of the kinds found."""
        return {
            kind: {
                "title": title,
                "count": self.counts[kind],
                "first": [{"where": where, "what": what} for where, what in self.kept[kind]],
            }
            for kind, title in self._titles.items()
            if self.counts[kind]
        }

    def lines(self, examples: int) -> Iterator[str]:
        """For people: the lines of a report with the first examples of each kind."""
        for kind, title in self._titles.items():
            if self.counts[kind]:
                yield f"{title}: {self.counts[kind]}"
                for where, what in self.kept[kind][:examples]:
                    yield f"    {where}: {what}"
                if self.counts[kind] > examples:
                    yield f"    ... and {self.counts[kind] - examples} more"
