"""Inputs that real use found wrong (the folder `cases` beside the reference numbers), with what is right for each."""

import sys
from pathlib import Path

import numpy as np
import pytest
from plain_decoder import all_frames

from video.bad_videos import BadVideo
from video.decoder_processes import DecoderProcesses
from video.sampling import count_frames, open_video, sample_frames
from video.video_facts import VideoFactsCache


@pytest.fixture
def cases(shared):
    folder = shared / "cases"
    if not folder.is_dir():
        pytest.skip("the cases are not available")
    return folder


def read(path, as_stored=False):
    """(VideoFacts, all frames)."""
    frames = []
    facts = sample_frames(open_video(str(path), as_stored), range, lambda places, frame: frames.append(frame.copy()),
                          VideoFactsCache())
    return facts, frames


def test_a_pixel_format_that_changes(cases):
    facts, frames = read(cases / "pixel-format-changes/input.avi")
    assert facts.count == 8 and not facts.damage and facts.remarks.keys() == {"format"}
    # The same pictures without loss, but all in the first format, whose chroma they had to be brought to.
    _, right = read(cases / "pixel-format-changes/right.mkv")
    for frame, other in zip(frames, right, strict=True):
        assert np.abs(frame.astype(int) - other).mean() < 1
    for _ in range(3):
        assert all(map(np.array_equal, read(cases / "pixel-format-changes/input.avi")[1], frames))


@pytest.mark.parametrize(("name", "sizes"), [
    ("rt1.h264", [(720, 1280)] * 25 + [(360, 640)] * 25), ("ab.h264", [(240, 320)] * 50 + [(240, 640)] * 50)])
def test_sizes_that_change(cases, name, sizes):
    facts, frames = read(cases / "size-changes" / name)
    assert [frame.shape[:2] for frame in frames] == sizes and not facts.damage
    assert facts.remarks.keys() == {"size"}
    assert all(map(np.array_equal, frames, all_frames(cases / "size-changes" / name)))


def test_a_turned_video(cases):
    path = cases / "rotation/input.mp4"
    facts, upright = read(path)
    _, stored = read(path, as_stored=True)
    # The container's matrix asks for a quarter turn against the clock.
    assert all(map(np.array_equal, upright, map(np.rot90, stored)))
    assert facts.remarks == {"rotation": "turned by 270 degrees"}


def test_frames_that_an_edit_list_hides(cases):
    facts, frames = read(cases / "edit-list/input.mp4")
    assert facts.count == len(frames) == 35 and not facts.damage and not facts.remarks


def test_av1(cases):
    assert count_frames(str(cases / "av1/input.mp4")) == 25


def test_a_long_video(cases):
    path = str(cases / "long-video/input.mp4")
    with DecoderProcesses(1, 60) as decoders:
        ((_, outcome),) = decoders.decode([path])
    assert outcome.facts.count == 10_000
    assert outcome.facts.remarks == {"long": "has more than 10000 frames; the rest is not looked at"}


def test_a_thin_video(cases):
    with pytest.raises(BadVideo, match="has frames of 2 x 32000 pixels; expected no side longer than 16 times"):
        read(cases / "thin-video/thin.avi")


opened = []
sys.addaudithook(lambda event, arguments: opened.append(arguments[0]) if event == "open" else None)


@pytest.mark.parametrize("name", ["live.mp4", "local.mp4"])
def test_playlists(cases, name):
    path = str(cases / "playlists" / name)
    opened.clear()
    with pytest.raises(BadVideo, match="is a text file"):
        count_frames(path)
    assert [Path(other).name for other in opened if str(cases) in str(other)] == [name]
