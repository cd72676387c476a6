"""Video files opened by PyAV (FFmpeg): which of their streams is read, its packets, and the frames of these."""

import errno
import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Self

import av
from av.stream import Disposition

from video.bad_videos import BadVideo
from video.formats import UNSAFE_FORMATS

# Another decoder may get more or fewer frames out of a damaged file.
DECODER = f"pyav-{av.__version__} ffmpeg-{av.ffmpeg_version_info}"

# FFmpeg's messages name no file and repeat with every clip; Python's log gets none. complaints() collects them.
av.logging.set_level(av.logging.WARNING)
av.logging.set_skip_repeated(False)
logging.getLogger("libav").setLevel(logging.CRITICAL + 1)

# What is larger (8K is not), or has a side this many times the other, is no video to be scaled and cut.
_MAX_PIXELS, _MAX_ASPECT = 1 << 25, 16
_CODEC_OPTIONS = {"max_pixels": str(_MAX_PIXELS)}

_FILES_ONLY = {"protocol_whitelist": "file"}
_FORMATS = {"format_whitelist": ",".join(sorted(av.formats_available - UNSAFE_FORMATS))}

# A file without any of these at its start is text: perhaps a playlist, which FFmpeg would follow.
_BINARY = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f]")
_RAW_WITH_TEXT = b"YUV4MPEG2"

# These say something about the machine and not about the file.
_PASSING = {errno.EIO, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.ESTALE, errno.ETIMEDOUT, errno.EAGAIN}


@contextmanager
def complaints() -> Iterator[list[str]]:
    """Collect what FFmpeg's demuxers and decoders complain of in this thread. The list is filled at the end."""
    messages: list[str] = []
    with av.logging.Capture() as logs:
        yield messages
    messages += [message for _, name, message in logs if name != "swscaler"]


def refuse_text(path: str) -> None:
    """Raise BadVideo if a file begins like text. Nothing else is opened."""
    try:
        with open(path, "rb") as file:
            head = file.read(512)
    except OSError as error:
        raise BadVideo(path, error.strerror or str(error), lasting=error.errno not in _PASSING) from None
    if not _BINARY.search(head) and not head.startswith(_RAW_WITH_TEXT):
        raise BadVideo(path, "is a text file (perhaps a playlist), not a video")


class Container:
    """A video file that is open for reading, for a with statement.

    Args:
        path: of the file. It is the only one that is opened.
        as_stored: whether to read the first video stream; otherwise the one that the ffmpeg program takes by default.
        format_name: of its format, if known; finding it out takes a while.

    Attributes:
        format: name of the file's format.
        stream: the av.VideoStream that is read.
        decoder: its av.VideoCodecContext.
        failures: number of packets so far that did not decode.
        problem: why the file could not be read to its end, or None.

    Raises BadVideo if there is no stream that FFmpeg can decode. Frames that are too large or thin raise it later.
    """

    def __init__(self, path: str, as_stored: bool, format_name: str = ""):
        self.name = path
        try:
            # With the protocol named, a colon in the path cannot name another one.
            self._file = av.open(f"file:{path}", format=format_name or None, options=_CODEC_OPTIONS,
                                 container_options=_FILES_ONLY if format_name else _FILES_ONLY | _FORMATS,
                                 metadata_errors="replace")
        except (av.FFmpegError, ValueError) as error:
            raise self._unreadable("is not a video that FFmpeg can read", error) from None
        self.format = self._file.format.name
        try:
            self.stream = self._choose_stream(as_stored)
            self._start_decoder()
            self._demuxer: Any = self._file.demux(self.stream)  # a generator; the stubs say less
        except BaseException:
            self._file.close()
            raise
        self.failures = 0
        self.problem: str | None = None
        self._first: av.Packet | None = None
        self._size = (0, 0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._demuxer.close()  # PyAV (18.1) would not free what it holds after the file is closed
        self._file.close()

    @property
    def other_streams(self) -> int:
        """Number of the video streams that are not read, without attached pictures."""
        return sum(not _is_cover(stream) and stream is not self.stream for stream in self._file.streams.video)

    @property
    def claimed_frames(self) -> int:
        """Number of frames by what the container says, or an estimate from its duration; 0: unknown."""
        if self.stream.frames:
            return max(self.stream.frames - sum(entry.is_discard for entry in self.stream.index_entries), 0)
        if self._file.duration and self.stream.average_rate:
            return int(self._file.duration / av.time_base * self.stream.average_rate + 0.5)
        return 0

    @property
    def stated_length(self) -> int:
        """What the container says of its length: the number of frames or, if it does not, the duration; 0: nothing."""
        return self.stream.frames or self._file.duration or 0

    @property
    def stated_seconds(self) -> float | None:
        """The length by what the container says, or None."""
        return self._file.duration / av.time_base if self._file.duration and self._file.duration > 0 else None

    def packets(self) -> Iterator[av.Packet]:
        """Yield the packets of the stream. Raises BadVideo if the disk fails; other errors end it (see problem)."""
        try:
            if self._first:
                yield self._first
            for packet in self._demuxer:
                if packet.size:  # an empty one would end the decoding
                    yield packet
        except av.FFmpegError as error:
            if error.errno in _PASSING:
                raise self._unreadable("cannot be read", error) from None
            self.problem = error.strerror

    def index_agrees(self, packets: Sequence[av.Packet]) -> bool:
        """Whether the container's index, as it is before any packet is read, lists just these packets of the stream."""
        entries = self.stream.index_entries
        return len(entries) == len(packets) and all(
            entry.timestamp == packet.dts and entry.is_keyframe == packet.is_keyframe
            for entry, packet in zip(entries, packets, strict=True))

    def seek_keyframe(self, place: int) -> int | None:
        """Let packets() begin at a keyframe among the first `place` + 1 packets, as late as possible.

        For a newly opened video whose index lists all packets (index_agrees). Returns the keyframe's number among
        them, or None if the file is not what its index says.
        """
        entries = self.stream.index_entries
        if place >= len(entries):
            return None
        while place and not entries[place].is_keyframe:
            place -= 1
        if not place:
            return 0
        after = next((i for i in range(place + 1, len(entries)) if entries[i].is_keyframe), len(entries) - 1)
        # Demuxers compare presentation times, which the index does not have: ask for the time before the next keyframe.
        try:
            self._file.seek(entries[after].timestamp - 1, stream=self.stream)
            self._first = next(self._demuxer)
        except (av.FFmpegError, StopIteration):
            return None
        return next((i for i in range(place, -1, -1) if entries[i].timestamp == self._first.dts), None)

    def decode(self, packet: av.Packet | None) -> list[av.VideoFrame]:
        """The frames that come after one more packet, or, after None, those that the decoder still holds."""
        try:
            frames = self.decoder.decode(packet)
        except av.FFmpegError as error:
            if error.errno == errno.ENOMEM:
                raise self._unreadable("cannot be decoded", error) from None
            self.failures += 1
            return []
        for frame in frames:
            if (frame.width, frame.height) != self._size:
                self._size = (frame.width, frame.height)
                self._check_size(*self._size)
        return frames

    def restart(self) -> None:
        """Let the decoder forget everything, as after seeking."""
        self.decoder.flush_buffers()

    def frames(self) -> Iterator[av.VideoFrame]:
        """Yield all frames in the order of presentation. A packet that does not decode is passed over."""
        for packet in self.packets():
            yield from self.decode(packet)
        yield from self.decode(None)

    def _choose_stream(self, as_stored):
        streams = self._file.streams.video
        if not streams:
            raise BadVideo(self.name, "has no video stream")
        return streams[0] if as_stored else max(streams, key=_preference)

    def _start_decoder(self):
        self.decoder = self.stream.codec_context
        if self.decoder is None:
            raise BadVideo(self.name, f"is in a codec that FFmpeg cannot decode ({self._codec()}); "
                                      "convert it, e.g. to H.264, with a program that can")
        width, height = self.decoder.width, self.decoder.height
        if width * height > _MAX_PIXELS:
            raise BadVideo(self.name, f"has frames of {width} x {height} pixels; expected at most {_MAX_PIXELS} pixels")
        # How FFmpeg conceals damage depends on its number of threads. Work is parallel over videos.
        self.decoder.thread_count, self.decoder.thread_type = 1, "NONE"
        self.decoder.options = _CODEC_OPTIONS
        try:
            self.decoder.open()
        except av.FFmpegError as error:
            raise self._unreadable(f"is in {self.decoder.name}, whose decoder does not start", error) from None

    def _codec(self):
        """Its name and tag, which PyAV tells only in its description of the file, a message of FFmpeg's."""
        av.logging.set_level(av.logging.INFO)
        try:
            description = self._file.dumps_format()  # type: ignore[attr-defined]
        finally:
            av.logging.set_level(av.logging.WARNING)
        described = re.findall(r"Video: ([^,\n]+)", description)
        place = [stream.index for stream in self._file.streams.video].index(self.stream.index)
        return described[place] if place < len(described) else "unknown"

    def _check_size(self, width, height):
        if max(width, height) > _MAX_ASPECT * min(width, height):
            raise BadVideo(self.name, f"has frames of {width} x {height} pixels; expected no side longer than "
                                      f"{_MAX_ASPECT} times the other")

    def _unreadable(self, what, error):
        """BadVideo of an error, which is named if it says more than that the data are invalid."""
        number = getattr(error, "errno", None)
        reason = f"{what}: {error.strerror}" if number in _PASSING else what
        return BadVideo(self.name, reason, lasting=number not in _PASSING)


def _is_cover(stream):
    return bool(stream.disposition & Disposition.attached_pic)


def _preference(stream):
    """As the ffmpeg program chooses a stream: by size and disposition; the first of equals."""
    if _is_cover(stream):
        return 1
    size = stream.codec_context.width * stream.codec_context.height if stream.codec_context else 0
    return size + 5_000_000 * bool(stream.disposition & Disposition.default)
