"""What a test scores of each video."""

from dataclasses import dataclass

from data.records import SPATIAL_POSITIONS


@dataclass(frozen=True)
class TestProtocol:
    """How each video is cut into views: clips over time x crops over space (paper section 4.2).

    Args:
        frames: frames in a clip (TRAIN.VIDEO_LENGTH).
        stride: frames from one of them to the next (TRAIN.SAMPLE_RATE).
        scale: short side that frames are scaled to, pixels (TEST.SCALE).
        crop: side of the square crops, pixels; None for whole frames.
        multi_crop: which crops: 0 the center, 1 three along the long side, 2 these and their mirror images.
        clips: clips spread over the video.
    """

    frames: int
    stride: int
    scale: int
    crop: int | None
    multi_crop: int
    clips: int

    @property
    def crops(self) -> int:
        """Crops of each clip."""
        return SPATIAL_POSITIONS[self.multi_crop]

    @property
    def views(self) -> int:
        """Views of each video (TEST.NUM_TEST_CLIPS)."""
        return self.clips * self.crops

    @property
    def clip_shape(self) -> tuple[int, int, int, int]:
        """(3, T, H, W) of a view. Whole frames have at least this height and width."""
        side = self.crop or self.scale
        return 3, self.frames, side, side

    def __str__(self) -> str:
        if self.crop is None:
            space = f"whole frames of short side {self.scale}"
        else:
            kind = ("1 crop", "3 crops", "6 crops (3 of them mirrored)")[self.multi_crop]
            space = f"{kind} of {self.crop} x {self.crop}, short side {self.scale}"
        return f"{self.clips} clips of {self.frames} frames with stride {self.stride} x {space}"
