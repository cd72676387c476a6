"""Whether a video's frames stay the same, to the byte, when packets that they do not need are left out."""

from collections.abc import Callable, Iterator, Sequence

from video import packets
from video.container import Container
from video.packets import CannotSkip, Packet
from video.pixels import checksum
from video.video import MAX_FRAMES

# Every decoding thread holds the packets in memory.
MAX_BYTES = 64 << 20

# With less, reading the packets first would hardly pay.
_MIN_DROPPABLE = 0.1


def find_reorder_depth(
    video: Container, times: Sequence[int | None], checksums: Sequence[int], stopped: Callable[[], None]
) -> int | None:
    """See whether packets may be left out of a video, in at most twice the time of decoding it.

    Every frame is compared with the one that decoding everything gave: from its keyframe on, without the packets of
    the other frames that no frame needs, or every second of them.

    Args:
        video: newly opened; decoding it showed no damage.
        times, checksums: of its F frames, in the order of presentation, when everything was decoded.
        stopped: called for every frame; may raise.

    Returns:
        The file's reorder depth (packets.reorder_depth) if packets may be left out; None otherwise, or where it would
        save little. Raises BadVideo if the file cannot be read.
    """
    try:
        listed = packets.read_packets(video)
        shown = sorted(packet.time for packet in listed if packet.rank >= 0)
        if shown[:MAX_FRAMES] != list(times) or not _worthwhile(listed):
            return None
        for wanted in _selections([packet for packet in listed if packet.rank < len(times)]):
            for rank, frame in packets.decode_needed(video, listed, wanted):
                stopped()
                if checksum(frame) != checksums[rank]:
                    return None
    except CannotSkip:
        return None
    return packets.reorder_depth(listed)


def _worthwhile(listed):
    return sum(packet.droppable for packet in listed) >= _MIN_DROPPABLE * len(listed) or sum(
        packet.key for packet in listed) > 1


def _selections(listed: list[Packet]) -> Iterator[set[int]]:
    """Sets of ranks that together hold every frame, and make decoding start at every keyframe.

    The frames of every second run from keyframe to keyframe, then those of the others, both without every second one of
    the droppable frames; then these, and the frames that need a run before their own.
    """
    runs: tuple[set[int], set[int]] = set(), set()
    rest: set[int] = set()
    droppable, number, key = 0, -1, -1
    for place, packet in enumerate(listed):
        if packet.key:
            number, key = number + 1, place
        droppable += packet.droppable
        if packet.rank >= 0:
            later = packet.start < key or packet.droppable and droppable % 2
            (rest if later else runs[number % 2]).add(packet.rank)
    return filter(None, (*runs, rest))
