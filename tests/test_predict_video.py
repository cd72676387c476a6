"""tools/predict_video.py: the same numbers as the test tool, class names, outputs, bad videos."""

import csv
import json
import shutil

import legacy_run
import numpy as np
import pytest

import predict_video
import test_net_video
from core.config import load_config
from data.class_ids import read_class_names
from engine.prediction import find_videos, prediction_config, ranking
from formats.caffe2_pickle import dump, load
from predict_video import parse_views, split_words
from utils.errors import UserError


@pytest.fixture
def predict(job, call_tool):
    """Call the tool with the job's weights: videos, words before the options, options -> status, stdout, stderr."""
    def call(videos, *words, **options):
        options = {"TEST__PARAMS_FILE": job.weights} | options
        return call_tool(predict_video, "--video", *videos, *words, *legacy_run.words(job.data, job.data, **options))

    return call


# ------------------------------------------------------------------------------------------------------ the numbers


@pytest.mark.parametrize(("views", "options"), [
    ("2x3", {"TEST__TEST_FULLY_CONV": True, "TEST__NUM_TEST_CLIPS": 6}),
    ("1x6", {"TEST__TEST_FULLY_CONV_FLIP": True, "TEST__NUM_TEST_CLIPS": 6}),
    ("3x1", {"TEST__NUM_TEST_CLIPS": 3}),
])
def test_the_numbers_are_those_of_the_test_tool(views, options, predict, job, call_tool, tmp_path):
    words = legacy_run.words(job.data, tmp_path, TEST__PARAMS_FILE=job.weights, **options)
    assert call_tool(test_net_video, *words)[0] == 0
    clips = load(tmp_path / "results_probs.pkl")
    videos = [job.data / name for name in legacy_run.TEST_VIDEOS]
    status, output, errors = predict(videos, "--views", views, "--top", 10, "--json", tmp_path / "r.json")
    results = json.loads((tmp_path / "r.json").read_text())
    assert status == 1  # gone.mp4
    assert results["views"] == views
    assert [result["video"] for result in results["videos"]] == list(map(str, videos))
    for number in (0, 2):
        expected = np.sum([scores for video, scores in clips if video == number], 0) / options["TEST__NUM_TEST_CLIPS"]
        found = {row["class_id"]: row["probability"] for row in results["videos"][number]["top"]}
        np.testing.assert_allclose([found[i] for i in range(10)], expected, rtol=0, atol=1e-7)
        assert sum(found.values()) == pytest.approx(1, abs=1e-5)
        assert [row["class_id"] for row in results["videos"][number]["top"]] == np.argsort(-expected).tolist()
    # The same on the screen.
    top = results["videos"][0]["top"][0]
    assert f"tall.mp4\n   1  {100 * top['probability']:6.2f} %  class {top['class_id']}\n" in output


def test_legacy_weights_on_real_videos(shared, call_tool):
    words = legacy_run.words(shared, shared, MODEL__VIDEO_ARC_CHOICE=2, RESNETS__STEM_OUT_CHANNELS=64,
                             TRAIN__CROP_SIZE=224, TRAIN__VIDEO_LENGTH=8,
                             TEST__PARAMS_FILE=shared / "reference/pickles/c2_model_iter4.pkl")
    videos = [shared / "videos" / name for name in ("arm_wrestling.mp4", "video_90.mov")]
    status, output, errors = call_tool(predict_video, "--video", *videos, "--views", "1x1", *words)
    assert status == 0, errors
    assert output.count(" %  class ") == 10


# ---------------------------------------------------------------------------------------------------- what is shown


def test_bad_videos_are_reported_and_the_others_go_on(predict, job, tmp_path):
    (tmp_path / "text.mp4").write_text("no video\n")
    videos = [tmp_path / "text.mp4", job.data / "wide.mp4", job.data / "gone.mp4", job.data / "damaged.avi"]
    outputs = "--json", tmp_path / "r.json", "--csv", tmp_path / "r.csv"
    status, output, errors = predict(videos, "--views", "1x1", *outputs, "--top", 2)
    assert status == 1
    assert [line.split(" ", 1)[0] for line in output.splitlines() if "%" not in line and line] == \
        [str(videos[1]), str(videos[3])]
    assert errors.count("text.mp4") == errors.count("gone.mp4") == 1
    assert "gone.mp4': No such file or directory\n" in errors
    assert errors.endswith("2 of 4 videos could not be scored\n")
    results = json.loads((tmp_path / "r.json").read_text())["videos"]
    assert results[2] == {"video": str(videos[2]), "error": "No such file or directory"}
    assert "decode" in results[3]["damage"] and len(results[3]["top"]) == 2
    with open(tmp_path / "r.csv") as file:
        rows = list(csv.DictReader(file))
    assert [row["rank"] for row in rows] == ["", "1", "2", "", "1", "2"]
    assert rows[3]["error"] == "No such file or directory"
    for row, expected in zip(rows[1:3], results[1]["top"], strict=True):
        assert (float(row["probability"]), int(row["class_id"])) == (expected["probability"], expected["class_id"])
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_names_of_the_classes(predict, job, tmp_path):
    (tmp_path / "names.txt").write_text("".join(f"kind {i}\n" for i in range(10)))
    video = [job.data / "wide.mp4"]
    status, output, errors = predict(video, "--views", "1x1", "--classids", tmp_path / "names.txt")
    assert status == 0 and errors == ""
    assert output.count("%  kind ") == 5
    # Kinetics' 400 are not those of 10 classes: said once, and numbers are shown.
    status, output, errors = predict(video, "--views", "1x1")
    assert status == 0 and output.count("%  class ") == 5
    assert "classids.json has 400 names and the network 10 classes" in errors and errors.count("\n") == 1


def test_of_equal_probabilities_the_lower_class_comes_first():
    rows = ranking(np.array([0.1, 0.4, 0.1, 0.4]), ["a", "b", "c", "d"], 3)
    assert [row["class_name"] for row in rows] == ["b", "d", "a"]


def test_class_names_by_id(repo, tmp_path):
    assert read_class_names(repo / "process_data/kinetics/classids.json")[:2] == ["abseiling", "air drumming"]
    (tmp_path / "ids.json").write_text('{"b": 1, "a": 0, "c": 2}')
    assert read_class_names(tmp_path / "ids.json") == ["a", "b", "c"]


@pytest.mark.parametrize(("name", "text"), [("ids.json", '{"b": 1, "a": 0}'), ("names.txt", "a\r\nb\r\n")])
def test_class_names_with_a_byte_order_mark(name, text, tmp_path):
    (tmp_path / name).write_text(text, encoding="utf-8-sig")
    assert read_class_names(tmp_path / name) == ["a", "b"]


@pytest.mark.parametrize(("name", "text", "message"), [
    ("ids.json", '{"b": 1, "c": 2}', "expected the ids 0 to 1, but no class has the id 0"),
    ("names.txt", "a\n\nb\n", "expected one class name per line, got nothing in line 2"),
    ("names.txt", "\n", "expected one class name per line, got an empty file"),
])
def test_class_names_that_are_none(name, text, message, tmp_path):
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=f"{name}: {message}"):
        read_class_names(tmp_path / name)
    with pytest.raises(UserError, match="gone.txt: cannot read the class names: No such file"):
        read_class_names(tmp_path / "gone.txt")


# ------------------------------------------------------------------------------------------------ the command line


def test_what_a_folder_holds(tmp_path):
    for name in ("b.mp4", "a/z.AVI", "a/y.webm", "notes.txt", "a/.mp4"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "folder.mp4").mkdir()
    inside = [str(tmp_path / name) for name in ("a/y.webm", "a/z.AVI", "b.mp4")]
    assert find_videos([str(tmp_path)]) == inside
    assert find_videos(["x", inside[2], "x", str(tmp_path)]) == ["x", inside[2], *inside[:2]]
    with pytest.raises(UserError, match="folder.mp4: expected a folder with videos, found no file"):
        find_videos([str(tmp_path / "folder.mp4")])


def test_options_may_follow_the_videos(tmp_path, monkeypatch):
    assert split_words(["a.mp4", "b", "NUM_GPUS", "1", "TEST.SCALE", "2"]) == (
        ["a.mp4", "b"], ["NUM_GPUS", "1", "TEST.SCALE", "2"])
    assert split_words(["a.mp4"]) == (["a.mp4"], [])
    monkeypatch.chdir(tmp_path)
    (tmp_path / "CLIP.MP4").touch()
    assert split_words(["CLIP.MP4", "NUM_GPUS", "1"]) == (["CLIP.MP4"], ["NUM_GPUS", "1"])


def test_views_over_what_the_configuration_says():
    cfg = load_config(None, ["TEST.TEST_FULLY_CONV_FLIP", "True", "TEST.USE_MULTI_CROP", "2", "NUM_GPUS", "4",
                             "TEST.BATCH_SIZE", "32"])
    found = prediction_config(cfg, parse_views("10x1"))
    assert (found.TRAIN.CROP_SIZE, found.TEST.USE_MULTI_CROP, found.TEST.NUM_TEST_CLIPS) == (224, 0, 10)
    assert (found.NUM_GPUS, found.TEST.BATCH_SIZE, found.TEST.OUTPUT_NAME) == (1, 8, "softmax")


@pytest.mark.parametrize("views", ["10", "10x2", "0x3", "x3", "10x33", "10X3"])
def test_views_that_are_none(views, call_tool):
    status, _, errors = call_tool(predict_video, "--video", "v.mp4", "--views", views)
    assert status == 2 and f"expected CLIPSxCROPS with 1, 3 or 6 crops, such as 10x3, got '{views}'" in errors


def test_mistakes_are_one_line(predict, job, tmp_path):
    def check(message, *words, **options):
        status, output, errors = predict([job.data / "wide.mp4"], "--views", "1x1", *words, **options)
        errors = "".join(line for line in errors.splitlines(keepends=True) if "has 400 names" not in line)
        assert (status, output) == (1, "")
        assert errors.startswith("error: ") and errors.count("\n") == 1 and message in errors

    check("TEST.PARAMS_FILE is not set", TEST__PARAMS_FILE="")
    check("its classifier has 10 classes, but MODEL.NUM_CLASSES is 400", MODEL__NUM_CLASSES=400)
    check("r.json: cannot be written: No such file", "--json", tmp_path / "no/r.json")
    check("--top: expected a number of at least 1, got 0", "--top", 0)
    dump({name: value for name, value in load(job.weights)["blobs"].items() if "pred" not in name}, tmp_path / "w.pkl")
    check("it has no classifier (pred_w)", TEST__PARAMS_FILE=tmp_path / "w.pkl")


def test_the_folder_of_the_configuration_is_left_alone(predict, job, tmp_path, monkeypatch):
    shutil.copy(job.data / "wide.mp4", tmp_path)
    monkeypatch.chdir(tmp_path)
    assert predict([tmp_path], "--views", "1x1", CHECKPOINT__DIR=".")[0] == 0
    assert [path.name for path in tmp_path.iterdir()] == ["wide.mp4"]


def test_folders_of_frames_are_videos(tmp_path):
    for folder in ("across", "deep/down"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "000001.jpg").write_bytes(b"")
    (tmp_path / "deep/v.mp4").write_bytes(b"")
    (tmp_path / "deep/cover.jpg").write_bytes(b"")
    assert find_videos([str(tmp_path / "across")]) == [str(tmp_path / "across")]
    assert find_videos([str(tmp_path)]) == [str(tmp_path / name) for name in ("across", "deep/down", "deep/v.mp4")]
