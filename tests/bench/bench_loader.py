"""The training loader: how it scales, threads against processes, and whether a training waits for it.

    python tests/bench/bench_loader.py [--videos FOLDER] [--clips 64] [--seconds 20]

1. Clips a second with 1 and 2 workers (8 frames, stride 8, 224 x 224), videos known already; time to the first batch.
   Processes are those of torch.utils.data.DataLoader, which stay. "CPU / clip" counts all processes.
2. The same while a small network trains on the same cores: steps a second, and the share of the time that steps wait
   for data.
"""

import os
import resource
import statistics
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from bench_decode import cut_clip
from common import parser, print_conditions, print_table, videos_in

from data import transforms
from data.sources import open_train_source
from data.train_loader import TrainClips, TrainLoader
from video.bad_videos import BadVideos
from video.video_facts import VideoFactsCache

CLIPS = TrainClips(length=8, rate=8, crop=224, jitter_scales=(256, 320))
BATCH = 4


def train_loader(source, cache, workers, first_record=0):
    return TrainLoader(source, CLIPS, BATCH, 1, [0], 2, "train", 400, workers, BadVideos(), first_record, cache,
                       as_stored=True)


class Clips(torch.utils.data.Dataset):
    """Random clips, decoded by the process that asks."""

    def __init__(self, source, cache):
        self._source, self._cache = source, cache

    def __len__(self):
        return 1 << 30

    def __getitem__(self, slot):
        record = self._source.record(slot)
        draws = transforms.train_draws(np.random.default_rng(slot), CLIPS.jitter_scales)
        clip = torch.empty((CLIPS.length, CLIPS.crop, CLIPS.crop, 3), dtype=torch.uint8)

        def indices_of(num_frames):
            start = transforms.train_start(draws.start, num_frames, CLIPS.length, CLIPS.rate)
            return transforms.clip_indices(start, CLIPS.length, CLIPS.rate, num_frames)

        cut_clip(record.path, indices_of, self._cache, clip.numpy(), draws.scale)
        return clip, record.label


@contextmanager
def threads(source, cache, workers):
    with train_loader(source, cache, workers) as loader:
        yield (batch[0] for batch in loader)


@contextmanager
def processes(source, cache, workers):
    loader = torch.utils.data.DataLoader(
        Clips(source, cache), BATCH, num_workers=workers, prefetch_factor=3, persistent_workers=True
    )
    batches = iter(loader)
    try:
        yield batches
    finally:
        batches._shutdown_workers()


def cpu_seconds():
    """Of this process and of its children that have ended."""
    return sum(
        usage.ru_utime + usage.ru_stime
        for usage in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    )


def throughput(kind, workers, source, cache, clips):
    """(clips a wall-clock second, CPU seconds a clip, seconds to the first batch)."""
    cpu, start = cpu_seconds(), time.perf_counter()
    with kind(source, cache, workers) as batches:
        next(batches)
        first = time.perf_counter() - start
        for _ in range(clips // BATCH - 1):
            next(batches)
        wall = time.perf_counter() - start
    return clips / wall, (cpu_seconds() - cpu) / clips, first


class Network(torch.nn.Module):
    """A small 3D network; width sets how long a step takes."""

    def __init__(self, width):
        super().__init__()
        self.body = torch.nn.Sequential(
            torch.nn.Conv3d(3, width, (3, 7, 7), (1, 2, 2), (1, 3, 3)), torch.nn.ReLU(),
            torch.nn.Conv3d(width, width, 3, (1, 2, 2), 1), torch.nn.ReLU(),
            torch.nn.Conv3d(width, width, 3, (2, 2, 2), 1), torch.nn.ReLU(),
        )
        self.head = torch.nn.Linear(width, 400)

    def forward(self, clips):
        return self.head(self.body(clips).mean((2, 3, 4)))


def training(kind, workers, source, cache, seconds, width):
    """(steps a second, share of the time spent waiting for a batch), from the fourth step on."""
    model = Network(width)
    optimizer = torch.optim.SGD(model.parameters(), 1e-3)
    with kind(source, cache, workers) as batches:
        steps = elapsed = 0
        while elapsed < seconds:
            if steps == 3:
                start, waited = time.perf_counter(), 0.0
            before = time.perf_counter()
            clips, labels = next(batches)
            after = time.perf_counter()
            steps += 1
            loss = torch.nn.functional.cross_entropy(model(transforms.normalize(clips, 114.75, 57.375)), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if steps > 3:
                waited += after - before
                elapsed = time.perf_counter() - start
    return (steps - 3) / elapsed, waited / elapsed


def main():
    arguments = parser(__doc__)
    arguments.set_defaults(repetitions=5)
    arguments.add_argument("--clips", type=int, default=64, help="clips a measurement")
    arguments.add_argument("--seconds", type=float, default=20, help="seconds a training; 0: none")
    arguments.add_argument("--width", type=int, default=48, help="channels of the network that trains")
    arguments = arguments.parse_args()
    print_conditions()
    with videos_in(arguments.videos) as videos, tempfile.TemporaryDirectory() as folder:
        listed = [path for path, count in videos.items() if count >= 60] or list(videos)
        lines = "".join(f"{os.path.abspath(path)} {i}\n" for i, path in enumerate(listed))
        (Path(folder) / "train.txt").write_text(lines)
        source, cache = open_train_source(folder, "train", 2, True), VideoFactsCache()
        throughput(threads, 2, source, cache, 8 * len(listed))  # so that the videos are known
        kinds = {f"{workers} {kind.__name__}": (kind, workers) for workers in (1, 2) for kind in (threads, processes)}

        taken = {name: [] for name in kinds}
        for repetition in range(arguments.repetitions):
            for name, (kind, workers) in list(kinds.items())[:: -1 if repetition % 2 else 1]:
                taken[name].append(throughput(kind, workers, source, cache, arguments.clips))
        medians = {
            name: [statistics.median(column) for column in zip(*runs, strict=True)] for name, runs in taken.items()
        }
        rows = [
            [name, rate, rate / medians["1 threads"][0], cpu * 1000, first * 1000]
            for name, (rate, cpu, first) in medians.items()
        ]
        print_table(
            "Loading alone", ["workers", "clips / s", "to 1 thread", "CPU ms / clip", "first batch ms"], rows
        )

        rows = []
        for name, (kind, workers) in kinds.items() if arguments.seconds else ():
            steps, waited = training(kind, workers, source, cache, arguments.seconds, arguments.width)
            rows.append([name, steps * BATCH, f"{100 * waited:.2f} %"])
        print_table("While a network trains on the same cores", ["workers", "clips / s", "waiting"], rows)


if __name__ == "__main__":
    main()
