"""Random clips of every readable video are, to the byte, those of decoding everything and indexing."""

import struct
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from video_files import digest, every_frame, moving_square, write_video

from data import transforms
from video.bad_videos import BadVideo
from video.container import Container
from video.sampling import count_frames, open_video, sample_frames
from video.video_facts import VideoFactsCache

VIDEOS = [  # frames, height, width, container, codec
    (40, 64, 96, "mp4", "mp4v"),
    (25, 96, 64, "avi", "XVID"),
    (31, 64, 64, "avi", "MJPG"),
    (18, 48, 80, "mkv", "FFV1"),
    (33, 64, 96, "webm", "VP80"),
    (21, 64, 96, "mpg", "PIM1"),
    (1, 64, 64, "mp4", "mp4v"),
]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    return [
        str(write_video(folder / f"{i}.{suffix}", moving_square(n, height, width, seed=i), fourcc=codec))
        for i, (n, height, width, suffix, codec) in enumerate(VIDEOS)
    ]


every_frame_once = cache(every_frame)
CACHE = VideoFactsCache()


def assert_clip(path, expected, start, length, rate, cache):
    """start is in 0..1, as the draws are; it may lie anywhere, so that clips wrap round."""
    clip = [None] * length

    def indices_of(num_frames):
        return transforms.clip_indices(int(start * num_frames), length, rate, num_frames)

    def keep(places, frame):
        for place in places:
            clip[place] = digest(frame)

    assert sample_frames(open_video(path, as_stored=True), indices_of, keep, cache).count == len(expected)
    assert clip == [expected[index] for index in indices_of(len(expected))]


clips = {
    "start": st.floats(0, 1, exclude_max=True),
    "length": st.integers(1, 40),
    "rate": st.integers(1, 20),
    "known": st.booleans(),
}


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(which=st.integers(0, len(VIDEOS) - 1), **clips)
def test_made_videos(made, which, start, length, rate, known):
    path = made[which]
    assert_clip(path, every_frame_once(path), start, length, rate, CACHE if known else VideoFactsCache())


def damage(content, draw):
    """Overwrite, cut out or cut off bytes."""
    content = bytearray(content)
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, len(content) - 1))
        kind = draw(st.sampled_from(["overwrite", "cut out", "cut off"] if at > len(content) // 2 else ["overwrite"]))
        size = draw(st.integers(1, 60))
        if kind == "overwrite":
            content[at : at + size] = draw(st.binary(min_size=size, max_size=size))
        else:
            del content[at : at + size if kind == "cut out" else None]
    return bytes(content)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(which=st.integers(0, len(VIDEOS) - 2), data=st.data(), **clips)
def test_damaged_videos(made, tmp_path, which, data, start, length, rate, known):
    path = tmp_path / f"damaged{Path(made[which]).suffix}"
    path.write_bytes(damage(Path(made[which]).read_bytes(), data.draw))
    expected = every_frame(str(path))[:10000]
    if not expected:
        with pytest.raises(BadVideo):
            count_frames(str(path))
        return
    cache = VideoFactsCache()
    for _ in range(1 + known):
        assert_clip(str(path), expected, start, length, rate, cache)


def test_the_container_cannot_be_trusted(made, tmp_path):
    """Why F is counted: two files of the same size and of the same claim in every table of the container."""
    sound, damaged = Path(made[0]), tmp_path / "v.mp4"
    content = bytearray(sound.read_bytes())
    sizes = content.index(b"stsz") + 4
    _, uniform, samples = struct.unpack_from(">3I", content, sizes)
    packets = struct.unpack_from(f">{samples}I", content, sizes + 12)
    assert uniform == 0 and samples == 40
    offset = content.index(b"mdat") + 4 + sum(packets[:20])
    content[offset : offset + packets[20]] = bytes(packets[20])
    damaged.write_bytes(content)
    claims = [Container(str(path), True).claimed_frames for path in (sound, damaged)]
    assert claims == [40, 40]
    assert [count_frames(str(path)) for path in (sound, damaged)] == [40, 39]


def test_real_videos(shared):
    """A bounded number of clips of each."""
    rng = np.random.default_rng(0)
    for path in map(str, sorted((shared / "videos").iterdir())):
        expected = every_frame(path)
        if not expected:
            continue
        cache = VideoFactsCache()
        for length, rate in ((8, 8), (32, 2), (5, 1 + len(expected) // 4)):
            assert_clip(path, expected, rng.random(), length, rate, cache)
