"""The records of a split, each one checked."""

import itertools
from array import array
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from typing import TypeVar

import lmdb
import numpy as np
from tqdm import tqdm

from data.dataset_check.findings import Findings
from data.dataset_check.splits import Place, Split, TestPlan
from data.lmdb_reader import Lmdb
from data.records import SPATIAL_POSITIONS, RecordError, WrongKindError, label_problem, parse_test
from utils.errors import UserError

Entries = Iterable[tuple[Place, bytes]]
Record = TypeVar("Record")


@dataclass
class Scan:
    """What the records of a split say.

    Attributes:
        records: their number.
        videos: path -> place of its first record.
        labels: the distinct (path, label) of a training split.
        test_videos: video index -> path.
        test_labels: video index -> label, where the split has them.
    """

    records: int = 0
    videos: dict[str, Place] = field(default_factory=dict)
    labels: set[tuple[str, int]] = field(default_factory=set)
    test_videos: dict[int, str] = field(default_factory=dict)
    test_labels: dict[int, int] = field(default_factory=dict)


def scan_split(split: Split, findings: Findings) -> Scan:
    """Read and check every record; faults go into findings."""
    try:
        total = None if split.folder is None else Lmdb.open(split.folder).entries
        entries = tqdm(split.entries(), f"{split.name}: records", total, unit="", unit_scale=True)
        if split.test is None:
            scan = _scan_training(entries, split, findings)
        elif split.folder is None:
            scan = _scan_test_list(entries, split, split.test, findings)
        else:
            scan = _scan_test_lmdb(entries, split, split.test, findings)
    except (UserError, lmdb.Error) as error:
        findings.add("split", split.name, str(error))
        return Scan()
    if not scan.records:
        findings.add("split", split.name, f"{split.path}: the list is empty")
    return scan


def _scan_training(entries: Entries, split: Split, findings: Findings) -> Scan:
    scan, good = Scan(), set()
    for place, value in entries:
        scan.records += 1
        if value in good:  # a shuffled LMDB has each a hundred times
            continue
        record = _parsed(split.training_record, split, place, value, findings)
        if record is None:
            continue
        scan.videos.setdefault(record.path, place)
        if problem := label_problem(record.label, split.num_classes):
            findings.add("label", split.place_name(place), f"{problem} ({record.path})")
        else:
            good.add(value)
            scan.labels.add((record.path, record.label))
    return scan


def _parsed(parse: Callable[[Place, bytes], Record], split: Split, place: Place, value: bytes,
            findings: Findings) -> Record | None:
    """parse(place, value), or None with a finding for what it raises."""
    try:
        return parse(place, value)
    except RecordError as error:
        kind = "wrong kind" if isinstance(error, WrongKindError) else "record"
        findings.add(kind, split.place_name(place), str(error))
        return None


def _scan_test_list(entries: Entries, split: Split, test: TestPlan, findings: Findings) -> Scan:
    scan = Scan()
    for place, line in entries:
        scan.records += 1
        record = _parsed(split.training_record, split, place, line, findings)
        if record is None:
            continue
        scan.videos.setdefault(record.path, place)
        video = scan.records - 1
        scan.test_videos[video], scan.test_labels[video] = record.path, record.label
    _check_number_of_videos(range(scan.records), split.name, test.num_videos, findings)
    return scan


def _scan_test_lmdb(entries: Entries, split: Split, test: TestPlan, findings: Findings) -> Scan:
    def parse(place, value):
        return parse_test(value, place, test.use_multi_crop)

    scan = Scan()
    columns = [array("i") for _ in range(3)]  # video, temporal and spatial index
    for place, value in entries:
        scan.records += 1
        record = _parsed(parse, split, place, value, findings)
        if record is None:
            continue
        path = record.path
        scan.videos.setdefault(path, place)
        first = scan.test_videos.setdefault(record.video_index, path)
        if first != path:
            findings.add("test videos", split.place_name(place),
                         f"video {record.video_index} is {path} here, and {first} in another record")
        for column, index in zip(columns, (record.video_index, record.temporal_index, record.spatial_index or 0),
                                 strict=True):
            column.append(index)
    if columns[0]:
        videos, temporals, spatials = (np.frombuffer(column, np.int32) for column in columns)
        _check_number_of_videos(np.unique(videos).tolist(), split.name, test.num_videos, findings)
        _check_clips(videos, temporals, spatials, split, test, scan, findings)
    return scan


def _check_number_of_videos(videos: Collection[int], name: str, expected: int | None, findings: Findings) -> None:
    """videos: the distinct video indices (>= 0) of a test split; expected: TEST.DATASET_SIZE, or None."""
    last = max(videos, default=-1)
    if expected is None:
        expected = last + 1
    elif last >= expected:
        findings.add("test videos", name, f"its last video is number {last} (from 0), TEST.DATASET_SIZE is {expected}")
    if missing := missing_numbers(videos, expected):
        findings.add("test videos", name, f"no records of {missing} of {expected} videos (TEST.DATASET_SIZE)")


def missing_numbers(numbers: Iterable[int], end: int) -> str | None:
    """'n (first few)' of the numbers in 0..end - 1 that are missing, or None. However large end is."""
    present = {number for number in numbers if 0 <= number < end}
    if len(present) == end:
        return None
    first = list(itertools.islice((number for number in range(end) if number not in present), 11))
    return f"{end - len(present)} ({', '.join(map(str, first[:10]))}{', ...' if first[10:] else ''})"


def _check_clips(videos, temporals, spatials, split, test, scan, findings):
    """Whether each video has every clip once; arguments are int32 arrays over the records."""
    mode, num_temporal = test.use_multi_crop, test.num_temporal
    positions = SPATIAL_POSITIONS[mode]
    if mode and (found := spatials.max()) < positions - 1:
        findings.add("wrong kind", split.name, f"{split.folder} has spatial indices 0..{found}; "
                                               f"TEST.USE_MULTI_CROP {mode} expects 0..{positions - 1}")
        return
    numbers, groups, clips = np.unique(videos, return_inverse=True, return_counts=True)
    expected = positions * num_temporal
    inside = temporals < num_temporal
    if not mode:
        spatials = np.zeros_like(spatials)
    codes = groups[inside].astype(np.int64) * expected + spatials[inside] * num_temporal + temporals[inside]
    distinct = np.bincount(np.unique(codes) // expected, minlength=len(numbers))
    wanted = f"expected {expected} (TEST.NUM_TEST_CLIPS): {num_temporal} times, {positions} crop(s)"
    for i in np.flatnonzero((clips != expected) | (distinct != expected)):
        number = int(numbers[i])
        findings.add("test clips", f"{split.name}: video {number}",
                     f"{clips[i]} clips, {distinct[i]} of them those that are read; {wanted} "
                     f"({scan.test_videos[number]})")
