#!/usr/bin/env python3
"""Make the demo's videos: classes that differ only in how things move, never in how a single frame looks.

A scene is a background and four squares, each in its own quarter of the picture, with five phases each: horizontal
position, vertical position, size, brightness, hue. One of the squares acts, the others stay as they are. Every scene is
filmed once per class; the class only determines which phases of the acting square advance. A phase is uniformly
distributed and remains so while it advances, so the frames of all classes follow one distribution: neither the
background nor a single frame tells the class, or which square acts. Motions go back and forth, so mirroring turns no
class into another.

    python process_data/demo/make_motion_videos.py OUT [--seed 0] [--train 40] [--val 8]

writes OUT/train/<class>/scene_<n>.mp4 and OUT/val/<class>/scene_<n>.mp4 (--train and --val videos of each
class) and OUT/classids.json. The same arguments make the same videos; one that exists is kept.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))
import _init_paths  # noqa: F401, I001  (lib/ on the path, a Python that is new enough)

import json
import os
from typing import NamedTuple
from zlib import crc32

import cv2
import numpy as np

from utils import cli
from utils.errors import UserError
from utils.files import atomic_file, atomic_write, make_folder
from video.bad_videos import BadVideo
from video.sampling import count_frames

# Which phases of the acting square advance; the order gives the class ids.
CLASSES = {
    "colour": ("hue",),
    "fading": ("light",),
    "moving": ("x", "y"),
    "size": ("size",),
    "still": (),
}
FRAME_SIZES = ((96, 80), (128, 104), (96, 96), (80, 96), (128, 128), (144, 120))  # width, height
FRAME_RATES = (15, 24, 25, 30)
LENGTHS = (24, 60)  # frames, both ends included
SIDES = (0.35, 0.65)  # of a square, of its quarter's side
LIGHTS = (80, 250)  # the value of its colour in HSV; its inside is dark
HUES, SATURATION = (0, 120), 220  # of the same
# Frames until a phase repeats.
ROUNDS = {"x": (16, 24), "y": (16, 24), "size": (14, 20), "light": (14, 20), "hue": (14, 20)}
FILLED = 0.9  # of the frame's short side, by the four quarters


class Scene(NamedTuple):
    """Everything that a video shows except its class. Phases are in 0..1, speeds in phase per frame."""

    width: int
    height: int
    frames: int
    rate: int
    background: np.ndarray  # height x width x 3, uint8, BGR
    acting: int  # one of the four squares
    phases: list[dict[str, float]]  # of each square
    speeds: dict[str, float]  # of the acting one


def draw_scene(seed: int, split: str, number: int) -> Scene:
    """Scene `number` of a split. The three arguments determine every draw."""
    rng = np.random.default_rng([seed, crc32(split.encode()), number])
    width, height = FRAME_SIZES[rng.integers(len(FRAME_SIZES))]
    return Scene(
        width=width,
        height=height,
        frames=int(rng.integers(LENGTHS[0], LENGTHS[1], endpoint=True)),
        rate=FRAME_RATES[rng.integers(len(FRAME_RATES))],
        background=_draw_background(rng, width, height),
        acting=int(rng.integers(4)),
        phases=[{name: float(rng.uniform()) for name in ROUNDS} for _ in range(4)],
        speeds={name: 1 / float(rng.uniform(*frames)) for name, frames in ROUNDS.items()},
    )


def render(scene: Scene, label: str) -> list[np.ndarray]:
    """The frames of a scene as class `label`: height x width x 3 uint8 arrays, BGR."""
    frames = []
    for t in range(scene.frames):
        frame = scene.background.copy()
        for number, phases in enumerate(scene.phases):
            moved = {name: t * scene.speeds[name] for name in CLASSES[label]} if number == scene.acting else {}
            _draw_square(frame, number, {name: (phase + moved.get(name, 0)) % 1 for name, phase in phases.items()})
        frames.append(frame)
    return frames


def write_video(path: Path, frames: list[np.ndarray], rate: int) -> None:
    """Write frames as MPEG-4 into path. The file appears under its name only when it is complete."""
    height, width = frames[0].shape[:2]
    with atomic_file(path, path.suffix) as part:
        writer = cv2.VideoWriter(str(part), cv2.VideoWriter_fourcc(*"mp4v"), rate, (width, height))
        if not writer.isOpened():
            raise UserError(f"{path}: OpenCV cannot write an MPEG-4 video here")
        for frame in frames:
            writer.write(frame)
        writer.release()
        # The writer does not report a full disk.
        if readable_frames(part) != len(frames):
            raise UserError(f"{path}: OpenCV cannot write the whole video here: is the disk full?")


def readable_frames(path: Path) -> int:
    """Number of frames that decode; 0 if it is not a video."""
    try:
        return count_frames(str(path))
    except BadVideo:
        return 0


def make_dataset(out: str | os.PathLike, seed: int, counts: dict[str, int]) -> int:
    """Write counts[split] scenes of every split, each as every class. Returns the number of new videos."""
    written = 0
    for split, count in counts.items():
        for number in range(count):
            scene = draw_scene(seed, split, number)
            for label in CLASSES:
                path = Path(out) / split / label / f"scene_{number:04d}.mp4"
                if path.exists():
                    continue
                make_folder(path.parent)
                write_video(path, render(scene, label), scene.rate)
                written += 1
    make_folder(out)
    with atomic_write(Path(out) / "classids.json", "w") as file:
        json.dump({label: i for i, label in enumerate(CLASSES)}, file, indent=1)
    return written


def _draw_background(rng, width, height):
    """A dim, smooth pattern of a few greyish colours."""
    coarse = rng.uniform(30, 80, (4, 4, 1)) + rng.uniform(-25, 25, (4, 4, 3))
    return cv2.resize(coarse.astype(np.uint8), (width, height), interpolation=cv2.INTER_CUBIC)


def _between(limits, phase):
    """From the lower limit to the upper one and back in one period: uniform if the phase is."""
    low, high = limits
    return low + (high - low) * (1 - abs(2 * phase - 1))


def _draw_square(frame, number, phases):
    """Draw a square into its quarter of the middle of the frame."""
    height, width = frame.shape[:2]
    quarter = FILLED * min(height, width) / 2
    side = quarter * _between(SIDES, phases["size"])
    light = _between(LIGHTS, phases["light"])
    room = quarter * (1 - SIDES[1]) / 2
    row, column = divmod(number, 2)
    x = width / 2 + (column - 0.5) * quarter + _between((-room, room), phases["x"])
    y = height / 2 + (row - 0.5) * quarter + _between((-room, room), phases["y"])
    distance = np.maximum(abs(np.arange(width) + 0.5 - x), abs(np.arange(height) + 0.5 - y)[:, None])
    pixel = np.uint8([[[round(_between(HUES, phases["hue"])), SATURATION, round(light)]]])
    colour = cv2.cvtColor(pixel, cv2.COLOR_HSV2BGR)[0, 0]
    frame[distance < side / 2] = colour
    frame[distance < side / 4] = colour // 8


def main() -> None:
    parser = cli.argument_parser(__doc__.splitlines()[0])
    parser.add_argument("out", metavar="OUT", help="folder for the videos")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--train", type=int, default=40, metavar="N", help="videos of each class to train on")
    parser.add_argument("--val", type=int, default=8, metavar="N", help="videos of each class to test on")
    args = parser.parse_args()
    if min(args.seed, args.train, args.val) < 0:
        raise UserError("--seed, --train and --val: expected numbers of at least 0")
    try:
        args.out.encode()
    except UnicodeEncodeError:
        raise UserError(f"{args.out}: expected a name in UTF-8: OpenCV writes no video under another") from None
    written = make_dataset(args.out, args.seed, {"train": args.train, "val": args.val})
    total = (args.train + args.val) * len(CLASSES)
    print(f"{args.out}: {total} videos of {len(CLASSES)} classes ({written} new)")


if __name__ == "__main__":
    cli.run(main)
