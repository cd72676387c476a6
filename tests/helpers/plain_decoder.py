"""Every frame of a video by PyAV alone, in the plainest way: what the program's frames are compared with."""

import contextlib

import av
import numpy as np
from av.filter import Graph
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter


def all_frames(path):
    """All frames of the first video stream (H x W x 3 uint8, RGB), as they are stored."""
    converter = VideoReformatter()
    return [_rgb(converter, frame) for frame in decoded(path)]


def decoded(path):
    """Yield all av.VideoFrames of the first video stream; what cannot be read or decoded is passed over."""
    with contextlib.suppress(av.FFmpegError), av.open(f"file:{path}", metadata_errors="replace") as file:
        streams = file.streams.video
        if not streams or streams[0].codec_context is None:
            return
        decoder = streams[0].codec_context
        decoder.thread_count, decoder.thread_type = 1, "NONE"
        packets = []
        with contextlib.suppress(av.FFmpegError):
            packets.extend(packet for packet in file.demux(streams[0]) if packet.size)
        for packet in [*packets, None]:
            with contextlib.suppress(av.FFmpegError):
                yield from decoder.decode(packet)


def _rgb(converter, frame):
    full = frame.format.name.startswith("yuvj")
    graph = Graph()
    source = graph.add_buffer(width=frame.width, height=frame.height, format=frame.format,
                              time_base=frame.time_base or 1)
    graph.link_nodes(source, graph.add("setparams", "field_mode=prog:chroma_location=unspecified"),
                     graph.add("buffersink")).configure()
    graph.push(frame)
    return converter.reformat(
        graph.pull(), format="rgb24", interpolation=Interpolation.FAST_BILINEAR, threads=1,
        src_colorspace=Colorspace.ITU601, dst_colorspace=Colorspace.ITU601,
        src_color_range=ColorRange.JPEG if full else ColorRange.MPEG, dst_color_range=ColorRange.JPEG,
    ).to_ndarray().astype(np.uint8)  # fmt: skip
