"""Blobs of a network (models.features), and tools/extract_features.py."""

import json
import random
import re
import signal
from pathlib import Path

import check_references as references
import h5py
import legacy_run
import numpy as np
import pytest
import reference_recipe as recipe
import torch
from video_files import write_list

import extract_features
from core.config import load_config
from formats.blobs import load_blobs
from formats.caffe2_pickle import load
from models.features import blob_places, blob_shapes, blob_values, check_blob_names
from models.model_builder_video import create_model
from utils.errors import UserError

NUMBERS = Path(__file__).parent / "data/reference"

# ------------------------------------------------------------------------------------------------------ blobs


@torch.inference_mode()
def statistics_errors(meta, stats):
    """{blob: error of mean and standard deviation, against the latter}; the blobs' values."""
    model = references.reference_model(meta, references.reference_cfg(meta), meta["split"])
    names = [name for name in blob_places(model) if name in stats]
    values = blob_values(model, recipe.clips(meta["input_shape"], "data", meta["seed"]), names)
    errors = {}
    for name, value in values.items():
        shape, mean, std = stats[name]
        assert [side for side in value.shape if side > 1] == [side for side in shape if side > 1], name
        value = value.double()
        errors[name] = max(abs(float(value.mean()) - mean), abs(float(value.std(unbiased=False)) - std)) / std
    return errors, values


def test_every_blob_of_the_legacy_program():
    meta = json.loads((NUMBERS / "forward.json").read_text())["fwd_c2d_nlnet_8x8_fcn256"]
    stats = json.loads((NUMBERS / "blob_stats.json").read_text())
    errors, values = statistics_errors(meta, stats)
    assert errors.keys() == stats.keys()
    assert max(errors.values()) < 1e-5
    assert values["pool5"].shape == (1, 2048, 1, 2, 2) and values["pred"].shape == (1, 400, 1, 2, 2)


@pytest.mark.parametrize("case", ["fwd_c2d_baseline_8x8_val"])
def test_the_whole_reference(case, shared):
    with np.load(shared / f"reference/forward/{case}.npz") as file:
        meta, pool5 = json.loads(str(file["meta"])), file["pool5"]
    errors, values = statistics_errors(meta, {name: rest for name, *rest in meta["blob_stats"]})
    assert {name for name, *_ in meta["blob_stats"]} - errors.keys() == {"data", "softmax"}
    assert max(errors.values()) < 1e-5
    np.testing.assert_allclose(values["pool5"], pool5, rtol=0, atol=1e-5 * pool5.max())


def tiny(**options):
    options = {"MODEL.MODEL_NAME": "resnet_video", "MODEL.NUM_CLASSES": 6, "RESNETS.WIDTH_PER_GROUP": 4,
               "RESNETS.STEM_OUT_CHANNELS": 8,
               "NUM_GPUS": 1} | {key.replace("__", "."): value for key, value in options.items()}
    model = create_model(load_config(None, [str(word) for pair in options.items() for word in pair]), "test")
    recipe.fill(model, 1)
    return model


@pytest.mark.parametrize(("frames", "options"), [
    (16, {"MODEL__USE_AFFINE": True, "NONLOCAL__USE_BN": False, "NONLOCAL__LAYER_MOD": 4}),  # res3's works in groups
    (2, {"NONLOCAL__USE_MAXPOOL": False, "NONLOCAL__LAYER_MOD": 4}),
])
@torch.inference_mode()
def test_a_row_a_clip(frames, options):
    model = tiny(**options)
    names = list(blob_places(model))
    assert ("nonlocal_conv3_3_pool" in names) == ("MODEL__USE_AFFINE" in options)
    assert ("nonlocal_conv3_3_bn" in names) == ("MODEL__USE_AFFINE" not in options)
    clips = torch.randn(2, 3, frames, 200, 200, generator=torch.Generator().manual_seed(0))
    both, second = blob_values(model, clips, names), blob_values(model, clips[1:], names, pool=True)
    shapes, pooled_shapes = (blob_shapes(model, clips.shape[1:], names, pool) for pool in (False, True))
    for name in names:
        assert tuple(both[name].shape) == (2, *shapes[name]), name
        assert tuple(second[name].shape) == (1, *pooled_shapes[name]) and len(pooled_shapes[name]) == 1, name
        # Channels come first, but for the groups of a grouped block.
        grouped = frames == 16 and name.startswith("nonlocal_conv3") and len(shapes[name]) > 1 and shapes[name][0] == 2
        channels = 1 if grouped else 0
        others = [axis for axis in range(len(shapes[name])) if axis != channels]
        expected = both[name][1].mean(others) if others else both[name][1]
        assert (second[name][0] - expected).abs().max() <= 1e-3 * both[name][1].abs().max(), name
    torch.testing.assert_close(both["softmax"][1:], second["softmax"])
    assert not any(module._forward_hooks for module in model.modules())


def test_in_groups_theta_has_its_groups():
    shapes = blob_shapes(tiny(MODEL__USE_AFFINE=True, NONLOCAL__USE_BN=False), (3, 16, 200, 200),
                         ["nonlocal_conv3_1_theta", "nonlocal_conv3_1", "nonlocal_conv4_1_theta"])
    assert shapes == {"nonlocal_conv3_1_theta": (2, 32, 4 * 25 * 25), "nonlocal_conv3_1": (64, 8, 25, 25),
                      "nonlocal_conv4_1_theta": (64, 8 * 13 * 13)}


@pytest.mark.parametrize(("names", "message"), [
    (["pool5", "res5_2_branch2c_bm"], "blob 'res5_2_branch2c_bm': not in this network; near ones: res5_2_branch2c_bn"),
    (["nonlocal_conv4_7_theta"], "blob 'nonlocal_conv4_7_theta': .* near ones: .*nonlocal_conv4_5_theta"),
    (["?"], "blob '[?]': not in this network; near ones: pool5, res5_2"),
    (["pool5", "res2_0", "pool5"], "blobs: expected each once"),
])
def test_unknown_blobs(names, message):
    with pytest.raises(UserError, match=message):
        check_blob_names(tiny(), names)


# ------------------------------------------------------------------------------------------------------ the tool


def words(job, folder, *own, **options):
    options = {"TEST__PARAMS_FILE": job.weights, "TEST__SCALE": 208, "TEST__TEST_FULLY_CONV": True,
               "TEST__NUM_TEST_CLIPS": 6} | options
    return ["--output", folder / "features.h5", *own, *legacy_run.words(Path("unused"), "unused", **options)]


@pytest.fixture
def extract(job, tmp_path, call_tool):
    """Run the tool: (words, options) -> output, {dataset: array}, {attribute: value}."""
    def run(*own, **options):
        status, output, errors = call_tool(extract_features, *words(job, tmp_path, *own, **options))
        assert (status, errors) == (0, "")
        with h5py.File(tmp_path / "features.h5") as file:
            return output, {name: file[name][:] for name in file}, dict(file.attrs)

    return run


def test_a_row_for_each_clip_of_a_list(extract, job):
    output, found, attributes = extract("--list", job.data / "test.txt", "--blob", "pool5", "--blob", "softmax",
                                        TEST__SCALE=224, TRAIN__JITTER_SCALES="[224,224]")
    assert [name.decode() for name in found["videos"]] == [str(job.data / name) for name in legacy_run.TEST_VIDEOS]
    assert found["video_indices"].tolist() == [video for video in range(3) for _ in range(6)]
    assert found["spatial_indices"].tolist() == 3 * [0, 0, 1, 1, 2, 2]
    assert found["temporal_indices"].tolist() == 9 * [0, 1]
    assert found["status"].tolist() == 6 * [1] + 6 * [2] + 6 * [1]
    assert "Bad video" in output and "(12 rows, 6 of videos that could not be read)" in output
    assert not found["pool5"][6:12].any()
    # What the classifier makes of pool5 is the softmax.
    blobs = load_blobs(job.weights)
    scores = found["pool5"].reshape(18, 256) @ blobs["pred_w"].reshape(10, 256).T + blobs["pred_b"]
    powers = np.exp(scores - scores.max(1, keepdims=True))
    good = found["status"] == 1
    np.testing.assert_allclose((powers / powers.sum(1, keepdims=True))[good], found["softmax"][good], atol=1e-5)
    assert attributes["protocol"] == "2 clips of 2 frames with stride 3 x 3 crops of 224 x 224, short side 224"
    assert attributes["weights_file"] == "c2_model_iter4.pkl" and len(attributes["weights"]) == 64
    assert json.loads(attributes["shapes"]) == {"pool5": [256, 1, 1, 1], "softmax": [10]}


def test_the_scores_are_those_of_the_test_tool(extract, job):
    _, found, _ = extract("--video", job.data / "tall.mp4", "--blob", "softmax", TEST__SCALE=224,
                          TEST__NUM_TEST_CLIPS=30)
    # The test's records come in the bytewise order of their numbers; the first 30 of 90 are of this video.
    order = [int(key) for key in sorted(map(str, range(90))) if int(key) < 30]
    expected = np.array([scores for video, scores in load(job.folder / "results_probs.pkl") if video == 0])
    np.testing.assert_allclose(found["softmax"][order], expected, rtol=0, atol=1e-6)


def test_averages(extract, job, tmp_path):
    videos = ["--video", job.data / "tall.mp4", "--video", job.data / "gone.mp4", "--video", job.data / "wide.mp4"]
    _, clips, _ = extract(*videos, "--blob", "res4_0", "--blob", "pool5")
    (tmp_path / "features.h5").unlink()
    _, means, attributes = extract(*videos, "--blob", "res4_0", "--blob", "pool5", "--average")
    assert means["status"].tolist() == [1, 2, 1] and attributes["rows"] == "videos"
    for name in ("res4_0", "pool5"):
        expected = clips[name].astype(float).reshape(3, 6, *clips[name].shape[1:]).mean(1)
        np.testing.assert_allclose(means[name], expected, rtol=1e-5, atol=1e-6)
        assert expected[0].any()


def test_whole_frames_need_pooling(extract, job, call_tool, tmp_path):
    own = ["--video", job.data / "tall.mp4", "--video", job.data / "wide.mp4", "--blob", "res5_2"]
    options = {"TEST__TEST_FULL_SIZE": True, "TEST__TEST_FULLY_CONV": False}
    status, _, errors = call_tool(extract_features, *words(job, tmp_path, *own, **options))
    assert status == 1 and errors.startswith("error: TEST.TEST_FULL_SIZE: expected --pool with it")
    _, found, attributes = extract(*own, "--pool", **options)
    assert found["res5_2"].shape == (12, 256) and (found["res5_2"].std(1) > 0).all()
    assert "spatial_indices" not in found and attributes["crop_size"] == "whole frames"


def test_other_features_are_not_mixed_in(extract, job, call_tool, tmp_path):
    own = ["--video", job.data / "tall.mp4", "--blob", "pool5"]
    output, _, _ = extract(*own)
    before = (tmp_path / "features.h5").read_bytes()
    for more, options, what in ((["--pool"], {}, "pool"), (["--blob", "res5_2"], {}, "blobs"),
                                ([], {"TEST__SCALE": 210}, "configuration"),
                                (["--video", job.data / "wide.mp4"], {}, "list"), (["--average"], {}, "rows")):
        status, _, errors = call_tool(extract_features, *words(job, tmp_path, *own, *more, **options))
        assert status == 1
        assert re.fullmatch(f"error: .*features.h5: holds the features with another .*{what}.*: remove .*\n", errors)
    assert (tmp_path / "features.h5").read_bytes() == before
    again, _, _ = extract(*own)  # nothing is left to do
    assert "iter (" in output and "iter (" not in again
    assert (tmp_path / "features.h5").read_bytes() == before


def test_mistakes_are_one_line(job, call_tool, tmp_path):
    (tmp_path / "other.h5").write_text("no HDF5")
    video = ["--video", job.data / "tall.mp4"]
    for own, options, expected in (
        ([*video, "--blob", "pool6"], {}, "blob 'pool6': not in this network; near ones: pool5"),
        ([*video, "--blob", "pool5"], {"TEST__PARAMS_FILE": ""}, "TEST.PARAMS_FILE is not set"),
        (["--list", tmp_path / "none.txt", "--blob", "pool5"], {}, "cannot read the list"),
        ([*video, "--blob", "pool5", "--output", tmp_path / "other.h5"], {}, ".*other.h5: expected an HDF5 file"),
        ([*video, "--blob", "pool5"], {"MODEL__NUM_CLASSES": 5}, r".*\.pkl: lacks 2 of the model's \d+ blobs"),
    ):
        status, _, errors = call_tool(extract_features, *words(job, tmp_path, *own, **options))
        assert status == 1 and re.fullmatch(f"error: {expected}.*\n", errors), errors
    assert not (tmp_path / "features.h5").exists()


@pytest.mark.parametrize("average", [False, True])
def test_a_killed_run_goes_on_and_writes_the_same(average, zygote, job, tmp_path):
    videos = [job.data / name for name in ("tall.mp4", "gone.mp4", "wide.mp4", "square.mp4")]
    listed = write_list(tmp_path / "list.txt", videos, range(4))
    own = ["--list", listed, "--blob", "pool5", "--blob", "res5_2", *(["--average"] if average else [])]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    rng = random.Random(average)
    command = ["extract_features", *words(job, whole, *own, TEST__BATCH_SIZE=2)]
    assert zygote.run(command, tmp_path / "log.txt") == 0, (tmp_path / "log.txt").read_text()
    command = ["extract_features", *words(job, killed, *own, TEST__BATCH_SIZE=2)]
    for kill in range(1 if average else 2):
        log, rounds = tmp_path / f"log{kill}.txt", rng.randint(3, 4)  # of 12, of two clips each; 3 make a video
        run = zygote.start(command, log)
        while not log.exists() or log.read_text().count(" iter (") < rounds:
            assert run.wait(0.002) is None, log.read_text()
        run.kill()
        assert run.wait() == -signal.SIGKILL
    assert zygote.run(command, log) == 0
    assert 0 < log.read_text().count(" iter (") - rounds < 12  # it did not begin anew
    with h5py.File(whole / "features.h5") as one, h5py.File(killed / "features.h5") as other:
        assert dict(one.attrs) == dict(other.attrs)
        assert one.keys() == other.keys()
        for name in one:
            assert np.array_equal(one[name][:], other[name][:]), name
        assert one["status"][:].tolist().count(2) == (1 if average else 6)
