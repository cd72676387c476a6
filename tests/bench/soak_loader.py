"""The loaders over good and bad videos for a long time: does memory grow, is anything left over, are counts right?

    python tests/bench/soak_loader.py --minutes 30 [--videos FOLDER]

Ends with status 1 and says why, if something is wrong.
"""

import argparse
import gc
import itertools
import logging
import os
import shutil
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
from common import panorama, print_conditions, print_table
from video_files import H264, write_video

from data.sources import group_by_video, open_test_source, open_train_source
from data.test_loader import TestClips, TestLoader
from data.train_loader import TrainClips, TrainLoader
from video.bad_videos import BadVideo, BadVideos
from video.sampling import count_frames, open_video
from video.video_facts import VideoFacts, VideoFactsCache

MEMORY_GROWTH = 16  # MB, from the mean of one half of the time after the first minute to that of the other
CLIPS = TrainClips(length=4, rate=3, crop=64, jitter_scales=(64, 96))
TEST_CLIPS = TestClips(length=4, rate=3, crop=64, scale=64, temporal_positions=5)


def make_videos(folder):
    """Good ones, damaged ones and bad ones."""
    for i, (frames, height, width, codec) in enumerate(
        [(40, 96, 128, "mp4v"), (9, 128, 96, "mp4v"), (60, 72, 72, "MJPG"), (1, 96, 96, "XVID")]
    ):
        write_video(folder / f"good{i}.avi", panorama(frames, height, width, i), fourcc=codec)
    content = (folder / "good2.avi").read_bytes()
    (folder / "short.avi").write_bytes(content[: len(content) // 2])
    content = bytearray((folder / "good0.avi").read_bytes())
    for at in range(5000, len(content), 3000):
        content[at : at + 40] = b"x" * 40
    shutil.copy(H264, folder / "skipped.mp4")
    (folder / "damaged.avi").write_bytes(content)
    (folder / "text.avi").write_text("no video\n" * 1000)
    (folder / "empty.avi").touch()
    (folder / "folder.avi").mkdir()


def readable(path):
    try:
        return count_frames(str(path)) > 0
    except BadVideo:
        return False


def used_memory():
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def open_files():
    return len(os.listdir("/proc/self/fd"))


class Soak:
    """Runs of both loaders over the videos of a folder; numbered, so that they differ and repeat."""

    def __init__(self, folder):
        videos = [folder / "missing.avi", *sorted(folder.iterdir())]
        self.good = [readable(path) for path in videos]
        self.bad = {str(path) for path, good in zip(videos, self.good, strict=True) if not good}
        self.facts_file = folder / "frame_counts.txt"
        # Of this one, packets are left out.
        skipped = str(folder / "skipped.mp4")
        facts = VideoFacts(90, None, skips=True, reorder=2)
        VideoFactsCache(self.facts_file).put(skipped, open_video(skipped).fingerprint, facts)
        for split in ("train", "test"):
            (folder / f"{split}.txt").write_text("".join(f"{path} {i}\n" for i, path in enumerate(videos)))
        self.train = open_train_source(folder, "train", 2, True)
        self.test = open_test_source(folder, "test", 1, TEST_CLIPS.temporal_positions)
        self.clips = 0

    def run(self, number):
        """Run number `number`: a training of some batches, and a test that may end early. Raises AssertionError."""
        cache = VideoFactsCache(self.facts_file)
        workers, batches = 1 + number % 4, 1 + number % 7
        self._train(number, workers, batches, cache)
        self._test(workers, stop=1 + number % 3 if number % 2 else None, cache=cache)

    def _train(self, number, workers, batches, cache):
        bad_videos, first = BadVideos(), 12 * number
        with TrainLoader(
            self.train, CLIPS, 12, 3, [0, 2], 2, "train", len(self.good), workers, bad_videos, first, cache
        ) as loader:
            for start in itertools.islice(itertools.count(first, 12), batches):
                labels = [label for _, labels in next(loader) for label in labels.tolist()]
                slots = [start + 4 * replica + i for replica in (0, 2) for i in range(4)]
                expected = [next(filter(self._is_good, itertools.count(slot))) for slot in slots]
                assert labels == [self.train.record(slot).label for slot in expected], (labels, expected)
                self.clips += len(labels)
        assert set(bad_videos.paths) <= self.bad, bad_videos.paths

    def _is_good(self, slot):
        return self.good[self.train.record(slot).label]

    def _test(self, workers, stop, cache):
        bad_videos = BadVideos()
        ordinals = np.concatenate(group_by_video(self.test.path_ids, np.arange(len(self.test))))
        batches, scored = np.array_split(ordinals, 8), []
        with TestLoader(self.test, TEST_CLIPS, batches, workers, bad_videos, cache) as loader:
            for clips, numbers in itertools.islice(loader, stop):
                assert len(clips) == len(numbers)
                scored += numbers.tolist()
                self.clips += len(numbers)
        done = np.concatenate(batches[:stop])
        assert scored == [i for i in done.tolist() if self.good[self.test.video_indices[i]]], scored
        if stop is None:
            assert set(bad_videos.paths) == self.bad, bad_videos.paths


def soak(seconds, folder, settle):
    """Run for that long, and print what became of memory. Raises AssertionError.

    Memory must stay flat after `settle` seconds, on average: it goes up and down with the videos in the threads.
    """
    run = Soak(folder)
    for number in range(8):
        run.run(number)
    threads, files = threading.active_count(), open_files()
    rows, start = [], time.monotonic()
    while not rows or rows[-1][0] < seconds:
        number += 1
        run.run(number)
        rows.append((time.monotonic() - start, number, run.clips, used_memory() / 2**20))
        assert threading.active_count() == threads, threading.enumerate()
        assert open_files() == files, os.listdir("/proc/self/fd")
    print_table("Loaders run", ["seconds", "runs", "clips", "memory MB"], rows[:: max(1, len(rows) // 20)])
    memory = [row[-1] for row in rows if row[0] >= settle]
    first, second = map(statistics.fmean, (memory[: len(memory) // 2], memory[len(memory) // 2 :]))
    assert second < first + MEMORY_GROWTH, f"memory grew from {first:.0f} to {second:.0f} MB"
    print(f"{run.clips:,} clips: memory flat at {second:.0f} MB, nothing left over, all counts right")


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--minutes", type=float, default=30)
    arguments.add_argument("--videos", help="folder of videos to use besides those that are made")
    arguments = arguments.parse_args()
    print_conditions()
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as folder:
        make_videos(Path(folder))
        if arguments.videos:
            for path in Path(arguments.videos).iterdir():
                shutil.copy(path, folder)
        soak(60 * arguments.minutes, Path(folder), settle=min(60, 30 * arguments.minutes))


if __name__ == "__main__":
    sys.exit(main())
