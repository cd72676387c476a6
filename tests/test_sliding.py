"""Long videos window by window: clips to the byte, predictions, tables, picture, memory, interruption, mistakes."""

import csv
import json
import math
import shlex
import signal
import time
from fractions import Fraction

import check_sliding
import cv2
import legacy_run
import numpy as np
import pytest
from muxing import encode, join, write_container
from page_commands import section_commands
from plain_decoder import all_frames
from video_files import moving_square, write_frames, write_video

import predict_video
from core.config import load_config
from data.sliding_loader import SlidingLoader
from data.sources import expand_test_videos
from data.test_loader import TestClips, TestLoader
from data.transforms import scaled_size
from engine.prediction import load_model, predict
from engine.sliding_prediction import predict_windows, window_length
from reports.timeline import MOST_COLUMNS, Timeline, main_classes, tick_places
from reports.window_tables import WindowCsv, clock_time
from utils.errors import UserError
from video.bad_videos import BadVideo, BadVideos
from video.playback import Playback

LENGTH, RATE = 2, 3  # of legacy_run's network


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    """A video of 105 frames, 25 in a second: 4.2 seconds."""
    return write_video(tmp_path_factory.mktemp("video") / "long.mp4", moving_square(105, 64, 96, seed=4))


def load(path, seconds, clips, multi_crop=0, batch_size=5):
    """(views by number of clip, windows) of a SlidingLoader."""
    views, windows = {}, []
    with SlidingLoader(str(path), Fraction(seconds), clips, multi_crop, batch_size, BadVideos()) as loader:
        for batch in loader:
            for number, view in zip(batch.clips.tolist(), batch.views.numpy(), strict=True):
                views.setdefault(number, []).append(view.copy())
            windows += batch.windows
    return views, windows


def views_of_a_cut(frames, clips, multi_crop, folder):
    """What a test's loader makes of a video of just these frames: one clip."""
    one = TestClips(clips.length, clips.rate, clips.crop, clips.scale, temporal_positions=1)
    source = expand_test_videos([str(write_frames(folder, frames))], multi_crop, 1)
    with TestLoader(source, one, [np.arange(len(source))], 1, BadVideos()) as loader:
        return list(next(loader)[0].numpy())


# ------------------------------------------------------------------------------------------------------- the clips


@pytest.mark.parametrize(("crop", "multi_crop", "batch_size"), [(48, 0, 4), (40, 1, 4), (40, 2, 8), (None, 0, 1)])
def test_views_are_those_of_the_clips_cut_out(crop, multi_crop, batch_size, video, tmp_path):
    clips = TestClips(length=4, rate=5, crop=crop, scale=48, temporal_positions=1)
    views, windows = load(video, 1, clips, multi_crop, batch_size)
    assert [(window.start, window.end) for window in windows] == [(0, 1), (1, 2), (2, 3), (3, 4), (4, Fraction(21, 5))]
    frames = all_frames(video)
    # The frames in the middle of the windows are 12, 37, 62, 87; the last clip ends with the video.
    for window, start in zip(windows, (5, 30, 55, 80, 85), strict=True):
        (number,) = window.clips
        expected = views_of_a_cut(frames[start : start + 20], clips, multi_crop, tmp_path / str(start))
        assert len(views[number]) == len(expected) == (1, 3, 6)[multi_crop]
        assert all(map(np.array_equal, views[number], expected)), start


def test_two_clips_of_a_window(video):
    two = load(video, 2, TestClips(4, 5, 48, 48, temporal_positions=2))
    one = load(video, 1, TestClips(4, 5, 48, 48, temporal_positions=1))
    # The last window is so short that its second clip would be centred after the end.
    assert [window.clips for window in two[1]] == [(0, 1), (2, 3), (4,)]
    assert [window.clips for window in one[1]] == [(0,), (1,), (2,), (3,), (4,)]
    for number in range(4):
        assert np.array_equal(two[0][number], one[0][number])


def test_times_count_where_the_rate_varies(tmp_path):
    """Of 60 frames, the first 40 are shown for 25 ms each, the others for 500 ms."""
    track = encode("mpeg4", moving_square(60, 48, 64))
    track.times = [*range(0, 1000, 25), *range(1000, 11000, 500)]
    track.time_base = Fraction(1, 1000)
    write_container(tmp_path / "v.mkv", track)
    clips = TestClips(length=2, rate=1, crop=48, scale=48, temporal_positions=1)
    views, windows = load(tmp_path / "v.mkv", 2, clips)
    assert [float(window.end) for window in windows[:-1]] == [2, 4, 6, 8, 10]
    frames = all_frames(tmp_path / "v.mkv")
    for window in windows:
        start = min(40 + 2 * int(window.start), 58)
        assert np.array_equal(views[window.clips[0]][0], [frame[:, 8:56] for frame in frames[start : start + 2]])


@pytest.mark.parametrize("crop", [32, None])
def test_clips_have_the_size_of_their_first_frame(crop, tmp_path):
    tracks = [encode("libx264", moving_square(40, *size), options={"preset": "ultrafast"})
              for size in ((48, 96), (96, 64))]
    write_container(tmp_path / "v.mkv", join(tracks))
    frames = all_frames(tmp_path / "v.mkv")
    assert {frame.shape for frame in frames} == {(48, 96, 3), (96, 64, 3)}
    clips = TestClips(length=4, rate=4, crop=crop, scale=40, temporal_positions=1)
    views, windows = load(tmp_path / "v.mkv", "0.4", clips, batch_size=3)
    assert len(windows) == 8 and sum(map(len, views.values())) == len(views)
    sizes = {view.shape[1:3] for (view,) in views.values()}
    assert sizes == ({(32, 32)} if crop else {(40, 80), (60, 40)})
    for number, window in enumerate(windows):
        # The frame in the middle of a window is 5, 15, 25, ...
        start = 4 * min(max(math.floor((10 * number + 5.5) / 4 - 1.5), 0), 16)
        assert np.array_equal(views[window.clips[0]][0], as_clip(frames[start : start + 16 : 4], clips)), start


def as_clip(frames, clips):
    """Frames at the size of the first one at test scale, with the crop in the centre."""
    height, width = scaled_size(*frames[0].shape[:2], clips.scale)
    scaled = [cv2.resize(frame, (width, height)) for frame in frames]
    if clips.crop is None:
        return scaled
    row, column = (height - clips.crop) // 2, (width - clips.crop) // 2
    return [frame[row : row + clips.crop, column : column + clips.crop] for frame in scaled]


# ------------------------------------------------------------------------------------------------- the predictions


@pytest.mark.parametrize("views", [(1, 3), (2, 1)])
def test_predictions_are_those_for_the_clips_cut_out(views, video, job, tmp_path):
    cfg = load_config(legacy_run.YAML, legacy_run.words(job.data, job.folder, TEST__BATCH_SIZE=8)[2:])
    model = load_model(cfg, job.weights, views=views)
    of_a_cut = load_model(cfg, job.weights, views=(1, views[1]))
    windows = list(predict_windows(model, str(video), Fraction(1), BadVideos()))
    assert [(window.start, window.end) for window in windows] == [(0, 1), (1, 2), (2, 3), (3, 4), (4, 4.2)]
    frames = all_frames(video)
    for number, window in enumerate(windows[:4]):
        expected = []
        for part in range(views[0]):
            shown = int(25 * (number + (part + 0.5) / views[0]))
            start = math.floor((shown + 0.5) / RATE - (LENGTH - 1) / 2) * RATE
            folder = write_frames(tmp_path / f"{number}-{part}", frames[start : start + LENGTH * RATE])
            expected.append(predict(of_a_cut, str(folder)))
        # Not to the bit: other clips are in the batch.
        np.testing.assert_allclose(window.probabilities, np.mean(expected, 0), rtol=0, atol=1e-6)


# ------------------------------------------------------------------------------------------------------- the tool


@pytest.fixture
def slide(job, call_tool):
    """Call the tool with the job's weights: videos, words before the options -> status, stdout, stderr."""
    def call(videos, *words):
        options = legacy_run.words(job.data, job.data, TEST__PARAMS_FILE=job.weights)
        return call_tool(predict_video, "--video", *videos, *words, *options)

    return call


def rows_of(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_tables_and_picture(slide, video, tmp_path):
    words = ["--sliding", "0.5", "--views", "1x1", "--top", 2]
    names = tmp_path / "names.txt"
    names.write_text("".join(f"kind, {i}\n" for i in range(10)))
    status, output, errors = slide([video], *words, "--csv", tmp_path / "r.csv", "--json", tmp_path / "r.json",
                                   "--timeline", tmp_path / "r.PNG", "--classids", names)
    assert (status, errors) == (0, "")
    rows = rows_of(tmp_path / "r.csv")
    assert [float(row["start"]) for row in rows] == [0.5 * i for i in range(9)]
    assert [float(row["end"]) for row in rows] == [*(0.5 * i for i in range(1, 9)), 4.2]
    results = json.loads((tmp_path / "r.json").read_text())
    assert (results["views"], results["sliding"]) == ("1x1", 0.5)
    [found] = results["videos"]
    assert found.keys() == {"video", "windows"} and len(found["windows"]) == 9
    for row, window in zip(rows, found["windows"], strict=True):
        assert row["video"] == str(video) and row["error"] == ""
        for rank, best in enumerate(window["top"], start=1):
            assert (int(row[f"class_id_{rank}"]), row[f"class_name_{rank}"], float(row[f"probability_{rank}"])) == (
                best["class_id"], best["class_name"], best["probability"])
            assert best["class_name"] == f"kind, {best['class_id']}"
    lines = output.splitlines()
    best = found["windows"][8]["top"][0]
    assert lines[0] == str(video) and len(lines) == 1 + 9 + 1
    assert lines[9] == f"   0:00:04 - 0:00:04.2  {100 * best['probability']:6.2f} %  {best['class_name']}"
    assert cv2.imread(str(tmp_path / "r.PNG")).shape[1] > 1000
    assert sorted(path.name for path in tmp_path.iterdir()) == ["names.txt", "r.PNG", "r.csv", "r.json"]


def test_the_command_of_the_page(repo, video, job, call_tool, tmp_path, monkeypatch):
    (command,) = section_commands(repo, "tools/README.md", "Long videos")
    python, tool, *words = shlex.split(command)
    assert (python, tool) == ("python", "tools/predict_video.py")
    at = words.index("--weights")
    words[at : at + 2] = []
    words[words.index("--video") + 1] = str(video)
    monkeypatch.chdir(tmp_path)
    options = legacy_run.words(job.data, job.data, TEST__PARAMS_FILE=job.weights)
    assert call_tool(predict_video, *words, *options)[0] == 0
    made = {words[words.index(option) + 1] for option in ("--csv", "--json", "--timeline")}
    assert {path.name for path in tmp_path.iterdir()} == made


def test_bad_videos_have_a_row_and_the_others_go_on(slide, video, job, tmp_path):
    (tmp_path / "text.mp4").write_text("no video\n")
    folder = write_frames(tmp_path / "frames", moving_square(3, 64, 64))
    videos = [tmp_path / "text.mp4", job.data / "damaged.avi", "rtsp://camera/1", folder, video]
    status, output, errors = slide(videos, "--sliding", "2", "--views", "1x1", "--csv", tmp_path / "r.csv",
                                   "--json", tmp_path / "r.json")
    assert status == 1 and errors.endswith("3 of 5 videos could not be scored\n")
    for line in ("text.mp4': is a text file", "damaged.avi': ", "'rtsp://camera/1': is an address: streams are not",
                 "frames': is a folder of frames, which say nothing of their times"):
        assert errors.count(line) == 1
    results = json.loads((tmp_path / "r.json").read_text())["videos"]
    assert [result["video"] for result in results] == list(map(str, videos))
    assert [len(result["windows"]) for result in results] == [0, 1, 0, 0, 3]
    assert [sorted(result.keys() - {"video", "windows"}) for result in results] == [
        ["error"], ["damage"], ["error"], ["error"], []]
    rows = rows_of(tmp_path / "r.csv")
    assert [bool(row["error"]) for row in rows] == [True, False, True, True, False, False, False]


def test_a_video_that_fails_on_the_way_keeps_its_windows(slide, video, tmp_path, monkeypatch):
    frames = Playback.frames

    def failing(playback):
        for number, frame in enumerate(frames(playback)):
            if number == 80:
                raise BadVideo(str(video), "cannot be read: Input/output error", lasting=False)
            yield frame

    monkeypatch.setattr(Playback, "frames", failing)
    status, output, _ = slide([video], "--sliding", "1", "--views", "1x1", "--csv", tmp_path / "r.csv",
                              "--timeline", tmp_path / "r.png")
    assert status == 1
    rows = rows_of(tmp_path / "r.csv")
    assert [(row["start"], row["error"]) for row in rows] == [
        ("0.0", ""), ("1.0", ""), ("2.0", ""), ("", "cannot be read: Input/output error")]
    assert output.count(" % ") == 3 and (tmp_path / "r.png").exists()


# Each pass through the network takes a while, and is of one window.
SLOW = """
import time
from engine import sliding_prediction
check = sliding_prediction.check_scores
sliding_prediction.check_scores = lambda *arguments: (time.sleep(0.2), check(*arguments))
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_interrupted_rows_stand(number, video, job, zygote, tmp_path):
    words = ["predict_video", "--video", video, "--sliding", "0.1", "--views", "1x1", "--csv", tmp_path / "r.csv",
             "--json", tmp_path / "r.json", "--timeline", tmp_path / "r.png",
             *legacy_run.words(job.data, job.data, TEST__PARAMS_FILE=job.weights, TEST__BATCH_SIZE=2)]
    run = zygote.start(words, tmp_path / "log.txt", SLOW)
    deadline = time.monotonic() + 60
    while not (tmp_path / "r.csv").exists() or len(rows_of(tmp_path / "r.csv")) < 3:
        assert time.monotonic() < deadline, (tmp_path / "log.txt").read_text()
        time.sleep(0.02)
    run.kill(number)
    assert run.wait() == (128 + signal.SIGTERM if number == signal.SIGTERM else -signal.SIGKILL)
    rows = rows_of(tmp_path / "r.csv")
    assert 3 <= len(rows) < 42
    assert [float(row["start"]) for row in rows] == [round(0.1 * i, 6) for i in range(len(rows))]
    assert all(row["probability_5"] for row in rows)
    if number == signal.SIGTERM:
        assert (tmp_path / "log.txt").read_text().endswith("error: interrupted\n")
        assert sorted(path.name for path in tmp_path.iterdir()) == ["log.txt", "r.csv"]
    else:
        assert not (tmp_path / "r.json").exists()


def test_a_short_run_of_the_check_of_long_ones(monkeypatch, capsys):
    """Memory, every window once, predictions of clips cut out: as tests/check_sliding.py does it for two hours."""
    monkeypatch.setattr("sys.argv", ["check_sliding.py", "--minutes", "0.4", "--seconds", "1.7", "--compared", "3"])
    assert check_sliding.main() == 0
    printed = capsys.readouterr().out
    assert "ok    15 windows, each once: 15\n" in printed and printed.count("\nok ") == 4


# ------------------------------------------------------------------------------------------------- mistakes, parts


@pytest.mark.parametrize("text", ["0", "0.09", "-1", "1e6", "nan", "inf", "x", "", "1/0", "9" * 30, "\u0662"])
def test_lengths_that_are_none(text):
    with pytest.raises(UserError, match="--sliding: expected seconds between 0.1 and 86400, got "):
        window_length(text)
    assert (window_length("0.1"), window_length("2"), window_length("86400")) == (Fraction(1, 10), 2, 86400)


def test_clock_times():
    assert [clock_time(seconds) for seconds in (0, 59.9999999, 61.25, 3600, 360000.1)] == [
        "0:00:00", "0:01:00", "0:01:01.25", "1:00:00", "100:00:00.1"]


def test_rows_are_written_whole():
    written = []
    table = WindowCsv(written.append, top=2)
    table.begin("a,\udcff.mp4")
    table.add(0, 2.5, [{"class_id": 3, "class_name": 'a "b"', "probability": 0.5},
                       {"class_id": 1, "class_name": None, "probability": 0.25}])
    table.end(None, "gone")
    assert written == [
        b"video,start,end,class_id_1,class_name_1,probability_1,class_id_2,class_name_2,probability_2,error\n",
        b'"a,\xff.mp4",0,2.5,3,"a ""b""",0.5,1,,0.25,\n', b'"a,\xff.mp4",,,,,,,,,gone\n']


@pytest.mark.parametrize("windows", [1, 10, 1999, 2000, 2001, 9000])
def test_a_timeline_of_any_length_is_bounded(windows):
    rng, timeline = np.random.default_rng(0), Timeline()
    scores = rng.random((windows, 3))
    for i, row in enumerate(scores):
        timeline.add((i + 1) * 0.5, row)
    edges, columns = timeline.columns()
    assert len(timeline) == windows and len(edges) == len(columns) + 1
    assert min(windows, MOST_COLUMNS) <= len(columns) < 2 * MOST_COLUMNS
    assert edges[0] == 0 and edges[-1] == windows * 0.5 and (np.diff(edges) > 0).all()
    for i in {0, len(columns) // 2, len(columns) - 1}:
        inside = scores[round(2 * edges[i]) : round(2 * edges[i + 1])]
        np.testing.assert_allclose(columns[i], inside.mean(0), rtol=1e-5)


def test_which_classes_are_drawn():
    columns = np.full((100, 400), 1e-3)
    columns[:60, 7], columns[60:, 3], columns[99, 5] = 0.5, 0.6, 0.9
    assert main_classes(columns) == ([0, 7, 3, 5], 3)  # and one more, as there are few
    assert main_classes(np.eye(30))[0] == list(range(12))
    assert main_classes(np.array([[0.1, 0.9]])) == ([0, 1], 1)


@pytest.mark.parametrize(("length", "step"), [
    (0.3, 0.1), (10, 1), (20, 2), (7200, 600), (90000, 10800), (1e7, 1e7 / 12)])
def test_ticks_are_few_and_round(length, step):
    ticks = tick_places(length)
    assert 2 <= len(ticks) <= 13 and ticks[1] == pytest.approx(step)


def test_a_picture_of_names_of_any_kind(tmp_path):
    timeline = Timeline()
    timeline.add(2, np.array([0.2, 0.7, 0.1]))
    timeline.draw(tmp_path / "t.png", ["$x", "\udcff", "<b>" * 50], "a $ \udcff.mp4")
    timeline.draw(tmp_path / "u.png", None, "v")
    assert (tmp_path / "t.png").stat().st_size and (tmp_path / "u.png").stat().st_size
