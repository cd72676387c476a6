import os
import struct
import tracemalloc
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from video_files import moving_square, write_video

from video import decoder
from video.bad_videos import BadVideo
from video.sampling import count_frames, open_video, sample_frames
from video.video import Stopped
from video.video_facts import VideoFacts, VideoFactsCache


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    return str(write_video(tmp_path_factory.mktemp("v") / "v.mp4", moving_square(40, 64, 96)))


@pytest.fixture
def false_claim(monkeypatch):
    """Make the container claim another number of frames than it has."""
    real = cv2.VideoCapture

    class Capture:
        def __init__(self, *arguments):
            self._capture = real(*arguments)

        def get(self, key):
            claim = Capture.claim
            return claim if key == cv2.CAP_PROP_FRAME_COUNT and claim is not None else self._capture.get(key)

        def grab(self):
            Capture.grabs += 1
            return self._capture.grab()

        def __getattr__(self, name):
            return getattr(self._capture, name)

    Capture.claim, Capture.grabs = None, 0
    monkeypatch.setattr(cv2, "VideoCapture", Capture)
    return Capture


def everything(path):
    """All frames (RGB), as legacy read them: each one converted, then indexed."""
    capture = cv2.VideoCapture(path, cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
    capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 0)
    frames, failures = [], 0
    while failures < 500:
        read, frame = capture.read()
        failures = 0 if read else failures + 1
        if read:
            frames.append(frame[..., ::-1])
    return frames


def ignore(places, frame):
    pass


def frames_of(path, indices_of, cache):
    """(VideoFacts, the frames in the order of indices_of)."""
    frames = {}

    def keep(places, frame):
        frames.update(dict.fromkeys(places, frame.copy()))

    known = sample_frames(open_video(path), indices_of, keep, cache)
    return known, [frames[place] for place in range(len(frames))]


def assert_frames(path, indices_of, cache, expected):
    known, frames = frames_of(path, indices_of, cache)
    assert known.count == len(expected)
    for index, frame in zip(indices_of(len(expected)), frames, strict=True):
        assert np.array_equal(frame, expected[index])
    return known


def test_wanted_frames_only(video):
    expected = everything(video)
    assert len(expected) == 40
    cache, kept = VideoFactsCache(), []
    for _ in range(2):  # once with F unknown, once known
        facts = sample_frames(
            open_video(video), lambda n: [n - 3, 5, 5, 0], lambda *call: kept.append(str(call)), cache
        )
        assert facts == VideoFacts(40, None)
    assert kept == 2 * [str(([3], expected[0])), str(([1, 2], expected[5])), str(([0], expected[37]))]


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_any_clip_agrees_with_reading_everything(video, data):
    indices = data.draw(st.lists(st.integers(0, 39), min_size=1, max_size=12))
    cache = data.draw(st.sampled_from([VideoFactsCache(), KNOWN]))
    assert_frames(video, lambda n: indices, cache, EVERYTHING.setdefault(video, everything(video)))


KNOWN, EVERYTHING = VideoFactsCache(), {}


def test_reading_stops_after_the_last_wanted_frame(video, false_claim):
    cache = VideoFactsCache()
    sample_frames(open_video(video), lambda n: [3], ignore, cache)
    assert false_claim.grabs >= 40
    false_claim.grabs = 0
    sample_frames(open_video(video), lambda n: [3, 7], ignore, cache)
    assert false_claim.grabs == 8


@pytest.mark.parametrize("known", [False, True])
def test_stopping(video, false_claim, known):
    cache = VideoFactsCache()
    if known:
        sample_frames(open_video(video), lambda n: [0], ignore, cache)
    false_claim.grabs = 0
    with pytest.raises(Stopped):
        sample_frames(open_video(video), lambda n: [30], ignore, cache, stopped=lambda: false_claim.grabs == 7)
    assert false_claim.grabs == 7


def test_content_that_changed_unnoticed(video, tmp_path):
    # Size and time suggest that the file is the known one, but it has fewer frames.
    cache = VideoFactsCache()
    cache.put(video, open_video(video).fingerprint, VideoFacts(60, None))
    assert_frames(video, lambda n: [0, n - 1], cache, everything(video))
    assert cache.get(video, open_video(video).fingerprint) == VideoFacts(40, None)


@pytest.mark.parametrize("claim", [-1, 0, 1, 39, 41, 60, 100000, -9.3e18])
def test_the_claim_never_shows(video, false_claim, claim):
    expected = everything(video)
    false_claim.claim = claim
    cache = VideoFactsCache()
    assert count_frames(video) == 40
    for _ in range(2):
        assert_frames(video, lambda n: [n // 2, n - 1], cache, expected)


def test_a_large_shortfall_is_damage(video, false_claim):
    for claim, damaged in ((41, False), (42, False), (43, True), (20, False), (60, True)):
        false_claim.claim = claim
        damage = sample_frames(open_video(video), lambda n: [0], ignore, VideoFactsCache()).damage
        assert (damage == f"40 frames decode where the container claims {claim}") == damaged


def test_failures_inside_are_skipped_and_reported(video, false_claim, monkeypatch):
    expected = everything(video)
    bad = {10, 11, 30}
    pattern = []

    def grab(self):
        # A packet that does not decode: one failure, and the frame is gone.
        decoded = self._capture.grab()
        pattern.append(decoded)
        return decoded and len(pattern) - 1 not in bad

    monkeypatch.setattr(false_claim, "grab", grab)
    left = [frame for index, frame in enumerate(expected) if index not in bad]

    def indices_of(n):
        pattern.clear()
        return [9, 10, 27, n - 1]

    known = assert_frames(video, indices_of, VideoFactsCache(), left)
    assert known.damage == "packets that do not decode: 3; used with the 37 frames that do"


def test_only_the_first_10000_frames_count(video, false_claim, monkeypatch):
    monkeypatch.setattr(decoder, "MAX_FRAMES", 25)
    assert_frames(video, lambda n: [n - 1], VideoFactsCache(), everything(video)[:25])
    assert decoder.MAX_FRAMES == 25 and count_frames(video) == 25


def test_a_changed_file_is_decoded_again(tmp_path):
    path = str(tmp_path / "v.avi")
    cache = VideoFactsCache()
    for n in (20, 12):
        write_video(path, moving_square(n, 64, 64), fourcc="MJPG")
        os.utime(path, ns=(n, n))
        assert sample_frames(open_video(path), lambda n: [n - 1], ignore, cache).count == n


@pytest.mark.parametrize(
    ("suffix", "fourcc"),
    [("mp4", "mp4v"), ("avi", "MJPG"), ("avi", "FFV1"), ("mkv", "mp4v"), ("mpg", "PIM1")],
)
def test_containers(tmp_path, suffix, fourcc):
    path = str(write_video(tmp_path / f"v.{suffix}", moving_square(15, 48, 80), fourcc=fourcc))
    assert_frames(path, lambda n: [1, n - 1], VideoFactsCache(), everything(path))
    assert count_frames(path) == 15


def test_lossless_frames_come_back(tmp_path):
    frames = moving_square(6, 48, 80)
    path = str(write_video(tmp_path / "v.avi", frames, fourcc="FFV1"))
    _, found = frames_of(path, range, VideoFactsCache())
    for frame, original in zip(found, frames, strict=True):
        # Chroma is halved in the file: compare where the picture is smooth.
        assert np.abs(frame.astype(int) - original).mean() < 4


def test_the_picture_is_not_rotated(video, tmp_path):
    content = bytearray(Path(video).read_bytes())
    matrix = content.index(b"tkhd") + 4 + 40
    turned = struct.pack(">9i", 0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30)
    content[matrix : matrix + 36] = turned
    path = tmp_path / "turned.mp4"
    path.write_bytes(content)
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    assert capture.read()[1].shape == (96, 64, 3)  # the file does ask for it
    assert_frames(str(path), lambda n: [0, 20], VideoFactsCache(), everything(video))


def test_a_size_that_changes_inside(tmp_path):
    parts = [tmp_path / "a.mpg", tmp_path / "b.mpg"]
    write_video(parts[0], moving_square(12, 64, 96), fourcc="PIM1")
    write_video(parts[1], moving_square(12, 96, 64), fourcc="PIM1")
    path = tmp_path / "c.mpg"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    known, frames = frames_of(str(path), range, VideoFactsCache())
    assert known.count == len(frames) > 20
    assert {frame.shape for frame in frames} == {(64, 96, 3)}


@pytest.mark.parametrize("kept", [0.3, 0.6, 0.9])
def test_truncated_files_end(tmp_path, kept):
    path = write_video(tmp_path / "v.avi", moving_square(60, 64, 96), fourcc="MJPG")
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    known = sample_frames(open_video(str(path)), lambda n: [n - 1], ignore, VideoFactsCache())
    assert abs(known.count - 60 * kept) < 8
    assert "container claims 60" in known.damage


def make(kind, folder):
    path = folder / {"text": "notes.txt", "name": os.fsdecode(b"v\xff.mp4")}.get(kind, "v.mp4")
    if kind == "folder":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "empty":
        path.touch()
    elif kind in ("text", "text as video"):
        path.write_text("no video at all\n" * 2000)
    elif kind == "name":
        path.write_bytes(b"x")
    elif kind == "head only":
        write_video(path, moving_square(5, 64, 64))
        path.write_bytes(path.read_bytes()[:200])
    return str(path)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("missing", "No such file or directory"),
        ("folder", "is a folder without frames: "
                   "expected images 000001.jpg, 000002.jpg, ... (or img_00001.jpg; or png)"),
        ("fifo", "is neither a file nor a folder"),
        ("empty", "is empty"),
        ("text", "is a text file"),
        ("text as video", "is not a video that FFmpeg can read"),
        ("head only", "is not a video that FFmpeg can read"),
        ("name", "has a name that is not UTF-8"),
    ],
)
def test_bad_videos_say_why(tmp_path, kind, reason):
    path = make(kind, tmp_path)
    for _ in range(2):
        with pytest.raises(BadVideo) as caught:
            sample_frames(open_video(path), lambda n: [0], ignore, VideoFactsCache())
        assert (caught.value.name, caught.value.reason) == (path, reason)


def test_a_video_without_frames(tmp_path):
    path = write_video(tmp_path / "v.avi", moving_square(5, 64, 64), fourcc="MJPG")
    content = path.read_bytes()
    path.write_bytes(content[: content.index(b"movi") + 4])
    with pytest.raises(BadVideo, match="no frame decodes|not a video"):
        count_frames(str(path))


@pytest.mark.parametrize("name", ["a:b.mp4", "a%03d b.mp4", "ünï.mp4"])
def test_unusual_names(video, tmp_path, monkeypatch, name):
    (tmp_path / name).write_bytes(Path(video).read_bytes())
    monkeypatch.chdir(tmp_path)
    assert count_frames(name) == 40


def test_one_frame_is_enough(tmp_path):
    path = str(write_video(tmp_path / "v.mp4", moving_square(1, 64, 64)))
    assert sample_frames(open_video(path), lambda n: [0] * n, ignore, VideoFactsCache()).count == 1


def test_opencv_is_quiet(tmp_path, capfd):
    make("head only", tmp_path)
    with pytest.raises(BadVideo):
        count_frames(str(tmp_path / "v.mp4"))
    assert capfd.readouterr() == ("", "")


# ------------------------------------------------------------------------------------------ real videos

FRAMES = {
    "arm_wrestling.mp4": 280,
    "corrupted.mp4": 49,
    "nasa_13013.mp4": 325,
    "part_0.mp4": 32,
    "skeleton.mp4": 72,
    "structuralize.mp4": 300,
    "test.avi": 164,
    "test.mp4": 300,
}


def test_real_videos(shared):
    for name, frames in FRAMES.items():
        assert count_frames(str(shared / "videos" / name)) == frames, name


def test_the_damaged_video_is_always_the_same(shared):
    path = str(shared / "videos" / "corrupted.mp4")
    # The picture after the damage depends on the number of FFmpeg's threads; everything() has one.
    expected = everything(path)
    assert len(expected) == 49
    for _ in range(2):
        known = assert_frames(path, lambda n: [0, 27, 28, n - 1], VideoFactsCache(), expected)
        assert known.damage == "packets that do not decode: 1; used with the 49 frames that do"


def test_decoding_a_video_again_and_again_leaves_nothing_behind(tmp_path):
    path = str(write_video(tmp_path / ("long" * 50 + ".mp4"), moving_square(2, 64, 64)))
    cache = VideoFactsCache()

    def decode(times):
        for _ in range(times):
            # A new string each time, as from a record.
            sample_frames(open_video("".join(list(path))), lambda count: (0,), lambda places, frame: None, cache)

    decode(5)
    tracemalloc.start()
    try:
        decode(300)
        assert tracemalloc.get_traced_memory()[0] < 20_000
    finally:
        tracemalloc.stop()
