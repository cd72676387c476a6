"""Makers of videos whose container is unusual: changes on the way, turns, edits, many streams, odd times.

KINDS: {name: make(rng, folder), which returns an Unusual}.
"""

from fractions import Fraction
from functools import partial
from itertools import accumulate

from av import Packet
from av.stream import Disposition
from muxing import annex_b_units, join, set_edits, time_scales, with_data, write_container
from unusual_parts import Unusual, frames_of, pictures, size, track, write

KINDS = {}


def _add(make, name, *arguments):
    KINDS[name] = partial(make, name, *arguments)


def _short(codec):
    return codec.removeprefix("lib")


# --------------------------------------------------------------------------------------------------- other on the way


def _sizes(kind, codec, suffix, step, rng, folder):
    """Two to five stretches of other sizes; the last one is often of the first size again."""
    sizes = [size(rng, step=step)]
    for _ in range(rng.randint(1, 3)):
        sizes.append(_next_size(rng, *sizes[-1], step))
    if rng.random() < 0.5:
        sizes.append(sizes[0])
    tracks = [track(codec, pictures(rng, *each, 2, 12)) for each in sizes]
    frames = _decoded(tracks)
    return Unusual(write(folder / f"{kind}{suffix}", join(tracks)), kind, frames)


def _decoded(tracks):
    """Unusual.frames of stretches as FFmpeg's decoders show them."""
    frames, first, as_first = [], tracks[0], True
    for made, following in zip(tracks, [*tracks[1:], None], strict=True):
        each = frames_of(made)
        as_first = as_first and made.codec == "libx264" and _cropped_as(first, made)
        if as_first:
            each = [(first.height, first.width, pix_fmt) for _, _, pix_fmt in each]
        if made.codec in ("mpeg1video", "mpeg2video") and following and _size(following) != _size(made):
            del each[-1]  # is lost: the decoder starts anew, with the last frame still to show
        frames += each
    return frames


def _size(made):
    return made.height, made.width


def _cropped_as(first, made):
    """Whether FFmpeg's decoder of H.264 shows frames at the container's size, as macroblocks leave room for both."""
    pairs = list(zip(_size(first), _size(made), strict=True))
    return all((a + 15) // 16 == (b + 15) // 16 and a <= b for a, b in pairs)


def _next_size(rng, height, width, step):
    """As an adaptive stream's size changes: larger, smaller, portrait, twice as wide, or by very little."""
    height, width = rng.choice((size(rng), (height * 2, width * 2), (height // 2, width // 2), (width, height),
                                (height, width * 2), (height, width + step), (height + step, width)))
    return (max(32, height // step * step), max(32, width // step * step))


for _codec, _suffixes, _step in (
    ("libx264", ".h264 .ts .mkv .mp4 .mov .flv", 2), ("libx265", ".hevc .ts .mkv .mp4", 2),
    ("mjpeg", ".mjpeg .avi .mkv .mov", 2), ("mpeg4", ".m4v .avi .mkv .mp4", 2), ("mpeg2video", ".m2v .mpg .ts", 2),
    ("mpeg1video", ".m1v .mpg", 2), ("libvpx", ".ivf .webm", 2), ("libvpx-vp9", ".ivf .webm .mp4", 2),
    ("libsvtav1", ".ivf .mkv .mp4", 2), ("flv", ".flv .avi", 2), ("h263p", ".h263 .avi", 4), ("png", ".avi .mov", 2),
    ("prores_ks", ".mov", 2),
):  # fmt: skip
    for _suffix in _suffixes.split():
        _add(_sizes, f"sizes-{_short(_codec)}-{_suffix[1:]}", _codec, _suffix, _step)


def _formats(kind, codec, suffix, pix_fmts, rng, folder):
    """Stretches of other pixel formats, of the same size or not."""
    height, width = size(rng)
    tracks = []
    for pix_fmt in rng.sample(pix_fmts, rng.randint(2, len(pix_fmts))):
        tracks.append(track(codec, pictures(rng, height, width, 2, 10), pix_fmt))
        if rng.random() < 0.3:
            height, width = size(rng)
    frames = _decoded(tracks)
    return Unusual(write(folder / f"{kind}{suffix}", join(tracks)), kind, frames)


for _codec, _suffixes, _pix_fmts in (
    ("mjpeg", ".mjpeg .avi .mkv", ["yuvj420p", "yuvj422p", "yuvj444p"]),
    ("libx264", ".h264 .ts .mkv .mp4", ["yuv420p", "yuv422p", "yuv444p", "yuv420p10le", "gray"]),
    ("libx265", ".hevc .mkv", ["yuv420p", "yuv422p", "yuv444p", "yuv420p10le", "gray"]),
    ("libvpx-vp9", ".ivf .webm", ["yuv420p", "yuv422p", "yuv444p"]),
    ("png", ".avi .mov", ["rgb24", "gray", "rgba"]),
):
    for _suffix in _suffixes.split():
        _add(_formats, f"formats-{_short(_codec)}-{_suffix[1:]}", _codec, _suffix, _pix_fmts)

def _headers_once(kind, suffix, rng, folder):
    """Stretches of H.264 of one or several sizes; only the first keyframe of each has the stream's parameters."""
    sizes = [size(rng) for _ in range(rng.randint(1, 3))]
    tracks = [track("libx264", pictures(rng, *each, 5, 40), parameters="keyint=6") for each in sizes]
    for made in tracks:
        for place, packet in enumerate(made.packets[1:], 1):
            kept = [unit for unit in annex_b_units(bytes(packet)) if unit[0] & 31 not in (7, 8)]
            made.packets[place] = with_data(packet, b"".join(b"\0\0\1" + unit for unit in kept))
    frames = _decoded(tracks)
    return Unusual(write(folder / f"{kind}{suffix}", join(tracks)), kind, frames)


for _suffix in (".h264", ".ts", ".mkv", ".mp4"):
    _add(_headers_once, f"headers-once-{_suffix[1:]}", _suffix)


def _ranges(kind, suffix, rng, folder):
    """The range of values changes. What FFmpeg's decoder of H.264 makes of it depends on the frames before."""
    height, width = size(rng)
    tracks = [track("libx264", pictures(rng, height, width, 2, 10), rng.choice(("yuv420p", "yuvj420p", "yuvj422p")))
              for _ in range(4)]
    return Unusual(write(folder / f"{kind}{suffix}", join(tracks)), kind, None)


for _suffix in (".h264", ".ts", ".mkv", ".mp4"):
    _add(_ranges, f"ranges-x264-{_suffix[1:]}", _suffix)

# --------------------------------------------------------------------------------------------------- turns


def _rotation(kind, codec, suffix, rng, folder):
    """Stored turned or mirrored, with a display matrix."""
    made = track(codec, pictures(rng, *size(rng)))
    made.rotation = rng.choice([(degrees, mirrored, False) for degrees in (0, 90, 180, 270)
                                for mirrored in (False, True)][1:])
    return Unusual(write(folder / f"{kind}{suffix}", made), kind, frames_of(made), rotation=made.rotation)


def _rotation_message(kind, suffix, rng, folder):
    """The turn is in a message (SEI) of the H.264 stream, with every frame."""
    made = track("libx264", pictures(rng, *size(rng)), parameters=f"keyint={rng.choice((1, 8, 250))}")
    degrees = rng.choice((90, 180, 270))
    # Display orientation (47) of three bytes: the angle in 16 bits, and that it is said again.
    message = b"\0\0\1\x06\x2f\x03" + (degrees * 65536 // 360 << 5 | 0b01001).to_bytes(3) + b"\x80"
    for place, packet in enumerate(made.packets):
        units = annex_b_units(bytes(packet))
        slices = next(at for at, unit in enumerate(units) if unit[0] & 31 in (1, 5))
        data = b"".join(b"\0\0\1" + unit for unit in units[:slices]) + message
        made.packets[place] = with_data(packet, data + b"".join(b"\0\0\1" + unit for unit in units[slices:]))
    return Unusual(write(folder / f"{kind}{suffix}", made), kind, frames_of(made), rotation=(degrees, False, False))


_add(_rotation, "rotation-mp4", "libx264", ".mp4")
_add(_rotation, "rotation-mov", "libx264", ".mov")
_add(_rotation, "rotation-mpeg4", "mpeg4", ".mp4")
for _suffix in (".h264", ".ts", ".mkv", ".mp4"):
    _add(_rotation_message, f"rotation-message-{_suffix[1:]}", _suffix)

# --------------------------------------------------------------------------------------------------- edits and cuts


def _cut(kind, suffix, rng, folder):
    """Cut at a keyframe before the start: the frames before it have times below zero, and an edit list hides them."""
    made = track("libx264", pictures(rng, *size(rng), 12, 50), parameters=f"keyint=24:bframes={rng.randrange(3)}")
    hidden = rng.randrange(1, min(24, len(made.packets)))
    for packet in made.packets:
        packet.pts -= hidden
    return Unusual(write(folder / f"{kind}{suffix}", made), kind, frames_of(made)[hidden:], hidden=hidden)


def _edits(kind, most, rng, folder):
    """An edit list of up to so many stretches of the video in any order, and nothing shown before."""
    codec = rng.choice(("libx264", "mpeg4"))
    made = track(codec, pictures(rng, *size(rng), 12, 50),
                 parameters=f"keyint={rng.choice((1, 8, 250))}:bframes={rng.randrange(3)}")
    path, count = write(folder / f"{kind}.mp4", made), len(made.packets)
    movie, own = time_scales(path)
    delay = max(place - packet.pts for place, packet in enumerate(made.packets))  # frame 0 is shown at this time
    edits = [(movie * rng.randrange(1, 40) // 25, -1)] if rng.random() < 0.3 else []
    stretches = []
    for _ in range(rng.randint(min(2, most), most)):
        start = rng.randrange(count - 1)
        stretches.append((start, rng.choice((count, rng.randrange(start + 1, count + 1)))))
    edits += [((end - start) * movie // 25, (delay + start) * own // 25) for start, end in stretches]
    set_edits(path, edits)
    if len(stretches) > 1:
        return Unusual(path, kind, None)
    ((start, end),) = stretches
    return Unusual(path, kind, frames_of(made)[start:end], hidden=count - end + start)


def _open_start(kind, codec, suffix, parameters, options, rng, folder):
    """Cut at a keyframe whose leading frames need what is gone, or in the middle of a refresh."""
    made = track(codec, pictures(rng, *size(rng), 60, 75), parameters=parameters, **options)
    # What follows is long enough to recover: until then, it depends on FFmpeg's version how many frames are shown.
    keys = [place for place, packet in enumerate(made.packets[:-40]) if packet.is_keyframe][1:]
    del made.packets[: rng.choice(keys or range(1, 10))]
    start = min(packet.pts for packet in made.packets)
    for packet in made.packets:
        packet.pts -= start
    return Unusual(write(folder / f"{kind}{suffix}", made), kind, None)


_add(_cut, "edits-cut-mp4", ".mp4")
_add(_cut, "edits-cut-mov", ".mov")
_add(_edits, "edits-one", 1)
_add(_edits, "edits-many", 4)
for _name, _codec, _suffixes, _parameters, _options in (
    ("h264", "libx264", ".h264 .ts .mkv", "keyint=8:open-gop=1:bframes=3:b-adapt=0", {}),
    ("refresh", "libx264", ".h264 .ts .mkv", "keyint=10:intra-refresh=1", {}),
    ("hevc", "libx265", ".hevc .ts .mkv", "keyint=8:bframes=3:b-adapt=0", {}),
    ("mpeg2", "mpeg2video", ".m2v .ts .mpg", "", {"g": "8", "bf": "2"}),
):
    for _suffix in _suffixes.split():
        _add(_open_start, f"cut-{_name}-{_suffix[1:]}", _codec, _suffix, _parameters, _options)

# --------------------------------------------------------------------------------------------------- many streams


def _streams(kind, codecs, suffix, rng, folder):
    """Several videos of other sizes, some of them marked as the default; sound stands anywhere, or is missing."""
    codec = rng.choice(codecs)
    tracks = [track(codec, pictures(rng, *size(rng))) for _ in range(rng.randint(2, 4))]
    default = rng.sample(range(len(tracks)), rng.randint(1, len(tracks)))
    for place in default:
        tracks[place].settings = {"disposition": Disposition.default}
    path = folder / f"{kind}{suffix}"
    write_container(path, *tracks, audio=rng.choice((None, *range(len(tracks) + 1))))
    chosen = range(len(tracks)) if suffix == ".ts" else sorted(default)  # transport streams have no such mark
    stream = max(chosen, key=lambda place: tracks[place].height * tracks[place].width)
    return Unusual(path, kind, frames_of(tracks[stream]), stream=stream)


def _cover(kind, codec, pix_fmt, suffix, rng, folder):
    """A cover that is larger than the video."""
    made = track("libx264", pictures(rng, *size(rng)))
    cover = track(codec, pictures(rng, 300, 400, 1, 1), pix_fmt)
    path, audio = folder / f"{kind}{suffix}", rng.choice((None, 0, 1))
    if suffix == ".mkv":
        name, mimetype = {"png": ("cover.png", "image/png"), "mjpeg": ("cover.jpg", "image/jpeg")}[codec]
        data = bytes(cover.packets[0])
        write_container(path, made, audio=audio, extra=[lambda file: file.add_attachment(name, mimetype, data) and ()])
    else:
        cover.settings = {"disposition": Disposition.attached_pic}
        write_container(path, *rng.sample([made, cover], 2), audio=audio)
    return Unusual(path, kind, frames_of(made))


def _subtitles(kind, rng, folder):
    """Subtitles, a font and sound beside the video."""
    made = track("libx264", pictures(rng, *size(rng)))

    def font(container):
        container.add_attachment("font.ttf", "font/ttf", bytes(300))
        return []

    def subtitles(container):
        stream, packets = container.add_mux_stream("subrip"), []
        for number in range(3):
            packets.append(packet := Packet(f"line {number}".encode()))
            packet.stream, packet.time_base = stream, Fraction(1, 1000)
            packet.pts = packet.dts = 200 * number
            packet.duration = 150
        return packets

    path = folder / f"{kind}.mkv"
    write_container(path, made, extra=rng.sample([font, subtitles], 2), audio=rng.choice((None, 0, 1)))
    return Unusual(path, kind, frames_of(made))


_add(_streams, "streams-mp4", ["libx264", "mpeg4", "mjpeg"], ".mp4")
_add(_streams, "streams-mkv", ["libx264", "mpeg4", "mjpeg"], ".mkv")
_add(_streams, "streams-ts", ["libx264", "mpeg2video"], ".ts")
for _suffix in (".mp4", ".mkv"):
    _add(_cover, f"streams-png-cover-{_suffix[1:]}", "png", "rgb24", _suffix)
    _add(_cover, f"streams-jpeg-cover-{_suffix[1:]}", "mjpeg", "yuvj420p", _suffix)
_add(_subtitles, "streams-subtitles")

# --------------------------------------------------------------------------------------------------- times


def _times(kind, codec, suffix, times_of, rng, folder):
    """Frames at times_of(rng, count) ms, not every 40 ms."""
    made = track(codec, pictures(rng, *size(rng)))
    made.time_base, made.times = Fraction(1, 1000), times_of(rng, len(made.packets))
    return Unusual(write(folder / f"{kind}{suffix}", made), kind, frames_of(made))


def _uneven(rng, count):
    return list(accumulate(rng.randrange(1, 200) for _ in range(count)))


def _gaps(rng, count):
    return list(accumulate(rng.choice((40, 40, 40, 60_000)) for _ in range(count)))


def _late(rng, count):
    start = rng.randrange(1, 10**7)
    return [start + 40 * number for number in range(count)]


def _repeated(rng, count):
    return sorted(40 * rng.randrange(count) for _ in range(count))


for _name, _times_of, _codec, _suffixes in (
    ("uneven", _uneven, "libx264", ".mkv .mp4 .ts .mov .flv"), ("uneven-mpeg4", _uneven, "mpeg4", ".mkv .mp4"),
    ("gaps", _gaps, "libx264", ".mkv .mp4 .flv"), ("late", _late, "libx264", ".mkv .mp4 .ts .flv"),
    ("repeated", _repeated, "mjpeg", ".mkv"), ("repeated-vp9", _repeated, "libvpx-vp9", ".webm"),
):  # fmt: skip
    for _suffix in _suffixes.split():
        _add(_times, f"times-{_name}-{_suffix[1:]}", _codec, _suffix, _times_of)
