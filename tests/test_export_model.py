"""tools/export_model.py: what it writes is the network, and what is not is refused."""

import importlib.util
import json
import os
import pickle
import shutil

import numpy as np
import pytest
import reference_recipe as recipe
import torch

import export_model
from core.config import load_config
from engine import exporting
from formats.blobs import model_blobs
from formats.caffe2_pickle import dump, load
from formats.result_file import file_digest
from models import export
from models.model_builder_video import create_model

YAML = "DBG_kinetics_resnet_8gpu_c2d_nonlocal_400k.yaml"
OPTIONS = {
    "NUM_GPUS": 1, "MODEL.NUM_CLASSES": 7, "MODEL.VIDEO_ARC_CHOICE": 2, "RESNETS.WIDTH_PER_GROUP": 2,
    "RESNETS.STEM_OUT_CHANNELS": 8, "NONLOCAL.CONV4_NONLOCAL": False, "NONLOCAL.LAYER_MOD": 4, "TRAIN.VIDEO_LENGTH": 2,
    "TRAIN.JITTER_SCALES": "[200,200]", "TEST.TEST_FULLY_CONV": True, "TEST.OUTPUT_NAME": "pred",
}  # fmt: skip
LR, ITERATIONS = np.array(0.00375, np.float32), 240


def words(**more):
    options = OPTIONS | {name.replace("__", "."): value for name, value in more.items()}
    return [str(word) for pair in options.items() for word in pair]


def filled_network(repo, opts):
    network = create_model(load_config(repo / "configs" / YAML, opts), "test")
    network.output = "pred"
    recipe.fill(network, seed=5)
    return network


@pytest.fixture(scope="module")
def network(repo):
    return filled_network(repo, words())


@pytest.fixture(scope="module")
def blobs(network):
    return {name: tensor.numpy().copy() for name, tensor in model_blobs(network).items()}


@pytest.fixture(scope="module")
def checkpoint(blobs, tmp_path_factory):
    path = tmp_path_factory.mktemp("checkpoint") / "w.pkl"
    momentum = {f"{name}_momentum": np.ones_like(value) for name, value in blobs.items()}
    dump({"blobs": blobs | momentum | {"lr": LR, "model_iter": ITERATIONS}}, path)
    return path


@pytest.fixture
def run(repo, tmp_path, monkeypatch, call_tool, checkpoint):
    """Call the tool in tmp_path, where w.pkl has the weights: (format, output, words) -> status, last lines."""
    shutil.copy(checkpoint, tmp_path)
    monkeypatch.chdir(tmp_path)

    def call(kind, output, *more):
        given = ["--config_file", repo / "configs" / YAML, "--format", kind, "--output", output, *more]
        status, stdout, stderr = call_tool(export_model, *given)
        assert status or not stderr
        return status, stderr or stdout

    return call


def from_pickle(**more):
    return words(TEST__PARAMS_FILE="w.pkl", **more)


def refused(result, *parts):
    status, line = result
    assert status == 1 and line.startswith("error: ") and line.count("\n") == 1, line
    assert [part for part in parts if part not in line] == []
    return True


@torch.inference_mode()
def scores(network, batch):
    return network(recipe.clips((batch, 3, 2, 200, 200), "data", 1))


def test_weights_there_and_back(run, network, blobs, tmp_path):
    assert not run("state_dict", ".", *from_pickle())[0]
    tensors = torch.load("w.pth", weights_only=True)
    facts = json.loads((tmp_path / "w.pth.json").read_text())
    # The rule of the names, by hand.
    for name, blob in {
        "conv1.weight": "conv1_w", "res_conv1_bn.running_mean": "res_conv1_bn_rm", "pred.bias": "pred_b",
        "res2_0.branch2a_bn.weight": "res2_0_branch2a_bn_s", "res5_2.branch2c_bn.running_var": "res5_2_branch2c_bn_riv",
        "nonlocal_conv3_3.theta.bias": "nonlocal_conv3_3_theta_b", "nonlocal_conv3_3.bn.bias": "nonlocal_conv3_3_bn_b",
    }.items():
        assert facts["blob_names"][name] == blob
        assert np.array_equal(tensors[name].numpy(), blobs[blob])
    assert facts["blob_names"].keys() == tensors.keys() and set(facts["blob_names"].values()) == set(blobs)
    assert facts["options"]["MODEL"]["NUM_CLASSES"] == 7 and len(facts["weights_sha256"]) == 64
    # Any PyTorch program can do this.
    network.load_state_dict(tensors)

    assert not run("pkl", "back.pkl", "--from_state_dict", "w.pth", *words())[0]
    back = load("back.pkl")["blobs"]
    assert back.keys() == blobs.keys() | {"lr", "model_iter"}
    for name, value in blobs.items():
        assert back[name].tobytes() == value.tobytes() and back[name].shape == value.shape, name
    assert back["model_iter"] == ITERATIONS and back["lr"].tobytes() == LR.tobytes()


def test_weights_of_another_program_come_without_their_history(run, network):
    torch.save(network.state_dict(), "other.pth")  # with the counters num_batches_tracked
    run("state_dict", "mine.pth", *from_pickle())
    os.replace("mine.pth.json", "other.pth.json")  # of another file
    for _ in range(2):
        status, output = run("pkl", "back.pkl", "--from_state_dict", "other.pth", *words(SOLVER__BASE_LR=0.25))
        assert not status and "no lr known" in output
        back = load("back.pkl")["blobs"]
        assert back["lr"] == 0.25 and "model_iter" not in back
        if os.path.exists("other.pth.json"):
            os.remove("other.pth.json")


def test_the_legacy_programs_weights(repo, shared, run):
    weights = shared / "reference/pickles/c2_model_iter4.pkl"
    more = {"MODEL__NUM_CLASSES": 10, "RESNETS__WIDTH_PER_GROUP": 4, "RESNETS__STEM_OUT_CHANNELS": 64,
            "NONLOCAL__CONV3_NONLOCAL": False}
    assert not run("state_dict", "l.pth", *words(TEST__PARAMS_FILE=weights, **more))[0]
    assert not run("pkl", "l.pkl", "--from_state_dict", "l.pth", *words(**more))[0]
    legacy, back = load(weights)["blobs"], load("l.pkl")["blobs"]
    assert back.keys() == {name for name in legacy if not name.endswith("_momentum")}
    for name, value in back.items():
        assert np.asarray(value).tobytes() == np.asarray(legacy[name]).tobytes(), name


def test_torch_program(run, network, tmp_path):
    assert not run("torch_export", "new/folder/m.pt2", *from_pickle())[0]
    program = torch.export.load("new/folder/m.pt2").module()
    for batch in (1, 4):
        torch.testing.assert_close(program(recipe.clips((batch, 3, 2, 200, 200), "data", 1)), scores(network, batch),
                                   rtol=0, atol=1e-5)
    facts = json.loads((tmp_path / "new/folder/m.pt2.json").read_text())
    assert facts["input"]["shape"] == ["batch", 3, 2, 200, 200] and facts["output"]["shape"] == ["batch", 7]
    assert facts["model_iter"] == ITERATIONS
    assert len(list((tmp_path / "new/folder").iterdir())) == 2


def test_grouped_blocks_of_long_clips(repo, tmp_path):
    """With the frozen layers before and after; test_torch_program has a whole network."""
    network = filled_network(repo, words(MODEL__USE_AFFINE=True, NONLOCAL__USE_BN=False, MODEL__VIDEO_ARC_CHOICE=1))
    assert network.nonlocal_conv3_3.grouped
    grouped = torch.nn.Sequential(network.res3_3, network.nonlocal_conv3_3, network.res4_0)
    shape = (64, 8, 25, 25)
    export.write_torch_program(grouped, export.random_clips(shape, 2), tmp_path / "m.pt2")
    assert export.largest_difference(grouped, export.read_torch_program(tmp_path / "m.pt2"), shape, (1,)) <= 1e-5


@pytest.mark.skipif(None in map(importlib.util.find_spec, export.ONNX_PACKAGES), reason="the ONNX packages are missing")
def test_onnx(run, network):
    import onnxruntime

    assert not run("onnx", "m.onnx", *from_pickle())[0]
    session = onnxruntime.InferenceSession("m.onnx", providers=["CPUExecutionProvider"])
    clips = recipe.clips((4, 3, 2, 200, 200), "data", 1).numpy()
    np.testing.assert_allclose(session.run(None, {"clips": clips})[0], scores(network, 4), rtol=0, atol=1e-5)


def test_onnx_without_its_packages(run, monkeypatch, tmp_path):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert refused(run("onnx", "m.onnx", *from_pickle()), "pip install onnx onnxscript onnxruntime")
    assert [path.name for path in tmp_path.iterdir()] == ["w.pkl"]


def test_what_differs_is_not_kept(run, monkeypatch, tmp_path):
    write = exporting.write_state_dict

    def write_damaged(network, path):
        write(network, path)
        tensors = torch.load(path, weights_only=True)
        tensors["pred.bias"][3] += 2e-4
        torch.save(tensors, path)

    monkeypatch.setattr(exporting, "write_state_dict", write_damaged)
    (tmp_path / "m.pth").write_text("what was there before")
    assert refused(run("state_dict", "m.pth", *from_pickle()), "m.pth: not written", "differ")
    assert (tmp_path / "m.pth").read_text() == "what was there before"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.pth", "w.pkl"]


@pytest.mark.parametrize(("change", "parts"), [
    (lambda blobs: blobs.pop("res3_1_branch2a_w"), ["lacks 1 blobs (res3_1_branch2a_w"]),
    (lambda blobs: blobs.update(pred_w=np.zeros((5, 256), "f4")), ["lacks 1 blobs (pred_w"]),
    (lambda blobs: blobs.update(nonlocal_conv3_1_g_w=blobs["pred_b"]), ["has 1 blobs (nonlocal_conv3_1_g_w"]),
])
def test_weights_that_are_not_the_networks(run, blobs, change, parts, tmp_path):
    changed = dict(blobs)
    change(changed)
    dump(changed, tmp_path / "w.pkl")
    assert refused(run("state_dict", "m.pth", *from_pickle()), "w.pkl: ", *parts)
    assert [path.name for path in tmp_path.iterdir()] == ["w.pkl"]


class Command:
    def __reduce__(self):
        return os.mkdir, ("ran",)


def changed_by(change):
    def make(tensors, path):
        change(tensors)
        torch.save(tensors, path)

    return make


@pytest.mark.parametrize(("make", "part"), [
    (lambda tensors, path: None, "No such file"),
    (lambda tensors, path: path.mkdir(), "got a folder"),
    (lambda tensors, path: os.mkfifo(path), "got a folder or device"),
    (lambda tensors, path: path.write_bytes(b""), "not a file of plain tensors"),
    (lambda tensors, path: path.write_text("text"), "not a file of plain tensors"),
    (lambda tensors, path: path.write_bytes(pickle.dumps({"conv1.weight": Command()})), "not a file of plain tensors"),
    (changed_by(lambda tensors: tensors.update(x=Command())), "not a file of plain tensors"),
    (lambda tensors, path: torch.save([1, 2], path), "got a list"),
    (lambda tensors, path: torch.save({1: torch.ones(1)}, path), "expected a state_dict"),
    (changed_by(lambda tensors: tensors.pop("pred.bias")), "no pred.bias"),
    (changed_by(lambda tensors: tensors.update(x=torch.ones(1))), "1 do not belong to it ('x')"),
    (changed_by(lambda tensors: tensors.update({"pred.bias": torch.ones(8)})), "bias: expected shape (7,), got (8,)"),
    (changed_by(lambda tensors: tensors.update({"pred.bias": 3})), "pred.bias: expected a tensor of floats, got a int"),
    (changed_by(lambda tensors: tensors.update({"pred.bias": torch.ones(7, dtype=torch.int32)})), "torch.int32 on cpu"),
    (changed_by(lambda tensors: tensors.update({"pred.bias": torch.ones(7).to_sparse()})), "expected a tensor of"),
    (changed_by(lambda tensors: tensors.update({"pred.bias": torch.ones(7, device="meta")})), "on meta"),
    # A size that no memory holds, of one number in the file.
    (changed_by(lambda tensors: tensors.update({"pred.bias": torch.ones(1).expand(2**40)})), "got (1099511627776,)"),
], ids=range(17))
def test_a_bad_state_dict_is_one_line(run, network, make, part, tmp_path):
    make(dict(network.state_dict()), tmp_path / "m.pth")
    assert refused(run("pkl", "back.pkl", "--from_state_dict", "m.pth", *words()), "m.pth: ", part)
    assert not (tmp_path / "ran").exists() and not (tmp_path / "back.pkl").exists()


def test_a_damaged_state_dict_is_one_line(run, tmp_path):
    run("state_dict", "m.pth", *from_pickle())
    whole = (tmp_path / "m.pth").read_bytes()
    (tmp_path / "m.pth").write_bytes(whole[:len(whole) // 2])
    assert refused(run("pkl", "back.pkl", "--from_state_dict", "m.pth", *words()), "m.pth: not a file of plain tensors")
    (tmp_path / "m.pth").write_bytes(whole)
    for text in ("", "[]", "{}", '{"sha256": "SHA", "lr": "x"}', '{"sha256": "SHA", "lr": NaN}'):
        text = text.replace("SHA", file_digest("m.pth"))
        (tmp_path / "m.pth.json").write_text(text)
        assert refused(run("pkl", "back.pkl", "--from_state_dict", "m.pth", *words()), "m.pth.json: ")


@pytest.mark.parametrize(("arguments", "part"), [
    (["pkl", "m.pkl", *words()], "TEST.PARAMS_FILE is not set"),
    (["onnx", "m.pkl", "--from_state_dict", "m.pth", *words()], "--from_state_dict"),
    (["state_dict", "m.pth", *words()], "TEST.PARAMS_FILE is not set"),
    (["state_dict", "w.pkl", *words(TEST__PARAMS_FILE="w.pkl")], "another file than the weights"),
    (["torch_export", "m.pt2", *words(TEST__PARAMS_FILE="w.pkl", TRAIN__VIDEO_LENGTH=1)], "LENGTH is too small"),
    (["state_dict", "w.pkl/m.pth", *words(TEST__PARAMS_FILE="w.pkl")], "cannot be created"),
])
def test_wrong_command_lines(run, arguments, part):
    assert refused(run(*arguments), part)
