"""H.264 videos without the packets that a clip does not need: the same bytes, or nothing is left out."""

import dataclasses
import os
import shutil
import struct
import subprocess
import sys

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from loader_threads import decoder_threads
from video_files import H264, digest, every_frame, moving_square, write_list, write_video

from data.sources import open_train_source
from data.train_loader import TrainClips, TrainLoader
from data.transforms import clip_indices
from video import decoder, h264, skip_check
from video.bad_videos import BadVideo, BadVideos
from video.decoder_processes import DecoderProcesses, Outcome, decode_video
from video.sampling import open_video, sample_frames
from video.skip_check import skipping_is_exact
from video.video import Stopped
from video.video_facts import VideoFacts, VideoFactsCache

PATH, COUNT = str(H264), 90
FRAMES = every_frame(PATH)


def knowing(path, count=COUNT):
    """VideoFactsCache that know a file as one of which packets may be left out."""
    cache = VideoFactsCache()
    cache.put(str(path), open_video(str(path)).fingerprint, VideoFacts(count, None, skips=True))
    return cache


def clip(path, indices, cache):
    """Digests of the wanted frames, in their order."""
    found = {}

    def keep(places, frame):
        found.update(dict.fromkeys(places, digest(frame)))

    sample_frames(open_video(str(path)), lambda count: indices, keep, cache)
    return [found[place] for place in range(len(indices))]


@pytest.fixture
def grabs(monkeypatch):
    """Indices that were decoded in the usual way: none where packets are left out."""
    indices = []

    def grabbed(capture, end, seen, before=decoder._grabbed):
        for index in before(capture, end, seen):
            indices.append(index)
            yield index

    monkeypatch.setattr(decoder, "_grabbed", grabbed)
    return indices


@pytest.fixture
def decoded(monkeypatch):
    """Numbers of packets that were decoded where some were left out."""
    numbers = []

    def opened(packets, needed, before=h264.opened_needed):
        numbers.append(len(needed))
        return before(packets, needed)

    monkeypatch.setattr(h264, "opened_needed", opened)
    return numbers


# -------------------------------------------------------------------------------------------- leaving out


@settings(max_examples=150, deadline=None)
@given(st.lists(st.integers(0, COUNT - 1), min_size=1, max_size=22))
def test_any_clip_agrees_with_reading_everything(indices):
    assert clip(PATH, indices, knowing(PATH)) == [FRAMES[index] for index in indices]


def test_fewer_frames_are_decoded(grabs, decoded):
    indices = range(30, 86, 8)
    assert clip(PATH, indices, knowing(PATH)) == [FRAMES[index] for index in indices]
    packets = h264.read_packets(PATH)
    first = max(packet.rank for packet in packets if packet.idr and packet.rank <= 30)
    assert grabs == [] and decoded[0] < 79 - first < 79


@pytest.mark.parametrize("indices", [range(COUNT), range(0, COUNT, 3), range(8), [0, 0, 1]])
def test_dense_clips_are_read_as_usual(indices, grabs):
    assert clip(PATH, indices, knowing(PATH)) == [FRAMES[index] for index in indices]
    assert grabs == list(range(max(indices) + 1))


def test_nothing_is_left_out_unless_it_is_known_that_it_may(grabs):
    for known in (VideoFacts(COUNT, None), VideoFacts(COUNT, None, skips=False)):
        cache = VideoFactsCache()
        cache.put(PATH, open_video(PATH).fingerprint, known)
        grabs.clear()
        clip(PATH, [50, 58], cache)
        assert grabs == list(range(59))


def test_stopping(decoded):
    asked = []

    def stopped():
        asked.append(1)
        return len(asked) > 3

    files = len(os.listdir("/proc/self/fd"))
    with pytest.raises(Stopped):
        sample_frames(open_video(PATH), lambda count: [40, 80], lambda places, frame: None, knowing(PATH), stopped)
    assert len(asked) == 4 and decoded and len(os.listdir("/proc/self/fd")) == files


def test_what_is_known_proves_wrong(tmp_path, grabs):
    """A file that has changed behind its size and time: read as usual, and counted again where needed."""
    other = write_video(tmp_path / "other.mp4", moving_square(40, 64, 96))
    assert clip(other, [9, 30], knowing(other, 40)) == [every_frame(str(other))[index] for index in (9, 30)]
    cut = tmp_path / "cut.mp4"  # its last third is zeros
    content = H264.read_bytes()
    start = content.index(b"mdat") + 4
    end = start - 8 + struct.unpack(">I", content[start - 8 : start - 4])[0]
    middle = start + (end - start) * 2 // 3
    cut.write_bytes(content[:middle] + bytes(end - middle) + content[end:])
    expected = every_frame(str(cut))
    assert 20 < len(expected) < COUNT
    cache, indices = knowing(cut), {}

    def keep(places, frame):
        indices.update(dict.fromkeys(places, digest(frame)))

    known = sample_frames(open_video(str(cut)), lambda count: [count - 9, count - 1], keep, cache)
    assert known.count == len(expected) and indices == {0: expected[-9], 1: expected[-1]}


def test_a_loader_gives_the_same_clips(tmp_path, decoded):
    write_list(tmp_path / "train.txt", [H264], [0])
    source = open_train_source(tmp_path, "train", 0, True)

    def batches(cache):
        with TrainLoader(source, TrainClips(4, 6, 32, (32, 40)), batch_size=3, replicas=1, local_replicas=[0], seed=1,
                         purpose="train", num_classes=1, workers=2, bad_videos=BadVideos(), facts=cache) as loader:
            return [next(loader)[0][0].numpy().copy() for _ in range(4)]

    expected = batches(VideoFactsCache())
    assert not decoded
    for batch, other in zip(batches(knowing(H264)), expected, strict=True):
        assert np.array_equal(batch, other)
    assert decoded and decoder_threads() == []


# ------------------------------------------------------------------------------------------------ packets


def packets_of(text):
    """Packets of their kinds in the order of decoding: I (IDR), P (others need it) and d (none does)."""
    return [h264.Packet(b"", float(i), kind == "I", kind == "d", i) for i, kind in enumerate(text)]


@pytest.mark.parametrize(("kinds", "wanted", "needed"), [
    ("IPPP", {2}, [0, 1, 2]),
    ("IdPd", {2}, [0, 2]),
    ("IdPd", {1, 3}, [0, 1, 2, 3]),
    ("IPIPP", {3}, [2, 3]),
    ("IPdIPdIPd", {1, 7}, [0, 1, 6, 7]),
    ("III", {0, 2}, [0, 2]),
])  # fmt: skip
def test_what_is_needed(kinds, wanted, needed):
    assert [packet.rank for packet in h264.needed_packets(packets_of(kinds), wanted)] == needed


def test_packets_of_a_file():
    packets = h264.read_packets(PATH)
    assert len(packets) == COUNT
    assert sum(packet.idr for packet in packets) == 7 and sum(packet.droppable for packet in packets) == 24
    assert sorted(packet.rank for packet in packets) == list(range(COUNT))
    some = h264.read_packets(PATH, limit=50)
    assert [packet.rank for packet in some if packet.rank < 34] == [p.rank for p in packets if p.rank < 34]
    assert b"".join(packet.data for packet in some) == b"".join(packet.data for packet in packets[:50])


@pytest.mark.parametrize("frames", [2, 4])
def test_fewer_or_more_frames_than_packets(frames):
    class Capture:
        left = frames

        def grab(self):
            self.left -= 1
            return self.left >= 0

    with pytest.raises(h264.NotSkippable):
        list(h264.grabbed(Capture(), packets_of("IPP")))


def test_packets_of_others(tmp_path):
    path = write_video(tmp_path / "v.mp4", moving_square(10, 64, 96))
    with pytest.raises(h264.NotSkippable):
        h264.read_packets(str(path))
    path.write_text("no video")
    with pytest.raises(BadVideo):
        h264.read_packets(str(path))


# -------------------------------------------------------------------------------------------------- check


def outcome_of(path):
    with DecoderProcesses(1, 60, try_skipping=True) as decoders:
        ((_, outcome),) = decoders.decode([str(path)])
    return outcome


def test_the_check():
    assert skipping_is_exact(PATH, COUNT) is True
    assert skipping_is_exact(PATH, COUNT - 1) is False


def test_the_check_of_others(tmp_path):
    assert skipping_is_exact(str(write_video(tmp_path / "v.mp4", moving_square(10, 64, 96))), 10) is False


def swapped(packets):
    """Two frames that others need: both are decoded in any case, but one could be taken for the last wanted."""
    packets[6].rank, packets[7].rank = packets[7].rank, packets[6].rank
    assert not packets[6].droppable and not packets[7].droppable


def unneeded_reference(packets):
    next(packet for packet in packets[30:] if not packet.idr and not packet.droppable).droppable = True


def lost(packets):
    del packets[-1]


def one_run_without_droppable(packets):
    for i, packet in enumerate(packets):
        packet.idr, packet.droppable = i == 0, False


@pytest.mark.parametrize("change", [swapped, unneeded_reference, lost, one_run_without_droppable])
def test_the_check_finds(change, monkeypatch):
    def read_packets(path, limit=None, before=h264.read_packets):
        packets = [dataclasses.replace(packet) for packet in before(path, limit)]
        change(packets)
        return packets

    monkeypatch.setattr(h264, "read_packets", read_packets)
    assert skipping_is_exact(PATH, COUNT) is False


def test_the_check_finds_a_colour_that_only_the_container_tells(monkeypatch):
    """What the stream in memory would decode to, is not what the file does."""
    before = skip_check.open_capture

    class Brighter:
        def __init__(self, path):
            self._capture = before(path)

        def retrieve(self, frame=None):
            converted, frame = self._capture.retrieve(frame)
            return converted, cv2.add(frame, 1)

        def __getattr__(self, name):
            return getattr(self._capture, name)

    monkeypatch.setattr(skip_check, "open_capture", Brighter)
    assert skipping_is_exact(PATH, COUNT) is False


def test_more_reordering_than_there_may_be(monkeypatch):
    assert max(place - packet.rank for place, packet in enumerate(h264.read_packets(PATH))) > 0
    monkeypatch.setattr(h264, "MAX_REORDER", 0)
    assert skipping_is_exact(PATH, COUNT) is False


def test_large_files_are_read_as_usual(monkeypatch):
    monkeypatch.setattr(skip_check, "_MAX_BYTES", 10_000)
    assert skipping_is_exact(PATH, COUNT) is False


def damaged_in(number, path):
    """Write the file with another content of a packet's second half. Its size, and the other packets, stay."""
    content, packet = H264.read_bytes(), h264.read_packets(PATH)[number].data
    at = content.index(packet[-20:]) + 20  # its end
    size = len(packet) // 2
    noise = bytes(np.random.default_rng(number).integers(1, 256, size, "u1"))
    path.write_bytes(content[: at - size] + noise + content[at:])
    return path


def complaints(path):
    """What FFmpeg prints about a file, in a separate process."""
    program = "import sys, cv2; capture = cv2.VideoCapture(sys.argv[1])\nfor _ in range(500): capture.grab()"
    return subprocess.run([sys.executable, "-c", program, path], env=os.environ | {"OPENCV_FFMPEG_LOGLEVEL": "32"},
                          capture_output=True, text=True, check=True, timeout=60).stdout


def test_damage_that_the_decoder_conceals(tmp_path):
    """All frames decode, so F shows nothing; but their content may depend on everything decoded before."""
    assert outcome_of(H264) == Outcome(COUNT, None, skips=True)
    assert complaints(H264) == ""
    concealed = [path for path in (damaged_in(number, tmp_path / f"{number}.mp4") for number in range(10, 40, 5))
                 if "concealing" in complaints(path)]
    assert len(concealed) >= 2
    for path in concealed:
        assert outcome_of(path) == Outcome(len(every_frame(str(path))), None, skips=False)


def test_messages_about_one_video_do_not_count_against_the_next():
    class Complaints:
        came = iter([True, False])

        def come(self):
            return next(self.came)

    assert decode_video(PATH, Complaints()) == Outcome(COUNT, None, skips=True)


def test_a_complaint_is_of_one_video(tmp_path):
    """Sound videos after one that is complained of."""
    damaged = next(path for number in range(10, 40) if complaints(path := damaged_in(number, tmp_path / "damaged.mp4")))
    sound = [tmp_path / f"{i}.mp4" for i in range(3)]
    for path in sound:
        shutil.copy(H264, path)
    paths = [str(path) for path in (sound[0], damaged, sound[1], damaged, damaged, sound[2])]
    with DecoderProcesses(1, 60, try_skipping=True) as decoders:
        found = [outcome.skips for _, outcome in decoders.decode(paths)]
    assert found == [True, False, True, False, False, True]


def test_real_videos(shared):
    """A bounded number of clips of each of which packets may be left out."""
    rng, helped = np.random.default_rng(0), []
    paths = [str(path) for path in sorted((shared / "videos").iterdir())]
    with DecoderProcesses(2, 60, try_skipping=True) as decoders:
        outcomes = dict(decoders.decode(paths))
    for path in paths:
        outcome = outcomes[path]
        if not outcome.skips or outcome.count < 60:
            continue
        helped.append(path)
        expected, cache = every_frame(path), knowing(path, outcome.count)
        for length, rate in ((8, 8), (32, 6), (5, 1 + outcome.count // 4)):
            indices = clip_indices(int(rng.random() * outcome.count), length, rate, outcome.count).tolist()
            assert clip(path, indices, cache) == [expected[index] for index in indices]
    assert helped
