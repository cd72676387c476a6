"""Videos that are cheap to read clips from: what x264's options cost in size, and save in decoding.

    python tests/bench/bench_for_clips.py [--videos FOLDER]

Every video is rescaled plainly, by ffmpeg's defaults, and with each set of options at some CRFs. "size" is relative to
the plain video, at its PSNR and at its SSIM (interpolated over the CRFs); "dB" is the PSNR and SSIM at the CRF of
--for_clips less the plain video's. The other columns: times less CPU time than legacy, which read the whole plain
video in RGB and then indexed, for a clip of frames x stride (from random starts, in a video that a training has met
before, at the CRF closest to the plain video's PSNR, by one thread). Means over the videos are geometric.
"""

import math
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from bench_decode import LONG, read_everything, without_result
from common import Worker, geometric_mean, measure, parser, print_conditions, print_table, videos_in

from data import transforms
from video.ffmpeg import Ffmpeg
from video.rescaling import CRF, FOR_CLIPS, Rescaling
from video.sampling import count_frames, open_video, sample_frames
from video.video_facts import VideoFactsCache

STARTS = 4
CLIPS = [(8, 8), (32, 2), (32, 4), (128, 1)]
CRFS = [CRF - 3, CRF, CRF + 3]
OURS = " ".join(FOR_CLIPS)
OPTIONS = {
    "x264's defaults": "",
    "--for_clips": OURS,
    "keyframe every 32": re.sub(r"keyint=\d+", "keyint=32", OURS),
    "B-frames where they pay": OURS.replace("b-adapt=0", "b-adapt=2"),
    "CABAC and deblocking": OURS.replace("-tune fastdecode ", ""),
    "keyframes only": "-x264-params keyint=1",
}


def write(ffmpeg, source, folder, options):
    """Write a video with each CRF. Returns {crf: (path, bytes, PSNR, SSIM)}, and the same of the plain video."""
    folder.mkdir()
    rescale = ["-vf", Rescaling().filters, "-an", "-sn", "-dn", "-c:v", "libx264"]

    def encode(name, *words):
        ffmpeg.convert(Path(source), folder / name, [*rescale, *words])
        return folder / name

    original = encode("original.mp4", "-preset", "ultrafast", "-qp", "0")  # without loss
    paths = {crf: encode(f"{crf}.mp4", *options.split(), "-crf", str(crf)) for crf in CRFS}
    paths[None] = encode("plain.mp4")
    written = {crf: (str(path), path.stat().st_size, *quality(path, original)) for crf, path in paths.items()}
    return written, written.pop(None)


def quality(path, original):
    """PSNR and SSIM of a video, in dB."""
    number = "settb=1/25,setpts=N"  # frames are compared by their number, not by their time
    graph = f"[0:v]{number},split[a][b];[1:v]{number},split[c][d];[a][c]psnr;[b][d]ssim"
    command = ["ffmpeg", "-nostdin", "-hide_banner", "-i", path, "-i", original, "-lavfi", graph, "-f", "null", "-"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    found = re.search(r"PSNR .*average:(\S+)", printed)[1], re.search(r"SSIM .*All:\S+ \((\S+)\)", printed)[1]
    return tuple(min(float(decibels), 100.0) for decibels in found)  # equal frames: infinite


def size_at(decibels, points):
    """The size at a quality, on the line through the two of [(quality, bytes)] that are around it or nearest to it."""
    points = sorted((quality, math.log(size)) for quality, size in points)
    i = min(max(sum(quality < decibels for quality, _ in points), 1), len(points) - 1)
    (x0, y0), (x1, y1) = points[i - 1 : i + 1]
    return math.exp(y0 + (decibels - x0) * (y1 - y0) / ((x1 - x0) or 1))


def read_clip(path, indices, facts):
    clip = [None] * len(indices)

    def keep(places, frame):
        for place in places:
            clip[place] = frame.copy()

    cache = facts.setdefault(path, VideoFactsCache())
    sample_frames(open_video(path), lambda count: indices, keep, cache, learn=True)  # learns at the first call


def clips_of(path, count, length, rate):
    """STARTS calls of read_clip. The starts are random, as keyframes are at regular ones."""
    draws = np.random.default_rng(0).random(STARTS)
    starts = [transforms.train_start(draw, count, length, rate) for draw in draws]
    return [(path, transforms.clip_indices(start, length, rate, count).tolist()) for start in starts]


def main():
    described = parser(__doc__)
    described.add_argument(
        "--options", nargs="+", choices=OPTIONS, default=list(OPTIONS), metavar="NAME", help="rows (default: all)"
    )
    arguments = described.parse_args()
    program = shutil.which("ffmpeg")
    if program is None:
        sys.exit("ffmpeg: not found on PATH")
    facts, ffmpeg = {}, Ffmpeg(program)
    workers = {"legacy": Worker(lambda path: without_result(read_everything, path, [0])),
               "clips": Worker(lambda path, indices: read_clip(path, indices, facts))}
    print_conditions()
    rows = []
    with videos_in(arguments.videos) as videos, tempfile.TemporaryDirectory() as folder:
        long = {path: count for path, count in videos.items() if count >= LONG} or videos
        print(f"Videos: {', '.join(Path(path).name for path in long)}", flush=True)
        for i, name in enumerate(arguments.options):
            measured = [
                one_video(ffmpeg, path, Path(folder) / f"{i}_{j}", OPTIONS[name], workers, arguments.repetitions)
                for j, path in enumerate(long)
            ]
            means = [statistics.fmean(values) if kind in (2, 3) else geometric_mean(values)
                     for kind, values in enumerate(zip(*measured, strict=True))]
            rows.append([name, *means])
    header = ["options", "size, PSNR", "size, SSIM", "dB PSNR", "dB SSIM", *(f"{n} x {rate}" for n, rate in CLIPS)]
    print_table("Rescaled videos", header, rows)


def one_video(ffmpeg, source, folder, options, workers, repetitions):
    """A row of the table for one video."""
    written, (plain, size, psnr, ssim) = write(ffmpeg, source, folder, options)
    sizes = [size_at(psnr, [(found[2], found[1]) for found in written.values()]) / size,
             size_at(ssim, [(found[3], found[1]) for found in written.values()]) / size]
    gains = written[CRF][2] - psnr, written[CRF][3] - ssim
    path = min(written.values(), key=lambda found: abs(found[2] - psnr))[0]
    count = count_frames(plain)
    legacy = measure({"legacy": workers["legacy"]}, [(plain,)], repetitions)["legacy"][0]
    times = [measure({"clips": workers["clips"]}, clips_of(path, count, *clip), repetitions)["clips"][0]
             for clip in CLIPS]
    return [*sizes, *gains, *(legacy / time for time in times)]


if __name__ == "__main__":
    main()
