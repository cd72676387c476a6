"""What a report of a run is computed from: calibration, times, thinned curves, single videos, strips of frames."""

import base64
import math

import cv2
import numpy as np
import pytest
from made_run import write_log
from video_files import H264, moving_square, write_frames, write_video

from data.class_ids import names_of_folders
from reports.calibration import reliability
from reports.class_report import count_by_class
from reports.curves import POINTS, curves
from reports.film_strip import FRAMES, GAP, HEIGHT, data_uri, film_strip, spread
from reports.log_parser import Log, TrainLine, parse_log, read_log
from reports.logged_options import find_options, read_options
from reports.page_tables import confused_pairs, confusion_data, hardest_classes, option_rows
from reports.scored_videos import ScoredVideos
from reports.throughput import measure
from video.bad_videos import BadVideo


def test_calibration_by_hand():
    found = reliability(np.array([0.95, 1.0, 0.9, 0.55, 0.5, 0.31]), np.array([1, 1, 0, 1, 0, 0], bool))
    assert found.counts.tolist() == [0, 0, 0, 1, 0, 2, 0, 0, 0, 3]
    assert found.accuracy[[3, 5, 9]].tolist() == [0, 0.5, pytest.approx(2 / 3)]
    assert found.confidence[[3, 5, 9]].tolist() == pytest.approx([0.31, 0.525, 0.95])
    assert found.error == pytest.approx((0.31 + 2 * 0.025 + 3 * (0.95 - 2 / 3)) / 6)
    assert found.overconfidence == pytest.approx((0.31 + 2 * 0.025 + 3 * (0.95 - 2 / 3)) / 6)
    assert reliability(np.array([0.25, 0.75]), np.array([True, True])).overconfidence == -0.5


def test_times_by_hand():
    found = measure([1, 1, 1.4, 4, 1, math.nan, 1.6])
    assert (found.steps, found.total, found.median, found.longest) == (6, 10, 1.2, 4)
    assert (found.slow, found.waited, found.waiting_share) == (1, pytest.approx(2.8), pytest.approx(0.28))
    assert measure([]) is None and measure([math.nan]) is None and measure([0.0]).waiting_share == 0


def line(iteration, loss):
    return TrainLine("0:00:01", 0.1, iteration, 10**6, 0.1, 0.5, loss, 50.0, 10.0)


def test_long_curves_are_thinned_between_their_bounds():
    losses = np.random.default_rng(0).uniform(1, 2, 40_000)
    losses[12_345], losses[20_000] = 9, math.nan
    found = curves(Log(train=[line(10 * i, loss) for i, loss in enumerate(losses)]))
    assert found.keys() == {"loss", "top1", "top5", "lr", "time"}
    train = found["loss"]["train"]
    assert {len(values) for values in train.values()} == {POINTS} and train["x"][-1] == 399_990
    assert max(train["high"]) == 9 and min(train["low"]) == pytest.approx(np.nanmin(losses), rel=1e-4)
    assert all(low <= mean <= high for low, mean, high in zip(train["low"], train["mean"], train["high"], strict=True))


def test_short_curves_are_whole():
    log = Log(train=[line(i + 1, 4 - i) for i in range(4)], evaluations=[
        {"currentIter": 2, "test_err": 50.0, "test_err5": "?"}, {"currentIter": 4, "test_err": math.nan}])
    found = curves(log)
    falling = [4, 3, 2, 1]
    assert found["loss"]["train"] == {"x": [1, 2, 3, 4], "mean": falling, "low": falling, "high": falling}
    assert found["top1"]["val"] == {"x": [2], "y": [50.0]} and "val" not in found["top5"]
    assert curves(Log()) == {}


# --------------------------------------------------------------------------------------------------- single videos


@pytest.fixture
def scored():
    """Six videos of three classes, one of them without clips; the second and the last have two clips."""
    scores = [[.8, .1, .1], [.5, .4, .1], [.3, .6, .1], [.2, .2, .6], [.1, .0, .9], [.4, .4, .2], [.4, .4, .2]]
    return np.array([0, 1, 1, 3, 4, 5, 5]), np.array(scores), np.array([0, 0, 1, 2, 1, 1])


def test_mistakes_and_closest_calls(scored):
    videos = ScoredVideos(*scored)
    assert videos.seen.tolist() == [0, 1, 3, 4, 5] and videos.predicted.tolist() == [0, 1, 2, 2, 0]
    assert videos.scores[1].tolist() == pytest.approx([0.4, 0.5, 0.1])
    assert videos.are_probabilities and not ScoredVideos(scored[0], 2 * scored[1], scored[2]).are_probabilities
    mistakes = videos.mistakes(10)
    assert [(one.index, one.label, one.rank) for one in mistakes] == [(4, 1, 3), (1, 0, 2), (5, 1, 2)]
    assert mistakes[0].top == ((2, 0.9), (0, 0.1), (1, 0.0)) and mistakes[0].score == 0
    assert [one.index for one in videos.mistakes(1)] == [4]
    assert [one.index for one in videos.closest(10)] == [3, 0]
    assert [one.index for one in videos.most_certain_by_class(10)] == [0, 3]


def test_tables_of_classes(scored):
    report = count_by_class(*scored)
    names = ["a", "b", "c"]
    assert [(entry["row"].name, entry["row"].top1, entry["taken_for"]) for entry in hardest_classes(report, names)] == [
        ("b", 0.0, [{"name": "a", "videos": 1, "share": pytest.approx(1 / 3)},
                    {"name": "c", "videos": 1, "share": pytest.approx(1 / 3)}]),
        ("a", 0.5, [{"name": "b", "videos": 1, "share": 0.5}])]
    assert [(pair["true"], pair["other"], pair["videos"]) for pair in confused_pairs(report, names)] == [
        ("a", "b", 1), ("b", "a", 1), ("b", "c", 1)]
    assert confusion_data(report, names)["cells"] == [0, 0, 1, 0, 1, 1, 1, 0, 1, 1, 2, 1, 2, 2, 1]


@pytest.mark.parametrize(("paths", "labels", "names"), [
    (["v/run/a.mp4", "v/jump/b.mp4", "w/run/c.mp4"], [1, 0, 1], ["jump", "run", "2"]),
    (["v/run/a.mp4", "v/jump/b.mp4"], [0, 0], None),
    (["v/run/a.mp4", "v/run/b.mp4"], [0, 1], None),
    (["a.mp4"], [0], None),
])
def test_names_by_folders(paths, labels, names):
    assert names_of_folders(paths, labels, 3) == names


# --------------------------------------------------------------------------------------------------------- frames


def test_a_strip_shows_frames_from_the_first_to_the_last(tmp_path):
    frames = np.stack([np.full((64, 80, 3), 8 * i, np.uint8) for i in range(31)])
    strip = film_strip(str(write_frames(tmp_path / "frames", frames)))
    width = round(80 * HEIGHT / 64)
    assert strip.shape == (HEIGHT, FRAMES * (width + GAP) - GAP, 3)
    assert strip[50, width // 2::width + GAP, 0].tolist() == [0, 48, 96, 144, 192, 240]
    assert not strip[:, width:width + GAP].any()


def test_strips_of_short_and_bad_videos(tmp_path):
    write_video(tmp_path / "short.mp4", moving_square(2, 64, 96))
    assert film_strip(str(tmp_path / "short.mp4")).shape == (HEIGHT, 2 * 168 + GAP, 3)
    assert film_strip(str(H264)).shape[0] == HEIGHT
    (tmp_path / "text.mp4").write_text("no video")
    for name in ("text.mp4", "gone.mp4"):
        with pytest.raises(BadVideo):
            film_strip(str(tmp_path / name))
    assert [spread(count).tolist() for count in (0, 1, 3, 6, 11)] == [
        [], [0], [0, 1, 2], [0, 1, 2, 3, 4, 5], [0, 2, 4, 6, 8, 10]]


def test_a_picture_is_read_back():
    picture = moving_square(1, 60, 80)[0]
    head, _, text = data_uri(picture, 100).partition(",")
    assert head == "data:image/webp;base64"
    back = cv2.imdecode(np.frombuffer(base64.b64decode(text), np.uint8), cv2.IMREAD_COLOR_RGB)
    assert np.abs(back.astype(int) - picture).mean() < 4


# ---------------------------------------------------------------------------------------------------- the log


def test_options_are_read_back(tmp_path):
    write_log(tmp_path / "log.txt", {"MODEL.NUM_CLASSES": 7, "DATADIR": "a 'b' \"c\"/", "TRAIN.PARAMS_FILE": None})
    write_log(tmp_path / "log.txt", {"TRAIN.JITTER_SCALES": "[200,240]"})
    first, second = read_options(tmp_path / "log.txt")
    assert (first["MODEL"]["NUM_CLASSES"], first["DATADIR"], first["TRAIN"]["PARAMS_FILE"]) == (7, "a 'b' \"c\"/", None)
    assert second["TRAIN"]["JITTER_SCALES"] == [200, 240] and second["MODEL"]["NUM_CLASSES"] == -1
    changed = {row["key"]: row for row in option_rows({"LOG_PERIOD": 10, "NUM_GPUS": 1, "OLD": 2}) if row["changed"]}
    assert changed.keys() == {"NUM_GPUS", "OLD"} and changed["NUM_GPUS"]["default"] == "8"


@pytest.mark.parametrize("text", [
    "", "{'a': ", "{'a': __import__('os')}", "{'a': 1} {", "[1]", "{1, 2}", "{'a': [", "{" * 5000 + "}", "{[]: 1}"])
def test_options_that_are_damaged(text):
    title = "INFO:core.config:Training with config:"
    after = ["INFO:core.config:{'b': 1,", " 'c': {'d': 2}}"]
    lines = [title, f"INFO:core.config:{text}", *["x"] * 3000, title, *after]
    assert list(find_options(lines))[-1:] == [{"b": 1, "c": {"d": 2}}]
    assert len(list(find_options(lines))) == 1


def test_what_describes_a_run(repo, job):
    log = read_log(repo / "tests/data/legacy_log.txt")
    assert log.facts == {"network": "ResNet-50 1x4d-bottleneck_transformation_3d", "flops": "7.201045888",
                         "parameters": "3.695472"}
    assert [batch.batch for batch in log.batches] == [0, 7, 29]
    facts = parse_log(job.output.splitlines()).facts
    assert facts.keys() == {"machine", "network", "flops", "parameters", "protocol"}
    assert facts["machine"].startswith("2 replicas in 1 process on 1 x CPU")
    assert facts["protocol"].startswith("10 clips of 2 frames with stride 3 x 3 crops of 200 x 200")
