"""Long videos: predict a generated one window by window, and check memory, windows and predictions.

    python tests/check_sliding.py [--minutes 120] [--fps 25] [--seconds 10] [--compared 20] [--most_mb 1000]

Makes a video of noise that drifts (64 x 48) and a small network, and runs tools/predict_video.py --sliding on it as a
user does. Every window must be in the CSV and in the JSON once, in order and without gaps, and of some windows the
prediction must be that for the clip cut out there, as a folder of its frames. Prints one line for each check, with the
peak memory of the tool; exit status 1 if one fails.
"""

import argparse
import contextlib
import csv
import json
import re
import subprocess
import sys
import tempfile
import time
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np

REPO = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(REPO / folder) for folder in ("lib", "tests/helpers")]

import legacy_run  # noqa: E402
import reference_recipe as recipe  # noqa: E402
from plain_decoder import rgb  # noqa: E402

from core.config import load_config  # noqa: E402
from engine.prediction import load_model, predict  # noqa: E402
from formats.blobs import model_blobs  # noqa: E402
from formats.caffe2_pickle import dump  # noqa: E402
from models.model_builder_video import create_model  # noqa: E402
from utils import cli  # noqa: E402

CLASSES, LENGTH, RATE = 10, 2, 10
REPEATED = 97  # seconds of video
EARLY = 10  # windows
WORDS = legacy_run.words(Path("."), Path("."), TRAIN__VIDEO_LENGTH=LENGTH, TRAIN__SAMPLE_RATE=RATE, NUM_GPUS=1,
                         TEST__BATCH_SIZE=4, MODEL__NUM_CLASSES=CLASSES)
TOLERANCE = 1e-5  # the two go through the network in different batches


def make_video(path, frames, fps):
    """MPEG-4 in Matroska. After REPEATED seconds, no whole number of windows, the same packets come again."""
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (6, 1024, 3), dtype=np.uint8)
    with av.open(str(path), "w") as file:
        stream = file.add_stream("mpeg4", rate=fps, options={"q:v": "4"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        packets = []
        for i in range(REPEATED * fps):
            picture = cv2.resize(np.roll(noise, -i // 8, axis=1)[:, :8], (64, 48), interpolation=cv2.INTER_LINEAR)
            picture = (picture >> 1) + np.uint8(i * 127 // (REPEATED * fps))
            packets += stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24"))
        contents = [(bytes(packet), packet.is_keyframe) for packet in [*packets, *stream.encode()] if packet.size]
        for i in range(frames):
            content, key = contents[i % len(contents)]
            packet = av.Packet(content)
            packet.pts = packet.dts = i
            packet.time_base, packet.is_keyframe, packet.stream = Fraction(1, fps), key, stream
            file.mux(packet)


def make_weights(path):
    network = create_model(load_config(WORDS[1], WORDS[2:]), "test")
    # Of scores that differ from window to window.
    recipe.fill(network, seed=1, weight_scales={"^pred_w$": 40})
    dump({name: tensor.numpy() for name, tensor in model_blobs(network).items()}, path)


def run_tool(folder, seconds):
    """(seconds that the tool ran, its memory in bytes: the peak up to the first windows, and of all)."""
    words = ["--video", folder / "long.mkv", "--sliding", seconds, "--views", "1x1", "--top", CLASSES,
             "--csv", folder / "long.csv", "--json", folder / "long.json", "--timeline", folder / "long.png",
             *WORDS, "TEST.PARAMS_FILE", folder / "w.pkl"]
    start, early, peak = time.monotonic(), 0, 0
    with open(folder / "log.txt", "w") as log:
        tool = subprocess.Popen([sys.executable, REPO / "tools/predict_video.py", *map(str, words)], stdout=log,
                                stderr=log)
        # Not ru_maxrss: it begins with what this process had when it started the tool.
        try:
            while tool.poll() is None:
                peak = max(peak, peak_now(tool.pid))
                if not early and sum(" % " in line for line in (folder / "log.txt").read_text().splitlines()) >= EARLY:
                    early = peak
                time.sleep(0.1)
        finally:
            tool.kill()
    assert tool.returncode == 0, (folder / "log.txt").read_text()[-2000:]
    return time.monotonic() - start, early, peak


def peak_now(process):
    """Peak memory of a running process so far in bytes; 0 if it has ended."""
    with contextlib.suppress(OSError):
        found = re.search(r"^VmHWM:\s*(\d+) kB", Path(f"/proc/{process}/status").read_text(), re.MULTILINE)
        return int(found[1]) << 10 if found else 0
    return 0


def windows_of(folder):
    """[(start, end, {class: probability})] of the CSV. AssertionError if the JSON has others."""
    with open(folder / "long.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    ranks = range(1, CLASSES + 1)
    windows = [(float(row["start"]), float(row["end"]), {int(row[f"class_id_{rank}"]): float(row[f"probability_{rank}"])
                                                         for rank in ranks}) for row in rows]
    [video] = json.loads((folder / "long.json").read_text())["videos"]
    assert windows == [(window["start"], window["end"], {row["class_id"]: row["probability"] for row in window["top"]})
                       for window in video["windows"]]
    return windows


def clip_start(number, seconds, fps, frames):
    """The first frame of the clip of a window, of a video of constant rate."""
    shown = min(int((number + 0.5) * seconds * fps), frames - 1)
    start = round((shown + 0.5) / RATE - LENGTH / 2)
    return min(max(start, 0), (frames - 1) // RATE - LENGTH + 1) * RATE


def cut_out(video, starts, folder):
    """Write the clips that begin at some frames as folders of images, folder/<start>, in one pass over the video."""
    converter = av.video.reformatter.VideoReformatter()
    with av.open(str(video)) as file:
        for i, frame in enumerate(file.decode(video=0)):
            for start in starts:
                if start <= i < start + LENGTH * RATE:
                    (folder / str(start)).mkdir(exist_ok=True, parents=True)
                    cv2.imwrite(str(folder / str(start) / f"{i - start + 1:06}.png"), rgb(converter, frame)[..., ::-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=120)
    parser.add_argument("--fps", type=int, default=25)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--compared", type=int, default=20, help="windows whose clips are cut out")
    parser.add_argument("--most_mb", type=float, default=1000)
    args = parser.parse_args()
    frames = round(args.minutes * 60 * args.fps)
    failed = False

    def check(good, line):
        nonlocal failed
        failed = failed or not good
        print(f"{'ok' if good else 'WRONG':5} {line}", flush=True)

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_weights(folder / "w.pkl")
        make_video(folder / "long.mkv", frames, args.fps)
        took, early, peak = run_tool(folder, args.seconds)
        length = frames / args.fps
        check(peak < args.most_mb * 1e6,
              f"peak memory of the tool {peak / 1e6:.0f} MB, at most {args.most_mb:g} ({early / 1e6:.0f} MB when "
              f"{EARLY} windows were there); {length:g} s of video in {took:.0f} s")
        windows = windows_of(folder)
        count = int(np.ceil(length / args.seconds - 1e-9))
        expected = [(round(i * args.seconds, 6), round(min((i + 1) * args.seconds, length), 6)) for i in range(count)]
        check([window[:2] for window in windows] == expected, f"{len(windows)} windows, each once: {count}")
        distinct = len({tuple(sorted(scores.items())) for *_, scores in windows})
        check(distinct > min(count, REPEATED) / 2, f"{distinct} of the predictions are distinct")
        check((folder / "long.png").stat().st_size > 0, "a timeline")
        rng = np.random.default_rng(1)
        numbers = {0, count - 1, *rng.integers(0, count, max(args.compared - 2, 0)).tolist()}
        starts = {number: clip_start(number, args.seconds, args.fps, frames) for number in sorted(numbers)}
        cut_out(folder / "long.mkv", set(starts.values()), folder / "cut")
        cfg = load_config(WORDS[1], WORDS[2:])
        model = load_model(cfg, folder / "w.pkl", views=(1, 1))
        worst = 0
        for number, start in starts.items():
            scores = predict(model, str(folder / "cut" / str(start)))
            found = windows[number][2]
            worst = max(worst, max(abs(found[i] - scores[i]) for i in range(CLASSES)))
        check(worst <= TOLERANCE, f"{len(starts)} windows equal the clips cut out there, up to {worst:.1e}")
    return 1 if failed else 0


if __name__ == "__main__":
    cli.run(main)
