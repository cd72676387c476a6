"""tools/test_net_video.py: what it scores, with each kind of crops."""

import copy
import hashlib
import logging
import re
import shutil

import cv2
import legacy_run
import numpy as np
import pytest
import torch
from video_files import moving_square, write_list, write_video

import test_net_video
import train_net_video
from core.config import load_config
from data.data_builder import protocol_of_test
from engine.testing import config_as_tested, plan_clips
from formats.caffe2_pickle import dump, load
from models.model_builder_video import load_model
from utils.errors import UserError

# --------------------------------------------------------------------------------------------------- kind of test


@pytest.mark.parametrize(("options", "crop", "multi_crop"), [
    ({}, 224, 0),
    ({"TEST.USE_MULTI_CROP": 2}, 224, 2),
    ({"TEST.TEST_FULLY_CONV": True}, 256, 1),
    ({"TEST.TEST_FULLY_CONV_FLIP": True}, 256, 2),
    ({"TEST.TEST_FULLY_CONV": True, "TEST.TEST_FULLY_CONV_FLIP": True}, 256, 1),
    ({"TEST.TEST_FULL_SIZE": True, "TEST.USE_MULTI_CROP": 2, "TEST.SCALE": 288}, 288, 0),
])
def test_what_the_tool_sets(options, crop, multi_crop):
    words = [word for pair in options.items() for word in map(str, pair)]
    cfg = load_config(None, ["TRAIN.CROP_SIZE", "208", "TRAIN.JITTER_SCALES", "[256,320]", "TEST.NUM_TEST_CLIPS", "30",
                             *words])
    before = copy.deepcopy(cfg)
    protocol = protocol_of_test(cfg)
    printed = config_as_tested(cfg, protocol)
    found = printed.TEST.DATA_TYPE, printed.TRAIN.CROP_SIZE, printed.TEST.USE_MULTI_CROP
    assert found == ("test", crop, multi_crop)
    assert protocol.crop == (None if cfg.TEST.TEST_FULL_SIZE else crop) and protocol.multi_crop == multi_crop
    assert protocol.clip_shape == (3, 32, crop, crop) and protocol.views == cfg.TEST.NUM_TEST_CLIPS
    assert cfg == before


# --------------------------------------------------------------------------------------------------- which records


def plan(videos, *arguments):
    return plan_clips(np.array(videos), *arguments).tolist()


def test_every_record_once():
    assert plan([0, 1, 1, 0], 2, 2, 2) == [0, 1, 2, 3]


def test_the_last_batch_wraps_and_what_was_seen_is_skipped(caplog):
    caplog.set_level(logging.INFO)
    # Six clips in batches of four: eight records are read, the last two again from the start.
    assert plan([0, 1, 2, 0, 1, 2], 3, 2, 4) == [0, 1, 2, 3, 4, 5]
    skipped = {record.getMessage() for record in caplog.records}
    assert skipped <= {"Video id 0 have been seen. Skip.", "Video id 1 have been seen. Skip."}


def test_more_records_than_clips(caplog):
    caplog.set_level(logging.INFO)
    assert plan([0, 0, 0, 1, 1, 1], 2, 2, 1) == [0, 1, 3]
    assert [record.getMessage() for record in caplog.records] == [
        "The test data have 6 records; 2 videos (TEST.DATASET_SIZE) of 2 clips (TEST.NUM_TEST_CLIPS) have 4: is this "
        "the LMDB of another test?", "Video id 0 have been seen. Skip."]
    assert {record.levelname for record in caplog.records} == {"WARNING"}


def test_fewer_records_than_clips_are_taken_again():
    assert plan([0, 1], 2, 2, 2) == [0, 1, 0, 1]


def test_each_clip_is_counted_on_its_own():
    """Legacy counted a batch before it looked, and lost the last clips of a video that ended inside a batch."""
    assert plan([0, 0, 0, 1, 1, 1], 2, 3, 6) == [0, 1, 2, 3, 4, 5]


def test_a_video_out_of_range():
    with pytest.raises(UserError, match=r"test record 1 .* is of video 2, expected 0 to 1: TEST.DATASET_SIZE is 2"):
        plan([0, 2], 2, 1, 1)


# ----------------------------------------------------------------------------------------------------- real scores


@pytest.fixture(name="test")
def run_test(job, tmp_path, call_tool):
    """Test the job's weights on the lists: options -> (output, [video, scores] of each clip)."""
    def run(**options):
        options = {"data": job.data, "TEST__PARAMS_FILE": job.weights} | options
        words = legacy_run.words(options.pop("data"), tmp_path, **options)
        status, output, errors = call_tool(test_net_video, *words)
        assert (status, errors) == (0, "")
        return output, load(tmp_path / "results_probs.pkl")

    return run


def test_three_crops_from_a_list_are_those_of_the_lmdb(test, job):
    output, results = test(TEST__TEST_FULLY_CONV=True)
    assert "Setting test crop_size to: 200\n" in output
    # The LMDB has the same records, in the bytewise order of their keys; those of video 1 give nothing.
    numbered = dict(zip([i for i in range(90) if i // 30 != 1], results, strict=True))
    by_key = [numbered[int(key)] for key in sorted(map(str, range(90))) if int(key) // 30 != 1]
    legacy_order = load(job.folder / "results_probs.pkl")
    assert [video for video, _ in by_key] == [video for video, _ in legacy_order]
    np.testing.assert_allclose([scores for _, scores in by_key], [scores for _, scores in legacy_order], atol=1e-6)
    # The report does not depend on the order, but for the first clips.
    report = re.findall(r"(?:Clip|top-\d) accuracy: .*", output)
    assert len(report) == 3
    assert report == re.findall(r"(?:Clip|top-\d) accuracy: .*", job.output)


def test_six_crops(test):
    output, results = test(TEST__TEST_FULLY_CONV_FLIP=True, TEST__NUM_TEST_CLIPS=6)
    assert "Setting test crop_size to: 200\n" in output
    assert [video for video, _ in results] == [0] * 6 + [2] * 6
    tall = np.array([scores for _, scores in results[:6]])
    assert len(np.unique(tall, axis=0)) == 6  # three places, and their mirror images
    _, three = test(TEST__TEST_FULLY_CONV=True, TEST__NUM_TEST_CLIPS=3)
    np.testing.assert_allclose([scores for _, scores in three[:3]], tall[:3], atol=1e-6)


def test_one_crop(test):
    output, results = test(TEST__NUM_TEST_CLIPS=2)
    assert "Setting test crop_size to: 224\n" in output
    assert [video for video, _ in results] == [0, 0, 2, 2]
    assert "Max num of clips in a video: 2" in output


@pytest.mark.parametrize("frames", [(20, 72, 72), (9, 96, 96)])
def test_whole_frames_of_a_square_video_are_its_one_crop(test, frames, tmp_path):
    (tmp_path / "data").mkdir()
    video = write_video(tmp_path / "data/square.mp4", moving_square(*frames))
    for name in ("test.txt", "gt.txt"):
        write_list(tmp_path / "data" / name, [video], [3])
    options = {"data": tmp_path / "data", "TEST__DATASET_SIZE": 1, "TEST__NUM_TEST_CLIPS": 5, "TEST__SCALE": 224}
    _, crops = test(**options)
    output, whole = test(**options, TEST__TEST_FULL_SIZE=True)
    assert "Setting test crop_size" not in output and "Testing on whole frames of short side: 224" in output
    assert len(whole) == 5
    np.testing.assert_allclose([scores for _, scores in whole], [scores for _, scores in crops], rtol=0, atol=1e-6)


def test_whole_frames_in_one_pass(test, job):
    """Against frames read, resized and normalised here; the videos of one test are of different sizes."""
    options = {"TEST__TEST_FULL_SIZE": True, "TEST__SCALE": 208, "TEST__NUM_TEST_CLIPS": 3}
    output, results = test(**options)
    assert [video for video, _ in results] == [0] * 3 + [2] * 3
    cfg = load_config(legacy_run.YAML, legacy_run.words(job.data, job.folder)[2:])
    model = load_model(cfg, job.weights, torch.device("cpu"), protocol_of_test(cfg).clip_shape, cfg.TEST.OUTPUT_NAME)
    for place, (name, starts, size) in {0: ("tall.mp4", (0, 8, 16), (208, 260)),
                                        3: ("damaged.avi", None, (312, 208))}.items():
        capture, frames = cv2.VideoCapture(str(job.data / name)), []
        while (grabbed := capture.read())[0]:
            frames.append(cv2.resize(grabbed[1], size)[..., ::-1])
        starts = starts or [int(np.float32(len(frames) / 3) * np.float32(i)) for i in range(3)]
        for clip, start in enumerate(starts):
            pixels = np.stack([frames[start], frames[(start + 3) % len(frames)]]).transpose(3, 0, 1, 2)
            with torch.inference_mode():
                expected = model(torch.from_numpy((pixels.astype("f4") - 114.75) / np.float32(57.375))[None])[0]
            assert expected.sum() == pytest.approx(1, abs=1e-5)
            np.testing.assert_allclose(results[place + clip][1], expected, rtol=0, atol=1e-5)


def test_whole_frames_from_the_single_crop_lmdb(test, job, tmp_path, call_tool):
    made = legacy_run.run_python("process_data/kinetics/create_video_lmdb_test.py", "--dataset_dir",
                                 tmp_path / "lmdb/test", "--list_file", job.data / "test.txt")
    assert made.returncode == 0, made.stderr
    options = {"FILENAME_GT": job.data / "gt.txt", "TEST__PARAMS_FILE": job.weights, "TEST__TEST_FULL_SIZE": True}
    _, from_lmdb = test(data=tmp_path / "lmdb", TEST__NUM_TEST_CLIPS=10, **options)
    _, from_list = test(TEST__NUM_TEST_CLIPS=10, TEST__TEST_FULL_SIZE=True)
    assert sorted(from_lmdb) == sorted(from_list)
    # 30, the number of the configuration files, would start every clip in the first third of its video.
    status, _, errors = call_tool(test_net_video, *legacy_run.words(
        tmp_path / "lmdb", tmp_path, TEST__NUM_TEST_CLIPS=30, **options))
    assert status == 1
    assert re.fullmatch("error: .* has 10 clips a video; TEST.NUM_TEST_CLIPS: expected 10 .*, got 30\n", errors)


def test_after_a_training_too(job, tmp_path, call_tool):
    shutil.copytree(job.folder / "checkpoints", tmp_path / "checkpoints")
    status, output, _ = call_tool(train_net_video, *legacy_run.words(
        job.data, tmp_path, SOLVER__MAX_ITER=3, TEST__TEST_FULL_SIZE=True, TEST__NUM_TEST_CLIPS=1))
    assert status == 0
    assert "Testing on whole frames of short side: 224" in output and "x whole frames of short side 224" in output


@pytest.mark.parametrize(("options", "expected"), [
    ({"TEST__TEST_FULLY_CONV": True, "TEST__NUM_TEST_CLIPS": 3},
     "1 clips of 2 frames with stride 3 x 3 crops of 200 x 200, short side 224"),
    ({"TEST__NUM_TEST_CLIPS": 2}, "2 clips of 2 frames with stride 3 x 1 crop of 224 x 224, short side 224"),
    ({"TEST__TEST_FULL_SIZE": True, "TEST__NUM_TEST_CLIPS": 1},
     "1 clips of 2 frames with stride 3 x whole frames of short side 224"),
])
def test_the_report_says_what_was_tested(test, job, options, expected):
    output, _ = test(**options)
    digest = hashlib.sha256(job.weights.read_bytes()).hexdigest()
    [line] = re.findall(r"^\[INFO: testing.py: .*\]: (Test protocol: .*)$", output, re.MULTILINE)
    assert line == (f"Test protocol: {expected}; 2 of 3 videos scored; weights c2_model_iter4.pkl "
                    f"(SHA-256 {digest[:12]})")
    assert output.index("top-5 accuracy") < output.index(line)


def test_scores_beyond_all_numbers(job, tmp_path, call_tool):
    blobs = load(job.weights)["blobs"]
    dump(blobs | {"pred_w": np.sign(blobs["pred_w"]) * np.float32(3e38)}, tmp_path / "w.pkl")
    words = legacy_run.words(job.data, tmp_path, TEST__PARAMS_FILE=tmp_path / "w.pkl")
    status, _, errors = call_tool(test_net_video, *words)
    assert (status, errors) == (1, f"error: {tmp_path}/w.pkl: expected weights that give finite numbers, got NaN or "
                                   f"infinity for {job.data}/tall.mp4: are the options those of the training?\n")
    assert not (tmp_path / "results_probs.pkl").exists()


def test_scores_before_the_softmax(test):
    _, probabilities = test(TEST__NUM_TEST_CLIPS=1)
    output, scores = test(TEST__NUM_TEST_CLIPS=1, TEST__OUTPUT_NAME="pred")
    probabilities, scores = (np.array([vector for _, vector in rows]) for rows in (probabilities, scores))
    assert abs(scores.sum(1) - 1).max() > 0.1
    # One position is left of 224 pixels: the softmax of the scores is the probabilities.
    powers = np.exp(scores)
    np.testing.assert_allclose(powers / powers.sum(1, keepdims=True), probabilities, rtol=1e-4)


def test_any_blob_may_be_the_output(test, job):
    """As features they are the same as those of the classifier's input: its scores are those of the network."""
    _, scores = test(TEST__NUM_TEST_CLIPS=1, TEST__OUTPUT_NAME="pred")
    output, features = test(TEST__NUM_TEST_CLIPS=1, TEST__OUTPUT_NAME="pool5")
    assert "top-1 accuracy: " in output  # of the largest feature, as for any vector
    blobs = load(job.weights)["blobs"]
    features, scores = (np.array([vector for _, vector in rows]) for rows in (features, scores))
    assert features.shape == (2, 256)
    classified = features @ blobs["pred_w"].reshape(10, 256).T + blobs["pred_b"]
    np.testing.assert_allclose(classified, scores, rtol=0, atol=1e-4 * abs(scores).max())
    _, positions = test(TEST__NUM_TEST_CLIPS=3, TEST__OUTPUT_NAME="pool5", TEST__TEST_FULLY_CONV=True,
                        TRAIN__JITTER_SCALES="[256,256]", TEST__SCALE=256)
    assert np.shape([vector for _, vector in positions]) == (6, 256 * 2 * 2)


def test_without_truth_no_report(test):
    output, results = test(TEST__NUM_TEST_CLIPS=1, FILENAME_GT=None)
    assert "accuracy" not in output and "Num of" not in output
    assert len(results) == 2


def test_folded_for_long_clips_the_scores_stay_the_same(test, job, tmp_path, python):
    converted = legacy_run.run_python(
        "process_data/convert_models/modify_caffe2_ftvideo.py", job.weights, tmp_path / "affine.pkl", python=python)
    assert converted.returncode == 0, converted.stderr
    _, expected = test(TEST__NUM_TEST_CLIPS=1)
    # The classifier is dropped on purpose: bring it back, to have something to compare.
    blobs = load(tmp_path / "affine.pkl")
    assert not [name for name in blobs if "pred" in name]
    blobs |= {name: value for name, value in load(job.weights)["blobs"].items() if name in ("pred_w", "pred_b")}
    dump(blobs, tmp_path / "affine.pkl")
    _, found = test(TEST__NUM_TEST_CLIPS=1, MODEL__USE_AFFINE=True, TEST__PARAMS_FILE=tmp_path / "affine.pkl")
    np.testing.assert_allclose([scores for _, scores in found], [scores for _, scores in expected], rtol=1e-4)
