"""Damaged videos and folders of frames, judged by reading and converting every frame."""

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import av.subtitles.codeccontext  # noqa: F401  PyAV imports them at the first file with subtitles, where nothing may be
import av.subtitles.stream  # noqa: F401
import cv2
import numpy as np
from fuzzing import Area, Wrong, mutate_bytes
from plain_decoder import all_frames
from video_files import H264, digest, moving_square, write_frames, write_video

from video.bad_videos import BadVideo
from video.decoder_processes import DecoderProcesses
from video.sampling import open_video, sample_frames
from video.video_facts import MAX_FRAMES, VideoFactsCache

MADE = [("mp4", "mp4v"), ("avi", "XVID"), ("avi", "MJPG"), ("mkv", "FFV1"), ("mkv", "VP80"), ("mpg", "PIM1"),
        ("mov", "mp4v")]  # fmt: skip
# Where ffmpeg is on the path: what videos of today are in, and its own ways to lay out an mp4.
ENCODED = [
    ("g12.mp4", "-c:v libx264 -g 12 -bf 2"), ("start.mp4", "-c:v libx264 -movflags faststart -g 50 -coder 0"),
    ("fragments.mp4", "-c:v libx264 -movflags frag_keyframe+empty_moov -g 6"), ("h264.mkv", "-c:v libx264"),
    ("h264.flv", "-c:v libx264"), ("h264.ts", "-c:v libx264 -f mpegts"), ("h264.avi", "-c:v libx264 -bf 0"),
    ("hevc.mp4", "-c:v libx265 -x265-params log-level=none"), ("mpeg2.mpg", "-c:v mpeg2video"),
    ("vp9.webm", "-c:v libvpx-vp9 -deadline realtime -cpu-used 8"), ("wmv2.asf", "-c:v wmv2"),
    ("odd.mp4", "-c:v libx264 -vf scale=65:49 -pix_fmt yuv444p"),
]  # fmt: skip
OTHER = ("text", "noise", "picture", "empty", "folder", "fifo", "missing", "link")


@dataclass
class Case:
    path: str
    size: int
    kind: str
    known: bool  # decoded twice with the same VideoFactsCache, not with new ones
    as_stored: bool  # see open_video

    def __str__(self):
        return f"{self.kind}, {self.size} bytes"


def make_seeds(folder):
    """{name: content} of sound videos of many containers and codecs, each of a few dozen small frames."""
    folder.mkdir()
    shutil.copy(H264, folder)
    for i, (suffix, codec) in enumerate(MADE):
        write_video(folder / f"{codec}.{suffix}", moving_square(20 + i, 48 + 16 * (i % 2), 64, seed=i), fourcc=codec)
    if ffmpeg := shutil.which("ffmpeg"):
        source = folder / f"{MADE[2][1]}.avi"
        for name, options in ENCODED:
            subprocess.run([ffmpeg, "-v", "quiet", "-y", "-i", source, *options.split(), folder / name])
    # A build of ffmpeg may lack an encoder.
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.stat().st_size}


def sampled(case, indices_of, cache):
    """Digests of the frames that are wanted."""
    digests = {}

    def keep(places, frame):
        digests.update(dict.fromkeys(places, digest(frame)))

    known = sample_frames(open_video(case.path, case.as_stored), indices_of, keep, cache)
    return [digests.get(place) for place in range(len(indices_of(known.count)))]


def every_image(folder):
    """Digests of the images in a folder, in the order of their names."""
    return [digest(cv2.imread(str(path), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)[..., ::-1])
            for path in sorted(Path(folder).iterdir())]


class Videos(Area):
    name = "videos"
    error = BadVideo
    seconds = 60
    memory = 300 << 20, 200  # FFmpeg takes what a frame of the size in the header takes, whatever the file's
    traced = 0
    # Of a folder of frames; and what Cython makes tracebacks of PyAV's exceptions with, without running any code.
    allowed_events = frozenset({"os.scandir", "sys._getframe", "compile", "code.__new__"})

    def __init__(self, folder):
        self.folder = folder / "cases"
        self.seeds = make_seeds(folder / f"seeds{os.getpid()}")
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()
        self.decoders = [DecoderProcesses(1, self.seconds, as_stored) for as_stored in (False, True)]

    def make(self, rng):
        self._clear()
        name = rng.choice(list(self.seeds))
        path, known = self.folder / f"case{Path(name).suffix}", rng.random() < 0.5
        if rng.random() < 0.1:
            kind, name = "frames", ""
            self._make_frames(rng, path)
        elif rng.random() < 0.08:
            kind = rng.choice(OTHER)
            self._make_other(rng, kind, path)
        else:
            kind, data = self._damaged(rng, name)
            path.write_bytes(data)
        size = path.stat().st_size + 1 if path.is_file() else 1
        return Case(str(path), size, f"{kind} {name}", known, rng.random() < 0.5)

    def _clear(self):
        for decoders in self.decoders:
            decoders.renew()
        for path in self.folder.iterdir():
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()

    def _damaged(self, rng, name):
        data = self.seeds[name]
        kind = rng.choice(("bytes", "bytes", "bytes", "block", "cut", "zeros", "mixed", "joined"))
        at, size = rng.randrange(len(data)), rng.randrange(1, 2000)
        if kind == "bytes":
            data = mutate_bytes(rng, data, list(self.seeds.values()))
        elif kind == "block":  # the stretches that a bad disk or a bad download loses
            data = data[:at] + rng.randbytes(size) + data[at + size :]
        elif kind == "cut":
            data = data[:at]
        elif kind == "zeros":
            data = data[:at] + bytes(min(size, len(data) - at)) + data[at + size :]
        else:
            other = self.seeds[rng.choice(list(self.seeds))]
            head = rng.choice((at, min(at, 2000)))
            data = data[:head] + other[head:] if kind == "mixed" else data + other
        return kind, data

    def _make_other(self, rng, kind, path):
        if kind == "text":
            path.write_text("no video at all\n" * rng.choice((1, 100, 5000)))
        elif kind == "noise":
            path.write_bytes(rng.randbytes(rng.randrange(1, 50000)))
        elif kind == "picture":
            frame = np.full((64, 64, 3), rng.randrange(256), np.uint8)
            path.write_bytes(cv2.imencode(rng.choice((".png", ".jpg", ".bmp", ".webp")), frame)[1])
        elif kind == "empty":
            path.touch()
        elif kind == "folder":
            path.mkdir()
        elif kind == "fifo":
            os.mkfifo(path)
        elif kind == "link":
            path.symlink_to(rng.choice((path.name, "gone", "/dev/zero")))

    def _make_frames(self, rng, path):
        """A folder of images, some of them damaged."""
        damaged = rng.random() < 0.7
        write_frames(path, moving_square(rng.randrange(1, 9), 48, 64, seed=rng.randrange(9)),
                     rng.choice(("{:06d}.png", "img_{:05d}.jpg", "{}.jpeg")))
        for file in sorted(path.iterdir()) if damaged else ():
            if rng.random() < 0.3:
                data = file.read_bytes()
                file.write_bytes(rng.choice((mutate_bytes(rng, data), data[: rng.randrange(len(data))])))

    def load(self, case):
        """([digests of all frames], twice; [(indices, digests) of clips], where packets may be left out; VideoFacts)"""
        cache, seen = VideoFactsCache(), []
        for _ in range(2):
            seen.append(sampled(case, range, cache if case.known else VideoFactsCache()))
        ((_, outcome),) = self.decoders[case.as_stored].decode([case.path])
        return seen, self._clips(case, outcome.facts), outcome.facts

    def _clips(self, case, facts):
        if not facts.skips:
            return []
        cache = VideoFactsCache()
        cache.put(case.path, open_video(case.path, case.as_stored).fingerprint, facts)
        clips = [range(start, facts.count, 6) for start in range(facts.count)]  # so that some packets are left out
        return [(clip, sampled(case, lambda count, clip=clip: clip, cache)) for clip in clips]

    def check(self, case, result):
        whole, clips, facts = result
        expected = self.full_read(case)[:MAX_FRAMES]
        for digests in whole:
            if len(digests) != len(expected):
                raise Wrong(f"{len(digests)} frames where a full read has {len(expected)}")
        if facts.count != len(expected):
            raise Wrong(f"{facts.count} frames decode in a process of their own where a full read has {len(expected)}")
        for indices, digests in [(range(len(expected)), digests) for digests in whole] + clips:
            for index, found in zip(indices, digests, strict=True):
                # A few ruins decode to what happens to be in memory: another full read differs from the first.
                if found != expected[index] and all(
                        self.full_read(case, held)[index] == expected[index] for held in (False, True)):
                    raise Wrong(f"frame {index} differs from a full read's, in a clip of {len(indices)}")

    def full_read(self, case, held=False):
        """Digests of all frames, by other code."""
        if Path(case.path).is_dir():
            return every_image(case.path)
        return [digest(frame) for frame in all_frames(case.path, not case.as_stored, held)]

    def check_refusal(self, case, error):
        if error.name != case.path or "\n" in str(error) or not error.reason:
            raise Wrong(f"a message that is not one line about the file: {error!s:.200}")
