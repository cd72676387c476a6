"""Whether a video's frames stay the same, to the byte, when packets that they do not need are left out."""

from collections.abc import Callable, Iterator, Sequence

from video import packets
from video.container import Container
from video.packets import CannotSkip, Packet
from video.pixels import checksum
from video.video import Stopped
from video.video_facts import MAX_FRAMES

# Every decoding thread holds the packets in memory.
MAX_BYTES = 64 << 20

# Those whose keyframes start from scratch, and whose damage shows. (Others have palettes that stay; FFV1 without
# checksums decodes to anything.) AV1 is decoded by libdav1d.
_CODECS = {"av1", "h264", "hevc", "libdav1d", "mjpeg", "mpeg1video", "mpeg2video", "mpeg4", "prores", "vp8", "vp9"}

# With less, reading the packets first would hardly pay.
_MIN_DROPPABLE = 0.1

_PARTS = 16  # times that the file is opened anew: this takes as long as decoding a few frames


def find_order(
    open_file: Callable[[], Container],
    times: Sequence[int | None],
    checksums: Sequence[int],
    stopped: Callable[[], bool],
) -> tuple[int, bool] | None:
    """See whether packets may be left out of a video, in at most twice the time of decoding it.

    Every frame is compared with the one that decoding everything gave: from its keyframe on, without the packets of
    the other frames that no frame needs, or every second of them.

    Args:
        open_file: opens the video; decoding it showed no damage.
        times, checksums: of its F frames, in the order of presentation, when everything was decoded.
        stopped: asked before every frame; if true, Stopped is raised.

    Returns:
        If packets may be left out: the file's packets.reorder_depth, and whether reading may begin at any keyframe, as
        the container's index and packets.are_closed say. None otherwise, or where it would save little. Raises BadVideo
        if the file cannot be read.
    """
    try:
        with open_file() as video:
            listed = packets.read_packets(video)
            shown = sorted(packet.time for packet in listed if packet.rank >= 0)
            if shown[:MAX_FRAMES] != list(times) or not _worthwhile(video.decoder.name, listed):
                return None
        for wanted in _selections(listed, len(times)):
            # A new decoder, as what one keeps over a restart may be what it needs.
            with open_file() as video:
                for rank, frame in packets.decode_needed(video, listed, wanted):
                    if stopped():
                        raise Stopped
                    if checksum(frame) != checksums[rank]:
                        return None
    except CannotSkip:
        return None
    with open_file() as video:
        closed = packets.are_closed(listed) and video.index_agrees([packet.data for packet in listed])
    return packets.reorder_depth(listed), closed


def _worthwhile(codec, listed):
    if codec not in _CODECS:
        return False
    return sum(packet.droppable for packet in listed) >= _MIN_DROPPABLE * len(listed) or sum(
        packet.key for packet in listed) > 1


def _selections(listed: list[Packet], count: int) -> Iterator[set[int]]:
    """Sets of ranks that together hold every frame, and make decoding start at every keyframe.

    First the frames of every second run from keyframe to keyframe, and those of the others, in parts, so that new
    decoders start at many of the keyframes; all without every second one of the droppable frames. Then these, and the
    frames that need a run before their own.
    """
    runs: list[set[int]] = []
    rest: set[int] = set()
    droppable, key = 0, -1
    for place, packet in enumerate(listed):
        if packet.key or not runs:
            runs.append(set())
            key = place
        droppable += packet.droppable
        if 0 <= packet.rank < count:
            later = packet.start < key or packet.droppable and droppable % 2
            (rest if later else runs[-1]).add(packet.rank)
    size = 2 * max(1, round(len(runs) / _PARTS))
    for first in range(0, len(runs), size):
        for parity in (0, 1):
            yield set().union(*runs[first + parity : first + size : 2])
    yield rest
