import json
import math
import runpy
import subprocess
import sys

import numpy as np
import pytest
import reference_data

from formats.caffe2_pickle import dump, load

PARAMETERS = ["conv1_w", "res_conv1_bn_s", "res_conv1_bn_b", "nonlocal_conv3_1_bn_s", "nonlocal_conv3_1_bn_b"]


def blobs():
    values = {
        "conv1_w": np.arange(6, dtype="f4").reshape(2, 3),
        "res_conv1_bn_s": np.array([2, 3], "f4"),
        "res_conv1_bn_b": np.array([0.5, -1], "f4"),
        "res_conv1_bn_rm": np.array([10, -20], "f4"),
        "res_conv1_bn_riv": np.array([4, 0.25], "f4"),
        "nonlocal_conv3_1_bn_s": np.array([1], "f4"),
        "nonlocal_conv3_1_bn_b": np.array([0], "f4"),
        "nonlocal_conv3_1_bn_rm": np.array([1], "f4"),
        "nonlocal_conv3_1_bn_riv": np.array([0], "f4"),
        "pred_w": np.zeros((4, 2), "f4"),
        "pred_b": np.zeros(4, "f4"),
    }
    momenta = {f"{name}_momentum": np.ones(3, "f4") for name in [*PARAMETERS, "pred_w", "pred_b"]}
    return values | momenta | {"lr": np.array(0.1, "f4"), "model_iter": 4, "epoch": 1.5}


@pytest.fixture
def convert(repo, tmp_path, monkeypatch, capfd):
    """Runs a script's command line in a folder of its own: (script, IN, OUT) -> status, stderr, path of OUT."""
    folder = repo / "process_data/convert_models"

    def run(script, source, output="new/folder/out.pkl"):
        monkeypatch.chdir(tmp_path)
        monkeypatch.syspath_prepend(folder)
        monkeypatch.setattr(sys, "argv", [script, str(source), str(output)])
        with pytest.raises(SystemExit) as ending:
            runpy.run_path(str(folder / script), run_name="__main__")
        return ending.value.code, capfd.readouterr().err, tmp_path / output

    return run


def converted(convert, tmp_path, script, contents):
    dump(contents, tmp_path / "in.pkl")
    status, errors, output = convert(script, "in.pkl")
    assert not status and errors == ""
    return load(output)


@pytest.mark.parametrize(
    "wrap", [lambda inner: {"blobs": inner}, lambda inner: inner], ids=["nested", "flat"]
)
def test_folding_for_long_clips(convert, tmp_path, wrap):
    found = converted(convert, tmp_path, "modify_caffe2_ftvideo.py", wrap(blobs()))
    assert sorted(found) == sorted([*PARAMETERS, "lr"])
    assert type(found["lr"]) is float and found["lr"] == 0.00125
    assert np.array_equal(found["conv1_w"], blobs()["conv1_w"])
    # s / sqrt(riv + 1e-5) and b - rm * s / sqrt(riv + 1e-5), by hand
    expected = {
        "res_conv1_bn_s": [2 / math.sqrt(4.00001), 3 / math.sqrt(0.25001)],
        "res_conv1_bn_b": [0.5 - 20 / math.sqrt(4.00001), -1 + 60 / math.sqrt(0.25001)],
        "nonlocal_conv3_1_bn_s": [1 / math.sqrt(1e-5)],
        "nonlocal_conv3_1_bn_b": [-1 / math.sqrt(1e-5)],
    }
    for name, values in expected.items():
        assert found[name].dtype == np.float32
        np.testing.assert_allclose(found[name], values, rtol=1e-6)


def test_folding_rounds_as_the_caffe2_program_did(convert, tmp_path):
    rng = np.random.default_rng(0)
    scale, bias, mean, variance = (rng.uniform(0.1, 2, 1000).astype("f4") for _ in range(4))
    names = (f"a_bn_{part}" for part in ("s", "b", "rm", "riv"))
    found = converted(convert, tmp_path, "modify_caffe2_ftvideo.py",
                      dict(zip(names, (scale, bias, mean, variance), strict=True)))
    deviation = np.sqrt(variance + np.float32(1e-5))
    assert np.array_equal(found["a_bn_s"], scale / deviation)
    assert np.array_equal(found["a_bn_b"], bias - mean * scale / deviation)
    assert not np.array_equal(found["a_bn_b"], bias - mean * (scale / deviation))  # the order matters


def test_removal_for_fine_tuning(convert, tmp_path):
    found = converted(convert, tmp_path, "modify_blob_rm.py", {"blobs": blobs()})
    assert sorted(found) == sorted([*PARAMETERS, "epoch", "lr"])
    assert type(found["lr"]) is float and found["lr"] == 0.01
    for name in PARAMETERS:
        assert np.array_equal(found[name], blobs()[name])


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (
            {"res_conv1_bn_rm": None},
            "res_conv1_bn_rm: expected numbers of the shape of res_conv1_bn_riv, (2,)",
        ),
        ({"res_conv1_bn_s": np.zeros(3, "f4")}, "res_conv1_bn_s: expected numbers of the shape"),
        ({"res_conv1_bn_b": np.zeros(2, "c8")}, "res_conv1_bn_b: expected numbers of the shape"),
        ({"res_conv1_bn_riv": np.array([1, -1], "f4")}, "res_conv1_bn_riv: expected variances, got -1.0"),
        ({"res_conv1_bn_riv": "text"}, "res_conv1_bn_s: expected numbers"),
    ],
)
def test_a_batch_norm_that_cannot_be_folded_is_one_line(convert, tmp_path, change, line):
    dump({"blobs": blobs() | change}, tmp_path / "in.pkl")
    status, errors, output = convert("modify_caffe2_ftvideo.py", "in.pkl")
    assert status == 1 and errors.startswith(f"error: in.pkl: {line}") and errors.count("\n") == 1
    assert not output.exists()


def test_folding_twice_is_refused(convert, tmp_path):
    dump(blobs(), tmp_path / "in.pkl")
    _, _, output = convert("modify_caffe2_ftvideo.py", "in.pkl")
    status, errors, again = convert("modify_caffe2_ftvideo.py", output, "again.pkl")
    assert status == 1 and "is it converted already?" in errors
    assert not again.exists()


@pytest.mark.parametrize("script", ["modify_caffe2_ftvideo.py", "modify_blob_rm.py"])
def test_wrong_files_are_one_line(convert, tmp_path, script):
    dump([1, 2], tmp_path / "list.pkl")
    (tmp_path / "short.pkl").write_bytes((tmp_path / "list.pkl").read_bytes()[:-3])
    dump(blobs(), tmp_path / "in.pkl")
    (tmp_path / "file").touch()
    for source, output, line in [
        ("missing.pkl", "out.pkl", "missing.pkl: cannot read: No such file"),
        ("list.pkl", "out.pkl", "list.pkl: expected a checkpoint"),
        ("short.pkl", "out.pkl", "short.pkl: the pickle is truncated"),
        (".", "out.pkl", ".: expected a pickle file"),
        ("in.pkl", "file/out.pkl", "file: cannot be created: File exists"),
    ]:
        status, errors, written = convert(script, source, output)
        assert status == 1 and errors.startswith(f"error: {line}"), errors
        assert errors.count("\n") == 1 and not written.exists()


@pytest.mark.parametrize("script", ["modify_caffe2_ftvideo.py", "modify_blob_rm.py"])
def test_the_scripts_run_from_any_folder(repo, tmp_path, python, script):
    dump(blobs(), tmp_path / "in.pkl")
    command = [python, repo / "process_data/convert_models" / script, "in.pkl", "out.pkl"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "conv1_w" in load(tmp_path / "out.pkl")


@pytest.mark.parametrize("script", ["modify_caffe2_ftvideo", "modify_blob_rm"])
def test_the_legacy_scripts_results(convert, shared, script):
    """The same blobs as the legacy scripts made of a real checkpoint, to the bit."""
    pickles = shared / "reference/pickles"
    status, errors, output = convert(f"{script}.py", pickles / "c2_model_iter4.pkl")
    assert not status, errors
    found = load(output)
    expected = json.loads((pickles / f"{script}_of_c2_model_iter4.json").read_text())
    results = list(reference_data.conversion_errors(found, expected))
    assert [line for line in results if not line[1] <= line[2]] == [] and len(results) == 3
