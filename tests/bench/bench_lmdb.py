"""LMDBs of the size of Kinetics: writing, opening, first batch.

    python tests/bench/bench_lmdb.py [--videos FOLDER] [--records 25000000] [--test_videos 19761] [--folder FOLDER]

The lists have short paths, links to the videos. LMDBs are written by the project's own writer, into a temporary
folder in FOLDER (default: the system's), which needs about 100 bytes a training record and twice 100 for the list
and file together; it is deleted at the end. Opening happens in a new process, whose private memory is compared with
that before. "first batch" counts from the start of opening to a batch of 8 clips of 8 frames.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

from common import REPO, parser, print_conditions, print_table, videos_in

from data.lmdb_writer import clip_items, train_items, write_lmdb


def write_list(path, lines, videos):
    """A list of that many lines, over links with short names."""
    names = []
    for i, video in enumerate(videos):
        name = path.parent / f"{i}{Path(video).suffix}"
        if not name.is_symlink():
            name.symlink_to(os.path.abspath(video))
        names.append(name)
    with open(path, "w", buffering=1 << 20) as file:
        for i in range(lines):
            file.write(f"{names[i % len(names)]} {i % 400}\n")


def written(folder, list_file, items_of, sorted_keys):
    """(records, records a wall-clock second, records a CPU second) of writing an LMDB."""
    cpu, wall = time.process_time(), time.perf_counter()
    records = write_lmdb(folder, list_file, items_of, sorted_keys)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    return records, records / wall, records / cpu


def private_memory():
    """Bytes of this process that are not a file's, now and at their most."""
    lines = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines["RssAnon"].split()[0]) * 1024


def open_and_load(folder, split):
    """(seconds to open, seconds to the first batch, bytes taken by opening), printed as JSON."""
    import numpy as np

    from data.sources import group_by_video, open_test_source, open_train_source
    from data.test_loader import TestClips, TestLoader
    from data.train_loader import TrainClips, TrainLoader
    from video.bad_videos import BadVideos

    before, start = private_memory(), time.perf_counter()
    if split == "train":
        source = open_train_source(folder, "train", 2, True)
    else:
        source = open_test_source(folder, "test", 1, 10)
    opened, taken = time.perf_counter() - start, private_memory() - before
    if split == "train":
        clips = TrainClips(length=8, rate=8, crop=224, jitter_scales=(256, 320))
        loader = TrainLoader(source, clips, 8, 1, [0], 2, "train", 400, 2, BadVideos())
    else:
        clips = TestClips(length=8, rate=8, crop=256, scale=256, temporal_positions=10)
        ordinals = np.concatenate(group_by_video(source.path_ids, np.arange(len(source))))
        loader = TestLoader(source, clips, np.split(ordinals, range(8, len(ordinals), 8)), 2, BadVideos())
    with loader:
        next(loader)
        first = time.perf_counter() - start
    print(json.dumps([opened, first, taken]))


def main():
    arguments = parser(__doc__)
    arguments.add_argument("--records", type=int, default=25_000_000, help="records of the training LMDB")
    arguments.add_argument("--test_videos", type=int, default=19_761, help="videos of the test LMDB, 30 records each")
    arguments.add_argument("--folder", help="where to write")
    arguments = arguments.parse_args()
    print_conditions()
    with videos_in(arguments.videos) as videos, tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        folder = Path(folder)
        rows = []
        for split, lines, items_of, sorted_keys in (
            ("train", arguments.records, train_items, True),
            ("test", arguments.test_videos, partial(clip_items, spatial_positions=3), False),
        ):
            write_list(folder / "list.txt", lines, videos)
            records, rate, cpu_rate = written(folder / split, folder / "list.txt", items_of, sorted_keys)
            (folder / "list.txt").unlink()
            program = f"import bench_lmdb; bench_lmdb.open_and_load({str(folder)!r}, {split!r})"
            out = subprocess.run(
                [sys.executable, "-c", program], cwd=REPO / "tests" / "bench", stdout=-1, text=True, check=True
            ).stdout
            opened, first, taken = json.loads(out)
            size = (folder / split / "data.mdb").stat().st_size
            rows.append([split, records, size >> 20, int(rate), int(cpu_rate), opened, first, taken / 2**20])
        header = ["LMDB", "records", "MB", "written / s", "written / CPU s", "opened s", "first batch s", "memory MB"]
        print_table("LMDBs of short paths", header, rows)


if __name__ == "__main__":
    main()
