"""What would go wrong in a run with these data: the checks of tools/check_dataset.py.

    split -> scan_split -> Scan: its videos and classes      records, lists
    videos -> check_files -> os.stat_result of each          one stat a path
    videos -> decode_new -> VideoFacts of each                    what is remembered is not decoded again
    scan, VideoFacts -> check_videos, check_classes, check_bad_images, check_ground_truth

Nothing raises for bad data: what is found goes into a Findings, and the check goes on.
"""

import itertools
from array import array
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path, PurePath

import lmdb
import numpy as np
from tqdm import tqdm

from data.lists import open_list, parse_line
from data.lmdb_writer import TEMPORAL_POSITIONS
from data.records import (
    SPATIAL_POSITIONS,
    RecordError,
    TrainRecord,
    WrongKindError,
    parse_protos,
    parse_test,
    parse_train,
)
from data.sources import Lmdb
from utils.errors import UserError
from video.bad_videos import BadVideo
from video.decoder_processes import DecoderProcesses
from video.sampling import open_video
from video.video_facts import VideoFacts

# Kinds of findings, in the order of the report.
KINDS = {
    "options": "Options that do not fit the data",
    "split": "Splits that cannot be read",
    "wrong kind": "Records of another kind of LMDB than is read here",
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

_KEPT = 10_000  # findings of a kind that are kept; the others are counted
_STAT_THREADS = 16  # a network's file system answers many at once
_LOOKED_AT = 1000  # records that say of which kind an LMDB is


class Findings:
    """What was found, by kind: how often, and the first (where, what) of each."""

    def __init__(self):
        self.counts = Counter()
        self.kept = {kind: [] for kind in KINDS}

    def __bool__(self):
        return bool(self.counts)

    def add(self, kind, where, what):
        """Note a finding: a kind of KINDS, the file, record or video, and what is wrong with it (both str)."""
        self.counts[kind] += 1
        if len(self.kept[kind]) < _KEPT:
            self.kept[kind].append((where, what))

    def as_dict(self):
        """For JSON: {kind: {title, count, first: [{where, what}]}} of the kinds found."""
        return {
            kind: {
                "title": title,
                "count": self.counts[kind],
                "first": [{"where": where, "what": what} for where, what in self.kept[kind]],
            }
            for kind, title in KINDS.items()
            if self.counts[kind]
        }

    def lines(self, examples):
        """For people: the lines of a report with the first examples of each kind."""
        for kind, title in KINDS.items():
            if self.counts[kind]:
                yield f"{title}: {self.counts[kind]}"
                for where, what in self.kept[kind][:examples]:
                    yield f"    {where}: {what}"
                if self.counts[kind] > examples:
                    yield f"    ... and {self.counts[kind] - examples} more"


@dataclass(frozen=True)
class TestPlan:
    """How a test reads its split. None: not known, hence not checked.

    use_multi_crop is TEST.USE_MULTI_CROP; num_temporal the clips of a video over time; num_videos TEST.DATASET_SIZE.
    """

    use_multi_crop: int
    num_temporal: int
    num_videos: int | None = None


@dataclass(frozen=True)
class Split:
    """Records to check: an LMDB (folder) or a list, for training and evaluations (test is None) or for a test.

    num_classes is MODEL.NUM_CLASSES or None. all_classes: whether every class needs a video.
    """

    name: str
    folder: Path | None
    list_file: Path | None
    num_classes: int | None = None
    all_classes: bool = False
    test: TestPlan | None = None


@dataclass
class Scan:
    """What the records of a split say.

    records is their number. videos: path -> where it came first. labels: the distinct (path, label) of a training
    split. test_videos: video index -> path, test_labels: video index -> label where the split says it.
    """

    records: int = 0
    videos: dict[str, str] = field(default_factory=dict)
    labels: set[tuple[str, int]] = field(default_factory=set)
    test_videos: dict[int, str] = field(default_factory=dict)
    test_labels: dict[int, int] = field(default_factory=dict)


# ---------------------------------------------------------------------------------------------- records


def scan_split(split, findings):
    """The Scan of a split, every record checked; what is wrong with them goes into findings."""
    source = split.folder or split.list_file
    try:
        if split.folder is not None:
            entries, total = Lmdb.open(split.folder).items(), Lmdb.open(split.folder).entries
        else:
            entries, total = _lines(open_list(split.list_file)), None
        entries = tqdm(entries, f"{split.name}: records", total, unit="", unit_scale=True)
        if split.test is None:
            scan = _scan_training(entries, split, findings)
        elif split.folder is None:
            scan = _scan_test_list(entries, split, findings)
        else:
            scan = _scan_test_lmdb(entries, split, findings)
    except (UserError, lmdb.Error) as error:
        findings.add("split", split.name, str(error))
        return Scan()
    if not scan.records:
        findings.add("split", split.name, f"{source}: the list is empty")
    return scan


def _lines(file):
    """Yield (number from 1, stripped line) of an open list; blank lines at its end are none."""
    blank = []
    with file:
        for number, line in enumerate(file, start=1):
            line = line.strip()
            if line:
                yield from blank
                blank.clear()
                yield number, line
            else:
                blank.append((number, line))


def place_name(split, place):
    """Where a record stands, for people: its key (bytes) or line number in the split."""
    if split.folder is None:
        return f"{split.list_file}:{place}"
    return f"{place.decode('utf-8', 'backslashreplace')} of {split.folder}"


def training_record(split, place, value):
    """TrainRecord of an LMDB's value or of a list's line. Raises RecordError."""
    if split.folder is not None:
        return parse_train(value, place)
    try:
        path, labels = parse_line(value)
    except ValueError as error:
        raise RecordError(str(error)) from None
    return TrainRecord(path.decode("utf-8", "surrogateescape"), labels[0])


def _test_record(split, place, value):
    return parse_test(value, place, split.test.use_multi_crop)


def label_problem(label, num_classes):
    """What is wrong with a label, or None; num_classes may be None."""
    if label < 0 or num_classes is not None and label >= num_classes:
        return f"the label {label} is not in 0..{'' if num_classes is None else num_classes - 1}"
    return None


def _scan_training(entries, split, findings):
    scan, good = Scan(), set()
    for place, value in entries:
        scan.records += 1
        if value in good:  # a shuffled LMDB has each a hundred times
            continue
        record = _parsed(training_record, split, place, value, findings)
        if record is None:
            continue
        scan.videos.setdefault(record.path, place)
        if problem := label_problem(record.label, split.num_classes):
            findings.add("label", place_name(split, place), f"{problem} ({record.path})")
        else:
            good.add(value)
            scan.labels.add((record.path, record.label))
    return scan


def _parsed(parse, split, place, value, findings):
    """parse(split, place, value), or None with a finding for what it raises."""
    try:
        return parse(split, place, value)
    except RecordError as error:
        kind = "wrong kind" if isinstance(error, WrongKindError) else "record"
        findings.add(kind, place_name(split, place), str(error))
        return None


def _scan_test_list(entries, split, findings):
    scan = Scan()
    for place, line in entries:
        scan.records += 1
        record = _parsed(training_record, split, place, line, findings)
        if record is None:
            continue
        scan.videos.setdefault(record.path, place)
        scan.test_videos[place - 1] = record.path
        scan.test_labels[place - 1] = record.label
    _check_number_of_videos(range(scan.records), split, findings)
    return scan


def _scan_test_lmdb(entries, split, findings):
    scan = Scan()
    columns = [array("i") for _ in range(3)]  # video, temporal and spatial index
    for place, value in entries:
        scan.records += 1
        record = _parsed(_test_record, split, place, value, findings)
        if record is None:
            continue
        path = record.path
        scan.videos.setdefault(path, place)
        first = scan.test_videos.setdefault(record.video_index, path)
        if first != path:
            findings.add("test videos", place_name(split, place),
                         f"video {record.video_index} is {path} here, and {first} in another record")
        for column, index in zip(columns, (record.video_index, record.temporal_index, record.spatial_index or 0),
                                 strict=True):
            column.append(index)
    if columns[0]:
        videos, temporals, spatials = (np.frombuffer(column, np.int32) for column in columns)
        _check_number_of_videos(np.unique(videos).tolist(), split, findings)
        _check_clips(videos, temporals, spatials, split, scan, findings)
    return scan


def _check_number_of_videos(videos, split, findings):
    """videos: the distinct video indices (>= 0) of a test split."""
    expected = split.test.num_videos
    if expected is None:
        expected = max(videos, default=-1) + 1
    elif (last := max(videos, default=-1)) >= expected:
        findings.add("test videos", split.name, f"its last video is number {last} (from 0), "
                                                f"TEST.DATASET_SIZE is {expected}")
    if missing := _missing(videos, expected):
        findings.add("test videos", split.name, f"no records of {missing} of {expected} videos (TEST.DATASET_SIZE)")


def _missing(numbers, end):
    """'n: first few' of the numbers from 0 to end - 1 that are not there, or None. However large end is."""
    there = {number for number in numbers if 0 <= number < end}
    if len(there) == end:
        return None
    first = list(itertools.islice((number for number in range(end) if number not in there), 11))
    return f"{end - len(there)} ({', '.join(map(str, first[:10]))}{', ...' if first[10:] else ''})"


def _check_clips(videos, temporals, spatials, split, scan, findings):
    """Whether each video has every clip once; arguments are int32 arrays over the records."""
    mode, num_temporal = split.test.use_multi_crop, split.test.num_temporal
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


def lmdb_split(folder, num_classes=None):
    """The Split of an LMDB by itself: it is taken for the kind that most of its first records are.

    Raises UserError if it cannot be read, or none of those records is of a known kind.
    """
    kinds, flipped = Counter(), False
    for key, value in itertools.islice(Lmdb.open(folder).items(), _LOOKED_AT):
        try:
            protos = parse_protos(value, key)
        except RecordError:
            continue
        kinds[len(protos)] += 1
        flipped |= len(protos) == 4 and protos[3].ints[:1] > [SPATIAL_POSITIONS[1] - 1]
    tensors, _ = kinds.most_common(1)[0] if kinds else (0, 0)
    if tensors == 2:
        return Split("training records", folder, None, num_classes, all_classes=True)
    if tensors not in (3, 4):
        raise UserError(f"{folder}: its records are none of this program's (expected 2 to 4 tensors, got {tensors})")
    mode = 0 if tensors == 3 else 2 if flipped else 1
    name = ("single-crop", "multi-crop", "flip-crop")[mode] + " test records"
    return Split(name, folder, None, num_classes, test=TestPlan(mode, TEMPORAL_POSITIONS))


# ----------------------------------------------------------------------------------------------- videos


def check_files(videos, findings):
    """os.stat_result of every video (path -> name of the place it came from) that can be opened, by path."""

    def status_of(path):
        try:
            return open_video(path).fingerprint
        except BadVideo as error:
            return error.reason

    statuses, paths = {}, iter(tqdm(videos, "files", unit="", unit_scale=True))
    with ThreadPoolExecutor(_STAT_THREADS) as pool:
        while chunk := list(itertools.islice(paths, 1 << 14)):  # a bounded number of tasks
            parts = [chunk[i : i + 256] for i in range(0, len(chunk), 256)]
            results = pool.map(lambda part: [status_of(path) for path in part], parts)
            statuses |= zip(chunk, itertools.chain.from_iterable(results), strict=True)
    for path in [path for path, status in statuses.items() if isinstance(status, str)]:
        findings.add("file", path, f"{statuses.pop(path)} ({videos[path]})")
    return statuses


def decode_new(statuses, counts, workers, time_limit, try_skipping=False):
    """VideoFacts of every video (path -> os.stat_result); what counts (VideoFactsCache) does not know is decoded.

    With try_skipping, so are sound ones of which it does not know whether packets may be left out.

    Returns ({path: VideoFacts}, number of videos decoded). What follows from a file is remembered in counts, what may
    come from the machine's state is not. workers, time_limit, try_skipping: as of DecoderProcesses.
    """
    known = {path: counts.get(path, status) for path, status in statuses.items()}

    def is_new(what):
        return what is None or try_skipping and what.skips is None and not what.damage

    new = [path for path, what in known.items() if is_new(what)]
    if not new:
        return known, 0
    with DecoderProcesses(workers, time_limit, try_skipping) as decoders:
        for path, outcome in tqdm(decoders.decode(new), "videos", len(new), unit="", smoothing=0.05):
            known[path] = VideoFacts(outcome.count, outcome.damage, outcome.skips)
            if outcome.lasting:
                counts.put(path, statuses[path], known[path])
    return known, len(new)


def check_videos(videos, known, clip_frames, findings):
    """What decoding has shown. clip_frames is VIDEO_LENGTH * SAMPLE_RATE or None."""
    for path, what in known.items():
        if what.damage:
            kind = "damaged" if what.count else "undecodable"
            findings.add(kind, path, f"{what.damage} ({videos[path]})")
        if clip_frames and 0 < what.count < clip_frames:
            findings.add("short", path, f"{what.count} frames, a clip spans {clip_frames} ({videos[path]})")


def flawed(known, clip_frames):
    """Paths of the videos for which check_videos finds something (set)."""
    return {path for path, what in known.items() if what.damage or what.count < (clip_frames or 0)}


def check_classes(split, scan, unreadable, findings):
    """Whether every class of a split that needs them all has a video that is not among the unreadable ones (paths)."""
    if not split.all_classes or not scan.labels:
        return
    number = split.num_classes
    if number is None:
        number = max(label for _, label in scan.labels) + 1
    if missing := _missing({label for path, label in scan.labels if path not in unreadable}, number):
        findings.add("class", split.name, f"no readable video of {missing} of {number} classes")


def check_bad_images(number, allowed, findings):
    """Whether a training survives its number of unreadable videos. allowed is DATALOADER.MAX_BAD_IMAGES."""
    if number > allowed:
        findings.add("options", "DATALOADER.MAX_BAD_IMAGES", f"is {allowed}, a training meets {number} bad videos")


# ----------------------------------------------------------------------------------------- ground truth


def check_ground_truth(file, split, scan, findings):
    """Whether a list of true labels (FILENAME_GT) is that of the videos of a test split, in their order.

    Videos are compared by their file names without folder and suffix.
    """
    try:
        lines = list(_lines(open_list(file)))
    except UserError as error:
        findings.add("ground truth", file, str(error))
        return
    found = len(scan.test_videos)
    if split.test.num_videos is not None and len(lines) != split.test.num_videos:
        findings.add("ground truth", file, f"{len(lines)} lines, TEST.DATASET_SIZE is {split.test.num_videos}")
    if found and len(lines) != found:
        findings.add("ground truth", file, f"{len(lines)} lines, {split.name} has {found} videos")
    for number, line in lines:
        where, video = f"{file}:{number}", number - 1
        try:
            path, (label, *_) = parse_line(line)
        except ValueError as error:
            findings.add("ground truth", where, str(error))
            continue
        if problem := label_problem(label, split.num_classes):
            findings.add("ground truth", where, problem)
        path = path.decode("utf-8", "surrogateescape")
        if PurePath(path).stem != PurePath(tested := scan.test_videos.get(video, path)).stem:
            findings.add("ground truth", where, f"is of {path}, video {video} of {split.name} is {tested}")
        elif scan.test_labels.get(video, label) != label:
            findings.add("ground truth", where, f"has the label {label}, {split.name} has {scan.test_labels[video]}")


# ------------------------------------------------------------------------------------------- clean list


def clean_lines(split, unclean):
    """Yield the lines (bytes, `path label`) of a training split whose record is good and whose video is not unclean.

    unclean is a set of paths.
    """
    entries = Lmdb.open(split.folder).items() if split.folder is not None else _lines(open_list(split.list_file))
    for place, value in entries:
        try:
            record = training_record(split, place, value)
        except RecordError:
            continue
        if label_problem(record.label, split.num_classes) is None and record.path not in unclean:
            if split.folder is None:
                yield value + b"\n"
            else:
                yield b"%s %d\n" % (record.path.encode("utf-8", "surrogateescape"), record.label)
