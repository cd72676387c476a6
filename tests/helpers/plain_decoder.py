"""Every frame of a video by PyAV alone, in the plainest way: what the program's frames are compared with."""

import contextlib

import av
import numpy as np
from av.filter import Graph
from av.stream import Disposition
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter


def all_frames(path, upright=False, held=False):
    """All frames (H x W x 3 uint8, RGB) of the first video stream as they are stored.

    upright: of the stream that the ffmpeg program takes, turned and mirrored as the first frame's display matrix says.
    held: decode all before any is converted, so that none lies in another's memory: what is damaged may differ then.
    """
    converter, place = VideoReformatter(), default_stream(path) if upright else 0
    matrix = _first_matrix(path, place) if upright else None
    frames = decoded(path, place)
    return [turned(rgb(converter, frame), matrix) for frame in (list(frames) if held else frames)]


def _first_matrix(path, place):
    """By a reading of its own: side data keep their frame, and damaged frames show what lay in the memory."""
    first = next(decoded(path, place), None)
    return None if first is None else first.side_data.get("DISPLAYMATRIX")


def decoded(path, place=0):
    """Yield all av.VideoFrames of one of the video streams; what cannot be read or decoded is passed over."""
    with contextlib.suppress(av.FFmpegError), av.open(f"file:{path}", metadata_errors="replace") as file:
        streams = file.streams.video
        if not streams or streams[place].codec_context is None:
            return
        decoder = streams[place].codec_context
        decoder.thread_count, decoder.thread_type = 1, "NONE"
        packets = []
        with contextlib.suppress(av.FFmpegError):
            packets.extend(packet for packet in file.demux(streams[place]) if packet.size)
        for packet in [*packets, None]:
            with contextlib.suppress(av.FFmpegError):
                yield from decoder.decode(packet)


def default_stream(path):
    """The place among the video streams of the one that the ffmpeg program takes by default."""
    with contextlib.suppress(av.FFmpegError), av.open(f"file:{path}", metadata_errors="replace") as file:
        scores = [_score(stream) for stream in file.streams.video]
        return scores.index(max(scores, default=0)) if scores else 0
    return 0


def _score(stream):
    if stream.disposition & Disposition.attached_pic or stream.codec_context is None:
        return 1
    return stream.width * stream.height + 5_000_000 * bool(stream.disposition & Disposition.default)


def turned(picture, matrix):
    """A picture (H x W x 3) turned and mirrored by quarters as a display matrix (its bytes, or None) says."""
    if matrix is None:
        return picture
    # x' = a x + c y; y' = b x + d y
    a, b, _, c, d = np.frombuffer(matrix, np.int32)[:5].astype(float)
    if min(abs(b), abs(c)) > 50 * max(abs(a), abs(d)):
        picture, a, d = picture.swapaxes(0, 1), c, b
    elif min(abs(a), abs(d)) <= 50 * max(abs(b), abs(c)):
        return picture  # no quarter turn
    return picture[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]


def rgb(converter, frame):
    """A frame as H x W x 3 uint8, RGB: by BT.601, of full range only if the pixel format's name says so."""
    if frame.interlaced_frame or frame.format.name not in ("yuv420p", "yuvj420p", "yuv422p", "yuvj422p"):
        frame = _without_tags(frame)
    full = frame.format.name.startswith("yuvj")
    return converter.reformat(
        frame, format="rgb24", interpolation=Interpolation.FAST_BILINEAR, threads=1,
        src_colorspace=Colorspace.ITU601, dst_colorspace=Colorspace.ITU601,
        src_color_range=ColorRange.JPEG if full else ColorRange.MPEG, dst_color_range=ColorRange.JPEG,
    ).to_ndarray()  # fmt: skip


def _without_tags(frame):
    """Without what legacy's converter did not know: fields, and where the chroma lies."""
    graph = Graph()
    source = graph.add_buffer(width=frame.width, height=frame.height, format=frame.format,
                              time_base=frame.time_base or 1)
    graph.link_nodes(source, graph.add("setparams", "field_mode=prog:chroma_location=unspecified"),
                     graph.add("buffersink")).configure()
    graph.push(frame)
    return graph.pull()
