"""Windows and clips of a long video, cut while it is played, against the same said of all its frames at once."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.sliding_windows import Window, WindowCutter


def cut(times, end, last, seconds, clips, length, rate):
    """(clips: lists of frame numbers, windows) of a video, and the numbers of the frames that were asked for."""
    cutter, taken = WindowCutter(Fraction(seconds), clips, length, rate), []
    events = []
    for number, time in enumerate(times):
        events += cutter.add(Fraction(time), lambda number=number: taken.append(number) or number)
    events += cutter.finish(Fraction(end), Fraction(last))
    return ([event for event in events if not isinstance(event, Window)],
            [event for event in events if isinstance(event, Window)], taken)


def expected_window(number, windows, times, end, seconds, clips, length, rate):
    """The window of this number: its frames, clip for clip, from the definition."""
    last_start = (len(times) - 1) // rate - (length - 1)  # in steps of `rate`
    found = []
    for part in range(clips):
        centre = (number + Fraction(2 * part + 1, 2 * clips)) * seconds
        if part and number == windows - 1 and centre > end:
            break
        shown = max(i for i, time in enumerate(times) if time <= centre or i == 0)
        start = math.floor(Fraction(2 * shown + 1, 2 * rate) - Fraction(length - 1, 2))
        start = max(min(start, last_start), 0) * rate
        found.append([(start + i * rate) % len(times) for i in range(length)])
    return found


@settings(max_examples=100, deadline=None)
@given(steps=st.lists(st.sampled_from([0, 1, 2, 2, 2, 3, 50]), max_size=60), last=st.integers(1, 9),
       seconds=st.sampled_from([Fraction(1, 3), 2, Fraction(7, 2), 5, 16, 100]), clips=st.integers(1, 3),
       length=st.integers(1, 5), rate=st.integers(1, 4))
def test_windows_and_clips_are_those_of_the_definition(steps, last, seconds, clips, length, rate):
    times = np.cumsum([0, *steps]).tolist()
    end = times[-1] + last
    cut_clips, windows, _ = cut(times, end, last, seconds, clips, length, rate)
    count = math.ceil((end - Fraction(last, 2)) / seconds) or 1
    assert [window.start for window in windows] == [k * seconds for k in range(count)]
    assert [window.end for window in windows] == [*((k + 1) * seconds for k in range(count - 1)), end]
    for number, window in enumerate(windows):
        expected = expected_window(number, count, times, end, seconds, clips, length, rate)
        assert [cut_clips[clip] for clip in window.clips] == expected
    assert all(a != b for a, b in zip(cut_clips, cut_clips[1:], strict=False))


def test_an_even_video_by_hand():
    """Twelve seconds at 4 frames a second, windows of 5 seconds, clips of 4 frames with stride 2."""
    clips, windows, taken = cut([Fraction(i, 4) for i in range(48)], 12, Fraction(1, 4), 5, 1, 4, 2)
    # Frames 10 and 30 are shown in the middle of a window: the clips take up 6 to 13 and 26 to 33. The last one would
    # be centred after the end, and so ends with the video.
    assert clips == [[6, 8, 10, 12], [26, 28, 30, 32], [40, 42, 44, 46]]
    assert windows == [Window(0, 5, (0,)), Window(5, 10, (1,)), Window(10, 12, (2,))]
    # The first seven might have been the whole video.
    assert taken == [*range(7), *range(8, 48, 2)]


def test_two_clips_of_a_window_are_those_of_two_windows_of_half_its_length():
    times = [Fraction(i, 4) for i in range(80)]
    assert cut(times, 20, Fraction(1, 4), 10, 2, 4, 2)[0] == cut(times, 20, Fraction(1, 4), 5, 1, 4, 2)[0]


def test_a_video_shorter_than_a_clip_wraps_around():
    clips, windows, _ = cut(range(5), 5, 1, 2, 1, 4, 3)
    assert clips == [[0, 3, 1, 4]]
    assert windows == [Window(0, 2, (0,)), Window(2, 4, (0,)), Window(4, 5, (0,))]


def test_a_long_pause_is_looked_at_once():
    clips, windows, _ = cut([0, 1, 2, 3, 103, 104, 105], 106, 1, 10, 1, 2, 1)
    assert clips == [[3, 4], [5, 6]]
    assert [window.clips for window in windows] == [(0,)] * 10 + [(1,)]


@pytest.mark.parametrize(("end", "windows"), [("9.999", 5), ("10.0", 5), ("10.001", 5), ("10.04", 6)])
def test_rounded_timestamps_make_no_further_window(end, windows):
    """Matroska's are of milliseconds."""
    end = Fraction(end)
    found = cut([Fraction(i, 25) for i in range(249)] + [end - Fraction("0.04")], end, Fraction("0.04"), 2, 1, 2, 1)[1]
    assert len(found) == windows and found[-1].end == end


def test_few_frames_are_kept():
    cutter = WindowCutter(Fraction(600), 1, 8, 8)
    alive = set()

    class Frame:
        def __init__(self):
            alive.add(id(self))

        def __del__(self):
            alive.discard(id(self))

    most = 0
    for i in range(20000):
        list(cutter.add(Fraction(i, 25), Frame))
        most = max(most, len(alive))
    assert most == 56 and len(alive) == 8  # a whole clip, then what one is made of
