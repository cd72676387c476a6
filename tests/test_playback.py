"""A video file played from its first frame to its last: the times of its frames, and that there may be any number."""

from fractions import Fraction

import numpy as np
import pytest
from muxing import encode, write_container, write_elementary
from plain_decoder import all_frames
from video_files import H264, moving_square, write_frames

from video.bad_videos import BadVideo
from video.playback import Clock
from video.sampling import open_video


def times_of(stamps, rate=25, unit=Fraction(1, 100)):
    clock = Clock(unit, Fraction(rate))
    return [float(clock.time(stamp)) for stamp in stamps]


def test_times_are_those_of_the_timestamps_since_the_first():
    assert times_of([700, 704, 711, 711, 900]) == [0, 0.04, 0.11, 0.11, 2]


def test_without_timestamps_frames_are_counted():
    assert times_of([None] * 4) == [0, 0.04, 0.08, 0.12]
    assert times_of([None] * 3, unit=None) == [0, 0.04, 0.08]
    assert times_of([None, 500, None, 510], rate=10) == [0, 0.1, 0.2, 0.2]
    for nonsense in (0, Fraction(1, 90000), 90000):
        assert times_of([None, None], rate=nonsense) == [0, 0.04]


@pytest.mark.parametrize(("stamps", "expected"), [
    ([0, 4, 8, 6, 16], [0, 0.04, 0.08, 0.08, 0.16]),  # a frame out of order
    ([1000, 1004, 0, 4], [0, 0.04, 0.08, 0.12]),  # two recordings, joined
    ([0, 4, 10**9, 10**9 + 4], [0, 0.04, 0.08, 0.12]),
    ([0, 4, 360_000, 360_004], [0, 0.04, 3600, 3600.04]),  # a pause
    ([-(1 << 62), 1 << 62, None], [0, 0.04, 0.08]),
])
def test_timestamps_that_are_set_anew(stamps, expected):
    assert times_of(stamps) == expected


def test_a_rate_that_varies(tmp_path):
    track = encode("mpeg4", moving_square(5, 48, 64))
    track.times, track.time_base = [0, 40, 80, 1080, 2080], Fraction(1, 1000)
    write_container(tmp_path / "v.mkv", track)
    with open_video(str(tmp_path / "v.mkv")).play() as playback:
        assert [float(time) for time, _ in playback.frames()] == [0, 0.04, 0.08, 1.08, 2.08]
    assert playback.count == 5


def test_frames_are_all_frames_of_the_file():
    with open_video(str(H264)).play() as playback:
        found = [(time, playback.rgb(frame)) for time, frame in playback.frames()]
    expected = all_frames(H264)
    assert len(found) == playback.count == 90 == len(expected)
    assert all(np.array_equal(frame, other) for (_, frame), other in zip(found, expected, strict=True))
    assert [time for time, _ in found] == [Fraction(i, 25) for i in range(90)]
    assert (playback.end, playback.last, playback.stated, playback.damage) == (Fraction(90, 25), Fraction(1, 25), 3.6,
                                                                               None)


def test_a_stream_without_container_and_times(tmp_path):
    write_elementary(tmp_path / "v.h264", encode("libx264", moving_square(6, 48, 64)))
    with open_video(str(tmp_path / "v.h264")).play() as playback:
        assert [float(time) for time, _ in playback.frames()] == [0, 0.04, 0.08, 0.12, 0.16, 0.2]
    assert (playback.stated, float(playback.end)) == (None, 0.24)


def test_more_frames_than_count_elsewhere(tmp_path, monkeypatch):
    monkeypatch.setattr("video.survey.MAX_FRAMES", 20)
    monkeypatch.setattr("video.decoder.MAX_FRAMES", 20)
    video = open_video(str(H264))
    assert video.examine().count == 20
    with video.play() as playback:
        assert sum(1 for _ in playback.frames()) == 90


def test_damage_is_told(tmp_path):
    content = bytearray(H264.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 800] = bytes(800)
    (tmp_path / "v.mp4").write_bytes(content)
    with open_video(str(tmp_path / "v.mp4")).play() as playback:
        frames = sum(1 for _ in playback.frames())
    assert playback.damage.endswith(f"; used with the {frames} frames that decode")


def test_what_has_no_times(tmp_path):
    write_frames(tmp_path / "f", moving_square(3, 48, 64))
    with pytest.raises(BadVideo, match="is a folder of frames, which say nothing of their times: expected a video fil"):
        open_video(str(tmp_path / "f")).play()
    with pytest.raises(BadVideo, match="is an address: streams are not read, only files"):
        open_video("rtsp://camera/1")
    with pytest.raises(BadVideo, match=r"is neither a file nor a folder \(cameras are not read\)"):
        open_video("/dev/null")
    (tmp_path / "v.mp4").write_text("#EXTM3U\nrtsp://camera/1\n" * 20)
    with pytest.raises(BadVideo, match="is a text file"):
        open_video(str(tmp_path / "v.mp4")).play()
