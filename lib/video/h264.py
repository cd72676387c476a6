"""Frames of an H.264 video without the packets that they do not need.

Two kinds of packets can be left out. Frames that no other is predicted from say so (nal_ref_idc 0; ITU-T H.264,
7.4.1): with x264's defaults these are nearly half of all. And an IDR frame begins anew: what comes before it, or
after the last wanted frame of a run from one IDR frame to the next, has no bearing on what is wanted.

OpenCV gives a video's packets undecoded (CAP_PROP_FORMAT -1), and decodes what is left of them from memory. Whether
that gives a file's own frames to the byte, is a question of encoders, containers and damage: skip_check.py answers it
for a file, and only then is it done.
"""

import re
from dataclasses import dataclass

import cv2

from video.capture import open_video, opened_bytes

# The largest number of frames that are decoded before one that is shown before them (H.264, max_num_reorder_frames).
MAX_REORDER = 16

_H264 = cv2.VideoWriter.fourcc(*"h264")  # whatever the container calls it

# NAL units (7.4.1, table 7-1): nal_unit_type of the byte after a start code.
_START = re.compile(b"\0\0\x01(.)", re.DOTALL)
_SLICE, _IDR = 1, 5
_PARAMETERS = {7, 8}
_OTHERS = {6, 9, 12}  # supplementary information, delimiter, filler


class NotSkippable(Exception):
    """The packets are not such that some could be left out."""


@dataclass(slots=True)
class Packet:
    """A frame in the order of decoding: its bytes (Annex B), its time, and whether it is IDR, or no other needs it."""

    data: bytes
    time: float
    idr: bool
    droppable: bool
    rank: int = -1  # its place in the order of presentation


def read_packets(path, limit=None):
    """The first packets of a video, or all: list of Packet, in the order of decoding.

    rank is right where at least MAX_REORDER packets follow, or none is left. Raises NotSkippable, and BadVideo.
    """
    capture = open_video(path)
    try:
        if int(capture.get(cv2.CAP_PROP_FOURCC)) != _H264 or not capture.set(cv2.CAP_PROP_FORMAT, -1):
            raise NotSkippable
        packets = []
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


def runs(packets):
    """The packets in lists that each begin with an IDR frame."""
    lists = []
    for packet in packets:
        if packet.idr:
            lists.append([])
        lists[-1].append(packet)
    return lists


def needed_packets(packets, wanted):
    """Those of the packets that frames need. wanted: a set of ranks. Raises NotSkippable if one is not there."""
    if not wanted <= {packet.rank for packet in packets}:
        raise NotSkippable
    needed = []
    for run in runs(packets):
        last = max((i for i, packet in enumerate(run) if packet.rank in wanted), default=-1)
        needed += [packet for packet in run[: last + 1] if not packet.droppable or packet.rank in wanted]
    return needed


def _head(packet):
    """What stands before the slices of the first packet: parameters, and what the encoder says of itself."""
    first = next(unit.start() for unit in _START.finditer(packet.data) if unit[1][0] & 31 in (_SLICE, _IDR))
    return packet.data[:first]


def opened_needed(packets, needed):
    """cv2.VideoCapture of the needed ones of a file's packets, for a with statement."""
    stream = b"".join(packet.data for packet in needed)
    return opened_bytes(stream if needed[0] is packets[0] else _head(packets[0]) + stream)


def grabbed(capture, needed):
    """Yield the rank of every frame that grab() decodes.

    Raises NotSkippable, after some or all of them, if there are not as many as there should be: none is any good then.
    """
    for rank in sorted(packet.rank for packet in needed):
        if not capture.grab():
            raise NotSkippable
        yield rank
    if capture.grab():
        raise NotSkippable
