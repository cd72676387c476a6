"""The makers of unusual videos: each file is what its maker says, and ffmpeg and PyAV see the same frames in it."""

import os
import random

import av
import pytest
from av.video.reformatter import VideoReformatter
from ffmpeg_frames import FFMPEG, checksums, ffmpeg_frames
from plain_decoder import decoded, default_stream, rgb, turned
from unusual_videos import KINDS, make_unusual
from video_files import digest

UPRIGHT = 0, False, False
REFUSED = [kind for kind in KINDS if kind.startswith(("thin-", "text-"))]
SOUND = [kind for kind in KINDS if kind not in REFUSED]


@pytest.mark.parametrize("kind", SOUND if os.environ.get("NLNET_ALL_KINDS") else SOUND[::6])  # all take a minute
def test_each_kind_is_what_it_says(tmp_path, kind):
    made = KINDS[kind](random.Random(kind), tmp_path)
    frames = list(decoded(made.path, made.stream))
    assert default_stream(made.path) == made.stream
    stored = [(frame.height, frame.width, frame.format.name) for frame in frames]
    if made.frames is not None:
        assert stored == made.frames
        assert repeated(frames) <= len(frames) // 4  # the coarsest settings of the encoders repeat some
    assert packets(made.path, made.stream) >= len(frames) + made.hidden
    if made.rotation is None:
        assert len({frame.rotation for frame in frames}) == 2
    elif made.rotation[1:] == (False, False):
        assert {frame.rotation % 360 for frame in frames} <= {made.rotation[0]}
    else:
        assert {frame.rotation % 360 for frame in frames} == {(180 - made.rotation[0]) % 360}
    if FFMPEG:
        assert_as_ffmpeg_sees_it(made, frames)


def packets(path, stream):
    with av.open(str(path)) as container:
        return sum(packet.size > 0 for packet in container.demux(video=stream))


def repeated(frames):
    found = [checksums(frame) for frame in frames]
    return sum(a == b for a, b in zip(found, found[1:], strict=False))


def assert_as_ffmpeg_sees_it(made, frames):
    expected, converter = ffmpeg_frames(made.path), VideoReformatter()
    assert len(frames) == len(expected)
    for frame, shown in zip(frames, expected, strict=True):
        picture = turned(rgb(converter, frame), frame.side_data.get("DISPLAYMATRIX"))
        assert picture.shape[:2] == (shown.height, shown.width)
        if made.rotation == UPRIGHT:
            assert (frame.format.name, checksums(frame)) == (shown.pix_fmt, shown.checksums)
        assert shown.rgb in (None, digest(picture))
    if made.stream or made.rotation != UPRIGHT:
        stored = [(frame.height, frame.width, checksums(frame)) for frame in decoded(made.path, 0)]
        assert [(f.height, f.width, f.checksums) for f in ffmpeg_frames(made.path, as_stored=True)] == stored


@pytest.mark.parametrize("kind", REFUSED)
def test_each_refused_kind_is_what_it_says(tmp_path, kind):
    made = KINDS[kind](random.Random(kind), tmp_path)
    assert made.frames == []
    if kind.startswith("thin-"):
        (frame, *_) = decoded(made.path)
        assert max(frame.height, frame.width) > 16 * min(frame.height, frame.width)
    else:
        assert b"\0" not in made.path.read_bytes()
        (named,) = (path for path in tmp_path.iterdir() if path != made.path)
        assert named.name in made.path.read_text() and list(decoded(named))


def test_a_seed_gives_the_same_file(tmp_path):
    first, second = ([made.path.read_bytes() for made in several(seed=3, folder=tmp_path)] for _ in range(2))
    assert first == second


def several(seed, folder):
    rng = random.Random(seed)
    return [make_unusual(rng, folder) for _ in range(8)]
