"""Shared by the benchmarks: videos, interleaved timing, tables."""

import argparse
import contextlib
import math
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import av
import cv2
import numpy as np

REPO = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(REPO / folder) for folder in ("lib", "tests/helpers", "tests/fuzz")]

from video_files import write_video  # noqa: E402

from video.bad_videos import BadVideo  # noqa: E402
from video.sampling import count_frames  # noqa: E402

# Frames, height, width, container, codec.
MADE = [
    (300, 256, 340, "mp4", "mp4v"),
    (250, 360, 640, "mp4", "mp4v"),
    (164, 240, 320, "avi", "XVID"),
    (240, 256, 340, "webm", "VP80"),
]


def parser(description):
    """ArgumentParser with --videos and --repetitions."""
    arguments = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("--videos", help="folder of videos (default: generate videos)")
    arguments.add_argument("--repetitions", type=int, default=5, help="number of measurements (default: %(default)s)")
    return arguments


@contextlib.contextmanager
def videos_in(folder):
    """Yield {path: number of frames} of the readable videos in a folder, or of generated ones if it is None."""
    with contextlib.ExitStack() as stack:
        if folder is None:
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            for i, (frames, height, width, suffix, codec) in enumerate(MADE):
                write_video(Path(folder) / f"{i}.{suffix}", panorama(frames, height, width, i), fourcc=codec)
        counts = {}
        for path in sorted(Path(folder).iterdir()):
            with contextlib.suppress(BadVideo):
                counts[str(path)] = count_frames(str(path), as_stored=True)
        if not counts:
            sys.exit(f"no readable video in {folder}")
        yield counts


def panorama(frames, height, width, seed):
    """RGB frames of a camera moving over a textured scene, with some noise; about as hard to decode as film."""
    rng = np.random.default_rng(seed)
    scene = rng.integers(0, 256, (height + frames, width + 2 * frames, 3), np.uint8)
    scene = cv2.normalize(cv2.GaussianBlur(scene, (0, 0), 3), None, 0, 255, cv2.NORM_MINMAX)
    views = [scene[i // 2 : i // 2 + height, 2 * i : 2 * i + width] for i in range(frames)]
    return [cv2.add(view, rng.integers(0, 8, view.shape, np.uint8)) for view in views]


class Worker:
    """Calls a function in its own process, because memory left behind by one method can help or hurt another.

    The process is forked: start workers before doing anything else.
    """

    _context = multiprocessing.get_context("fork")

    def __init__(self, function):
        self._here, there = self._context.Pipe()
        self._process = self._context.Process(target=self._serve, args=(function, there), daemon=True)
        self._process.start()

    def time(self, *arguments):
        """(CPU seconds, wall seconds) of a call. Raises RuntimeError if the call fails."""
        return self._ask(arguments)[0]

    def result(self, *arguments):
        """The result of a call. Raises RuntimeError if the call fails."""
        return self._ask(arguments)[1]

    def close(self):
        """End the process, which frees its memory."""
        self._process.kill()
        self._process.join()

    def _ask(self, arguments):
        self._here.send(arguments)
        while not self._here.poll(1):
            if not self._process.is_alive():
                raise RuntimeError(f"the process ended with status {self._process.exitcode}")
        times, result, error = self._here.recv()
        if error is not None:
            raise RuntimeError(error)
        return times, result

    @staticmethod
    def _serve(function, pipe):
        parent = os.getppid()
        while True:
            while not pipe.poll(1):
                if os.getppid() != parent:
                    return
            arguments = pipe.recv()
            cpu, wall = time.process_time(), time.perf_counter()
            try:
                result, error = function(*arguments), None
            except Exception as failure:
                result, error = None, str(failure)
            times = time.process_time() - cpu, time.perf_counter() - wall
            pipe.send((times, result, error))


def measure(workers, calls, repetitions):
    """{name: (CPU seconds, wall seconds)} of a call: median over the repetitions, mean over the calls.

    workers is {name: Worker}, and calls is a list of argument tuples. The workers take turns, in alternating order; in
    its turn, one makes all calls, as a thread that reads clip after clip does: a single call would mostly find the
    processor's caches filled by the others. CPU time depends less on other load on the machine.
    """
    taken = {name: [[] for _ in calls] for name in workers}
    for worker in workers.values():
        worker.time(*calls[0])
    for repetition in range(repetitions):
        for name, worker in list(workers.items())[:: -1 if repetition % 2 else 1]:
            for i, call in enumerate(calls):
                taken[name][i].append(worker.time(*call))
    return {
        name: tuple(
            statistics.fmean(statistics.median(times[kind] for times in call) for call in of_way) for kind in (0, 1)
        )
        for name, of_way in taken.items()
    }


def geometric_mean(values):
    return math.exp(statistics.fmean(map(math.log, values)))


def print_table(title, header, rows):
    """Print a title and a table; the first column is left-aligned, floats have two decimals."""
    rows = [[f"{cell:.2f}" if isinstance(cell, float) else str(cell) for cell in row] for row in [header, *rows]]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    print(f"\n{title}")
    for first, *others in rows:
        cells = (cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True))
        print("  ".join([first.ljust(widths[0]), *cells]), flush=True)


def print_conditions():
    print(f"PyAV {av.__version__}, OpenCV {cv2.__version__}, {len(os.sched_getaffinity(0))} cores, "
          f"load {os.getloadavg()[0]:.2f}", flush=True)
