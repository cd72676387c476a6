"""One training clip, 8 frames with stride 8 from a random start: ways to get its frames, single-threaded.

    python tests/bench/bench_decode.py [--videos FOLDER]

Ratios are to reading the whole video in RGB and then indexing, as legacy did. The floor decodes up to the last wanted
frame and converts nothing. "exact": the frames are, to the byte, those of reading everything. Every way has its own
process. PyAV and decord have rows if they are installed. "after a check": what this repository does with videos of
which check_dataset.py --try_skipping has found that packets may be left out.
"""

import importlib.util
import tempfile
import zlib
from functools import cache, partial
from pathlib import Path

import cv2
import numpy as np
from common import Worker, geometric_mean, measure, parser, print_conditions, print_table, videos_in

from data import transforms
from video.decoder_processes import DecoderProcesses
from video.sampling import open_video, sample_frames
from video.video_facts import VideoFacts, VideoFactsCache

LENGTH, RATE = 8, 8
DRAWS = 4  # starts
LONG = 60  # frames of the videos that count for the mean

BASE, OURS, FLOOR = "read everything, then index", "this repository, frames in RGB", "floor"
CHECKED = "this repository, after a check"
CUT = "this repository, scaled and cut"


def open_capture(path):
    capture = cv2.VideoCapture(path, cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
    capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 0)
    return capture


def read_everything(path, indices, convert_all=True):
    """All frames to RGB, as legacy converted them; without convert_all only the wanted ones."""
    capture, frames, failures = open_capture(path), [], 0
    while failures < 100:
        read, frame = capture.read()
        failures = 0 if read else failures + 1
        if read:
            frames.append(to_rgb(frame) if convert_all else frame)
    return [frames[i] if convert_all else to_rgb(frames[i]) for i in indices]


def to_rgb(frame):
    return cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)


def grab_only(path, indices):
    capture = open_capture(path)
    for _ in range(max(indices) + 1):
        capture.grab()


def sampled(path, indices, facts, memory):
    """memory ({path: array}) is used again, as the loader does it."""

    def keep(places, frame):
        clip = memory.setdefault(path, np.empty((LENGTH, *frame.shape), np.uint8))
        for place in places:
            clip[place] = frame

    sample_frames(open_video(path), lambda num_frames: indices, keep, facts)
    return memory[path]


def check(videos, facts):
    """Put into facts (VideoFactsCache) what check_dataset.py --try_skipping finds; names of videos that it helps."""
    helped = []
    with DecoderProcesses(1, 600, try_skipping=True) as decoders:
        for path, outcome in decoders.decode(videos):
            facts.put(path, open_video(path).fingerprint, VideoFacts(outcome.count, outcome.damage, outcome.skips))
            helped += [Path(path).name] if outcome.skips else []
    return helped


facts_in = cache(VideoFactsCache)


def cut_clip(path, indices_of, facts, clip, scale=256):
    """As the loader does it: scaled and cut into the batch's memory."""

    def keep(places, frame):
        size = transforms.scaled_size(*frame.shape[:2], scale)
        square = transforms.cut(transforms.resize(frame, size), 0, 0, 224, False)
        for place in places:
            clip[place] = square

    sample_frames(open_video(path), indices_of, keep, facts)


def by_pyav(path, indices):
    import av

    av.logging.set_level(None)
    wanted, frames = set(indices), {}
    with av.open(path) as container:
        container.streams.video[0].codec_context.thread_count = 1
        for i, frame in enumerate(container.decode(video=0)):
            if i in wanted:
                frames[i] = frame.to_ndarray(format="rgb24")
                if len(frames) == len(wanted):
                    break
    return [frames[i] for i in indices]


def by_decord(path, indices):
    import decord

    return list(decord.VideoReader(path, num_threads=1).get_batch(indices).asnumpy())


def checksums(way, path, indices):
    return [zlib.crc32(np.ascontiguousarray(frame)) for frame in way(path, indices)]


def main():
    arguments = parser(__doc__).parse_args()
    with tempfile.NamedTemporaryFile() as file:
        compare(arguments, file.name)


def compare(arguments, facts_file):
    known, memory, clip = VideoFactsCache(), {}, np.empty((LENGTH, 224, 224, 3), np.uint8)
    ways = {
        BASE: read_everything,
        "the same, only wanted ones to RGB": partial(read_everything, convert_all=False),
        OURS: lambda path, indices: sampled(path, indices, known, memory),
        "this repository, first time": lambda path, indices: sampled(path, indices, VideoFactsCache(), memory),
        CHECKED: lambda path, indices: sampled(path, indices, facts_in(facts_file), memory),
        CUT: lambda path, indices: cut_clip(path, lambda n: indices, known, clip),
        FLOOR: grab_only,
    }
    ways |= {
        name: way
        for name, module, way in (("PyAV", "av", by_pyav), ("decord", "decord", by_decord))
        if importlib.util.find_spec(module)
    }
    workers = {name: Worker(partial(without_result, way)) for name, way in ways.items()}
    checkers = {name: Worker(partial(checksums, way)) for name, way in ways.items() if name not in (CUT, FLOOR)}

    print_conditions()
    with videos_in(arguments.videos) as videos:
        helped = check(videos, VideoFactsCache(facts_file))
        print(f"Videos of which packets may be left out: {', '.join(sorted(helped)) or 'none'}")
        times, exact = {}, dict.fromkeys(checkers, 0)
        for path, count in videos.items():
            # The same random starts for all, spread evenly.
            starts = [transforms.train_start((i + 0.5) / DRAWS, count, LENGTH, RATE) for i in range(DRAWS)]
            calls = [(path, transforms.clip_indices(start, LENGTH, RATE, count).tolist()) for start in starts]
            usable = dict(workers)
            for name, checker in checkers.items():
                try:
                    exact[name] += all(checker.result(*call) == checkers[BASE].result(*call) for call in calls)
                except RuntimeError as error:
                    print(f"{name} fails on {Path(path).name}: {str(error)[:60]}")
                    del usable[name]
            times[path] = measure(usable, calls, arguments.repetitions)
    long = [path for path, count in videos.items() if count >= LONG] or list(videos)
    for kind, unit in enumerate(("CPU time", "wall-clock time")):
        rows = []
        for name in ways:
            ratios = {path: taken[BASE][kind] / taken[name][kind] for path, taken in times.items() if name in taken}
            mean = geometric_mean([ratios[path] for path in long]) if set(long) <= ratios.keys() else "-"
            shown = f"{exact[name]}/{len(videos)}" if name in exact else "-"
            rows.append([name, *(ratios.get(path, "-") for path in videos), mean, shown])
        header = ["way", *(Path(path).name for path in videos), f"mean of >= {LONG} frames", "exact"]
        print_table(f"Times faster than reading everything, by {unit}", header, rows)
        over = geometric_mean([times[path][OURS][kind] / times[path][FLOOR][kind] for path in long])
        print(f"this repository / floor: {over:.3f}")


def without_result(way, path, indices):
    way(path, indices)


if __name__ == "__main__":
    main()
