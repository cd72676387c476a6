"""All 30 test clips of a video (10 starts x 3 crops of 256 x 256): one decode, or thirty.

    python tests/bench/bench_test_clips.py [--videos FOLDER] [--length 8] [--rate 8]

Ratios are to thirty times reading the whole video, then taking, scaling and cutting the frames of one clip. Each way
uses one decoding thread. "decoding alone" is one pass that converts nothing: nothing can be faster. Videos of fewer
than 60 frames are left out of the mean.
"""

import logging
from concurrent import futures
from pathlib import Path

import numpy as np
from bench_decode import LONG, decode_only, read_everything
from common import Worker, geometric_mean, measure, parser, print_conditions, print_table, videos_in

from data import transforms
from data.sources import TestSource
from data.test_loader import TestClips, TestLoader
from video.bad_videos import BadVideos

SCALE, STARTS, CROPS = 256, 10, 3


def clip_by_itself(path, count, length, rate, temporal, spatial):
    """A clip (uint8) as legacy made it: decode everything, then index."""
    start = transforms.uniform_start(count, STARTS, temporal)
    frames = read_everything(path, transforms.clip_indices(start, length, rate, count))
    size = transforms.scaled_size(*frames[0].shape[:2], SCALE)
    row, column = transforms.crop_offsets(*size, SCALE, spatial)
    return np.stack([transforms.cut(transforms.resize(f, size), row, column, SCALE, False) for f in frames])


def some_clips(path, count, length, rate):
    """Three of the thirty."""
    for spatial, temporal in enumerate((1, 5, 9)):
        clip_by_itself(path, count, length, rate, temporal, spatial)


def decode_alone(path, count, length, rate):
    starts = [transforms.uniform_start(count, STARTS, temporal) for temporal in range(STARTS)]
    decode_only(path, [transforms.clip_indices(start, length, rate, count).max() for start in starts])


class OneDecode:
    """A running TestLoader over a video again and again; a call takes all clips of one time, and waits until the
    loader has done as much for the times to come."""

    def __init__(self, use):
        self._use = use
        self._path = None

    def __call__(self, path, count, length, rate):
        if self._path != path:
            self._start(path, length, rate)
        self._step()

    def _start(self, path, length, rate):
        if self._path is not None:
            self._loader.close()
        self._path, times = path, 1000
        spatial, temporal = (grid.ravel() for grid in np.indices((CROPS, STARTS), np.int32))
        ids = np.repeat(np.arange(times, dtype=np.int32), len(spatial))
        source = TestSource([path] * times, ids, ids, np.tile(temporal, times), np.tile(spatial, times))
        clips = TestClips(length, rate, SCALE, SCALE, STARTS)
        self._loader = TestLoader(source, clips, np.split(np.arange(len(ids)), times), 1, BadVideos(), as_stored=True)
        for _ in range(3):
            self._step()

    def _step(self):
        self._use(next(self._loader)[0])
        futures.wait([self._loader._next])
        futures.wait([task for _, task in self._loader._pending])


def main():
    arguments = parser(__doc__)
    arguments.add_argument("--length", type=int, default=8, help="frames in a clip")
    arguments.add_argument("--rate", type=int, default=8, help="stride between them")
    arguments = arguments.parse_args()
    logging.disable(logging.WARNING)
    ways = {
        "thirty decodes": (10, some_clips),
        "one decode, uint8": (1, OneDecode(lambda batch: None)),
        "one decode, float32": (1, OneDecode(to_floats)),
        "decoding alone": (1, decode_alone),
    }
    workers = {name: Worker(way) for name, (_, way) in ways.items()}
    print_conditions()
    times = {}
    with videos_in(arguments.videos) as videos:
        for path, count in videos.items():
            taken = measure(workers, [(path, count, arguments.length, arguments.rate)], arguments.repetitions)
            times[path] = {name: [t * ways[name][0] for t in taken[name]] for name in ways}
    long = [path for path, count in videos.items() if count >= LONG] or list(videos)
    for kind, unit in enumerate(("CPU time", "wall-clock time")):
        rows = []
        for name in ways:
            ratios = {path: t["thirty decodes"][kind] / t[name][kind] for path, t in times.items()}
            rows.append([name, geometric_mean([ratios[path] for path in long]), *ratios.values()])
        header = ["way", f"mean of >= {LONG} frames", *(Path(path).name for path in videos)]
        print_table(f"Times faster than thirty decodes, by {unit}", header, rows)


def to_floats(batch):
    return transforms.normalize(batch, 114.75, 57.375)


if __name__ == "__main__":
    main()
