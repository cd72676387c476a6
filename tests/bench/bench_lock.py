"""Python's lock: whether decoding threads hold up the main thread of a training, and it them.

    python tests/bench/bench_lock.py [--videos FOLDER] [--seconds 4]

The main thread starts small operations of PyTorch one after another, as a training starts kernels, alone and beside a
decoding thread (8 frames with stride 8). "us / operation": the mean, and what 1 in 1000 takes at least. Two cores are
needed, and an otherwise idle machine.
"""

import statistics
import threading
import time

import numpy as np
import torch
from bench_decode import cut_clip
from common import parser, print_conditions, print_table, videos_in

from data import transforms
from video.sampling import open_video, sample_frames
from video.video_facts import VideoFactsCache

LENGTH, RATE = 8, 8


def start_operations(seconds):
    """(mean, 99.9th percentile) of the microseconds that a small operation takes."""
    x, taken, before = torch.zeros(8), [], time.perf_counter()
    end = before + seconds
    while before < end:
        x.add_(1.0)
        now = time.perf_counter()
        taken.append(1e6 * (now - before))
        before = now
    return statistics.fmean(taken), statistics.quantiles(taken, n=1000)[-1]


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


def beside(videos, facts, work, seconds):
    """(what work(seconds) returns, clips a second) of work beside a decoding thread."""
    thread = Decoding(videos, facts)
    thread.start()
    result = work(seconds)
    thread.stopped.set()
    thread.join()
    return result, thread.clips / seconds


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
                alone = start_operations(arguments.seconds)
                _, clips_alone = beside(videos, facts, time.sleep, arguments.seconds)
                both, clips = beside(videos, facts, start_operations, arguments.seconds)
                measured.append((*alone, *both, clips_alone, clips))
            rows.append([name, *map(statistics.median, zip(*measured, strict=True))])
        header = ["videos", "us / operation alone", "1 in 1000", "beside decoding", "1 in 1000", "clips / s alone",
                  "beside operations"]
        print_table("Small operations in the main thread, and a decoding thread", header, rows)


if __name__ == "__main__":
    main()
