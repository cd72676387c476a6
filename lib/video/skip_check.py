"""Whether a video's frames stay the same, to the byte, when packets that they do not need are left out."""

import os
import zlib

import cv2

from video import h264
from video.bad_videos import BadVideo
from video.capture import open_capture, retrieve

# Every decoding thread holds the packets in memory.
_MAX_BYTES = 64 << 20

# With less, reading the packets first would hardly pay.
_MIN_DROPPABLE = 0.2


def skipping_is_exact(path: str, count: int) -> bool:
    """Whether what h264.py leaves out of a video is not missed. Takes about as long as decoding it four times.

    Decoding everything shows which packet each frame belongs to, by its time. Then every frame is compared with it:
    without any of the frames that no other needs, from every IDR frame on; with every second of them; and with jumps
    from the middle of a run to the next IDR frame.

    Args:
        path: the video; decoding it showed no damage, not even damage that FFmpeg conceals.
        count: F, the number of its frames that decode.

    Returns:
        False also where it would save little. Raises BadVideo if the file cannot be opened.
    """
    if os.stat(path).st_size > _MAX_BYTES:
        return False
    try:
        packets = h264.read_packets(path)
    except h264.NotSkippable:
        return False
    if len(packets) != count or not _worthwhile(packets):
        return False
    if any(place - packet.rank > h264.MAX_REORDER for place, packet in enumerate(packets)):
        return False
    expected = _checksums(path, packets)
    return expected is not None and all(_agrees(path, packets, wanted, expected) for wanted in _selections(packets))


def _worthwhile(packets):
    droppable = sum(packet.droppable for packet in packets)
    return droppable >= _MIN_DROPPABLE * len(packets) or sum(packet.idr for packet in packets) > 1


def _selections(packets):
    """Sets of ranks that together cover every way of leaving packets out."""
    needed = {packet.rank for packet in packets if not packet.droppable}
    droppable = [packet.rank for packet in packets if packet.droppable]
    yield needed | set(droppable[::2])
    yield needed | set(droppable[1::2])
    runs = h264.runs(packets)
    for run in runs:
        yield {packet.rank for packet in run} & needed
    yield {packet.rank for run in runs for packet in run[: (len(run) + 1) // 2]} & needed


def _checksums(path, packets):
    """Of all frames; None if one is missing, or has another time than the packet of its rank."""
    checksums = []
    capture = open_capture(path)
    try:
        for packet in sorted(packets, key=lambda packet: packet.rank):
            if not capture.grab() or capture.get(cv2.CAP_PROP_PTS) != packet.time:
                return None
            checksums.append(zlib.crc32(retrieve(capture, path, packet.rank)))
    except BadVideo:
        return None
    finally:
        capture.release()
    return checksums


def _agrees(path, packets, wanted, expected):
    needed = h264.needed_packets(packets, wanted)
    try:
        with h264.opened_needed(packets, needed) as capture:
            return all(
                rank not in wanted or zlib.crc32(retrieve(capture, path, rank)) == expected[rank]
                for rank in h264.grabbed(capture, needed)
            )
    except (BadVideo, h264.NotSkippable):
        return False
