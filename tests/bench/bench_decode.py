"""One training clip, 8 frames with stride 8 from a random start: ways to get its frames, single-threaded.

    python tests/bench/bench_decode.py [--videos FOLDER] [--base FOLDER] [--keyframes N] [--clip LENGTH RATE]

Ratios are to reading the whole video in RGB by OpenCV and then indexing, as legacy did; with --base, of the videos of
the same names there. --keyframes writes the videos anew first, by x264 with a keyframe at least every N frames.
"exact": the frames are, to the byte, those of reading everything. Every way has its own process. decord and torchcodec
have rows if they are installed. The floor decodes up to the last wanted frame and converts nothing.

Of this repository: "unchecked" is a video of which only the number of frames is known, as after a test; "learnt" one
that a training or check_dataset.py has met before.
"""

import importlib.util
import tempfile
import zlib
from functools import partial
from pathlib import Path

import av
import cv2
import numpy as np
from common import Worker, geometric_mean, measure, parser, print_conditions, print_table, videos_in
from plain_decoder import all_frames

from data import transforms
from video.sampling import open_video, sample_frames
from video.video_facts import VideoFactsCache

DRAWS = 4  # starts
LONG = 60  # frames of the videos that count for the mean

BASE, FLOOR = "read everything, then index", "floor"
UNCHECKED, LEARNT = "this repository, unchecked", "this repository, learnt"
CUT = "the same, scaled and cut"


def read_everything_by_pyav(path, indices):
    frames = all_frames(path)
    return [frames[i] for i in indices]


def read_everything(path, indices):
    """All frames to RGB, as legacy converted them."""
    capture, frames, failures = cv2.VideoCapture(path, cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1]), [], 0
    capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 0)
    while failures < 100:
        read, frame = capture.read()
        failures = 0 if read else failures + 1
        if read:
            frames.append(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB))
    return [frames[i] for i in indices]


def decode_only(path, indices):
    left = max(indices) + 1
    with av.open(path) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count, stream.codec_context.thread_type = 1, "NONE"
        for packet in container.demux(stream):
            try:
                left -= len(stream.codec_context.decode(packet))
            except av.FFmpegError:
                continue
            if left <= 0:
                return


def sampled(path, indices, facts, memory, learn=False):
    """memory ({path: array}) is used again, as the loader does it."""

    def keep(places, frame):
        clip = memory.setdefault(path, np.empty((len(indices), *frame.shape), np.uint8))
        for place in places:
            clip[place] = frame

    sample_frames(open_video(path, as_stored=True), lambda num_frames: indices, keep, facts, learn=learn)
    return memory[path]


def cut_clip(path, indices_of, facts, clip, scale=256):
    """As the loader does it: scaled and cut into the batch's memory."""

    def keep(places, frame):
        size = transforms.scaled_size(*frame.shape[:2], scale)
        square = transforms.cut(transforms.resize(frame, size), 0, 0, 224, False)
        for place in places:
            clip[place] = square

    sample_frames(open_video(path, as_stored=True), indices_of, keep, facts)


def by_seeking(path, indices):
    """PyAV as its documentation seeks: to the keyframe before the first wanted frame, then on to the last one."""
    wanted, frames = set(indices), {}
    with av.open(path) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count, stream.codec_context.thread_type = 1, "NONE"
        step = 1 / (stream.average_rate * stream.time_base)
        start = stream.start_time or 0
        container.seek(start + int(min(indices) * step), stream=stream)
        for frame in container.decode(stream):
            index = round((frame.pts - start) / step)
            if index in wanted:
                frames[index] = frame.to_ndarray(format="rgb24")
                if len(frames) == len(wanted):
                    break
    return [frames[i] for i in indices]


def by_decord(path, indices):
    import decord

    return list(decord.VideoReader(path, num_threads=1).get_batch(indices).asnumpy())


def by_torchcodec(path, indices):
    from torchcodec.decoders import VideoDecoder

    decoder = VideoDecoder(path, stream_index=0, num_ffmpeg_threads=1, dimension_order="NHWC", seek_mode="approximate")
    return list(decoder.get_frames_at(list(indices)).data.numpy())


def with_keyframes(source, target, every):
    """Write a video anew by x264, with its defaults but for a keyframe at least every so many frames."""
    with av.open(str(target), "w") as container:
        stream = None
        for frame in map(av.VideoFrame.from_ndarray, all_frames(source)):
            if stream is None:
                stream = container.add_stream("libx264", rate=30, options={"g": str(every)})
                stream.width, stream.height, stream.pix_fmt = frame.width // 2 * 2, frame.height // 2 * 2, "yuv420p"
            container.mux(stream.encode(frame.reformat(stream.width, stream.height, "yuv420p")))
        container.mux(stream.encode(None))


def checksums(way, path, indices):
    return [zlib.crc32(np.ascontiguousarray(frame)) for frame in way(path, indices)]


def main():
    arguments = parser(__doc__)
    arguments.add_argument("--base", help="folder of videos of the same names, for the ratios")
    arguments.add_argument("--keyframes", type=int, help="write the videos anew, with a keyframe every so many frames")
    arguments.add_argument("--clip", type=int, nargs=2, default=(8, 8), metavar=("LENGTH", "RATE"),
                           help="(default: 8 8)")
    arguments = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if arguments.keyframes:
            with videos_in(arguments.videos) as videos:
                for path, count in videos.items():
                    if count >= LONG:
                        with_keyframes(path, Path(folder, Path(path).stem + ".mp4"), arguments.keyframes)
            arguments.videos = folder
        compare(arguments)


def make_ways(length, base):
    """{name: function(path, indices)}. The facts that a way knows live in its process."""
    clip = np.empty((length, 224, 224, 3), np.uint8)
    learnt, unchecked, memory = VideoFactsCache(), VideoFactsCache(), {}

    def after_an_epoch(way):
        def call(path, indices):
            if learnt.get(path, open_video(path, True).fingerprint) is None:
                sampled(path, indices, learnt, {}, learn=True)
            return way(path, indices)
        return call

    ways = {
        BASE: lambda path, indices: read_everything(base(path), indices),
        "the same by PyAV": lambda path, indices: read_everything_by_pyav(base(path), indices),
        UNCHECKED: lambda path, indices: sampled(path, indices, unchecked, memory),
        LEARNT: after_an_epoch(lambda path, indices: sampled(path, indices, learnt, memory)),
        CUT: after_an_epoch(lambda path, indices: cut_clip(path, lambda _: indices, learnt, clip)),
        "the first time, in a test": lambda path, indices: sampled(path, indices, VideoFactsCache(), memory),
        "the first time, in a training": lambda path, indices: sampled(path, indices, VideoFactsCache(), memory, True),
        FLOOR: decode_only,
        "PyAV, seeking": by_seeking,
    }
    peers = (("decord", by_decord), ("torchcodec", by_torchcodec))
    return ways | {name: way for name, way in peers if importlib.util.find_spec(name)}


def compare(arguments):
    length, rate = arguments.clip

    def base(path):
        return str(Path(arguments.base, Path(path).name)) if arguments.base else path

    ways = make_ways(length, base)
    workers = {name: Worker(partial(without_result, way)) for name, way in ways.items()}
    plain = Worker(partial(checksums, read_everything))
    checkers = {name: Worker(partial(checksums, way)) for name, way in ways.items()
                if name not in (BASE, CUT, FLOOR) and not (arguments.base and name.startswith("the same"))}

    print_conditions()
    with videos_in(arguments.videos) as videos:
        times, exact = {}, dict.fromkeys(checkers, 0)
        for path, count in videos.items():
            # The same random starts for all, spread evenly.
            starts = [transforms.train_start((i + 0.5) / DRAWS, count, length, rate) for i in range(DRAWS)]
            calls = [(path, transforms.clip_indices(start, length, rate, count).tolist()) for start in starts]
            usable = dict(workers)
            for name, checker in checkers.items():
                try:
                    exact[name] += sum(checker.result(*call) == plain.result(*call) for call in calls)
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
            shown = f"{exact[name]}/{DRAWS * len(videos)}" if name in exact else "-"
            rows.append([name, mean, shown, *(ratios.get(path, "-") for path in videos)])
        header = ["way", f"mean of >= {LONG} frames", "exact", *(Path(path).name for path in videos)]
        print_table(f"Times faster than reading everything, by {unit}", header, rows)


def without_result(way, path, indices):
    way(path, indices)


if __name__ == "__main__":
    main()
