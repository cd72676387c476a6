"""Makers of files under a video's name that are no videos to us: thin ones, and texts that name other files.

KINDS: {name: make(rng, folder), which returns an Unusual}.
"""

from functools import partial

from unusual_parts import Unusual, pictures, size, track, write


def _thin(kind, codec, suffix, rng, folder):
    """A side is more than sixteen times the other."""
    short = rng.randrange(2, 9, 2)
    sides = [short, rng.choice((rng.randrange(17 * short, 33 * short, 2), 16 * short + 2, 8000))]
    rng.shuffle(sides)
    return Unusual(write(folder / f"{kind}{suffix}", track(codec, pictures(rng, *sides, 1, 2))), kind, [])


_PLAYLIST = "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:9\n#EXT-X-MEDIA-SEQUENCE:0\n#EXTINF:9,\n{}\n"
_TEXTS = {
    "playlist": _PLAYLIST + "#EXT-X-ENDLIST\n",
    "live-playlist": _PLAYLIST,
    "master-playlist": "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=100000,RESOLUTION=64x64\n{}\n",
    "concat": "ffconcat version 1.0\nfile {}\nfile {}\n",
    "dash": '<?xml version="1.0"?>\n<MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" '
            'mediaPresentationDuration="PT1S"><Period><AdaptationSet mimeType="video/mp4"><Representation id="1" '
            'bandwidth="100000"><BaseURL>{}</BaseURL></Representation></AdaptationSet></Period></MPD>\n',
    "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns={}\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 49152 RTP/AVP 96\n"
           "a=rtpmap:96 H264/90000\n",
    "images": "{}\n",
    "subtitles": "1\n00:00:00,000 --> 00:00:02,000\n{}\n\n",
    "metadata": ";FFMETADATA1\ntitle={}\n",
    "prose": "A file that names {} and is a text.\n" * 40,
}  # fmt: skip


def _text(kind, text, rng, folder):
    """A text that names a sound video beside it."""
    named = write(folder / f"{kind}-named.ts", track("libx264", pictures(rng, *size(rng), 2, 5)))
    path = folder / f"{kind}{rng.choice(('.mp4', '.mkv', '.avi', '.webm', '.ts'))}"
    mark = rng.choice(("", "", "\N{BYTE ORDER MARK}"))
    path.write_text(mark + text.replace("{}", rng.choice((named.name, str(named)))), encoding="utf-8")
    return Unusual(path, kind, [])


KINDS = {f"thin-{codec}": partial(_thin, f"thin-{codec.removeprefix('lib')}", codec, suffix)
         for codec, suffix in (("mjpeg", ".avi"), ("png", ".mov"), ("libx264", ".mkv"), ("mpeg4", ".avi"))}
KINDS |= {f"text-{name}": partial(_text, f"text-{name}", text) for name, text in _TEXTS.items()}
