"""tools/test_net_video.py: what it scores, with each kind of crops."""

import copy
import logging
import re

import legacy_run
import numpy as np
import pytest

import test_net_video
from core.config import load_config
from test_net_video import derive_test_config, plan_clips
from utils.caffe2_pickle import dump, load
from utils.errors import UserError

# --------------------------------------------------------------------------------------------------- kind of test


@pytest.mark.parametrize(("options", "crop", "multi_crop"), [
    ({}, 224, 0),
    ({"TEST.USE_MULTI_CROP": 2}, 224, 2),
    ({"TEST.TEST_FULLY_CONV": True}, 256, 1),
    ({"TEST.TEST_FULLY_CONV_FLIP": True}, 256, 2),
    ({"TEST.TEST_FULLY_CONV": True, "TEST.TEST_FULLY_CONV_FLIP": True}, 256, 1),
])
def test_what_the_tool_sets(options, crop, multi_crop):
    words = [word for pair in options.items() for word in map(str, pair)]
    cfg = load_config(None, ["TRAIN.CROP_SIZE", "208", "TRAIN.JITTER_SCALES", "[256,320]", *words])
    before = copy.deepcopy(cfg)
    derived = derive_test_config(cfg)
    found = derived.TEST.DATA_TYPE, derived.TRAIN.CROP_SIZE, derived.TEST.USE_MULTI_CROP
    assert found == ("test", crop, multi_crop)
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
    assert [record.getMessage() for record in caplog.records] == ["Video id 0 have been seen. Skip."]


def test_fewer_records_than_clips_are_taken_again():
    assert plan([0, 1], 2, 2, 2) == [0, 1, 0, 1]


def test_each_clip_is_counted_on_its_own():
    """Legacy counted a batch before it looked, and lost the last clips of a video that ended inside a batch."""
    assert plan([0, 0, 0, 1, 1, 1], 2, 3, 6) == [0, 1, 2, 3, 4, 5]


def test_a_video_out_of_range():
    with pytest.raises(UserError, match=r"test record 1 .* is of video 2, expected 0 to 1: TEST.DATASET_SIZE is 2"):
        plan([0, 2], 2, 1, 1)


# ----------------------------------------------------------------------------------------------------- real scores


@pytest.fixture
def test(job, tmp_path, call_tool):
    """Test the job's weights on the lists: options -> (output, [video, scores] of each clip)."""
    def run(**options):
        options = {"data": job.data, "TEST__PARAMS_FILE": job.weights} | options
        words = legacy_run.words(options.pop("data"), tmp_path, **options)
        status, output, errors = call_tool(test_net_video, *words)
        assert (status, errors) == (0, "")
        return output, load(tmp_path / "results_probs.pkl")

    return run


test.__test__ = False  # a fixture, whatever pytest thinks of the name


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


def test_scores_before_the_softmax(test):
    _, probabilities = test(TEST__NUM_TEST_CLIPS=1)
    output, scores = test(TEST__NUM_TEST_CLIPS=1, TEST__OUTPUT_NAME="pred")
    probabilities, scores = (np.array([vector for _, vector in rows]) for rows in (probabilities, scores))
    assert abs(scores.sum(1) - 1).max() > 0.1
    # One position is left of 224 pixels: the softmax of the scores is the probabilities.
    powers = np.exp(scores)
    np.testing.assert_allclose(powers / powers.sum(1, keepdims=True), probabilities, rtol=1e-4)


def test_without_truth_no_report(test):
    output, results = test(TEST__NUM_TEST_CLIPS=1, FILENAME_GT=None)
    assert "accuracy" not in output and "Num of" not in output
    assert len(results) == 2


def test_folded_for_long_clips_the_scores_stay_the_same(test, job, tmp_path):
    converted = legacy_run.run_python(
        "process_data/convert_models/modify_caffe2_ftvideo.py", job.weights, tmp_path / "affine.pkl")
    assert converted.returncode == 0, converted.stderr
    _, expected = test(TEST__NUM_TEST_CLIPS=1)
    # The classifier is dropped on purpose: bring it back, to have something to compare.
    blobs = load(tmp_path / "affine.pkl")
    assert not [name for name in blobs if "pred" in name]
    blobs |= {name: value for name, value in load(job.weights)["blobs"].items() if name in ("pred_w", "pred_b")}
    dump(blobs, tmp_path / "affine.pkl")
    _, found = test(TEST__NUM_TEST_CLIPS=1, MODEL__USE_AFFINE=True, TEST__PARAMS_FILE=tmp_path / "affine.pkl")
    np.testing.assert_allclose([scores for _, scores in found], [scores for _, scores in expected], rtol=1e-4)
