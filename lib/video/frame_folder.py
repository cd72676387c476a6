"""A folder of images as a video: one image per frame, numbered, JPEG or PNG."""

import contextlib
import os
import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from video.bad_videos import BadVideo
from video.playback import Playback
from video.video import IndicesOf, Keep, Stopped, places_of
from video.video_facts import MAX_FRAMES, Fingerprint, VideoFacts, VideoFactsCache

_EXPECTED = "expected images 000001.jpg, 000002.jpg, ... (or img_00001.jpg; or png)"
_NAME = re.compile(r"(?:img_)?([0-9]{1,18})\.(?:jpe?g|png)", re.IGNORECASE)  # not flow_x_00001.jpg, which stands nearby

# What files begin with, and what a whole one contains: the decoder fills the rest of a truncated image with grey.
_JPEG, _PNG = (b"\xff\xd8", b"\xff\xd9"), (b"\x89PNG\r\n\x1a\n", b"IEND")

_TO_RGB = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION  # 8 bits, three channels


class FrameFolder:
    """The numbered images of a folder, in the order of their numbers. See video.Video.

    Grey images become RGB, 16-bit images 8-bit, transparency is dropped, and an orientation in the EXIF data is
    ignored. F is the number of images. A number that is missing is noted as damage. So is an image that cannot be read
    or has another size than the first, but only by examine(), which reads all images; a clip that wants such an image
    raises BadVideo.

    Raises BadVideo if the folder cannot be listed, has no numbered image, or two images of one number.
    """

    def __init__(self, path: str, status: os.stat_result, as_stored: bool = True):
        self.name = path
        try:
            images = dict(sorted(_images(path)))
            listed = [(entry.name, entry.stat()) for entry in images.values()]
        except OSError as error:
            raise BadVideo(path, error.strerror or str(error)) from None
        if not images:
            raise BadVideo(path, f"is a folder without frames: {_EXPECTED}")
        names = repr([(name, info.st_size) for name, info in listed]).encode("utf-8", "surrogateescape")
        self.fingerprint = Fingerprint(zlib.crc32(names), max(info.st_mtime_ns for _, info in listed))
        self._gaps = _gaps(list(images))
        self._files = [name for name, _ in listed[:MAX_FRAMES]]

    def sample(self, indices_of: IndicesOf, keep: Keep, cache: VideoFactsCache, stopped: Callable[[], bool],
               learn: bool) -> VideoFacts:
        """Read the wanted images; see sampling.sample_frames."""
        places, size = places_of(indices_of(len(self._files))), None
        for index in sorted(places):
            if stopped():
                raise Stopped
            frame = self._read(index)
            if size is not None and frame.shape != size:
                raise BadVideo(self.name, self._other_size(index, frame.shape, size))
            size = frame.shape
            keep(places[index], frame)
        # Not put into the cache: that would hide from examine() that the other images have not been read.
        return cache.get(self.name, self.fingerprint) or VideoFacts(len(self._files), self._gaps)

    def examine(self) -> VideoFacts:
        """Read all images. Raises BadVideo if none can be read."""
        faults, size = [self._gaps] if self._gaps else [], None
        for index in range(len(self._files)):
            try:
                frame = self._read(index)
            except BadVideo as error:
                faults.append(error.reason)
                continue
            if size is not None and frame.shape != size:
                faults.append(self._other_size(index, frame.shape, size))
            size = size or frame.shape
        if size is None:
            raise BadVideo(self.name, f"no image can be read: {faults[-1]}")
        more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
        return VideoFacts(len(self._files), faults[0] + more if faults else None)

    def learn(self, examined: Callable[[VideoFacts], None]) -> VideoFacts:
        """As examine(): every frame stands alone, and none is decoded that is not wanted."""
        facts = self.examine()
        examined(facts)
        return replace(facts, skips=False)

    def play(self) -> Playback:
        """See video.Video."""
        raise BadVideo(self.name, "is a folder of frames, which say nothing of their times: expected a video file")

    def _read(self, index: int) -> np.ndarray:
        """Image number index: H x W x 3 uint8, RGB. Raises BadVideo that names the file."""
        name = self._files[index]
        try:
            content = Path(self.name, name).read_bytes()
        except OSError as error:
            raise BadVideo(self.name, f"{name}: {error.strerror}") from None
        end = next((end for start, end in (_JPEG, _PNG) if content.startswith(start)), None)
        if end is None:
            raise BadVideo(self.name, f"{name} is not a JPEG or PNG image")
        if content.rfind(end) < 0:
            raise BadVideo(self.name, f"{name} is cut short")
        frame = None
        with contextlib.suppress(cv2.error):
            frame = cv2.imdecode(np.frombuffer(content, np.uint8), _TO_RGB)
        if frame is None:
            raise BadVideo(self.name, f"{name} does not decode")
        return frame

    def _other_size(self, index, shape, expected):
        return f"{self._files[index]} is {shape[0]} x {shape[1]} pixels, images before it {expected[0]} x {expected[1]}"


def is_frame_folder(path: str | os.PathLike) -> bool:
    """Whether a path is a folder with numbered images in it: a video to this program."""
    try:
        return any(_numbered(os.fspath(path)))
    except (OSError, ValueError):
        return False


def _numbered(path: str) -> Iterator[tuple[int, os.DirEntry]]:
    """Yield (number, entry) of every file in a folder whose name is that of a frame."""
    with os.scandir(path) as entries:
        for entry in entries:
            if (match := _NAME.fullmatch(entry.name)) and entry.is_file():
                yield int(match[1]), entry


def _images(path):
    """As _numbered. Raises BadVideo for a number that comes twice."""
    names = {}
    for number, entry in _numbered(path):
        if (other := names.setdefault(number, entry.name)) != entry.name:
            raise BadVideo(path, f"has two images of number {number}: {' and '.join(sorted((other, entry.name)))}")
        yield number, entry


def _gaps(numbers: list[int]) -> str | None:
    """What is missing between the first and the last of these ascending numbers, or None."""
    missing = numbers[-1] - numbers[0] + 1 - len(numbers)
    if not missing:
        return None
    before = next(number for number, after in zip(numbers, numbers[1:], strict=False) if after != number + 1)
    return f"image number {before + 1} is missing ({missing} in all); used with the {len(numbers)} images that exist"
