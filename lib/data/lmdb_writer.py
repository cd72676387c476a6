"""Writes the LMDBs of videos from a list, for process_data/kinetics/create_video_lmdb*.py."""

import os
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path

import lmdb
from tqdm import tqdm

from data.lists import iter_list, open_list
from data.records import encode_test_clip, encode_test_video, encode_train
from utils import cli
from utils.errors import UserError
from utils.files import clear_leftovers, make_folder, sync_folder, temporary_folder

TEMPORAL_POSITIONS = 10

_MAP_SIZE = 1 << 40  # as in legacy; the file takes only the space that its records need
_BATCH = 10000  # records per commit

Entries = Iterable[tuple[bytes, list[int]]]
Items = Iterator[tuple[bytes, bytes]]


def train_items(entries: Entries) -> Items:
    """Yield (key, value) of a train or val LMDB, one record per line.

    entries: the (path, labels) of each line.
    """
    for line, (path, labels) in enumerate(entries):
        yield b"%09d" % line, encode_train(path, labels)


def clip_items(entries: Entries, spatial_positions: int | None) -> Items:
    """Yield (key, value) of a test LMDB: for each video, each spatial index, each temporal index.

    spatial_positions is 3 or 6; None leaves the spatial index out (single-crop test). entries: the (path, labels) of
    each line.
    """
    spatial_indices: Iterable[int | None] = [None] if spatial_positions is None else range(spatial_positions)
    clips = [encode_test_clip(t, s) for s in spatial_indices for t in range(TEMPORAL_POSITIONS)]
    number = 0
    for video, (path, labels) in enumerate(entries):
        shared = encode_test_video(path, video, labels, with_spatial=spatial_positions is not None)
        for clip in clips:
            yield b"%d" % number, shared + clip
            number += 1


def write_lmdb(dataset_dir: str | os.PathLike, list_file: str | os.PathLike, items_of: Callable[[Entries], Items],
               sorted_keys: bool) -> int:
    """Write the LMDB dataset_dir from a list. It appears under its name only when it is complete.

    Args:
        dataset_dir: folder to make; an empty one, or a symlink to one, may exist.
        list_file: the list.
        items_of: items_of(entries) yields the (key, value) pairs.
        sorted_keys: whether they come in bytewise order of the keys, which is faster.

    Returns:
        The number of records.

    Raises:
        UserError: dataset_dir exists and is not empty, it cannot be written, or the list cannot be used.
    """
    out = Path(os.path.realpath(dataset_dir))
    exists = out.is_dir()
    if exists:
        clear_leftovers(out, "data.mdb".__eq__)
    if os.path.lexists(out) and not (exists and not any(out.iterdir())):
        raise UserError(f"{dataset_dir} exists already; remove it or choose another --dataset_dir")
    # A folder that exists is filled and not replaced: it may be a disk of its own.
    folder, name = (out, "data.mdb") if exists else (out.parent, out.name)
    with open_list(list_file) as lines:
        make_folder(folder)
        with temporary_folder(folder, name) as partial:
            try:
                records = _write(partial, lines, str(list_file), items_of, sorted_keys)
                (partial / "data.mdb" if exists else partial).rename(folder / name)
                sync_folder(folder)
            except (lmdb.Error, OSError) as error:
                full = " (is the disk full?)" if isinstance(error, lmdb.Error) else ""  # LMDB calls it an I/O error
                raise UserError(f"{dataset_dir}: cannot be written: {error}{full}") from error
    return records


def _write(folder, lines, name, items_of, sorted_keys):
    items = items_of(iter_list(lines, name))
    # No other process knows the folder yet, so neither locks nor a sync at every commit are needed.
    with (
        lmdb.open(os.fsencode(folder), map_size=_MAP_SIZE, mode=0o666, lock=False, sync=False) as environment,
        tqdm(total=os.fstat(lines.fileno()).st_size, unit="B", unit_scale=True, desc=name) as progress,
    ):
        records = 0
        while batch := list(islice(items, _BATCH)):
            with environment.begin(write=True) as transaction, transaction.cursor() as cursor:
                cursor.putmulti(batch, append=sorted_keys)
            records += len(batch)
            progress.update(lines.tell() - progress.n)
        if not records:
            raise UserError(f"{name}: the list is empty")
        environment.sync(True)
    return records


def main(description: str, items_of: Callable[[Entries], Items], sorted_keys: bool = False) -> None:
    """The command line of a create_video_lmdb script."""
    parser = cli.argument_parser(description)
    parser.add_argument("--dataset_dir", required=True, help="folder of the LMDB to write")
    parser.add_argument("--list_file", required=True, help="list of videos: 'path label' lines")
    arguments = parser.parse_args()
    cli.setup_logging()
    records = write_lmdb(arguments.dataset_dir, arguments.list_file, items_of, sorted_keys)
    print(f"{records} records written to {arguments.dataset_dir}")
