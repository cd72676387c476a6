"""From a decoded frame to RGB, with the bytes that the legacy program's swscale gave.

BT.601 coefficients whatever the stream's tags say; full range only where the pixel format itself is a full-range one;
chroma filtered as by SWS_FAST_BILINEAR.
"""

import threading
import zlib
from typing import TypeAlias, cast

import av
import cv2
import numpy as np
from av.filter import Graph
from av.sidedata.sidedata import SideData
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter

# Work is parallel over videos, one per thread.
cv2.setNumThreads(0)

# Converted line by line: their chroma needs no filter, so where it lies does not matter.
_PLANAR = {"yuv420p", "yuvj420p", "yuv422p", "yuvj422p"}

# (a, b, c, d), each -1, 0 or 1: a pixel at (x, y) is shown at (a x + c y, b x + d y). None: as it is stored, also where
# the angle is none of the quarter turns: players differ there.
Turn: TypeAlias = tuple[int, int, int, int] | None
TURNS = {turn for a in (1, -1) for d in (1, -1) for turn in ((a, 0, 0, d), (0, a, d, 0))}


class _Converters(threading.local):
    """A thread's converters: sharing one crashes."""

    def __init__(self):
        self.reformatter = VideoReformatter()
        self.graphs = {}


_converters = _Converters()


def to_rgb(frame: av.VideoFrame, turn: Turn = None) -> np.ndarray:
    """A frame from Container as H x W x 3 uint8, RGB, at its own size; turned and mirrored if asked for."""
    if frame.interlaced_frame or frame.format.name not in _PLANAR:
        frame = _without_tags(frame)
    full = frame.format.name.startswith("yuvj")
    converted = _converters.reformatter.reformat(
        frame, format="rgb24", src_colorspace=Colorspace.ITU601, dst_colorspace=Colorspace.ITU601,
        src_color_range=ColorRange.JPEG if full else ColorRange.MPEG, dst_color_range=ColorRange.JPEG,
        interpolation=Interpolation.FAST_BILINEAR, threads=1,
    )  # fmt: skip
    rgb = _rows(converted.planes[0], 3 * frame.width).reshape(frame.height, frame.width, 3)
    return _turned(rgb, *turn) if turn else rgb


def checksum(frame: av.VideoFrame) -> int:
    """Of the frame's content and size."""
    if frame.format.name not in _PLANAR:
        return zlib.crc32(np.ascontiguousarray(to_rgb(frame)).data)
    value = zlib.crc32(f"{frame.width} {frame.height} {frame.format.name}".encode())
    for plane in frame.planes:
        value = zlib.crc32(np.ascontiguousarray(_rows(plane, plane.width)).data, value)
    return value


def display_matrix(frame: av.VideoFrame) -> Turn:
    """How a frame is to be turned and mirrored to be shown."""
    # PyAV's side data keep a frame alive until Python looks for cycles: better that of a small one.
    small = VideoReformatter().reformat(
        frame, width=16, height=16, format="rgb24", src_colorspace=Colorspace.ITU601,
        dst_colorspace=Colorspace.ITU601, threads=1)  # fmt: skip
    data = small.side_data.get("DISPLAYMATRIX")
    if data is None:
        return None
    a, b, _, c, d = np.frombuffer(bytes(cast(SideData, data)), np.int32)[:5].astype(np.int64) / (1 << 16)
    straight, turned = min(abs(a), abs(d)), min(abs(b), abs(c))
    if straight > 50 * max(abs(b), abs(c)):
        matrix = int(np.sign(a)), 0, 0, int(np.sign(d))
    elif turned > 50 * max(abs(a), abs(d)):
        matrix = 0, int(np.sign(b)), int(np.sign(c)), 0
    else:
        return None
    return None if matrix == (1, 0, 0, 1) else matrix


def _turned(rgb, a, b, c, d):
    if not a:
        rgb = cv2.transpose(rgb)
    mirrored, upside_down = a + c < 0, b + d < 0
    if mirrored or upside_down:
        rgb = cv2.flip(rgb, -1 if mirrored and upside_down else int(mirrored))
    return rgb


def _without_tags(frame):
    """A frame that shares this one's planes, without what legacy's swscale did not know: fields, place of chroma."""
    key = frame.format.name, frame.width, frame.height
    graph = _converters.graphs.get(key)
    if graph is None:
        graph = Graph()
        source = graph.add_buffer(width=frame.width, height=frame.height, format=frame.format,
                                  time_base=frame.time_base or 1)
        graph.link_nodes(source, graph.add("setparams", "field_mode=prog:chroma_location=unspecified"),
                         graph.add("buffersink")).configure()
        _converters.graphs = {key: graph}  # one, as a thread reads video after video
    graph.push(frame)
    return graph.pull()


def _rows(plane, width):
    """The lines of a plane (height x width uint8); a view."""
    return np.frombuffer(plane, np.uint8).reshape(plane.height, abs(plane.line_size))[:, :width]
