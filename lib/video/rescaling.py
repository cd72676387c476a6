"""The ffmpeg command that rescales a video, and the same video written so that clips are cheap to read from it."""

from dataclasses import dataclass
from fractions import Fraction

HEIGHT = 256
# x264's options for videos that clips are cheap to read from, chosen by tests/bench/bench_for_clips.py. Seven frames of
# eight are B-frames that no other frame needs: a reader decodes the wanted frames, and every eighth since the last
# keyframe. fastdecode is without CABAC, deblocking and weighted prediction. The size that all this costs is partly won
# back by encoding slowly and for fidelity (psy=0). Two references will do where the next one is eight frames away.
FOR_CLIPS = [
    "-preset", "slower", "-tune", "fastdecode", "-x264-params",
    "keyint=64:bframes=7:b-adapt=0:b-pyramid=none:ref=2:psy=0:aq-strength=0.7:"
    "no-fast-pskip=1:subme=11",
]
CRF = 21.5  # for the quality of x264's defaults, among them 23
# Containers that hold H.264 and the time of every frame. FFmpeg tells a container by its contents, so another suffix
# does not matter to a reader.
CONTAINERS = {".mkv": "matroska", ".mov": "mov"}
CONTAINER, ROOMY_CONTAINER = "mp4", "matroska"


@dataclass(frozen=True)
class Rescaling:
    """How videos are rescaled.

    Attributes:
        short_side: pixels of the shorter side, even; None: the height becomes 256.
        fps: constant frame rate; None: that of the video.
        audio: whether audio is copied.
        for_clips: whether the video is written so that clips are cheap to read from it.
    """

    short_side: int | None = None
    fps: Fraction | None = None
    audio: bool = True
    for_clips: bool = False

    def __str__(self) -> str:
        """The options of downscale_video_joblib.py."""
        options = ["--for_clips"] * self.for_clips
        options += [] if self.short_side is None else [f"--short_side {self.short_side}"]
        options += [] if self.fps is None else [f"--fps {self.fps}"]
        options += [] if self.audio else ["--drop_audio"]
        return " ".join(options) or "default options"

    @property
    def filters(self) -> str:
        """FFmpeg's filters. They see the video upright."""
        # Even sizes, as most encoders require; oh is the output's height, a the input's aspect ratio.
        scale, side = f"scale=trunc(oh*a/2)*2:{HEIGHT}", self.short_side
        if side is not None:
            scale = f"scale='if(gt(a,1),trunc({side}*a/2)*2,{side})':'if(gt(a,1),{side},trunc({side}/a/2)*2)'"
        return scale if self.fps is None else f"fps={self.fps},{scale}"

    def attempts(self, suffix: str) -> list[list[str]]:
        """ffmpeg's options for the output, and what to try next where the container cannot hold the audio.

        Args:
            suffix: of the video's name, with the dot; it chooses the container and codec unless for_clips is set.
        """
        audio = ["-c:a", "copy"] if self.audio else ["-an"]
        if not self.for_clips:
            return [["-vf", self.filters, "-q:v", "1", *audio]]
        # Pictures and sound only: chapters and time codes would be further streams.
        streams = ["-sn", "-dn", "-map_metadata", "-1", "-map_chapters", "-1"]
        pictures = ["-vf", self.filters, "-c:v", "libx264", "-pix_fmt", "yuv420p", *FOR_CLIPS, "-crf", str(CRF)]
        container = CONTAINERS.get(suffix.lower(), CONTAINER)
        attempts = [[*pictures, *streams, *audio, "-f", container]]
        if self.audio and container != ROOMY_CONTAINER:
            attempts.append([*pictures, *streams, *audio, "-f", ROOMY_CONTAINER])
        if self.audio:
            attempts.append([*pictures, *streams, "-an", "-f", container])
        return attempts

