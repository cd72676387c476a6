"""Python's lock: for how long a decoding thread holds it for a training clip, 8 frames with stride 8.

    python tests/bench/bench_lock.py [--videos FOLDER] [--seconds 4]

A second thread counts in a loop, as the main thread of a training would work in Python. What it loses while clips are
decoded is the time that the decoding thread holds the lock. From this follows how many clips a second a process can
decode at most, with however many threads, and at how many threads that is reached: beyond it, decoding in processes
would be faster. "waits": how long the counting thread waits for the lock at worst, in 99 of 100 cases.
"""

import statistics
import threading
import time

import numpy as np
from bench_decode import cut_clip
from common import parser, print_conditions, print_table, videos_in

from data import transforms
from video.sampling import open_video, sample_frames
from video.video_facts import VideoFactsCache

LENGTH, RATE = 8, 8


def count_for(seconds):
    """(turns of a loop in that time, the 99th percentile of the times between two turns)."""
    turns, gaps, before = 0, [], time.perf_counter()
    end = before + seconds
    while before < end:
        for _ in range(200):
            turns += 1
        now = time.perf_counter()
        gaps.append(now - before)
        before = now
    return turns, statistics.quantiles(gaps, n=100)[-1]


class Decoding(threading.Thread):
    """Decodes clips until it is stopped, and counts them."""

    def __init__(self, videos, facts):
        super().__init__(daemon=True)
        self._videos, self._facts = list(videos.items()), facts
        self.stopped = threading.Event()
        self.clips = 0

    def run(self):
        clip, rng = np.empty((LENGTH, 224, 224, 3), np.uint8), np.random.default_rng(0)
        while not self.stopped.is_set():
            path, _ = self._videos[self.clips % len(self._videos)]
            draw = rng.random()
            cut_clip(path, lambda count, draw=draw: transforms.clip_indices(
                transforms.train_start(draw, count, LENGTH, RATE), LENGTH, RATE, count), self._facts, clip)
            self.clips += 1


def beside(videos, facts, seconds):
    """(clips, turns, gap) of counting beside a decoding thread; of decoding alone if seconds are negative."""
    thread = Decoding(videos, facts)
    thread.start()
    turns, gap = count_for(seconds) if seconds > 0 else (time.sleep(-seconds), 0)
    thread.stopped.set()
    thread.join()
    return thread.clips, turns, gap


def main():
    arguments = parser(__doc__)
    arguments.add_argument("--seconds", type=float, default=4, help="of each measurement (default: %(default)s)")
    arguments = arguments.parse_args()
    print_conditions()
    with videos_in(arguments.videos) as videos:
        kinds = {"unchecked": VideoFactsCache(), "learnt": VideoFactsCache()}
        for path in videos:
            for name, facts in kinds.items():
                sample_frames(open_video(path, True), lambda count: (), lambda *_: None, facts, learn=name == "learnt")
        rows = []
        for name, facts in kinds.items():
            measured = []
            for _ in range(arguments.repetitions):
                alone, gap_alone = count_for(arguments.seconds)
                clips, turns, gap = beside(videos, facts, arguments.seconds)
                free, _, _ = beside(videos, facts, -arguments.seconds)
                held = arguments.seconds * (1 - turns / alone) / clips
                clip = arguments.seconds / free
                measured.append((clip * 1e3, held * 1e3, 1 / held, clip / held, gap_alone * 1e3, gap * 1e3))
            rows.append([name, *map(statistics.median, zip(*measured, strict=True))])
        header = ["videos", "ms / clip", "lock held, ms", "clips / s at most", "reached by threads", "waits alone, ms",
                  "waits, ms"]
        print_table("One decoding thread, and one that counts", header, rows)


if __name__ == "__main__":
    main()
