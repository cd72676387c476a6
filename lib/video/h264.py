"""Frames of an H.264 video without the packets that they do not need.

Two kinds of packets can be left out. Frames that no other frame is predicted from are marked as such (nal_ref_idc 0;
ITU-T H.264, 7.4.1): with x264's defaults nearly half of all. And an IDR frame starts from scratch: packets before it,
or after the last wanted frame of a run from one IDR frame to the next, have no effect on what is wanted.

OpenCV returns a video's packets undecoded (CAP_PROP_FORMAT -1), and decodes the rest of them from memory. Whether that
gives the file's own frames to the byte depends on encoders, containers and damage: skip_check.py answers it for a
file, and only then is it done.
"""

import re
from collections.abc import Collection, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import cv2

from video.capture import open_capture, opened_bytes

# The largest number of frames that precede a frame in decoding order and follow it in presentation order (H.264,
# max_num_reorder_frames).
MAX_REORDER = 16

_H264 = cv2.VideoWriter.fourcc(*"h264")  # whatever the container calls it

# NAL units (7.4.1, table 7-1): nal_unit_type of the byte after a start code.
_START = re.compile(b"\0\0\x01(.)", re.DOTALL)
_SLICE, _IDR = 1, 5
_PARAMETERS = {7, 8}
_OTHERS = {6, 9, 12}  # supplementary information, delimiter, filler


class NotSkippable(Exception):
    """Packets cannot be left out of this video."""


@dataclass(slots=True)
class Packet:
    """A frame in decoding order.

    Attributes:
        data: its bytes (Annex B).
        time: presentation time, in the unit of the container.
        idr: whether it is an IDR frame.
        droppable: whether no other frame needs it.
        rank: its place in presentation order.
    """

    data: bytes
    time: float
    idr: bool
    droppable: bool
    rank: int = -1


def read_packets(path: str, limit: int | None = None) -> list[Packet]:
    """The first `limit` packets of a video, or all, in decoding order.

    rank is right where at least MAX_REORDER packets follow, or none is left. Raises NotSkippable, and BadVideo.
    """
    capture = open_capture(path)
    try:
        if int(capture.get(cv2.CAP_PROP_FOURCC)) != _H264 or not capture.set(cv2.CAP_PROP_FORMAT, -1):
            raise NotSkippable
        packets: list[Packet] = []
        while (limit is None or len(packets) < limit) and capture.grab():
            data = capture.retrieve()[1].tobytes()
            packets.append(_packet(data, capture.get(cv2.CAP_PROP_PTS)))
    finally:
        capture.release()
    if not packets or not packets[0].idr or len({packet.time for packet in packets}) < len(packets):
        raise NotSkippable
    for rank, packet in enumerate(sorted(packets, key=lambda packet: packet.time)):
        packet.rank = rank
    return packets


def _packet(data, time):
    slices, others = [], set()
    for unit in _START.finditer(data):
        header = unit[1][0]
        kind = header & 31
        if kind in (_SLICE, _IDR):
            slices.append((kind, header >> 5 & 3))
        else:
            others.add(kind)
    if not slices or others - _PARAMETERS - _OTHERS:
        raise NotSkippable
    idr = all(kind == _IDR for kind, _ in slices)
    needed = any(reference for _, reference in slices) or not others.isdisjoint(_PARAMETERS)
    return Packet(data, time, idr, not idr and not needed)


def runs(packets: Sequence[Packet]) -> list[list[Packet]]:
    """The packets in lists that each begin with an IDR frame."""
    lists: list[list[Packet]] = []
    for packet in packets:
        if packet.idr:
            lists.append([])
        lists[-1].append(packet)
    return lists


def needed_packets(packets: Sequence[Packet], wanted: Collection[int]) -> list[Packet]:
    """The packets needed for the frames of the ranks `wanted`. Raises NotSkippable if one of them is not there."""
    if not set(wanted) <= {packet.rank for packet in packets}:
        raise NotSkippable
    needed: list[Packet] = []
    for run in runs(packets):
        last = max((i for i, packet in enumerate(run) if packet.rank in wanted), default=-1)
        needed += [packet for packet in run[: last + 1] if not packet.droppable or packet.rank in wanted]
    return needed


def _head(packet):
    """What precedes the slices of the first packet: parameters, and what the encoder says about itself."""
    first = next(unit.start() for unit in _START.finditer(packet.data) if unit[1][0] & 31 in (_SLICE, _IDR))
    return packet.data[:first]


def opened_needed(packets: Sequence[Packet], needed: Sequence[Packet]) -> AbstractContextManager[cv2.VideoCapture]:
    """Open the needed ones of a file's packets as a video, for a with statement."""
    stream = b"".join(packet.data for packet in needed)
    return opened_bytes(stream if needed[0] is packets[0] else _head(packets[0]) + stream)


def grabbed(capture: cv2.VideoCapture, needed: Sequence[Packet]) -> Iterator[int]:
    """Yield the rank of every frame that grab() decodes.

    Raises NotSkippable, after some or all of them, if their number is wrong: then none of them can be relied on.
    """
    for rank in sorted(packet.rank for packet in needed):
        if not capture.grab():
            raise NotSkippable
        yield rank
    if capture.grab():
        raise NotSkippable
