import ctypes
import errno
import gc
import json
import os
import re
import struct
import tracemalloc
import zlib
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_decoder import all_frames
from video_files import H264, moving_square, write_video

from video import decoder, survey
from video.bad_videos import BadVideo
from video.container import Container
from video.sampling import count_frames, open_video, sample_frames
from video.video import Stopped
from video.video_facts import VideoFacts, VideoFactsCache


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    return str(write_video(tmp_path_factory.mktemp("v") / "v.mp4", moving_square(40, 64, 96)))


@pytest.fixture
def false_claim(monkeypatch):
    """Let the container claim another number of frames than it has, and count the packets that are decoded."""

    class Claiming(Container):
        claim, decoded = None, 0

        @property
        def claimed_frames(self):
            return super().claimed_frames if Claiming.claim is None else Claiming.claim

        def decode(self, packet):
            Claiming.decoded += packet is not None
            return super().decode(packet)

    monkeypatch.setattr(decoder, "Container", Claiming)
    return Claiming


def ignore(places, frame):
    pass


def frames_of(path, indices_of, cache, as_stored=False):
    """(VideoFacts, the frames in the order of indices_of)."""
    frames = {}

    def keep(places, frame):
        frames.update(dict.fromkeys(places, frame.copy()))

    known = sample_frames(open_video(path, as_stored), indices_of, keep, cache)
    return known, [frames[place] for place in range(len(frames))]


def assert_frames(path, indices_of, cache, expected, as_stored=False):
    known, frames = frames_of(path, indices_of, cache, as_stored)
    assert known.count == len(expected)
    for index, frame in zip(indices_of(len(expected)), frames, strict=True):
        assert np.array_equal(frame, expected[index])
    return known


def test_wanted_frames_only(video):
    expected = all_frames(video)
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
def test_any_clip_agrees_with_reading_all_frames(video, data):
    indices = data.draw(st.lists(st.integers(0, 39), min_size=1, max_size=12))
    cache = data.draw(st.sampled_from([VideoFactsCache(), KNOWN]))
    assert_frames(video, lambda n: indices, cache, EVERYTHING.setdefault(video, all_frames(video)))


KNOWN, EVERYTHING = VideoFactsCache(), {}


def test_reading_stops_after_the_last_wanted_frame(video, false_claim):
    cache = VideoFactsCache()
    sample_frames(open_video(video), lambda n: [3], ignore, cache)
    assert false_claim.decoded >= 40
    false_claim.decoded = 0
    sample_frames(open_video(video), lambda n: [3, 7], ignore, cache)
    assert false_claim.decoded == 8


@pytest.mark.parametrize("known", [False, True])
def test_stopping(video, false_claim, known):
    cache = VideoFactsCache()
    if known:
        sample_frames(open_video(video), lambda n: [0], ignore, cache)
    false_claim.decoded = 0
    with pytest.raises(Stopped):
        sample_frames(open_video(video), lambda n: [30], ignore, cache, stopped=lambda: false_claim.decoded == 7)
    assert false_claim.decoded == 7


def test_content_that_changed_unnoticed(video, tmp_path):
    # Size and time suggest that the file is the known one, but it has fewer frames.
    cache = VideoFactsCache()
    cache.put(video, open_video(video).fingerprint, VideoFacts(60, None))
    assert_frames(video, lambda n: [0, n - 1], cache, all_frames(video))
    assert cache.get(video, open_video(video).fingerprint) == VideoFacts(40, None)


def padded(path, size):
    """A video file, brought to a size and a time that are those of the others."""
    with path.open("ab") as file:
        file.truncate(size)
    os.utime(path, ns=(5, 5))
    return path.read_bytes()


@pytest.mark.parametrize("learn", [False, True])
@pytest.mark.parametrize(("before", "after"), [(20, 31), (31, 20)])
@pytest.mark.parametrize(("name", "fourcc"), [
    ("v.mp4", "mp4v"), ("v.avi", "MJPG"), ("v.mkv", "mp4v"), ("v.mpg", "PIM1"), ("v.m4v", "mp4v")])  # m4v: no container
def test_another_number_of_frames_behind_the_same_size_and_time(tmp_path, name, fourcc, before, after, learn):
    path, content = tmp_path / name, {}
    for count in (before, after):
        write_video(path, moving_square(count, 64, 96), fourcc=fourcc)
        content[count] = padded(path, 400_000)
    cache = VideoFactsCache()
    for count in (before, after):
        path.write_bytes(content[count])
        os.utime(path, ns=(5, 5))
        found = {}
        facts = sample_frames(open_video(str(path)), lambda n: [3, n // 2],
                              lambda places, frame: found.update(dict.fromkeys(places, frame.copy())),  # noqa: B023
                              cache, learn=learn)
        expected = all_frames(str(path))
        assert facts.count == len(expected) == count
        assert np.array_equal(found[0], expected[3]) and np.array_equal(found[1], expected[count // 2])


@pytest.mark.parametrize("was_damaged", [False, True])
def test_damage_that_came_or_went_behind_the_same_size_and_time(tmp_path, was_damaged):
    path = write_video(tmp_path / "v.avi", moving_square(40, 64, 96), fourcc="MJPG")
    sound = path.read_bytes()
    start, end = [match.start() for match in re.finditer(b"\xff\xd8\xff", sound[sound.index(b"movi") :])][10:12]
    start, end = start + sound.index(b"movi"), end - 8 + sound.index(b"movi")  # to the header of the next chunk
    damaged = sound[:start] + bytes(end - start) + sound[end:]
    cache = VideoFactsCache()
    for content in (damaged, sound) if was_damaged else (sound, damaged):
        path.write_bytes(content)
        os.utime(path, ns=(5, 5))
        known = assert_frames(str(path), lambda n: [3, 12], cache, all_frames(str(path)))
        assert bool(known.damage) == (content is damaged) == (known.count == 39)


@pytest.mark.parametrize("claim", [-1, 0, 1, 39, 41, 60, 100000, -9.3e18])
def test_the_claim_never_shows(video, false_claim, claim):
    expected = all_frames(video)
    false_claim.claim = claim
    cache = VideoFactsCache()
    assert count_frames(video) == 40
    for _ in range(2):
        assert_frames(video, lambda n: [n // 2, n - 1], cache, expected)


def test_what_the_container_claims_is_no_damage(video, false_claim):
    for claim in (20, 41, 43, 60):
        false_claim.claim = claim
        assert sample_frames(open_video(video), lambda n: [0], ignore, VideoFactsCache()) == VideoFacts(40, None)


def test_packets_that_do_not_decode_are_passed_over_and_reported(tmp_path):
    path = write_video(tmp_path / "v.avi", moving_square(40, 64, 96), fourcc="MJPG")
    content = bytearray(path.read_bytes())
    expected = all_frames(str(path))
    start = content.index(b"movi")
    pictures = [match.start() for match in re.finditer(b"\xff\xd8\xff", content) if match.start() > start]
    assert len(pictures) == 40
    bad = (10, 11, 30)
    for number in bad:
        end = pictures[number + 1] - 8  # the header of the next chunk
        content[pictures[number] : end] = bytes(end - pictures[number])
    path.write_bytes(content)
    left = [frame for index, frame in enumerate(expected) if index not in bad]
    known = assert_frames(str(path), lambda n: [9, 10, 27, n - 1], VideoFactsCache(), left)
    assert known.damage == "3 packets do not decode; used with the 37 frames that decode"


def test_only_the_first_10000_frames_count(video, monkeypatch):
    monkeypatch.setattr(decoder, "MAX_FRAMES", 25)
    monkeypatch.setattr(survey, "MAX_FRAMES", 25)
    known = assert_frames(video, lambda n: [n - 1], VideoFactsCache(), all_frames(video)[:25])
    assert known.remarks == {"long": "has more than 25 frames; the rest is not looked at"}
    assert count_frames(video) == 25


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
    assert_frames(path, lambda n: [1, n - 1], VideoFactsCache(), all_frames(path))
    assert count_frames(path) == 15


def test_lossless_frames_come_back(tmp_path):
    frames = moving_square(6, 48, 80)
    path = str(write_video(tmp_path / "v.avi", frames, fourcc="FFV1"))
    _, found = frames_of(path, range, VideoFactsCache())
    for frame, original in zip(found, frames, strict=True):
        # Chroma is halved in the file: compare where the picture is smooth.
        assert np.abs(frame.astype(int) - original).mean() < 4


# (a, b, c, d) of a display matrix: the pixel at (x, y) is shown at (a x + c y, b x + d y). With NumPy's ways to do it.
MATRICES = {
    (1, 0, 0, 1): lambda frame: frame,
    (0, 1, -1, 0): lambda frame: np.rot90(frame, -1),
    (0, -1, 1, 0): lambda frame: np.rot90(frame),
    (-1, 0, 0, -1): lambda frame: np.rot90(frame, 2),
    (-1, 0, 0, 1): np.fliplr,
    (1, 0, 0, -1): np.flipud,
    (0, 1, 1, 0): lambda frame: frame.swapaxes(0, 1),
    (0, -1, -1, 0): lambda frame: np.rot90(frame.swapaxes(0, 1), 2),
}


def turned(video, path, matrix):
    """Write a copy of a video with a display matrix."""
    content = bytearray(Path(video).read_bytes())
    at = content.index(b"tkhd") + 4 + 40
    a, b, c, d = (number << 16 for number in matrix)
    content[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(content)
    return str(path)


@pytest.mark.parametrize("matrix", MATRICES)
def test_the_picture_is_turned_as_its_display_matrix_says(video, tmp_path, matrix):
    path = turned(video, tmp_path / "turned.mp4", matrix)
    expected = [MATRICES[matrix](frame) for frame in all_frames(video)]
    known = assert_frames(path, lambda n: [0, 20], VideoFactsCache(), expected)
    assert ("rotation" in known.remarks) == (matrix != (1, 0, 0, 1))


def test_or_left_as_it_is_stored(video, tmp_path):
    path = turned(video, tmp_path / "turned.mp4", (0, 1, -1, 0))
    assert_frames(path, lambda n: [0, 20], VideoFactsCache(), all_frames(video), as_stored=True)


def test_a_size_that_changes_inside(tmp_path):
    parts = [tmp_path / "a.mpg", tmp_path / "b.mpg"]
    write_video(parts[0], moving_square(12, 64, 96), fourcc="PIM1")
    write_video(parts[1], moving_square(12, 96, 64), fourcc="PIM1")
    path = tmp_path / "c.mpg"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    known, frames = frames_of(str(path), range, VideoFactsCache())
    assert known.count == len(frames) > 20 and not known.damage
    # FFmpeg's decoder drops the frame that it holds back when the size changes.
    assert known.remarks["size"] == "changes from 96x64 to 64x96 at frame 11"
    for found, frame in zip(frames, all_frames(parts[0])[:11] + all_frames(parts[1]), strict=True):
        assert np.array_equal(found, frame)


@pytest.mark.parametrize("kept", [0.3, 0.6, 0.9])
def test_truncated_files_end(tmp_path, kept):
    path = write_video(tmp_path / "v.avi", moving_square(60, 64, 96), fourcc="MJPG")
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    known = sample_frames(open_video(str(path)), lambda n: [n - 1], ignore, VideoFactsCache())
    assert abs(known.count - 60 * kept) < 8


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
        ("text", "is a text file (perhaps a playlist), not a video"),
        ("text as video", "is a text file (perhaps a playlist), not a video"),
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


@pytest.mark.parametrize(("tag", "codec"), [(b"avs3", "avs3"), (b"xyz1", "none")])
def test_a_codec_without_a_decoder_is_named(tmp_path, tag, codec):
    content = H264.read_bytes()
    at = content.index(b"avc1", content.index(b"stsd"))
    path = tmp_path / "v.mp4"
    path.write_bytes(content[:at] + tag + content[at + 4 :])
    with pytest.raises(BadVideo) as caught:
        count_frames(str(path))
    assert re.fullmatch(rf"is in a codec that FFmpeg cannot decode \({codec} \({tag.decode()} / 0x[0-9A-F]+\)\); "
                        "convert it, e.g. to H.264, with a program that can", caught.value.reason)


def test_errors_of_the_machine_do_not_blame_the_video(video, monkeypatch):
    def fail(self, packet):
        raise av.error.MemoryError(errno.ENOMEM, "Cannot allocate memory")

    cache = VideoFactsCache()
    monkeypatch.setattr(Container, "decoder", type("Decoder", (), {"decode": fail, "name": "h264"})(), raising=False)
    monkeypatch.setattr(Container, "_start_decoder", lambda self: None)
    with pytest.raises(BadVideo, match="cannot be decoded: Cannot allocate memory") as caught:
        sample_frames(open_video(video), lambda n: [0], ignore, cache)
    assert not caught.value.lasting and cache.get(video, open_video(video).fingerprint) is None


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


def test_ffmpeg_is_quiet(tmp_path, capfd):
    make("head only", tmp_path)
    with pytest.raises(BadVideo):
        count_frames(str(tmp_path / "v.mp4"))
    assert capfd.readouterr() == ("", "")


# ------------------------------------------------------------------------------------------ real videos

# Checksums of every frame as OpenCV 4.12 read it: as it is stored, of the first stream, with the colours of the Caffe2
# program.
OPENCV = json.loads((Path(__file__).parent / "data/frames_opencv412.json").read_text())


def assert_opencv_frames(path):
    expected = OPENCV[path.name]
    for learn in (False, True):
        found = {}

        def keep(places, frame, found=found):
            found.update(dict.fromkeys(places, (*frame.shape, f"{zlib.crc32(np.ascontiguousarray(frame)):08x}")))

        sample_frames(open_video(str(path), as_stored=True), range, keep, VideoFactsCache(), learn=learn)
        assert [found[index] for index in range(len(found))] == [
            (expected["height"], expected["width"], 3, checksum) for checksum in expected["crc32"].split()], path


def test_frames_are_those_of_the_opencv_reader():
    assert_opencv_frames(H264)


def test_real_videos(shared):
    for path in sorted((shared / "videos").iterdir()):
        assert_opencv_frames(path)


def test_the_damaged_video_is_always_the_same(shared):
    path = str(shared / "videos" / "corrupted.mp4")
    # The picture after the damage depends on the number of FFmpeg's threads; all_frames() has one.
    expected = all_frames(path)
    assert len(expected) == 49
    for _ in range(2):
        known = assert_frames(path, lambda n: [0, 27, 28, n - 1], VideoFactsCache(), expected)
        assert known.damage == ("1 packets do not decode, 1 frames decode only in part; "
                                "used with the 49 frames that decode")


def test_a_video_that_is_not_read_to_its_end_leaves_no_memory_behind():
    class MallInfo(ctypes.Structure):
        _fields_ = [(name, ctypes.c_size_t) for name in (
            "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "used", "fordblks", "keepcost")]

    libc, cache = ctypes.CDLL(None), VideoFactsCache()
    if not hasattr(libc, "mallinfo2"):
        pytest.skip("needs glibc")
    libc.mallinfo2.restype = MallInfo

    def used_after(times):
        for _ in range(times):
            sample_frames(open_video(str(H264)), lambda count: (10, 50), ignore, cache, learn=True)
        gc.collect()
        return libc.mallinfo2().used

    before = used_after(100)
    assert used_after(300) - before < 300 * 50  # bytes


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
        gc.collect()
        assert tracemalloc.get_traced_memory()[0] < 20_000
    finally:
        tracemalloc.stop()
