"""Videos written packet by packet, in layouts that an ordinary writer of videos does not give."""

import functools
import struct
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from fractions import Fraction

import av
import numpy as np
from av import AudioFrame, CodecContext, Packet, VideoFrame


@dataclass
class Track:
    """A video stream to be muxed.

    packets: in coding order; their presentation times count frames.
    times: the time of each frame in units of time_base, if it is not its number.
    settings: attributes of the PyAV stream, such as disposition.
    rotation: None, or (degrees counter-clockwise, mirrored left-right, upside down) for the display matrix.
    """

    codec: str
    packets: list[Packet]
    height: int
    width: int
    pix_fmt: str = "yuv420p"
    options: dict[str, str] = field(default_factory=dict)
    time_base: Fraction = Fraction(1, 25)
    times: list[int] | None = None
    settings: dict[str, object] = field(default_factory=dict)
    rotation: tuple[int, bool, bool] | None = None


def in_a_thread_of_its_own(function):
    """SVT-AV1, opened by root, gives the thread that opens it real-time priority, which starves all other processes."""

    @functools.wraps(function)
    def call(*args, **kwargs):
        with ThreadPoolExecutor(1) as threads:
            return threads.submit(function, *args, **kwargs).result()

    return call


@in_a_thread_of_its_own
def encode(codec, pictures, pix_fmt="yuv420p", options=None, settings=None):
    """The Track of F x H x W x 3 RGB uint8 pictures, with the codec's parameters in its packets."""
    height, width = pictures[0].shape[:2]
    context = CodecContext.create(codec, "w")
    context.height, context.width, context.pix_fmt = height, width, pix_fmt
    context.framerate, context.time_base, context.thread_count = 25, Fraction(1, 25), 1
    context.options = options or {}
    for name, value in (settings or {}).items():
        setattr(context, name, value)
    packets = []
    for number, picture in enumerate(pictures):
        frame = VideoFrame.from_ndarray(picture, format="rgb24").reformat(format=pix_fmt)
        frame.pts, frame.time_base = number, context.time_base
        packets += context.encode(frame)
    packets += context.encode(None)
    return Track(codec, packets, height, width, pix_fmt, options or {}, settings=settings or {})


def join(tracks):
    """The Track of several of one codec, one after another; what the container says is true of the first."""
    packets = []
    for track in tracks:
        start = len(packets)
        for packet in track.packets:
            packet.pts += start
        packets += track.packets
    first = tracks[0]
    return Track(first.codec, packets, first.height, first.width, first.pix_fmt, first.options)


def annex_b_units(data):
    """The NAL units of H.264 or HEVC that stand between start codes."""
    return [unit.rstrip(b"\0") for unit in data.split(b"\0\0\1")[1:]]


def with_data(packet, data):
    """A packet of other bytes, with this one's times."""
    changed = Packet(data)
    changed.pts, changed.dts, changed.is_keyframe = packet.pts, packet.dts, packet.is_keyframe
    return changed


def write_elementary(path, track):
    """Write the packets one after another, without a container or times."""
    path.write_bytes(b"".join(map(bytes, track.packets)))


@in_a_thread_of_its_own
def write_container(path, *tracks, container_options=None, extra=(), audio=None):
    """Mux Tracks in this order into a file whose ending chooses the container.

    Args:
        extra: functions that are called with the container, to add streams of other kinds. Each may return packets.
        audio: None, or the place before, between or after the tracks where a stream of silence goes.
    """
    with av.open(str(path), "w", container_options={"fflags": "+bitexact"} | (container_options or {})) as container:
        queued, silence = [], None
        for place, track in enumerate([*tracks, None]):
            if place == audio:
                silence = container.add_stream("mp2", rate=48000)
            if track:
                queued += _timed(track, _add_stream(container, track))
        for add in extra:
            queued += add(container) or ()
        if silence:
            queued += _silence(silence, max(packet.dts * packet.time_base for packet in queued))
        for packet in sorted(queued, key=lambda packet: packet.dts * packet.time_base):
            container.mux(packet)


def _add_stream(container, track):
    stream = container.add_stream(track.codec, rate=1 / track.time_base, options=track.options, width=track.width,
                                  height=track.height, pix_fmt=track.pix_fmt, time_base=track.time_base)
    for name, value in track.settings.items():
        setattr(stream, name, value)
    stream.codec_context.thread_count = 1
    if track.rotation:
        stream.set_display_rotation(*track.rotation)
    return stream


def _timed(track, stream):
    """The packets with the track's times. Decoding times rise; frames before the first are as far apart as it is long.
    """
    delay = max(place - packet.pts for place, packet in enumerate(track.packets))
    times = track.times or range(len(track.packets))
    ordered = sorted(times) if min(p.pts for p in track.packets) >= 0 else times
    for place, packet in enumerate(track.packets):
        number = place - delay
        packet.dts = ordered[number] if number >= 0 else ordered[0] + number
        packet.pts = times[packet.pts] if track.times else packet.pts
        packet.time_base, packet.stream = track.time_base, stream
        packet.duration = 0
    return track.packets


def _silence(stream, seconds):
    packets = []
    samples = np.zeros((1, 2 * 1152), np.int16)
    for start in range(0, max(1152, int(seconds * 48000)), 1152):
        frame = AudioFrame.from_ndarray(samples, format="s16", layout="stereo")
        frame.sample_rate, frame.pts, frame.time_base = 48000, start, Fraction(1, 48000)
        packets += stream.encode(frame)
    return packets + stream.encode(None)


# ---------------------------------------------------------------------------------------------------- boxes of an MP4


def set_edits(path, edits):
    """Give the only track of an MP4 whose movie box is at the end these edits in place of its own.

    Args:
        edits: [(duration in units of the movie's time scale, first time in the track's; -1: nothing is shown)].
    """
    data = path.read_bytes()
    entries = b"".join(struct.pack(">IiHH", *edit, 1, 0) for edit in edits)
    listed = _box(b"edts", _box(b"elst", struct.pack(">II", 0, len(edits)) + entries))
    moov = data.rindex(b"moov") - 4
    path.write_bytes(data[:moov] + _with_edits(data[moov:], listed))


def time_scales(path):
    """(the movie's time scale, the first track's), in units per second."""
    data = path.read_bytes()
    return [struct.unpack_from(">I", data, data.index(name) + 16)[0] for name in (b"mvhd", b"mdhd")]


def _box(name, body):
    return struct.pack(">I", 8 + len(body)) + name + body


def _with_edits(data, listed):
    boxes = []
    while data:
        (size,), name = struct.unpack_from(">I", data), data[4:8]
        body, data = data[8:size], data[size:]
        if name in (b"moov", b"trak"):
            body = _with_edits(body, listed)
        if name != b"edts":
            boxes.append(_box(name, body))
        if name == b"tkhd":
            boxes.append(listed)
    return b"".join(boxes)
