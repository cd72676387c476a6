"""What is to be checked, and against what."""

import itertools
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from data.lists import list_lines, read_entry
from data.lmdb_reader import Lmdb
from data.lmdb_writer import TEMPORAL_POSITIONS
from data.records import SPATIAL_POSITIONS, RecordError, TrainRecord, parse_protos, parse_train
from utils.errors import UserError

Place = int | bytes  # of a record in its split: line number from 1, or key

_SAMPLE = 1000  # records that show of which kind an LMDB is


@dataclass(frozen=True)
class TestPlan:
    """How a test reads its split.

    Attributes:
        use_multi_crop: TEST.USE_MULTI_CROP.
        num_temporal: clips of a video over time.
        num_videos: TEST.DATASET_SIZE; None: unknown, so not checked.
    """

    use_multi_crop: int
    num_temporal: int
    num_videos: int | None = None


@dataclass(frozen=True)
class Split:
    """Records to check: an LMDB (folder) or a list; for training and evaluations (test is None), or for a test.

    Attributes:
        name: for the report.
        folder, list_file: one of them is None.
        num_classes: MODEL.NUM_CLASSES; None: unknown, so not checked.
        all_classes: whether every class needs a video.
        test: how a test reads it.
    """

    name: str
    folder: Path | None
    list_file: Path | None
    num_classes: int | None = None
    all_classes: bool = False
    test: TestPlan | None = None

    @property
    def path(self) -> Path:
        """Of the LMDB's folder, or the list."""
        if self.folder is not None:
            return self.folder
        assert self.list_file is not None, self
        return self.list_file

    def entries(self) -> Iterator[tuple[Place, bytes]]:
        """Yield (place, value) of every record. Raises UserError, or lmdb.Error."""
        if self.folder is not None:
            return Lmdb.open(self.folder).items()
        return list_lines(self.path)

    def place_name(self, place: Place) -> str:
        """Where a record stands, for people."""
        if isinstance(place, bytes):
            return f"{place.decode('utf-8', 'backslashreplace')} of {self.folder}"
        return f"{self.list_file}:{place}"

    def training_record(self, place: Place, value: bytes) -> TrainRecord:
        """The record of an LMDB's value, or of a list's line. Raises RecordError."""
        if isinstance(place, bytes):
            return parse_train(value, place)
        try:
            entry = read_entry(value, str(self.list_file), place)
        except ValueError as error:
            raise RecordError(str(error)) from None
        return TrainRecord(entry.path.decode("utf-8", "surrogateescape"), entry.labels[0])


def lmdb_split(folder: Path, num_classes: int | None = None) -> Split:
    """The Split of an LMDB by itself, of the kind that most of its first records have.

    Raises UserError if it cannot be read, or none of those records is of a known kind.
    """
    kinds: Counter[int] = Counter()
    flipped = False
    for key, value in itertools.islice(Lmdb.open(folder).items(), _SAMPLE):
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
        raise UserError(f"{folder}: expected records of 2 to 4 tensors, got {tensors}: not an LMDB of this program")
    mode = 0 if tensors == 3 else 2 if flipped else 1
    name = ("single-crop", "multi-crop", "flip-crop")[mode] + " test records"
    return Split(name, folder, None, num_classes, test=TestPlan(mode, TEMPORAL_POSITIONS))
