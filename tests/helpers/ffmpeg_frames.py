"""Every frame of a video as the ffmpeg program gives it.

ffmpeg rescales to the first frame's size and format for its encoder. So sizes, formats and checksums are taken from the
filter showinfo, which stands before that, and for RGB the scaling to one size is switched off.
"""

import re
import shutil
import subprocess
import zlib
from dataclasses import dataclass

import numpy as np
from video_files import digest

FFMPEG = shutil.which("ffmpeg")
# ffmpeg's filter interpolates chroma of fewer rows otherwise than libswscale by itself does, and 16 bits.
_NOT_EXACT = re.compile(r"yuva?j?(420|410|440)p|nv12|nv21|p010|gray16|rgb48|rgba64")
_FRAME = re.compile(r" n: *\d+ .*? fmt:(\w+) .*? s:(\d+)x(\d+) .*? plane_checksum:\[([0-9A-F ]*)\]")


@dataclass(frozen=True)
class Frame:
    """height, width: in pixels, after turning if the video was turned.

    pix_fmt: the pixel format. checksums: Adler-32 (starting at 0) of each plane in it.
    rgb: digest of H x W x 3 RGB by the coefficients of BT.601, or None if ffmpeg's way to it differs from libswscale's.
    """

    height: int
    width: int
    pix_fmt: str
    checksums: tuple[int, ...]
    rgb: bytes | None


def ffmpeg_frames(path, as_stored=False):
    """All Frames that ffmpeg decodes: of the stream that it takes, upright; as_stored: of the first, as it is."""
    shown, full = _run(path, as_stored, "pc")
    full_only = all(pix_fmt.startswith("yuvj") for pix_fmt, *_ in shown)
    limited = full if full_only else _run(path, as_stored, "tv")[1]
    frames, at = [], 0
    for pix_fmt, width, height, sums in shown:
        height, width = int(height), int(width)
        # Formats whose name does not tell of the full range are taken for limited ones, whatever the tags say.
        rgb = (full if pix_fmt.startswith("yuvj") else limited)[at : at + height * width * 3]
        at += len(rgb)
        exact = _NOT_EXACT.match(pix_fmt) is None or pix_fmt in ("yuv420p", "yuvj420p", "yuva420p") and height % 2 == 0
        frames.append(Frame(height, width, pix_fmt, tuple(int(each, 16) for each in sums.split()),
                            digest(np.frombuffer(rgb, np.uint8)) if exact else None))  # fmt: skip
    assert at == len(full) == sum(frame.height * frame.width * 3 for frame in frames), f"{path}: ffmpeg ended early"
    return frames


def _run(path, as_stored, value_range):
    to_rgb = f"scale=in_color_matrix=bt601:in_range={value_range}:out_range=pc:flags=fast_bilinear,format=rgb24"
    command = [FFMPEG, "-v", "info", "-nostats", "-nostdin", "-threads", "1", *["-noautorotate"] * as_stored,
               "-i", path, *["-map", "0:v:0"] * as_stored, "-vf", f"showinfo,{to_rgb}", "-sws_flags", "fast_bilinear",
               "-vsync", "passthrough", "-autoscale", "0", "-an", "-sn", "-dn", "-f", "rawvideo", "-"]  # fmt: skip
    done = subprocess.run(command, capture_output=True)
    return _FRAME.findall(done.stderr.decode(errors="replace")), done.stdout


def checksums(frame):
    """Frame.checksums of an av.VideoFrame."""
    if frame.format.is_planar:
        bits = [component.bits for component in frame.format.components]
    else:
        bits = [frame.format.padded_bits_per_pixel]
    found = []
    # A palette is a second plane, and does not count.
    for plane, size in zip(frame.planes, bits, strict=False):
        rows = np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)
        found.append(zlib.adler32(rows[:, : plane.width * ((size + 7) // 8)].tobytes(), 0))
    return tuple(found)
