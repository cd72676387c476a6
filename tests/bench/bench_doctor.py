"""The check of data before a run: its speed of decoding, and a check of an LMDB of Kinetics' size.

    python tests/bench/bench_doctor.py [--videos FOLDER] [--scanned 2000] [--records 592830] [--folder FOLDER]

1. Small videos, each decoded to its end: by threads in one process, as the loader does the first time, and by the
   check, in separate processes, from their start to what is remembered in a file. "the command" is all of
   `tools/check_dataset.py --list`, and a second time, when everything is known. Ratios are to the threads.
2. A multi-crop test LMDB with a thousand bad records of ten kinds, checked without decoding.
"""

import contextlib
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import lmdb
from common import REPO, panorama, parser, print_conditions, print_table, videos_in
from video_files import write_video

from data.dataset_check.videos import decode_new
from data.lmdb_writer import clip_items
from data.records import encode_test_clip, encode_test_video, encode_train, int_proto, path_proto
from video.sampling import count_frames, open_video
from video.video_facts import VideoFactsCache

SMALL = [(30, 120, 160), (60, 128, 170), (90, 112, 112)]  # frames, height, width
MADE = 12
CLIPS = 30
BAD = 1000  # records, or every hundredth of fewer
TOOL = str(REPO / "tools/check_dataset.py")
YAML = str(REPO / "configs/DBG_kinetics_resnet_8gpu_c2d_nonlocal_400k.yaml")


def links(folder, videos, number):
    """That many paths in a folder, links to the videos in turn."""
    folder.mkdir()
    paths = []
    for i, video in zip(range(number), itertools.cycle(videos), strict=False):
        paths.append(str(folder / f"{i}{Path(video).suffix}"))
        os.symlink(os.path.abspath(video), paths[-1])
    return paths


# --------------------------------------------------------------------------------------------- decoding


def by_threads(paths, workers, folder):
    with ThreadPoolExecutor(workers) as pool:
        return sum(pool.map(count_frames, paths))


def by_the_check(paths, workers, folder):
    (folder / "counts").unlink(missing_ok=True)
    fingerprints = {path: open_video(path).fingerprint for path in paths}
    facts, _ = decode_new(fingerprints, VideoFactsCache(folder / "counts"), workers, 60, as_stored=False)
    return sum(what.count for what in facts.values())


def command(paths, workers, folder):
    (folder / "frame_counts.txt").unlink(missing_ok=True)
    return known_command(paths, workers, folder)


def known_command(paths, workers, folder):
    (folder / "list.txt").write_text("".join(f"{path} 0\n" for path in paths))
    check = [sys.executable, TOOL, "--list", str(folder / "list.txt"), "--workers", str(workers)]
    subprocess.run(check, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


WAYS = {
    "threads of one process": by_threads,
    "the check's processes": by_the_check,
    "the command": command,
    "the command, again": known_command,
}


def measure_decoding(paths, workers, repetitions, folder):
    """Rows of the table: seconds, videos a second and ratio of each way, medians over repetitions that take turns."""
    seconds, frames = {name: [] for name in WAYS}, {}
    for repetition in range(repetitions):
        # The last needs what the one before it has left.
        names = list(WAYS) if repetition % 2 == 0 else ["the check's processes", "threads of one process", *[*WAYS][2:]]
        for name in names:
            start = time.perf_counter()
            with open(os.devnull, "w") as nowhere, contextlib.redirect_stderr(nowhere):
                frames[name] = WAYS[name](paths, workers, folder)
            seconds[name].append(time.perf_counter() - start)
    assert frames["threads of one process"] == frames["the check's processes"], frames
    median = {name: statistics.median(taken) for name, taken in seconds.items()}
    base = median["threads of one process"]
    return [[name, taken, len(paths) / taken, base / taken] for name, taken in median.items()]


# ---------------------------------------------------------------------------------------------- records


def faulty(kind, path, video, clip):
    """Value of a record that is bad in one of ten ways, in place of a good one."""
    good = encode_test_video(path, video, [0], with_spatial=True) + clip
    return [
        b"",
        b"\xff" * 20,
        good[:-5],
        good + int_proto(0),
        encode_train(path, [0]),
        path_proto(path) + int_proto(video, 0) + int_proto(0),
        encode_test_video(path, video, [0], with_spatial=True) + encode_test_clip(0, 5),
        encode_test_video(path, video, [0], with_spatial=True) + encode_test_clip(77, 0),
        path_proto(path) + int_proto(-1) + clip,
        encode_test_video(path + b".gone", video, [0], with_spatial=True) + clip,
    ][kind]


def write_lmdb(folder, paths):
    """A multi-crop test LMDB of these videos with bad records among them; returns their number."""
    paths = [os.fsencode(path) for path in paths]
    step = max(1, len(paths) * CLIPS // BAD) if len(paths) * CLIPS > 100 * BAD else 100
    bad = 0
    with lmdb.open(str(folder), map_size=1 << 32, sync=False) as environment:
        with environment.begin(write=True) as transaction:
            for i, (key, value) in enumerate(clip_items(((path, [0]) for path in paths), 3)):
                if i % step == step // 2:
                    value = faulty(bad % 10, paths[i // CLIPS], i // CLIPS, value[-len(encode_test_clip(0, 0)) :])
                    bad += 1
                transaction.put(key, value)
        environment.sync(True)
    return bad


def check_records(folder, videos):
    """(seconds, largest memory in MB, the report) of the command over folder/test."""
    words = ["--split", "test", "--no_decode", "--json", str(folder / "report.json"), "--config_file", YAML]
    options = {"DATADIR": folder, "FILENAME_GT": None, "TEST.DATASET_SIZE": videos, "CHECKPOINT.DIR": folder}
    words += [str(word) for pair in options.items() for word in pair]
    start = time.perf_counter()
    child = subprocess.Popen([sys.executable, TOOL, *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, _, usage = os.wait4(child.pid, 0)
    seconds = time.perf_counter() - start
    return seconds, usage.ru_maxrss / 1024, json.loads((folder / "report.json").read_text())


def main():
    arguments = parser(__doc__)
    arguments.add_argument("--scanned", type=int, default=2000, help="small videos to decode")
    arguments.add_argument("--records", type=int, default=592_830, help=f"records of the LMDB, {CLIPS} a video")
    arguments.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    arguments.add_argument("--folder", help="where to write")
    arguments = arguments.parse_args()
    print_conditions()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder, contextlib.ExitStack() as stack:
        folder = Path(folder)
        if arguments.videos is None:
            (folder / "made").mkdir()
            for i in range(MADE):
                write_video(folder / "made" / f"{i}.mp4", panorama(*SMALL[i % len(SMALL)], i))
        videos = list(stack.enter_context(videos_in(arguments.videos or folder / "made")))
        paths = links(folder / "small", videos, arguments.scanned)
        rows = measure_decoding(paths, arguments.workers, arguments.repetitions, folder)
        print_table(f"{len(paths)} videos, {arguments.workers} workers", ["way", "s", "videos / s", "ratio"], rows)

        paths = links(folder / "tested", videos, arguments.records // CLIPS)
        planted = write_lmdb(folder / "test", paths)
        seconds, memory, report = check_records(folder, len(paths))
        findings = sum(of_kind["count"] for of_kind in report["findings"].values())
        print_table("Records checked without decoding",
                    ["LMDB", "records", "bad", "findings", "s", "records / s", "memory MB"],
                    [["test", report["splits"][0]["records"], planted, findings, seconds,
                      int(len(paths) * CLIPS / seconds), int(memory)]])
        for of_kind in report["findings"].values():
            print(f"  {of_kind['title']}: {of_kind['count']}")


if __name__ == "__main__":
    main()
