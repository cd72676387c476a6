"""Weights as .safetensors: there and back, and files that are damaged or lie."""

import importlib.util
import json
import os
import shutil
import struct
from pathlib import Path

import legacy_run
import numpy as np
import pytest
import torch

import export_model as export_tool
import predict_video
from engine.exporting import export_model
from engine.weights_options import configuration_of_weights, load_configuration
from formats.blobs import read_checkpoint
from formats.caffe2_pickle import load
from formats.safetensors_file import KEY
from utils.errors import UserError

needs_the_package = pytest.mark.skipif(importlib.util.find_spec("safetensors") is None,
                                       reason="the package safetensors is missing")


@pytest.fixture(scope="module")
def whole(job, tmp_path_factory):
    """The job's weights, exported once."""
    path = tmp_path_factory.mktemp("export") / "w.safetensors"
    words = ["TEST.PARAMS_FILE", str(job.weights)]
    written = export_model(load_configuration(None, words), "safetensors", str(path))
    assert written.path == path and written.difference == 0
    return path


@pytest.fixture
def exported(whole, tmp_path):
    return Path(shutil.copy(whole, tmp_path))


@needs_the_package
def test_there_and_back(job, exported, tmp_path, call_tool):
    status, output, errors = call_tool(export_tool, "--format", "pkl", "--output", tmp_path / "back.pkl",
                                       "TEST.PARAMS_FILE", exported)
    assert status is None and output.endswith("the scores differ by 0.0e+00\n"), errors
    ours = {name: value for name, value in load(job.weights)["blobs"].items() if not name.endswith("_momentum")}
    for found in (read_checkpoint(exported).blobs, load(tmp_path / "back.pkl")["blobs"]):
        assert found.keys() == ours.keys()
        for name, value in ours.items():
            assert type(found[name]) is type(value)
            assert np.asarray(found[name]).dtype == np.asarray(value).dtype and np.shape(found[name]) == np.shape(value)
            assert np.asarray(found[name]).tobytes() == np.asarray(value).tobytes(), name
    configurations = [load_configuration(None, ["TEST.PARAMS_FILE", str(path)])
                      for path in (job.weights, exported, tmp_path / "back.pkl")]
    for cfg in configurations:
        cfg.TEST.PARAMS_FILE = ""
    assert configurations[0] == configurations[1] == configurations[2]


@needs_the_package
def test_any_pytorch_program_can_load_it(exported, job):
    from safetensors.torch import load_file

    tensors, blobs = load_file(exported), load(job.weights)["blobs"]
    assert torch.equal(tensors["res2_0.branch2a_bn.running_var"], torch.from_numpy(blobs["res2_0_branch2a_bn_riv"]))


@needs_the_package
def test_predicting_with_it(job, exported, tmp_path, call_tool):
    for name, weights in (("a", job.weights), ("b", exported)):
        assert call_tool(predict_video, "--weights", weights, "--video", job.data / "tall.mp4", "--views", "1x1",
                         "--json", tmp_path / f"{name}.json")[0] == 0
    found, expected = (json.loads((tmp_path / f"{name}.json").read_text())["videos"] for name in "ba")
    assert found == expected


@needs_the_package
def test_tensors_of_another_program(job, exported, tmp_path):
    """Without our metadata, in half the precision, with the counters of batch norms."""
    from safetensors.torch import load_file, save_file

    tensors = {name: tensor.bfloat16() for name, tensor in load_file(exported).items()}
    save_file(tensors | {"res_conv1_bn.num_batches_tracked": torch.tensor(3)}, tmp_path / "x.safetensors")
    checkpoint = read_checkpoint(tmp_path / "x.safetensors")
    assert checkpoint.lr is None and checkpoint.model_iter is None and checkpoint.options is None
    expected = torch.from_numpy(load(job.weights)["blobs"]["conv1_w"]).bfloat16().float().numpy()
    assert checkpoint.blobs["conv1_w"].dtype == np.float32 and np.array_equal(checkpoint.blobs["conv1_w"], expected)
    with pytest.raises(UserError, match="x.safetensors: weights do not tell the clips"):
        load_configuration(None, ["TEST.PARAMS_FILE", str(tmp_path / "x.safetensors")])


# ------------------------------------------------------------------------------------------------------ files that lie


def split(path):
    """(header, bytes of the tensors) of a file."""
    data = path.read_bytes()
    end = 8 + struct.unpack("<Q", data[:8])[0]
    return json.loads(data[8:end]), data[end:]


def join(path, header, tensors):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + tensors)


def with_about(change):
    def make(path):
        header, tensors = split(path)
        about = json.loads(header["__metadata__"][KEY])
        change(about)
        header["__metadata__"][KEY] = json.dumps(about)
        join(path, header, tensors)
    return make


def with_header(change):
    def make(path):
        header, tensors = split(path)
        change(header)
        join(path, header, tensors)
    return make


def renamed(header, old, new):
    header[new] = header.pop(old)


def with_start(*numbers):
    return lambda path: path.write_bytes(struct.pack("<Q", *numbers) + path.read_bytes()[8:])


NOT_READ = "not a file that the package safetensors reads as tensors ("


@needs_the_package
@pytest.mark.parametrize(("make", "message"), [
    (with_about(lambda about: about["options"].update({"MODEL.NUM_CLASSES": 400})),
     "MODEL.NUM_CLASSES is 10 by the weights, got 400"),
    (with_about(lambda about: about["options"].update({"MODEL.VIDEO_ARC_CHOICE": 3, "MODEL.DEPTH": 101})),
     "MODEL.VIDEO_ARC_CHOICE is 1 by the weights, got 3"),
    (with_about(lambda about: about["options"].update({"NONLOCAL.AFTER": ["res3_0"]})),
     "nonlocal_conv3_0_theta_w: no such blob in the weights, shape (32, 64, 1, 1, 1) by these options"),
    (with_about(lambda about: about["options"].update({"MODEL.MODEL_NAME": "os.system"})), "expected one of resnet_"),
    (with_about(lambda about: about["options"].update({"a.b": 1})), "a.b = 1 (int): no such option"),
    (with_about(lambda about: about.update(classifier="")), "got those of other weights"),
    (with_about(lambda about: about.update(lr="fast")), "lr: expected one finite number, got a value of type str"),
    (with_about(lambda about: about.update(model_iter=-1)), "model_iter: expected a number of iterations, got -1"),
    (with_header(lambda header: header["__metadata__"].update({KEY: "{"})), "got no JSON ("),
    (with_header(lambda header: header["__metadata__"].update({KEY: 3})), NOT_READ),
    (with_header(lambda header: header["conv1.weight"].update(shape=[2**62, 2**62])), NOT_READ),
    (with_header(lambda header: header["conv1.weight"].update(shape=[1, 1, 1, 1, 1])), NOT_READ),
    (with_header(lambda header: header["conv1.weight"].update(data_offsets=[0, 2**60])), NOT_READ),
    (with_header(lambda header: header["conv1.weight"].update(dtype="I32")), "'conv1.weight': expected floats, got"),
    (with_header(lambda header: header["conv1.weight"].update(dtype="F4096")), NOT_READ),
    (with_header(lambda header: renamed(header, "conv1.weight", "conv1")), "no blob name for the parameter conv1"),
    (with_header(lambda header: renamed(header, "res2_0.branch2b.weight", "res2.0_branch2a.weight")),
     "two of its tensors are the blob res2_0_branch2a_w"),
    (with_start(0), NOT_READ), (with_start(2**63), NOT_READ), (with_start(100_000_000_000), NOT_READ),
    (lambda path: join(path, b"[" * 100_000, b""), NOT_READ),
    (lambda path: join(path, {}, b""), "expected the parameters of a network, got no tensors"),
    (lambda path: path.write_bytes(path.read_bytes()[:5000]), NOT_READ),
    (lambda path: path.write_bytes(path.read_bytes() + b"more"), NOT_READ),
    (lambda path: path.write_bytes(b""), NOT_READ),
    (lambda path: (path.unlink(), path.mkdir()), "expected a file of tensors, got a folder or device"),
    (lambda path: (path.unlink(), os.mkfifo(path)), "expected a file of tensors, got a folder or device"),
    (lambda path: path.unlink(), "cannot be read: No such file or directory"),
], ids=range(28))
def test_a_file_that_lies_is_one_line(make, message, exported):
    make(exported)
    with pytest.raises(UserError) as error:
        checkpoint = read_checkpoint(exported)
        assert (checkpoint.lr, checkpoint.model_iter) == (np.float32(0.0001), 4)
        configuration_of_weights(checkpoint)
    text = str(error.value)
    assert text.startswith(f"{exported}: ") and "\n" not in text and len(text) < 500
    assert message in text


@needs_the_package
def test_nothing_is_written_where_the_weights_lie(exported, tmp_path, call_tool):
    with_about(lambda about: about.update(classifier=""))(exported)
    status, output, errors = call_tool(export_tool, "--format", "pkl", "--output", tmp_path / "o.pkl",
                                       "TEST.PARAMS_FILE", exported)
    assert (status, output) == (1, "") and errors.startswith(f"error: {exported}: ") and errors.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == [exported.name]


@needs_the_package
def test_the_options_of_the_user_outweigh_metadata(exported, job, tmp_path, call_tool):
    """Nobody asks them what the command line says."""
    with_about(lambda about: about["options"].update({"MODEL.NUM_CLASSES": 400}))(exported)
    words = legacy_run.words(job.data, tmp_path, TEST__PARAMS_FILE=exported)
    status, _, errors = call_tool(predict_video, "--video", job.data / "tall.mp4", "--views", "1x1", *words)
    assert status == 0, errors


def test_without_the_package(job, tmp_path, call_tool, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    (tmp_path / "w.safetensors").touch()
    for words in (["--format", "safetensors", "--output", tmp_path / "o.safetensors", "TEST.PARAMS_FILE", job.weights],
                  ["--format", "pkl", "--output", tmp_path / "o.pkl", "TEST.PARAMS_FILE", tmp_path / "w.safetensors"]):
        status, _, errors = call_tool(export_tool, *words)
        assert status == 1 and errors.splitlines()[-1] == (
            "error: files in the format of safetensors need a package that is not installed: pip install safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["w.safetensors"]


def test_the_name_says_what_the_file_is(job, tmp_path, call_tool, monkeypatch):
    monkeypatch.setattr("engine.exporting.check_safetensors_is_there", lambda: None)
    status, _, errors = call_tool(export_tool, "--format", "safetensors", "--output", tmp_path / "o.st",
                                  "TEST.PARAMS_FILE", job.weights)
    assert status == 1 and errors.splitlines()[-1] == (
        f"error: {tmp_path}/o.st: expected a name that ends in .safetensors for --output")
