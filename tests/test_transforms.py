import csv
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from data import transforms
from utils.errors import UserError

# Indices, sizes and offsets of 120 test clips, from a transcription of the Caffe2 video input (test clips: 10
# temporal positions, short side and crop 256). index_checksum is the sum of index * (1-based place).
with open(Path(__file__).parent / "data" / "test_clips.csv") as file:
    CLIPS = [{key: int(value) for key, value in row.items()} for row in csv.DictReader(file)]


def test_the_120_test_clips():
    assert len(CLIPS) == 120
    for clip in CLIPS:
        start = transforms.uniform_start(clip["frames"], 10, clip["temporal"])
        assert start == clip["start"]
        indices = transforms.clip_indices(start, clip["length"], clip["rate"], clip["frames"])
        assert len(indices) == clip["length"] and indices[-1] == clip["last_index"]
        assert (indices * np.arange(1, len(indices) + 1)).sum() == clip["index_checksum"]
        size = transforms.scaled_size(clip["height"], clip["width"], 256)
        assert size == (clip["scaled_height"], clip["scaled_width"])
        assert transforms.crop_offsets(*size, 256, clip["spatial"]) == (clip["row"], clip["column"])
        assert transforms.is_mirrored(clip["spatial"]) == bool(clip["mirror"])


def test_start_is_rounded_to_float32_twice():
    assert transforms.uniform_start(14, 10, 5) == 7  # float64 would say 6
    assert transforms.uniform_start(300, 10, 9) == 270
    assert transforms.uniform_start(1, 10, 9) == 0
    assert transforms.uniform_start(5, 10, 12) == 1  # more temporal indices than clips: round again


def test_sizes_are_rounded_to_float32():
    assert transforms.scaled_size(50, 75, 256) == (256, 384)  # float64 would say 383
    assert transforms.scaled_size(75, 50, 256) == (384, 256)
    assert transforms.scaled_size(180, 320, 256) == (256, 455)


def test_the_short_side_is_never_truncated():
    for side in range(2, 700):
        for short_side in (224, 255, 256, 320):
            assert transforms.scaled_size(side, side, short_side) == (short_side, short_side)
            height, width = transforms.scaled_size(side, side + 1, short_side)
            assert height == short_side <= width


def test_short_videos_wrap_round():
    assert transforms.clip_indices(2, 6, 3, 5).tolist() == [2, 0, 3, 1, 4, 2]
    assert transforms.clip_indices(0, 3, 8, 1).tolist() == [0, 0, 0]


def test_train_start_covers_all_that_fit():
    # 0 .. F - L * R inclusive.
    starts = {transforms.train_start(draw, 20, 4, 4) for draw in np.linspace(0, 1, 1000, endpoint=False)}
    assert starts == {0, 1, 2, 3, 4}
    assert transforms.train_start(np.nextafter(1, 0), 20, 4, 4) == 4
    for frames in (1, 15, 16):
        assert transforms.train_start(0.999, frames, 4, 4) == 0


def test_draws_are_uniform():
    rng = np.random.default_rng(0)
    draws = [transforms.train_draws(rng, (256, 320)) for _ in range(20000)]
    scales = np.bincount([draw.scale for draw in draws])
    assert scales[:256].sum() == 0 and len(scales) == 321
    expected = 20000 / 65
    assert ((scales[256:] - expected) ** 2 / expected).sum() < 120  # chi-squared, 64 degrees: p < 1e-4
    assert abs(np.mean([draw.mirror for draw in draws]) - 0.5) < 0.02
    offsets = np.array([transforms.drawn_offsets(draw, 226, 230, 224) for draw in draws])
    for column, places in enumerate((3, 7)):
        counts = np.bincount(offsets[:, column])
        assert len(counts) == places
        assert np.abs(counts - 20000 / places).max() < 5 * np.sqrt(20000 / places)
    assert abs(np.corrcoef(offsets.T)[0, 1]) < 0.03
    starts = np.bincount([transforms.train_start(draw.start, 68, 8, 8) for draw in draws])
    assert len(starts) == 5 and np.abs(starts - 4000).max() < 300


@pytest.mark.parametrize(
    ("size", "spatial", "expected"),
    [
        ((256, 340), None, (0, 42)),
        ((256, 340), 0, (0, 0)),
        ((256, 340), 1, (0, 42)),
        ((256, 340), 2, (0, 84)),
        ((256, 341), 5, (0, 84)),  # one pixel short of the end
        ((340, 256), 3, (0, 0)),
        ((340, 256), 2, (84, 0)),
        ((300, 340), 2, (44, 42)),  # room both ways: along the vertical, the other centred
        ((256, 256), 2, (0, 0)),
    ],
)
def test_crop_offsets(size, spatial, expected):
    assert transforms.crop_offsets(*size, 256, spatial) == expected


def test_resize_is_bilinear_with_half_pixel_centres():
    frame = np.zeros((1, 2, 3), np.uint8)
    frame[0, 1] = 200
    assert transforms.resize(frame, (1, 4))[0, :, 0].tolist() == [0, 50, 150, 200]
    frame = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    assert transforms.resize(frame, (40, 24)).shape == (40, 24, 3)
    assert np.array_equal(transforms.resize(frame, (20, 30)), cv2.resize(frame, (30, 20)))
    for size in ((40, 24), (20, 30)):
        out = np.empty((2, *size, 3), np.uint8)
        assert np.shares_memory(transforms.resize(frame, size, out=out[1]), out)
        assert np.array_equal(out[1], transforms.resize(frame, size))


def test_the_order_of_channels_does_not_change_resizing():
    rng = np.random.default_rng(0)
    for _ in range(200):
        height, width, *size = rng.integers(2, 90, 4).tolist()
        frame = rng.integers(0, 256, (height, width, 3), np.uint8)
        bgr, rgb = (transforms.resize(pixels, tuple(size)) for pixels in (frame, frame[..., ::-1].copy()))
        assert np.array_equal(bgr, rgb[..., ::-1])


def test_cut_and_mirror():
    frame = np.arange(5 * 6 * 3, dtype=np.uint8).reshape(5, 6, 3)
    assert np.array_equal(transforms.cut(frame, 1, 2, 3, False), frame[1:4, 2:5])
    assert np.array_equal(transforms.cut(frame, 1, 2, 3, True), frame[1:4, 4:1:-1])


def test_crop_must_fit():
    transforms.check_crop(256, 256, "TRAIN.CROP_SIZE", "TEST.SCALE")
    with pytest.raises(
        UserError, match="TRAIN.CROP_SIZE 257 is larger than the short side 256 of TEST.SCALE"
    ):
        transforms.check_crop(257, 256, "TRAIN.CROP_SIZE", "TEST.SCALE")


def test_normalize_meets_every_byte():
    clips = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16, 1).repeat(2, 3, 1, 1, 3)
    clips[..., 1] = 255 - clips[..., 1]
    result = transforms.normalize(clips, 114.75, 57.375)
    assert result.shape == (2, 3, 3, 16, 16) and result.dtype == torch.float32
    assert result.is_contiguous(memory_format=torch.channels_last_3d)
    values = np.arange(256, dtype=np.float32)
    expected = (values - np.float32(114.75)) * np.float32(1 / 57.375)
    assert np.array_equal(result[1, 0, 2].flatten().numpy(), expected)
    assert np.array_equal(result[1, 1, 2].flatten().numpy(), expected[::-1])


def test_normalize_bgr():
    clips = torch.tensor([10, 20, 30], dtype=torch.uint8).reshape(1, 1, 1, 1, 3)
    assert transforms.normalize(clips, 0.0, 1.0, use_bgr=True).flatten().tolist() == [30.0, 20.0, 10.0]
    assert transforms.normalize(clips, 0.0, 1.0).flatten().tolist() == [10.0, 20.0, 30.0]
    assert clips.flatten().tolist() == [10, 20, 30]
