"""The way to frames: from a path to a Video, and from a Video to the frames that are wanted."""

import os
import stat
from collections.abc import Callable

from video.bad_videos import BadVideo
from video.decoder import VideoFile
from video.frame_folder import FrameFolder
from video.video import IndicesOf, Keep, Video
from video.video_facts import VideoFacts, VideoFactsCache

# A kind of video, made of a path, its os.stat_result and as_stored; and which paths are of that kind, judged by the
# first two. The first match counts. Another kind (an archive, say) is one more class like these, and one line here.
KINDS: list[tuple[Callable[[str, os.stat_result, bool], Video], Callable[[str, os.stat_result], bool]]] = [
    (FrameFolder, lambda path, status: stat.S_ISDIR(status.st_mode)),
    (VideoFile, lambda path, status: stat.S_ISREG(status.st_mode)),  # and no FIFO: opening one would block forever
]


def open_video(path: str, as_stored: bool = False) -> Video:
    """The video at a path. Nothing is decoded yet. Raises BadVideo if there is none that may be read.

    as_stored: whether frames come as they are stored, of the first video stream, as in the Caffe2 program; otherwise
    they come as the ffmpeg program shows them: turned by their display matrix, of the stream that it takes by default.
    """
    try:
        status = os.stat(path)
    except (OSError, ValueError) as error:
        if "://" in path:
            raise BadVideo(path, "is an address: streams are not read, only files") from None
        raise BadVideo(path, getattr(error, "strerror", None) or str(error)) from None
    for kind, is_of_kind in KINDS:
        if is_of_kind(path, status):
            return kind(path, status, as_stored)
    camera = " (cameras are not read)" if stat.S_ISCHR(status.st_mode) else ""
    raise BadVideo(path, f"is neither a file nor a folder{camera}")


def sample_frames(
    video: Video,
    indices_of: IndicesOf,
    keep: Keep,
    cache: VideoFactsCache,
    stopped: Callable[[], bool] = lambda: False,
    learn: bool = False,
) -> VideoFacts:
    """Decode the frames that a function of F, the video's number of frames, asks for.

    Args:
        video: from open_video.
        indices_of: indices_of(F) returns the wanted frame indices, each in 0..F - 1, in any order.
        keep: keep(places, frame) is called with each wanted frame, in the order of the video, and the list of its
            places in indices_of(F). frame is H x W x 3 uint8 RGB, and its size may differ from that of others. If F
            turns out to be another number than was believed, there are calls for all places again, and those count.
        cache: what is known of the video, and where what is learned goes.
        stopped: asked before every frame; if true, Stopped is raised.
        learn: whether to take about twice as long if the video is new, and learn what makes it faster from then on.

    Returns:
        VideoFacts: F, and what is damaged or unusual. At most MAX_FRAMES frames of a video count.

    Raises:
        BadVideo: a wanted frame cannot be had, or there is no frame at all.
    """
    known = cache.get(video.name, video.fingerprint)
    if known and not known.count:
        raise BadVideo(video.name, known.damage or "no frame decodes")
    return video.sample(indices_of, keep, cache, stopped, learn)


def count_frames(path: str, as_stored: bool = False) -> int:
    """Number of frames of the video at a path, at most MAX_FRAMES. Raises BadVideo if there is none."""
    video = open_video(path, as_stored)
    return sample_frames(video, lambda count: (), lambda places, frame: None, VideoFactsCache()).count
