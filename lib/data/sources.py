"""Where records come from: an LMDB, or a list instead, as an ordered source.

DATADIR/<split> is the folder of the LMDB. If there is no such folder but a file DATADIR/<split>.txt, that list is used.
"""

import hashlib
import os
import zlib
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from data.lists import read_list
from data.lmdb_reader import Lmdb
from data.records import (
    SPATIAL_POSITIONS,
    RecordError,
    TestRecord,
    TrainRecord,
    int_proto,
    parse_protos,
    parse_test,
    parse_test_video,
    parse_train,
)
from utils.errors import UserError


def open_train_source(
    datadir: str | os.PathLike, split: str, seed: int, shuffle: bool
) -> "LmdbTrainSource | ListTrainSource":
    """The endless stream of records of DATADIR/<split>.

    Both classes have len() (records of one pass), record(slot) -> TrainRecord and name(slot) -> str for messages, where
    slot is the number in the stream, from 0, and only_label() -> the label of all records, as far as it looks at them,
    or None if there are several. Threads may share them. An LMDB is read in key order and never shuffled; a
    list is reshuffled for every pass, from seed, if shuffle is set. Raises UserError.
    """
    folder, list_file = locate(datadir, split)
    if folder is not None:
        return LmdbTrainSource(folder)
    assert list_file is not None
    return ListTrainSource(list_file, seed, shuffle)


def open_test_source(
    datadir: str | os.PathLike, split: str, use_multi_crop: int, num_temporal: int
) -> "TestSource":
    """All clips to score of DATADIR/<split>, in record order.

    Args:
        datadir, split: where they are.
        use_multi_crop: TEST.USE_MULTI_CROP (0, 1 or 2).
        num_temporal: number of temporal positions that a list expands to; an LMDB has its own.

    Raises:
        UserError: there are no such data, or an LMDB of the wrong kind for use_multi_crop.
    """
    folder, list_file = locate(datadir, split)
    if folder is not None:
        return _scan_test_lmdb(folder, use_multi_crop)
    assert list_file is not None
    return _expand_test_list(list_file, use_multi_crop, num_temporal)


def locate(datadir: str | os.PathLike, split: str) -> tuple[Path | None, Path | None]:
    """Where a split is: (LMDB folder, None) or (None, list file). Raises UserError if it is in neither place."""
    folder = Path(datadir) / split
    list_file = Path(datadir) / f"{split}.txt"
    if folder.is_dir():
        return folder, None
    if list_file.is_file():
        return None, list_file
    raise UserError(f"no data for the split '{split}': no LMDB {folder} and no list {list_file}")


# ------------------------------------------------------------------------------------------------- LMDB


class _NumberedKeys:
    """Keys `%09d` of 0, 1, 2, ...: key order is line order, and nothing needs to be stored."""

    def __getitem__(self, ordinal: int) -> bytes:
        return b"%09d" % ordinal


class _StoredKeys:
    """Any other keys, in the LMDB's order: their concatenated bytes, and where each ends."""

    def __init__(self, keys: Iterable[bytes]):
        self._bytes = bytearray()
        self._ends = array("Q", [0])
        for key in keys:
            self._bytes += key
            self._ends.append(len(self._bytes))

    def __getitem__(self, ordinal: int) -> bytes:
        return bytes(self._bytes[self._ends[ordinal] : self._ends[ordinal + 1]])


_LABELS_TRIED = 100
_DIGESTED = 300_000  # records


class LmdbTrainSource:
    """Records of a train or val LMDB in key order, repeated endlessly."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._lmdb = Lmdb.open(folder)
        # With the writer's keys no scan is needed: 25 million records open immediately.
        numbered = self._lmdb.ends() == (b"%09d" % 0, b"%09d" % (len(self) - 1))
        self._keys: _NumberedKeys | _StoredKeys = _NumberedKeys() if numbered else _StoredKeys(self._lmdb.keys())
        self.record(0)  # so an LMDB of another kind is an error now, not at the first evaluation

    def __len__(self) -> int:
        return self._lmdb.entries

    def record(self, slot: int) -> TrainRecord:
        """Record number slot of the endless stream. Raises RecordError if its value is not a record."""
        value = self._lmdb.get(self._key(slot))
        if value is None:
            raise RecordError(f"record {self.name(slot)} is missing: the keys are not consecutive numbers")
        return parse_train(value, self.name(slot))

    def digest(self) -> str:
        """SHA-256 of the records (of many, evenly spread, if there are very many), hexadecimal."""
        digest = hashlib.sha256(b"%d" % len(self))
        for slot in range(0, len(self), -(-len(self) // _DIGESTED)):
            digest.update(self._lmdb.get(self._key(slot)) or b"")
        return digest.hexdigest()

    def only_label(self) -> int | None:
        """The label of some records all over the LMDB; None if there are several, or one that cannot be read."""
        slots = np.unique(np.linspace(0, len(self) - 1, _LABELS_TRIED).astype(np.int64)).tolist()
        try:
            label = self.record(slots[0]).label
            return label if all(self.record(slot).label == label for slot in slots[1:]) else None
        except RecordError:
            return None

    def name(self, slot: int) -> str:
        """Where record number slot stands, for messages."""
        return f"{self._key(slot).decode('utf-8', 'backslashreplace')} of {self._folder}"

    def _key(self, slot):
        return self._keys[slot % len(self)]


# ------------------------------------------------------------------------------------------------- list


class ListTrainSource:
    """Records of a list, repeated endlessly: in a new order for every pass if shuffle is set, else in the list's."""

    def __init__(self, list_file: Path, seed: int, shuffle: bool):
        self._list = read_list(list_file)
        self._seed = seed
        self._shuffle = shuffle
        # Prefetching straddles two passes.
        self._order = lru_cache(maxsize=2)(self._draw_order)

    def __len__(self) -> int:
        return len(self._list)

    def record(self, slot: int) -> TrainRecord:
        """Record number slot of the endless stream."""
        line = self._line(slot)
        return TrainRecord(self._list.path(line), self._list.label(line))

    def digest(self) -> str:
        """SHA-256 of the list, hexadecimal."""
        return self._list.digest()

    def only_label(self) -> int | None:
        """The label of all records; None if there are several."""
        return self._list.only_label()

    def name(self, slot: int) -> str:
        """Where record number slot stands, for messages."""
        return f"{self._list.name}:{self._line(slot) + 1}"

    def _line(self, slot):
        epoch, place = divmod(slot, len(self))
        return int(self._order(epoch)[place]) if self._shuffle else place

    def _draw_order(self, epoch):
        rng = np.random.default_rng([self._seed, zlib.crc32(b"shuffle"), epoch])
        return rng.permutation(len(self))


# ------------------------------------------------------------------------------------------------- test


@dataclass(frozen=True)
class TestSource:
    """Every clip of a test, in record order. Arrays are int32 and have one element per clip.

    Attributes:
        paths: the distinct paths of videos.
        path_ids: indices in paths.
        video_indices: indices of videos in the ground truth.
        temporal_indices, spatial_indices: positions of the clips; spatial_indices is None for centre crops.
    """

    paths: list[str]
    path_ids: np.ndarray
    video_indices: np.ndarray
    temporal_indices: np.ndarray
    spatial_indices: np.ndarray | None

    def __len__(self) -> int:
        return len(self.path_ids)

    def record(self, ordinal: int) -> TestRecord:
        """Record number ordinal, from 0."""
        return TestRecord(
            self.paths[self.path_ids[ordinal]],
            int(self.video_indices[ordinal]),
            int(self.temporal_indices[ordinal]),
            None if self.spatial_indices is None else int(self.spatial_indices[ordinal]),
        )


def _scan_test_lmdb(folder, use_multi_crop):
    # Serialised messages concatenate, so a record can be cut between two tensors: the clips of a video share the head,
    # the clips of one position share the tail. Each is parsed once and then looked up.
    paths, heads, tails = {}, {}, {}
    videos, clips = [], []  # (index in paths, video index), (temporal index, spatial index)
    video_ids, clip_ids = array("i"), array("i")
    cut = None
    for key, value in Lmdb.open(folder).items():
        head, tail = (value[:-cut], value[-cut:]) if cut else (value, b"")
        video_id, clip_id = heads.get(head), tails.get(tail)
        if video_id is None or clip_id is None:
            name = f"{key.decode('utf-8', 'backslashreplace')} of {folder}"
            if not cut:
                cut = (len(parse_protos(value, name)) - 2) * len(int_proto(0))
                head, tail = value[:-cut], value[-cut:]
            video = _parse_video(head, name)
            if video is None or clip_id is None:
                record = parse_test(value, name, use_multi_crop)
                clip_id = len(clips)
                clips.append((record.temporal_index, record.spatial_index or 0))
            video_id = len(videos)
            path, number = video or (record.path, record.video_index)
            videos.append((paths.setdefault(path, len(paths)), number))
            if video is not None:
                # Then the tail is a complete message as well.
                heads[head], tails[tail] = video_id, clip_id
        video_ids.append(video_id)
        clip_ids.append(clip_id)
    videos, clips = np.array(videos, np.int32)[video_ids], np.array(clips, np.int32)[clip_ids]
    columns = [np.ascontiguousarray(column) for column in (*videos.T, *clips.T)]
    positions = SPATIAL_POSITIONS[use_multi_crop]
    if use_multi_crop and (found := columns[3].max()) < positions - 1:
        raise UserError(
            f"the test LMDB {folder} has spatial indices 0..{found}; "
            f"TEST.USE_MULTI_CROP {use_multi_crop} expects 0..{positions - 1}"
        )
    return TestSource(list(paths), *columns[:3], columns[3] if use_multi_crop else None)


def _parse_video(head, name):
    """(path, video index) if these bytes are a complete message with just these, else None."""
    try:
        return parse_test_video(head, name)
    except RecordError:
        return None


def _expand_test_list(list_file, use_multi_crop, num_temporal):
    videos = read_list(list_file)
    return expand_test_videos([videos.path(line) for line in range(len(videos))], use_multi_crop, num_temporal)


def expand_test_videos(videos: Sequence[str], use_multi_crop: int, num_temporal: int) -> TestSource:
    """All clips to score of the given videos (paths), in order.

    The video index of a clip is its video's place in `videos`. use_multi_crop, num_temporal: see open_test_source.
    """
    positions = SPATIAL_POSITIONS[use_multi_crop]
    paths: dict[str, int] = {}
    ids = [paths.setdefault(path, len(paths)) for path in videos]
    spatials, temporals = (grid.ravel() for grid in np.indices((positions, num_temporal), np.int32))
    clips = positions * num_temporal
    return TestSource(
        list(paths),
        np.repeat(np.array(ids, np.int32), clips),
        np.repeat(np.arange(len(videos), dtype=np.int32), clips),
        np.tile(temporals, len(videos)),
        np.tile(spatials, len(videos)) if use_multi_crop else None,
    )


def group_by_video(path_ids: np.ndarray, ordinals: Sequence[int] | np.ndarray) -> list[np.ndarray]:
    """Group records by video: int64 arrays, videos in order of first appearance, their records in the given order.

    path_ids is TestSource.path_ids, ordinals are numbers of records in any order.
    """
    ordinals = np.asarray(ordinals, np.int64)
    if not len(ordinals):
        return []
    _, first, group = np.unique(path_ids[ordinals], return_index=True, return_inverse=True)
    order = np.argsort(first[group], kind="stable")
    return np.split(ordinals[order], np.flatnonzero(np.diff(first[group][order])) + 1)
