"""Videos without the packets that a clip does not need: the same bytes, or nothing is left out."""

import dataclasses
import os
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from loader_threads import decoder_threads
from plain_decoder import all_frames, decoded
from video_files import H264, digest, moving_square, write_list, write_video

from data.sources import open_train_source
from data.train_loader import TrainClips, TrainLoader
from data.transforms import clip_indices
from video import decoder, packets, skip_check
from video.bad_videos import BadVideos
from video.container import Container
from video.decoder_processes import DecoderProcesses
from video.packets import CannotSkip, Packet
from video.sampling import open_video, sample_frames
from video.video import Stopped
from video.video_facts import VideoFacts, VideoFactsCache

MP4 = "mov,mp4,m4a,3gp,3g2,mj2"  # FFmpeg's name of the format
PATH, COUNT, REORDER = str(H264), 90, 2
FRAMES = [digest(frame) for frame in all_frames(PATH)]


def knowing(path, count=COUNT, reorder=REORDER, closed=False):
    """VideoFactsCache that knows a file as one of which packets may be left out."""
    cache = VideoFactsCache()
    known = VideoFacts(count, None, skips=True, reorder=reorder, closed=closed)
    cache.put(str(path), open_video(str(path)).fingerprint, known)
    return cache


def clip(path, indices, cache, learn=False):
    """Digests of the wanted frames, in their order."""
    found = {}

    def keep(places, frame):
        found.update(dict.fromkeys(places, digest(frame)))

    sample_frames(open_video(str(path)), lambda count: indices, keep, cache, learn=learn)
    return [found[place] for place in range(len(indices))]


@pytest.fixture
def numbers(monkeypatch):
    """Numbers of packets that were decoded, one for every time that a file was opened."""
    opened = []

    class Counting(Container):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            opened.append(0)

        def decode(self, packet):
            opened[-1] += packet is not None
            return super().decode(packet)

    monkeypatch.setattr(decoder, "Container", Counting)
    return opened


# -------------------------------------------------------------------------------------------- leaving out


@settings(max_examples=150, deadline=None)
@given(st.lists(st.integers(0, COUNT - 1), min_size=1, max_size=22), st.booleans())
def test_any_clip_agrees_with_reading_everything(indices, closed):
    assert clip(PATH, indices, knowing(PATH, closed=closed)) == [FRAMES[index] for index in indices]


def test_fewer_packets_are_decoded(numbers):
    indices = range(30, 86, 8)
    assert clip(PATH, indices, knowing(PATH)) == [FRAMES[index] for index in indices]
    with Container(PATH, True) as video:
        listed = packets.read_packets(video)
    first = next(packet.start for packet in listed if packet.rank == 30)
    assert first > 0 and len(numbers) == 1 and numbers[0] < 79 - first


def test_nothing_is_left_out_unless_it_is_known_that_it_may(numbers):
    for known in (VideoFacts(COUNT, None), VideoFacts(COUNT, None, skips=False)):
        cache = VideoFactsCache()
        cache.put(PATH, open_video(PATH).fingerprint, known)
        numbers.clear()
        clip(PATH, [50, 58], cache)
        assert len(numbers) == 1 and numbers[0] >= 59


def test_it_is_learnt_at_the_first_reading(numbers):
    cache, indices = VideoFactsCache(), [50, 58]
    for learn in (False, True, True, False):
        numbers.clear()
        assert clip(PATH, indices, cache, learn) == [FRAMES[index] for index in indices]
        known = cache.get(PATH, open_video(PATH).fingerprint)
        if not learn and known.skips is None:
            assert numbers == [COUNT]
    assert known == VideoFacts(COUNT, None, skips=True, reorder=REORDER, closed=True, format=MP4)
    assert len(numbers) == 1 and numbers[0] < 40


def test_stopping():
    asked = []

    def stopped():
        asked.append(1)
        return len(asked) > 3

    files = len(os.listdir("/proc/self/fd"))
    for cache, learn in ((knowing(PATH), False), (VideoFactsCache(), True)):
        asked.clear()
        with pytest.raises(Stopped):
            sample_frames(open_video(PATH), lambda count: [40, 50, 60, 80], lambda *_: None, cache, stopped, learn)
        assert len(asked) == 4 and len(os.listdir("/proc/self/fd")) == files


def test_learning_can_be_stopped():
    asked, cache = [], VideoFactsCache()

    def stopped():
        asked.append(1)
        return len(asked) > COUNT + 5

    with pytest.raises(Stopped):
        sample_frames(open_video(PATH), lambda count: [4], lambda *_: None, cache, stopped, learn=True)
    assert cache.get(PATH, open_video(PATH).fingerprint) is None


def test_what_is_known_proves_wrong(tmp_path):
    """A file that has changed behind its size and time: read as usual, and counted again where needed."""
    other = write_video(tmp_path / "other.mp4", moving_square(40, 64, 96))
    expected = [digest(frame) for frame in all_frames(other)]
    assert clip(other, [9, 30], knowing(other, 40)) == [expected[9], expected[30]]
    facts = VideoFacts(40, None, skips=True, reorder=REORDER, closed=True, format="matroska,webm")
    cache = VideoFactsCache()
    cache.put(str(other), open_video(str(other)).fingerprint, facts)
    assert clip(other, [9, 30], cache) == [expected[9], expected[30]]
    assert cache.get(str(other), open_video(str(other)).fingerprint).skips is None
    cut = tmp_path / "cut.mp4"  # its last third is zeros
    content = H264.read_bytes()
    start = content.index(b"mdat") + 4
    end = start - 8 + struct.unpack(">I", content[start - 8 : start - 4])[0]
    middle = start + (end - start) * 2 // 3
    cut.write_bytes(content[:middle] + bytes(end - middle) + content[end:])
    expected = [digest(frame) for frame in all_frames(cut)]
    assert 20 < len(expected) < COUNT
    cache, found = knowing(cut), {}

    def keep(places, frame):
        found.update(dict.fromkeys(places, digest(frame)))

    known = sample_frames(open_video(str(cut)), lambda count: [count - 9, count - 1], keep, cache)
    assert known.count == len(expected) and found == {0: expected[-9], 1: expected[-1]}


def test_a_loader_gives_the_same_clips(tmp_path, numbers):
    write_list(tmp_path / "train.txt", [H264], [0])
    source = open_train_source(tmp_path, "train", 0, True)

    def batches(cache):
        with TrainLoader(source, TrainClips(4, 6, 32, (32, 40)), batch_size=3, replicas=1, local_replicas=[0], seed=1,
                         purpose="train", num_classes=1, workers=2, bad_videos=BadVideos(), facts=cache) as loader:
            return [next(loader)[0][0].numpy().copy() for _ in range(4)]

    plain = VideoFactsCache()
    plain.put(PATH, open_video(PATH).fingerprint, VideoFacts(COUNT, None, skips=False))
    expected, learning = batches(plain), VideoFactsCache()
    numbers.clear()
    for cache in (knowing(H264), learning, learning):
        for batch, other in zip(batches(cache), expected, strict=True):
            assert np.array_equal(batch, other)
    assert learning.get(PATH, open_video(PATH).fingerprint).skips and decoder_threads() == []


# ------------------------------------------------------------------------------------------------ packets


def packets_of(text):
    """Packets of their kinds in the order of decoding: I (a keyframe), P (others need it) and d (none does)."""
    key, listed = -1, []
    for i, kind in enumerate(text):
        key = i if kind == "I" else key
        listed.append(packet_of(kind, i, key))
    return listed


class Data(bytes):
    """A packet whose container does not say whether it is needed."""

    is_disposable = False


def packet_of(kind, place, key):
    return Packet(Data(kind.encode()), place, kind == "I", key, lambda data: data == b"d", place)


class Decoder:
    """Gives a frame for every packet, and notes the packets."""

    failures = 0

    def __init__(self):
        self.calls = []

    def decode(self, packet):
        self.calls.append(packet)
        return []

    def restart(self):
        self.calls.append("restart")


@pytest.mark.parametrize(("kinds", "wanted", "calls"), [
    ("IPPP", {2}, "IPP."),
    ("IdPd", {2}, "IP."),
    ("IdPd", {1, 3}, "IdPd."),
    ("IPIPP", {3}, "IP."),
    ("IPdIPdIPd", {1, 7}, "IP.IP."),
    ("IPdIPdIPd", {2, 4}, "IPdIP."),
    ("III", {0, 2}, "I.I."),
])  # fmt: skip
def test_what_is_decoded(kinds, wanted, calls):
    video = Decoder()
    with pytest.raises(CannotSkip):  # as no frame comes
        list(packets.decode_needed(video, packets_of(kinds), wanted))
    assert shown(video) == calls


def shown(video):
    return "".join("." if call is None else call.decode() for call in video.calls if call != "restart")


def test_a_frame_before_its_keyframe_needs_the_one_before():
    """As after the keyframes of open groups of pictures."""
    listed = packets_of("IPPIdP")
    listed[3].time, listed[4].time = 4, 3
    listed[3].rank, listed[4].rank, listed[4].start = 4, 3, 0
    video = Decoder()
    with pytest.raises(CannotSkip):
        list(packets.decode_needed(video, listed, {3}))
    assert shown(video) == "IPPId."


def test_packets_of_a_file():
    with Container(PATH, True) as video:
        listed = packets.read_packets(video)
    with Container(PATH, True) as video:
        some = packets.read_packets(video, limit=50)
    times = sorted(frame.pts for frame in decoded(PATH))
    assert [times[packet.rank] for packet in listed] == [packet.time for packet in listed]
    assert sum(packet.key for packet in listed) == 7 and sum(packet.droppable for packet in listed) == 24
    assert packets.reorder_depth(listed) == REORDER and len(some) == 50
    assert [packet.rank for packet in some if packet.rank < 48] == [p.rank for p in listed if p.rank < 48]


def test_reading_begins_at_a_keyframe():
    with Container(PATH, True) as video:
        listed = packets.read_packets(video)
    assert packets.are_closed(listed)
    keys = [place for place, packet in enumerate(listed) if packet.key]
    for first in range(COUNT):
        with Container(PATH, True) as video:
            some = packets.read_wanted(video, [first, COUNT - 1], REORDER, closed=True)
        begin = max(key for key in keys if key <= first)
        assert [packet.rank for packet in some] == [packet.rank for packet in listed[begin:]]
        assert [bytes(packet.data) for packet in some] == [bytes(packet.data) for packet in listed[begin:]]


def test_an_index_that_lists_more_than_the_packets(tmp_path):
    """As in an AVI file whose dropped frames are empty packets."""
    path = write_video(tmp_path / "v.avi", moving_square(20, 64, 96), fourcc="MJPG")
    content = bytearray(path.read_bytes())
    index = content.index(b"idx1") + 8
    chunk = content.index(b"movi") + 4
    for number in range(7):  # the seventh picture becomes an empty packet and a piece that nothing names
        size = int.from_bytes(content[chunk + 4 : chunk + 8], "little")
        if number == 6:
            content[chunk + 4 : chunk + 8] = bytes(4)
            content[chunk + 8 : chunk + 12] = b"JUNK"
            content[chunk + 12 : chunk + 16] = (size + size % 2 - 8).to_bytes(4, "little")
            content[index + 16 * 6 + 12 : index + 16 * 6 + 16] = bytes(4)
        chunk += 8 + size + size % 2
    path.write_bytes(content)
    frames = [digest(frame) for frame in all_frames(path)]
    facts = open_video(str(path)).learn(lambda facts: None)
    assert facts.count == len(frames) == 19 and not facts.damage
    cache = VideoFactsCache()
    for learn in (True, False, False):
        for first in range(12):
            assert clip(path, [first, first + 7], cache, learn) == [frames[first], frames[first + 7]]


def test_keyframes_that_do_not_part_the_video():
    listed = packets_of("IPPIdP")
    assert packets.are_closed(listed)
    listed[4].start = 0
    assert not packets.are_closed(listed)
    listed = packets_of("IPPIdP")
    listed[1].rank = -1  # hidden by an edit list
    assert not packets.are_closed(listed)


@pytest.mark.parametrize(("headers", "droppable"), [
    ([0x41], False), ([0x01], True), ([0x06, 0x01], True), ([0x09, 0x06, 0x01, 0x01], True), ([0x01, 0x21], False),
    ([0x67, 0x01], False), ([0x65], False), ([0x06], False), ([0x02, 0x03, 0x04], False), ([0x01, 0x14], False),
])  # fmt: skip
@pytest.mark.parametrize("size", [None, 4, 2])
def test_headers_of_h264(headers, droppable, size):
    units = [bytes([header]) + b"\x55" * 7 for header in headers]
    if size is None:
        data, extra = b"".join(b"\0\0\x01" + unit for unit in units), b""
    else:
        data = b"".join(len(unit).to_bytes(size) + unit for unit in units)
        extra = bytes([1, 66, 0, 30, 0xFC | size - 1, 0xE1])
    stream = type("Stream", (), {"name": "h264", "extradata": extra})
    assert packets._droppable_test(stream)(data) is droppable


# -------------------------------------------------------------------------------------------------- check


def depth_of(path, as_stored=True):
    """What the check finds, and how many packets it decodes."""
    seen = []
    frames = list(decoded(path))
    order = skip_check.find_order(
        lambda: Container(str(path), as_stored), [frame.pts for frame in frames],
        [skip_check.checksum(frame) for frame in frames], lambda: seen.append(1))  # fmt: skip
    return order and order[0], len(seen)


def test_the_check():
    assert depth_of(PATH) == (REORDER, COUNT)  # every frame is compared once


def test_the_check_of_others(tmp_path):
    assert depth_of(write_video(tmp_path / "v.mp4", moving_square(10, 64, 96)))[0] is None  # one keyframe
    assert depth_of(write_video(tmp_path / "v.avi", moving_square(10, 64, 96), fourcc="MJPG"))[0] == 0


def swapped(listed):
    """Two frames that others need: both are decoded in any case, but one could be taken for the last wanted."""
    listed[6].rank, listed[7].rank = listed[7].rank, listed[6].rank


def unneeded_reference(listed):
    packet = next(packet for packet in listed[30:] if not packet.key and not packet.droppable)
    packet.is_droppable = lambda data: True


def lost(listed):
    del listed[-1]


def one_run_without_droppable(listed):
    for i, packet in enumerate(listed):
        packet.key, packet.is_droppable, packet.start = i == 0, lambda data: False, 0


def a_keyframe_that_is_none(listed):
    at = next(i for i, packet in enumerate(listed) if i > 3 and not packet.key and not packet.droppable)
    listed[at].key = True
    for packet in listed[at:]:
        packet.start = max(packet.start, at if packet.time >= listed[at].time else 0)


@pytest.mark.parametrize("change", [swapped, unneeded_reference, lost, one_run_without_droppable,
                                    a_keyframe_that_is_none])  # fmt: skip
def test_the_check_finds(change, monkeypatch):
    def read_packets(video, limit=None, before=packets.read_packets):
        listed = [dataclasses.replace(packet) for packet in before(video, limit)]
        change(listed)
        return listed

    monkeypatch.setattr(packets, "read_packets", read_packets)
    assert depth_of(PATH)[0] is None


def test_large_files_are_read_as_usual(monkeypatch):
    assert open_video(PATH).learn(lambda facts: None).skips is True
    monkeypatch.setattr(decoder, "MAX_BYTES", 10_000)
    assert open_video(PATH).learn(lambda facts: None).skips is False


def damaged_in(number, path):
    """Write the file with another content of a packet's second half. Its size, and the other packets, stay."""
    with Container(PATH, True) as video:
        packet = bytes(list(video.packets())[number])
    content = H264.read_bytes()
    at = content.index(packet[-20:]) + 20  # its end
    size = len(packet) // 2
    noise = bytes(np.random.default_rng(number).integers(1, 256, size, "u1"))
    path.write_bytes(content[: at - size] + noise + content[at:])
    return path


def test_damage_that_the_decoder_conceals(tmp_path):
    """All frames decode, so F shows nothing; but their content may depend on everything decoded before."""
    paths = [str(damaged_in(number, tmp_path / f"{number}.mp4")) for number in range(10, 40, 5)]
    concealed = [path for path in paths if any(frame.is_corrupt for frame in decoded(path))]
    assert len(concealed) >= 2
    with DecoderProcesses(1, 60) as decoders:
        found = dict(decoders.decode([PATH, *paths]))
    assert found[PATH].facts == VideoFacts(COUNT, None, skips=True, reorder=REORDER, closed=True, format=MP4)
    for path in concealed:
        facts = found[path].facts
        assert facts.count == len(all_frames(path)) and facts.skips is False
        assert "decode only in part" in facts.damage


def test_real_videos(shared):
    """A bounded number of clips of each of which packets may be left out."""
    rng, helped = np.random.default_rng(0), []
    paths = [str(path) for path in sorted((shared / "videos").iterdir())]
    with DecoderProcesses(2, 60, as_stored=True) as decoders:
        outcomes = dict(decoders.decode(paths))
    for path in paths:
        facts = outcomes[path].facts
        if not facts.skips or facts.count < 60:
            continue
        helped.append(path)
        expected, cache = all_frames(path), VideoFactsCache()
        video = open_video(path, as_stored=True)
        cache.put(path, video.fingerprint, facts)
        for length, rate in ((8, 8), (32, 6), (5, 1 + facts.count // 4)):
            indices = clip_indices(int(rng.random() * facts.count), length, rate, facts.count).tolist()

            def keep(places, frame, indices=indices, expected=expected):
                assert all(np.array_equal(frame, expected[indices[place]]) for place in places)

            sample_frames(video, lambda count, indices=indices: indices, keep, cache)
    assert len(helped) == 4
