"""The packets of a video that some of its frames need.

Two kinds can be left out. Frames that no other frame is predicted from are marked as such, in the packet's header
(nal_ref_idc 0 in H.264: ITU-T H.264, 7.4.1; sub-layer non-reference pictures in HEVC: ITU-T H.265, 7.4.2.2) or by the
container; with x264's defaults they are nearly half of all. And at a keyframe, decoding can start: packets before it
are only needed for frames that are shown before it.

Whether that gives the file's own frames to the byte depends on encoders, containers and damage: skip_check.py answers
it for a file, and only then is it done.
"""

import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from itertools import islice

import av

from video.container import Container

# NAL units of Annex B: the byte after a start code.
_START = re.compile(b"\0\0\x01(.)", re.DOTALL)


class CannotSkip(Exception):
    """Packets cannot be left out of this video."""


@dataclass(slots=True)
class Packet:
    """A packet in decoding order.

    Attributes:
        data: the packet itself.
        time: presentation time, in the unit of the stream.
        key: whether decoding can start here.
        start: place in decoding order of the keyframe at which decoding must start for this frame; -1: none.
        is_droppable: tells from a packet's bytes whether no other packet needs it.
        rank: its frame's place in the order of presentation; -1: its frame is not shown (an edit list hides it).
    """

    data: av.Packet
    time: int
    key: bool
    start: int
    is_droppable: Callable[[memoryview], bool]
    rank: int = -1

    @property
    def droppable(self) -> bool:
        """Whether no other packet needs it."""
        return self.data.is_disposable or self.is_droppable(memoryview(self.data))


def read_packets(video: Container, limit: int | None = None) -> list[Packet]:
    """The first `limit` packets of a video, or all, in decoding order.

    rank is right for frames after which enough packets follow (see reorder_depth), or all. Raises CannotSkip if a
    packet has no time, or two have the same, and BadVideo.
    """
    is_droppable = _droppable_test(video.decoder)
    packets: list[Packet] = []
    shown: list[Packet] = []
    keys: list[Packet] = []
    for place, data in enumerate(islice(video.packets(), limit)):
        time, key = data.pts, data.is_keyframe
        if time is None:
            raise CannotSkip
        # A frame that is shown before a keyframe, but decoded after it, may need those before the keyframe.
        start = place if key else next((earlier.start for earlier in reversed(keys) if earlier.time <= time), -1)
        packet = Packet(data, time, key, start, is_droppable)
        packets.append(packet)
        if key:
            keys.append(packet)
        if not data.is_discard:
            shown.append(packet)
    shown.sort(key=lambda packet: packet.time)
    for rank, packet in enumerate(shown):
        packet.rank = rank
    if len({packet.time for packet in shown}) < len(shown):
        raise CannotSkip
    return packets


def read_wanted(video: Container, wanted: Collection[int], reorder: int, closed: bool) -> list[Packet]:
    """The packets of a video among which are all that the frames of some ranks need, in decoding order.

    Args:
        video: newly opened.
        wanted: ranks.
        reorder: of the whole video, from reorder_depth.
        closed: whether reading may begin at any keyframe (skip_check.find_order): at the last one before all wanted
            frames.

    Raises CannotSkip, and BadVideo.
    """
    end = max(wanted, default=-1) + 1 + reorder
    first = video.seek_keyframe(min(wanted, default=0)) if closed else 0
    if first is None:
        raise CannotSkip
    packets = read_packets(video, end - first)
    if not first:
        return packets
    for packet in packets:
        packet.rank += first  # start is a place in this list
    return packets


def are_closed(packets: list[Packet]) -> bool:
    """Whether the frames before each keyframe in the order of presentation are those before it in decoding order."""
    key = 0
    for place, packet in enumerate(packets):
        key = place if packet.key else key
        if packet.rank < 0 or packet.start != key or packet.key and packet.rank != place:
            return False
    return True


def reorder_depth(packets: list[Packet]) -> int:
    """The largest number of packets that must follow a frame's rank to know it: max(place - rank)."""
    return max((place - packet.rank for place, packet in enumerate(packets) if packet.rank >= 0), default=0)


def decode_needed(
    video: Container, packets: list[Packet], wanted: Collection[int]
) -> Iterator[tuple[int, av.VideoFrame]]:
    """Decode what the frames of some ranks need. Yields (rank, frame) of each in the order of presentation.

    Raises CannotSkip, perhaps after some of them, if one is not there or not sound: then none of them can be relied on.
    """
    if not wanted:
        return
    ranks, needed = {}, bytearray(len(packets))
    for place, packet in enumerate(packets):
        if packet.rank in wanted:
            if packet.start < 0:
                raise CannotSkip
            ranks[packet.time] = packet.rank
            needed[packet.start : place + 1] = b"\1" * (place + 1 - packet.start)
    if len(ranks) < len(wanted):
        raise CannotSkip
    end = needed.rfind(1) + 1
    for place in range(needed.find(1), end):
        packet = packets[place]
        if not needed[place] or packet.time not in ranks and packet.droppable:
            continue
        yield from _wanted(video.decode(packet.data), ranks)
        if place + 1 == end or not needed[place + 1]:
            # No need to wait for the frames that the decoder holds back: nothing more comes before the next keyframe.
            yield from _wanted(video.decode(None), ranks)
            video.restart()
    if ranks or video.failures:
        raise CannotSkip


def _wanted(frames, ranks):
    """Yield those of the frames that are wanted, and take them out of ranks ({time: rank})."""
    for frame in frames:
        if frame.is_corrupt:
            raise CannotSkip
        rank = ranks.pop(frame.pts, None)
        if rank is not None:
            yield rank, frame


def _droppable_test(decoder):
    """A function from a packet's bytes to whether its header says that no other packet needs it."""
    extra = decoder.extradata or b""
    prefix = None  # Annex B, unless the stream has a configuration record (ISO/IEC 14496-15)
    if decoder.name == "h264":
        if len(extra) > 4 and extra[0] == 1:
            prefix = (extra[4] & 3) + 1
        return lambda data: _droppable_h264(_headers(data, prefix))
    if decoder.name == "hevc":
        if len(extra) > 21 and extra[:3] not in (b"\0\0\0", b"\0\0\1"):
            prefix = (extra[21] & 3) + 1
        return lambda data: _droppable_hevc([header >> 1 & 63 for header in _headers(data, prefix)])
    return lambda data: False


def _headers(data, prefix):
    """The first byte of every NAL unit. prefix: bytes of the length before each; None: start codes."""
    if prefix is None:
        return [match[1][0] for match in _START.finditer(data)]
    headers, at = [], prefix
    while at < len(data):
        headers.append(data[at])
        at += int.from_bytes(data[at - prefix : at]) + prefix
    return headers


def _droppable_h264(headers):
    # Slices (1) with nal_ref_idc 0; beside them supplementary information (6), delimiters (9) and filler (12), for
    # which it is 0 as well.
    return 1 in headers and set(headers) <= {1, 6, 9, 12}


def _droppable_hevc(kinds):
    # Sub-layer non-reference pictures (even, below 16); beside them delimiters (35), filler (38), information (39, 40).
    pictures = {kind for kind in kinds if kind < 32}
    return bool(pictures) and pictures <= set(range(0, 16, 2)) and set(kinds) - pictures <= {35, 38, 39, 40}
