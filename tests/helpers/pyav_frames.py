"""Every frame of a video, by the plainest use of PyAV: one thread, from the first packet to the last."""

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter


def decoded_frames(path, stream=0):
    """Yield the av.VideoFrames of one of a file's video streams; packets that do not decode are passed over."""
    with av.open(str(path)) as container:
        video = container.streams.video[stream]
        video.thread_count, video.thread_type = 1, "NONE"
        packets = container.demux(video)
        while True:
            try:
                yield from next(packets).decode()
            except StopIteration:
                break
            except av.FFmpegError:
                continue


def default_stream(path):
    """The place among the video streams of the one that the ffmpeg program takes."""
    with av.open(str(path)) as container:
        return max(range(len(container.streams.video)), key=lambda place: _score(container.streams.video[place]))


def _score(stream):
    if stream.disposition & av.stream.Disposition.attached_pic:
        return 1
    return stream.width * stream.height + 5_000_000 * bool(stream.disposition & av.stream.Disposition.default)


class RGB:
    """Converts frames to H x W x 3 RGB uint8: by BT.601, whatever the tags; of full range if the format's name says so.

    swscale places the chroma by the frame's tags, and converts the fields of interlaced frames apart. The legacy
    program told it of neither, so the tags are taken off first.
    """

    def __init__(self):
        self._graphs, self._reformatter = {}, VideoReformatter()

    def __call__(self, frame):
        source_range = ColorRange.JPEG if frame.format.name.startswith("yuvj") else ColorRange.MPEG
        converted = self._reformatter.reformat(
            self._untagged(frame), format="rgb24", src_colorspace=Colorspace.ITU601, dst_colorspace=Colorspace.ITU601,
            interpolation=Interpolation.FAST_BILINEAR, src_color_range=source_range, dst_color_range=ColorRange.JPEG,
            threads=1)  # fmt: skip
        return converted.to_ndarray()

    def _untagged(self, frame):
        key = frame.width, frame.height, frame.format.name, frame.colorspace, frame.color_range
        if key not in self._graphs:
            self._graphs[key] = graph = av.filter.Graph()
            source = graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=1)
            graph.link_nodes(source, graph.add("setparams", "field_mode=prog:chroma_location=unspecified"),
                             graph.add("buffersink")).configure()
        self._graphs[key].push(frame)
        return self._graphs[key].pull()


def upright(frame, rgb):
    """H x W x 3 RGB turned and mirrored by quarters as the frame's display matrix says, if it has one."""
    message = frame.side_data.get("DISPLAYMATRIX")
    if message is None:
        return rgb
    # x' = a x + c y; y' = b x + d y
    a, b, _, c, d = np.frombuffer(message, np.int32)[:5]
    if not a and not d:
        rgb, a, d = rgb.swapaxes(0, 1), c, b
    return rgb[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]
