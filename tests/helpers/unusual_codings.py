"""Makers of videos that are coded in unusual ways: structures of frames, pixel formats, codecs.

KINDS: {name: make(rng, folder), which returns an Unusual}.
"""

from functools import partial

from av import Packet
from unusual_parts import Unusual, frames_of, pictures, size, track, write

_H264_IN = [".mp4", "start.mp4", "fragments.mp4", ".mov", ".mkv", ".ts", ".flv", ".h264"]
_HEVC_IN = [".mp4", "fragments.mp4", ".mkv", ".ts", ".hevc"]
_FLAGS = {"start.mp4": {"movflags": "faststart"}, "fragments.mp4": {"movflags": "frag_keyframe+empty_moov"}}


def _coded(kind, codec, endings, choices, rng, folder, frames=(5, 80), step=2):
    """A video in one of these ways to code and containers.

    choices: keyword arguments of unusual_parts.track; one is taken.
    frames: fewest and most. step: of the sizes.
    """
    ending, choice = rng.choice(endings), rng.choice(choices)
    made = track(codec, pictures(rng, *size(rng, step=step), *frames), **choice)
    path = write(folder / f"{kind}{'' if ending[0] == '.' else '-'}{ending}", made, **_FLAGS.get(ending, {}))
    return Unusual(path, kind, frames_of(made))


KINDS = {}


def _add(name, codec, endings, choices, **more):
    KINDS[name] = partial(_coded, name, codec, endings, choices, **more)


def _parameters(*choices):
    return [{"parameters": choice} for choice in choices]


# --------------------------------------------------------------------------------------------------- H.264

for _name, _choices in {
    "open-gop": _parameters("open-gop=1:bframes=3:keyint=12", "open-gop=1:bframes=2:b-pyramid=none:keyint=9"),
    "refresh": _parameters("intra-refresh=1:keyint=12", "intra-refresh=1:keyint=30:bframes=2"),
    "pyramid": _parameters(*[f"bframes=5:b-adapt=0:b-pyramid={kind}:ref=5" for kind in ("none", "strict", "normal")]),
    "references": _parameters("ref=16:keyint=250", "ref=1:bframes=0", "ref=8:weightp=2:weightb=1:bframes=4"),
    "keyframes": _parameters(*[f"keyint={count}" for count in (1, 2, 12, 250, "infinite")], "keyint=20:min-keyint=1"),
    "slices": _parameters("slices=4", "slices=4:bframes=3", "slice-max-size=300"),
    "cavlc": _parameters("cabac=0", "cabac=0:8x8dct=0", "cabac=0:no-deblock=1"),
    "headers": _parameters("aud=1", "nal-hrd=vbr:vbv-bufsize=400:vbv-maxrate=400", "stitchable=1"),
    "pulldown": _parameters(*[f"pulldown={name}" for name in ("22", "32", "64", "double", "triple", "euro")]),
    "lossless": _parameters("qp=0", "qp=0:bframes=3"),
    "quantised": _parameters("qp=51", "cqm=jvt", "trellis=2:aq-mode=3", "constrained-intra=1"),
    "profiles": [{"profile": "baseline"}, {"profile": "main"}, {"tune": "zerolatency"}, {"tune": "stillimage"}],
    "tags": [{"settings": {"colorspace": number, "color_primaries": 1, "color_trc": 1}} for number in (1, 4, 7, 8, 9)],
}.items():
    _add(f"h264-{_name}", "libx264", _H264_IN, _choices)
for _pix_fmt in ("yuv422p", "yuv444p", "yuv420p10le", "yuv422p10le", "yuv444p10le", "yuvj420p", "yuvj422p", "yuvj444p",
                 "gray", "gray10le"):  # fmt: skip
    _add(f"h264-{_pix_fmt}", "libx264", _H264_IN,
         [{"pix_fmt": _pix_fmt, "parameters": f"bframes={count}"} for count in (0, 3)])
    _add(f"h264-interlaced-{_pix_fmt}", "libx264", _H264_IN, [{"pix_fmt": _pix_fmt, "parameters": "interlaced=1"}],
         step=4)
_add("h264-interlaced", "libx264", _H264_IN, _parameters("interlaced=1", "tff=1:bframes=2", "bff=1:cabac=0"), step=4)
_add("h264-marked-interlaced", "libx264", _H264_IN, _parameters("fake-interlaced=1"), step=4)
_add("h264-rgb", "libx264rgb", [".mp4", ".mkv"], [{"pix_fmt": "rgb24", "parameters": f"qp={qp}"} for qp in (0, 20)])
_add("h264-one-frame", "libx264", _H264_IN, [{}], frames=(1, 1))
_add("h264-two-frames", "libx264", _H264_IN, _parameters("bframes=0", "bframes=2"), frames=(2, 2))
_add("h264-avi", "libx264", [".avi"], _parameters("bframes=0", "bframes=0:keyint=5"))
_add("h264-odd", "libx264", _H264_IN, [{"pix_fmt": "yuv444p"}], step=1)

# --------------------------------------------------------------------------------------------------- HEVC

for _name, _choices in {
    "cra": _parameters("keyint=8:bframes=3", "keyint=12:bframes=4:b-pyramid=1", "keyint=8:open-gop=0"),
    "refresh": _parameters("intra-refresh=1:keyint=12:bframes=0"),
    "temporal": _parameters("temporal-layers=3:bframes=3:b-adapt=0"),
    "blocks": _parameters("wpp=1", "ctu=16:min-cu-size=8", "rect=1:amp=1"),
    "lossless": _parameters("lossless=1"),
    "keyframes": _parameters("keyint=1", "keyint=2", "keyint=250", "bframes=4:b-adapt=0"),
}.items():
    _add(f"hevc-{_name}", "libx265", _HEVC_IN, _choices, frames=(5, 50))
for _pix_fmt in ("yuv422p", "yuv444p", "yuv420p10le", "yuv422p12le", "yuv444p10le", "yuvj420p", "gray", "gbrp"):
    _add(f"hevc-{_pix_fmt}", "libx265", _HEVC_IN, [{"pix_fmt": _pix_fmt}], frames=(5, 20))
_add("hevc-one-frame", "libx265", _HEVC_IN, [{}], frames=(1, 1))

# --------------------------------------------------------------------------------------------------- VP8, VP9 and AV1

_LATER = {"auto-alt-ref": "1", "lag-in-frames": "16", "deadline": "good", "cpu-used": "5"}
_add("vp8-alternate", "libvpx", [".webm", ".ivf", ".mkv"], [_LATER, _LATER | {"arnr-maxframes": "7"}])
_add("vp8-resilient", "libvpx", [".webm"], [{"error-resilient": "default"}, {"noise-sensitivity": "2"}])
_add("vp9-alternate", "libvpx-vp9", [".webm", ".ivf", ".mp4", ".mkv"], [_LATER, _LATER | {"g": "12"}])
for _pix_fmt in ("yuv422p", "yuv440p", "yuv444p", "gbrp"):
    _add(f"vp9-{_pix_fmt}", "libvpx-vp9", [".webm", ".mkv"], [{"pix_fmt": _pix_fmt}], frames=(5, 20))
_add("vp9-odd", "libvpx-vp9", [".webm"], [{"pix_fmt": "yuv420p"}, {"lossless": "1"}], step=1, frames=(5, 20))
_add("av1", "libsvtav1", [".mp4", ".mkv", ".webm", ".ivf", "fragments.mp4"], [{}, {"g": "12"}], frames=(5, 40))
_add("av1-10bit", "libsvtav1", [".mp4", ".mkv"], [{"pix_fmt": "yuv420p10le"}], frames=(5, 20))

# --------------------------------------------------------------------------------------------------- older codecs

_INTERLACED = {"flags": "+ildct+ilme"}
_add("mpeg2-gop", "mpeg2video", [".mpg", ".ts", ".m2v", ".mkv"],
     [{"g": "12", "bf": "2"}, {"g": "12", "bf": "2", "flags": "+cgop", "sc_threshold": "1000000000"}, {"g": "1"},
      {"bf": "0", "g": "250"}])
_add("mpeg2-interlaced", "mpeg2video", [".mpg", ".ts", ".m2v"], [_INTERLACED, _INTERLACED | {"bf": "2"}])
_add("mpeg2-422", "mpeg2video", [".ts", ".m2v", ".mkv"], [{"pix_fmt": "yuv422p"}, {"pix_fmt": "yuv422p"} | _INTERLACED])
_add("mpeg1", "mpeg1video", [".mpg", ".m1v"], [{"bf": "2"}, {"bf": "0"}])
_add("mpeg4-b", "mpeg4", [".avi", ".mp4", ".mkv", ".m4v"], [{"bf": "1"}, {"bf": "3", "g": "12"}])
_add("mpeg4-tools", "mpeg4", [".avi", ".mp4", ".mkv", ".m4v"],
     [{"flags": "+qpel"}, {"flags": "+mv4+aic"}, _INTERLACED, {"data_partitioning": "1"}, {"mpeg_quant": "1"}])
_add("mjpeg-odd", "mjpeg", [".avi", ".mkv", ".mov", ".mjpeg"],
     [{"pix_fmt": f"yuvj{kind}p"} for kind in (420, 422, 444)], step=1)
for _pix_fmt in ("gray", "yuv420p", "yuv422p", "yuv444p", "yuv410p", "yuv411p", "yuv440p", "yuv420p10le", "yuv422p12le",
                 "yuva420p", "bgr0", "bgra", "gray16le", "gbrp10le"):  # fmt: skip
    _add(f"ffv1-{_pix_fmt}", "ffv1", [".mkv", ".avi"], [{"pix_fmt": _pix_fmt, "g": count} for count in ("1", "5")],
         step=1, frames=(5, 20))
_add("flv1", "flv", [".flv", ".avi"], [{}, {"g": "5"}])
_add("wmv1", "wmv1", [".asf", ".wmv", ".avi"], [{}, {"g": "5"}])
_add("wmv2", "wmv2", [".asf", ".wmv", ".avi"], [{}, {"g": "5"}])
_add("msmpeg4", "msmpeg4", [".avi", ".asf"], [{}, {"g": "5"}])
_add("h263", "h263p", [".avi", ".h263"], [{}, {"g": "5"}], step=4)
_add("huffyuv", "huffyuv", [".avi"], [{"pix_fmt": "yuv422p"}, {"pix_fmt": "rgb24"}])
_add("utvideo", "utvideo", [".avi"], [{"pix_fmt": pix_fmt} for pix_fmt in ("yuv420p", "yuv422p", "yuv444p", "gbrp")])
_add("prores", "prores_ks", [".mov"], [{}, {"pix_fmt": "yuv444p10le"}, _INTERLACED], frames=(5, 20))
_add("svq1", "svq1", [".mov"], [{"pix_fmt": "yuv410p"}, {"pix_fmt": "yuv410p", "g": "5"}], step=4, frames=(5, 20))
_add("cinepak", "cinepak", [".avi", ".mov"], [{"pix_fmt": "rgb24"}], step=4, frames=(5, 10))
_add("msvideo1", "msvideo1", [".avi"], [{"pix_fmt": "rgb555le"}], step=4, frames=(5, 20))
_add("png", "png", [".avi", ".mov"], [{"pix_fmt": pix_fmt} for pix_fmt in ("rgb24", "rgba", "gray", "rgb48be")],
     step=1, frames=(5, 20))
_add("qtrle", "qtrle", [".mov"], [{"pix_fmt": pix_fmt, "g": "5"} for pix_fmt in ("rgb24", "gray", "argb")], step=4,
     frames=(5, 20))
_add("gif", "gif", [".gif"], [{"pix_fmt": pix_fmt} for pix_fmt in ("rgb8", "gray", "bgr4_byte")])
_add("apng", "apng", [".apng"], [{"pix_fmt": "rgb24"}, {"pix_fmt": "rgba"}], frames=(5, 20))


def _packed(kind, rng, folder):
    """MPEG-4 in AVI as DivX wrote it: a B-frame in the packet of the frame after it, and an empty packet in its place.
    """
    made = track("mpeg4", pictures(rng, *size(rng), 5, 60), flags="+bitexact", bf="1", b_strategy="0")
    packets, number = [], 0
    for at, packet in enumerate(made.packets):
        data = bytes(packet)
        following = made.packets[at + 1] if at + 1 < len(made.packets) else None
        if at == 0:
            picture = data.index(b"\0\0\1\xb6")
            data = data[:picture] + b"\0\0\1\xb2DivX503b1393p\0" + data[picture:]
        elif following and following.pts < packet.pts:
            data += bytes(following)
        elif at and packet.pts < made.packets[at - 1].pts:
            data = b"\0\0\1\xb6\x50\x4f"  # a picture that is not coded
        packets.append(each := Packet(data))
        each.pts, each.is_keyframe, number = number, packet.is_keyframe, number + 1
    frames = frames_of(made)
    made.packets = packets
    return Unusual(write(folder / f"{kind}.avi", made), kind, frames)


KINDS["mpeg4-packed"] = partial(_packed, "mpeg4-packed")
