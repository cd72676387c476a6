import json
import logging
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from formats.blobs import blob_name, load_blobs, model_blobs, read_checkpoint
from formats.caffe2_pickle import PickleError, dump, load
from utils.checkpoints import (
    LoadReport,
    StartPoint,
    checkpoint_path,
    find_checkpoints,
    initialize_params_from_file,
    load_weights,
    prune_checkpoints,
    resume_or_initialize,
    save_checkpoint,
)
from utils.errors import UserError
from utils.files import temporary_name

PICKLES = Path(__file__).parent / "data" / "pickles"


class Affine(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.register_buffer("weight", torch.ones(channels))
        self.register_buffer("bias", torch.zeros(channels))


class Block(nn.Module):
    def __init__(self, norm):
        super().__init__()
        self.branch2a = nn.Conv3d(4, 2, (3, 1, 1), bias=False)
        self.branch2a_bn = norm(2)


class Tiny(nn.Module):
    """The real model's kinds of layers under its kinds of names."""

    def __init__(self, classes=5, norm=nn.BatchNorm3d):
        super().__init__()
        self.conv1 = nn.Conv3d(3, 4, (1, 7, 7), bias=False)
        self.res_conv1_bn = norm(4)
        self.res2_0 = Block(norm)
        self.pred = nn.Linear(2, classes)


TRAINABLE = [
    "conv1_w",
    "res_conv1_bn_s",
    "res_conv1_bn_b",
    "res2_0_branch2a_w",
    "res2_0_branch2a_bn_s",
    "res2_0_branch2a_bn_b",
    "pred_w",
    "pred_b",
]
STATISTICS = ["res_conv1_bn_rm", "res_conv1_bn_riv", "res2_0_branch2a_bn_rm", "res2_0_branch2a_bn_riv"]


def tiny(seed=0, **options):
    torch.manual_seed(seed)
    model = Tiny(**options)
    for tensor in model_blobs(model).values():
        tensor.copy_(torch.rand_like(tensor))
    return model


def momentum_of(model, seed=None):
    torch.manual_seed(seed or 0)
    make = torch.zeros_like if seed is None else torch.rand_like
    return {blob_name(name): make(p.detach()) for name, p in model.named_parameters() if p.requires_grad}


def arrays(model):
    return {name: tensor.numpy().copy() for name, tensor in model_blobs(model).items()}


def assert_same(a, b):
    assert set(a) == set(b)
    for name in a:
        assert np.array_equal(a[name], b[name]), name


def write(tmp_path, blobs):
    dump(blobs, tmp_path / "weights.pkl")
    return tmp_path / "weights.pkl"


# Names


@pytest.mark.parametrize(
    ("parameter", "blob"),
    [
        ("conv1.weight", "conv1_w"),
        ("res_conv1_bn.weight", "res_conv1_bn_s"),
        ("res2_0.branch2a.weight", "res2_0_branch2a_w"),
        ("res2_0.branch2a_bn.bias", "res2_0_branch2a_bn_b"),
        ("res2_0.branch2a_bn.running_mean", "res2_0_branch2a_bn_rm"),
        ("res2_0.branch2a_bn.running_var", "res2_0_branch2a_bn_riv"),
        ("nonlocal_conv3_1.theta.bias", "nonlocal_conv3_1_theta_b"),
        ("nonlocal_conv3_1.bn.bias", "nonlocal_conv3_1_bn_b"),
        ("pred.weight", "pred_w"),
    ],
)
def test_blob_names(parameter, blob):
    assert blob_name(parameter) == blob


@pytest.mark.parametrize("parameter", ["weight", "conv1.running_mean", "conv1_bn.num_batches_tracked"])
def test_other_parameters_have_no_blob(parameter):
    with pytest.raises(ValueError, match=parameter):
        blob_name(parameter)


def test_model_blobs_are_the_models_own_memory():
    model = tiny()
    blobs = model_blobs(model)
    assert sorted(blobs) == sorted(TRAINABLE + STATISTICS)
    blobs["conv1_w"].zero_()
    assert not model.conv1.weight.any()
    assert sorted(model_blobs(tiny(norm=Affine))) == sorted(TRAINABLE)


# Saving


def test_a_checkpoint_holds_what_the_legacy_program_saved(tmp_path):
    model = tiny().to(memory_format=torch.channels_last_3d)
    assert not model.conv1.weight.is_contiguous()
    momentum = momentum_of(model, seed=1)
    path = checkpoint_path(tmp_path, 7)
    save_checkpoint(path, model, momentum, 0.1, 7)
    assert path == tmp_path / "checkpoints" / "c2_model_iter7.pkl"

    contents = load(path)
    assert list(contents) == ["blobs"]
    blobs = contents["blobs"]
    momenta = [f"{name}_momentum" for name in TRAINABLE]
    assert sorted(blobs) == sorted([*TRAINABLE, *STATISTICS, *momenta, "lr", "model_iter"])
    assert type(blobs["model_iter"]) is int and blobs["model_iter"] == 7
    assert blobs["lr"].shape == () and blobs["lr"].dtype == np.float32 and blobs["lr"] == np.float32(0.1)
    for name, tensor in model_blobs(model).items():
        assert blobs[name].dtype == np.float32 and blobs[name].flags.c_contiguous
        assert np.array_equal(blobs[name], tensor.numpy())
    for name, history in momentum.items():
        assert np.array_equal(blobs[f"{name}_momentum"], history.numpy())


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("part", ["weight", "momentum", "statistics"])
def test_what_is_no_number_is_not_written(tmp_path, value, part):
    """Nothing could go on from it, and it might push out the last good checkpoint."""
    model = tiny()
    momentum = momentum_of(model, seed=1)
    name, tensor = {"weight": ("conv1_w", model_blobs(model)["conv1_w"]), "momentum": ("pred_b_momentum",
                    momentum["pred_b"]), "statistics": (STATISTICS[0], model_blobs(model)[STATISTICS[0]])}[part]
    tensor.view(-1)[1] = value
    with pytest.raises(UserError, match=f"file.pkl: not written, and training cannot go on: {name}: expected finite "
                                        f"numbers, got 1 of {tensor.numel()} that are NaN or infinite"):
        save_checkpoint(tmp_path / "file.pkl", model, momentum, 0.1, 7)
    assert list(tmp_path.iterdir()) == []


def test_weights_beyond_float32(tmp_path, recwarn):
    blobs = {name: np.full(array.shape, 1e300) for name, array in arrays(tiny()).items()}
    with pytest.raises(UserError, match=r"weights.pkl: conv1_w: expected finite numbers, got (\d+) of \1 that are"):
        load_weights(tiny(), write(tmp_path, blobs))
    assert list(recwarn) == []


def test_frozen_layers_have_no_momentum(tmp_path):
    model = tiny(norm=Affine)
    save_checkpoint(tmp_path / "file.pkl", model, momentum_of(model), 0.1, 1)
    momenta = {name for name in load_blobs(tmp_path / "file.pkl") if name.endswith("_momentum")}
    assert momenta == {f"{name}_momentum" for name in ("conv1_w", "res2_0_branch2a_w", "pred_w", "pred_b")}


def test_the_state_stands_beside_the_blobs(tmp_path):
    model, state = tiny(), {"record": 12, "best": [1.5, 2.0], "note": "x"}
    save_checkpoint(tmp_path / "with.pkl", model, momentum_of(model), 0.1, 1, state)
    save_checkpoint(tmp_path / "without.pkl", model, momentum_of(model), 0.1, 1)
    assert read_checkpoint(tmp_path / "with.pkl").state == state
    assert read_checkpoint(tmp_path / "without.pkl").state is None
    assert load_blobs(tmp_path / "with.pkl").keys() == load_blobs(tmp_path / "without.pkl").keys()


def test_a_checkpoint_that_cannot_be_written_is_one_line_and_keeps_the_old_one(tmp_path, monkeypatch):
    model, path = tiny(), checkpoint_path(tmp_path, 1)
    save_checkpoint(path, model, momentum_of(model), 0.1, 1)
    before = path.read_bytes()

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="c2_model_iter1.pkl: .*No space left on device"):
        save_checkpoint(path, tiny(1), momentum_of(model), 0.1, 1)
    assert path.read_bytes() == before and os.listdir(path.parent) == [path.name]

    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="file.*cannot be written"):
        save_checkpoint(checkpoint_path(tmp_path / "file", 1), model, momentum_of(model), 0.1, 1)


def test_what_a_killed_process_left_is_cleared(tmp_path):
    model, path = tiny(), checkpoint_path(tmp_path, 1)
    save_checkpoint(path, model, momentum_of(model), 0.1, 1)
    (path.parent / temporary_name("c2_model_iter2.pkl")).write_bytes(b"half")
    save_checkpoint(checkpoint_path(tmp_path, 3), model, momentum_of(model), 0.1, 3)
    assert sorted(os.listdir(path.parent)) == ["c2_model_iter1.pkl", "c2_model_iter3.pkl"]


# Loading


@pytest.mark.parametrize("nested", [True, False])
def test_a_checkpoint_loads_into_another_model(tmp_path, nested):
    source, model = tiny(0), tiny(1)
    save_checkpoint(tmp_path / "file.pkl", source, momentum_of(source, 2), 0.25, 12)
    if not nested:
        dump(load_blobs(tmp_path / "file.pkl"), tmp_path / "file.pkl")
    momentum = momentum_of(model)
    assert initialize_params_from_file(model, tmp_path / "file.pkl", momentum) == (12, 0.25)
    assert_same(arrays(model), arrays(source))
    assert_same(momentum, momentum_of(source, 2))


def test_the_history_is_left_alone_unless_asked_for(tmp_path):
    source, model = tiny(0), tiny(1)
    save_checkpoint(tmp_path / "file.pkl", source, momentum_of(source, 2), 0.25, 12)
    assert initialize_params_from_file(model, tmp_path / "file.pkl", reset_start_iter=True) == (0, 0.25)
    assert_same(arrays(model), arrays(source))


def test_missing_blobs_keep_their_values_and_extra_ones_are_ignored(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    model = tiny()
    before = arrays(model)
    weights = np.ones((4, 3, 1, 7, 7), "f4")
    path = write(tmp_path, {"conv1_w": weights, "other_w": np.zeros(3), "note": "text", "lr": 0.5})
    assert initialize_params_from_file(model, path) == (0, 0.5)
    after = arrays(model)
    assert np.array_equal(after.pop("conv1_w"), weights)
    del before["conv1_w"]
    assert_same(after, before)
    missing = [record.message for record in caplog.records if record.message.endswith(" not found")]
    assert missing == [f"{name} not found" for name in model_blobs(model) if name != "conv1_w"]
    assert f"1 of 12 blobs of the model found, 2 blobs of the file not used: {path}" in caplog.messages


def test_a_missing_momentum_is_reported(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    model = tiny()
    path = write(tmp_path, arrays(model) | {"conv1_w_momentum": np.ones((4, 3, 1, 7, 7), "f4")})
    momentum = momentum_of(model)
    initialize_params_from_file(model, path, momentum)
    assert momentum["conv1_w"].all() and not momentum["pred_w"].any()
    assert (
        "pred_w_momentum not found" in caplog.messages and "conv1_w_momentum not found" not in caplog.messages
    )


def test_a_classifier_of_another_size_keeps_its_values(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    source, model = tiny(0, classes=9), tiny(1, classes=5)
    before = arrays(model)
    save_checkpoint(tmp_path / "file.pkl", source, momentum_of(source), 0.1, 1)
    initialize_params_from_file(model, tmp_path / "file.pkl", momentum_of(model))
    after = arrays(model)
    assert np.array_equal(after["pred_w"], before["pred_w"]) and np.array_equal(
        after["pred_b"], before["pred_b"]
    )
    assert np.array_equal(after["conv1_w"], arrays(source)["conv1_w"])
    (line,) = (message for message in caplog.messages if message.startswith("pred_w:"))
    assert "does not match" in line and "(9, 2)" in line and "(5, 2)" in line


def test_a_convolutional_and_a_fully_connected_classifier_are_the_same(tmp_path):
    weights = np.arange(10, dtype="f4")
    model = tiny()
    initialize_params_from_file(model, write(tmp_path, {"pred_w": weights.reshape(5, 2, 1, 1, 1)}))
    assert np.array_equal(model.pred.weight.detach(), weights.reshape(5, 2))

    model.pred = nn.Conv3d(2, 5, 1)
    initialize_params_from_file(model, write(tmp_path, {"pred_w": weights.reshape(5, 2) + 1}))
    assert np.array_equal(model.pred.weight.detach(), weights.reshape(5, 2, 1, 1, 1) + 1)


def test_2d_weights_are_inflated(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    flat = np.random.default_rng(0).standard_normal((2, 4, 1, 1)).astype("f4")
    model = tiny()
    initialize_params_from_file(model, write(tmp_path, {"res2_0_branch2a_w": flat}))
    found = model.res2_0.branch2a.weight.detach().numpy()
    assert found.shape == (2, 4, 3, 1, 1)
    for frame in range(3):
        assert np.array_equal(found[:, :, frame], flat / np.float32(3))
    assert np.allclose(found.sum(2), flat)
    assert ("res2_0_branch2a_w loaded from weights file into: gpu_0/res2_0_branch2a_w (2, 4, 1, 1) inflated to "
            "(2, 4, 3, 1, 1)") in caplog.messages


@pytest.mark.parametrize(
    "shape", [(4, 3, 3, 7, 7), (4, 3, 7), (4, 2, 7, 7), (4, 3, 7, 5), (5, 3, 1, 7, 7), (588,), ()]
)
def test_another_shape_is_an_error_with_both_and_loads_nothing(tmp_path, shape):
    model = tiny()
    before = arrays(model)
    path = write(
        tmp_path, {name: value + 1 for name, value in before.items()} | {"conv1_w": np.zeros(shape, "f4")}
    )
    with pytest.raises(UserError) as error:
        initialize_params_from_file(model, path)
    message = str(error.value)
    assert (
        message.startswith(f"{path}: conv1_w: expected shape (4, 3, 1, 7, 7), got {shape}")
        and "\n" not in message
    )
    assert_same(arrays(model), before)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("conv1_w", "text"),
        ("conv1_w", 1.5),
        ("conv1_w", np.zeros((4, 3, 1, 7, 7), "c8")),
        ("conv1_w", None),
        ("conv1_w", np.zeros((4, 3, 1, 7, 7), bool)),
        ("pred_w", [1, 2]),
        ("lr", "0.1"),
        ("lr", np.zeros(2, "f4")),
        ("lr", float("nan")),
        ("lr", None),
        ("lr", True),
        ("model_iter", -1),
        ("model_iter", 1.5),
        ("model_iter", [1]),
        ("model_iter", float("inf")),
        ("model_iter", np.zeros((0,))),
    ],
)
def test_a_value_of_a_wrong_kind_is_an_error_by_name(tmp_path, name, value):
    model = tiny()
    before = arrays(model)
    path = write(tmp_path, {key: item + 1 for key, item in before.items()} | {name: value})
    with pytest.raises(UserError, match=f"weights.pkl: {name}: expected") as error:
        initialize_params_from_file(model, path)
    assert "\n" not in str(error.value)
    assert_same(arrays(model), before)


@pytest.mark.parametrize("lr", [0.5, np.float32(0.5), np.array(0.5, "f4"), np.array([0.5], "f4")])
def test_every_form_of_lr(tmp_path, lr):
    model = tiny()
    found = initialize_params_from_file(model, write(tmp_path, arrays(model) | {"lr": lr}), training=True)
    assert found == (0, 0.5) and type(found[1]) is float


def test_training_needs_lr_and_testing_does_not(tmp_path):
    model = tiny()
    path = write(tmp_path, arrays(model) | {"model_iter": 3})
    assert initialize_params_from_file(model, path) == (3, None)
    assert initialize_params_from_file(model, path, reset_start_iter=True, training=True) == (0, 1.0)
    with pytest.raises(UserError, match="weights.pkl: no lr in it"):
        initialize_params_from_file(model, path, training=True)


def test_float64_weights_are_rounded(tmp_path):
    model = tiny()
    initialize_params_from_file(model, write(tmp_path, {"pred_b": np.full(5, 0.1)}))
    assert model.pred.bias.dtype == torch.float32 and model.pred.bias[0].item() == np.float32(0.1)


def test_a_checkpoint_of_another_architecture_is_an_error(tmp_path):
    path = write(tmp_path, {"features_0_w": np.zeros(3, "f4")})
    with pytest.raises(
        UserError, match=r"weights.pkl: none of the model's 12 blobs \(conv1_w, ...\) is in it"
    ):
        initialize_params_from_file(tiny(), path)


def test_batch_norms_in_an_affine_model_are_warned_of(tmp_path, caplog):
    path = write(tmp_path, arrays(tiny()))
    initialize_params_from_file(tiny(norm=Affine), path)
    assert "modify_caffe2_ftvideo.py" in caplog.text
    caplog.clear()
    initialize_params_from_file(tiny(), path)
    assert not caplog.records


def test_the_report_says_what_became_of_every_blob(tmp_path):
    flat = np.zeros((2, 4, 1, 1), "f4")
    blobs = arrays(tiny(classes=9)) | {"res2_0_branch2a_w": flat, "pred_w": np.zeros((5, 2, 1, 1, 1), "f4")}
    del blobs["conv1_w"]
    more = {"other_w": flat, "other_w_momentum": flat, "lr": np.array([0.5], "f4"), "model_iter": 7, "epoch": 2}
    momentum = {"pred_b": torch.zeros(5)}
    report = load_weights(tiny(), write(tmp_path, blobs | more), momentum)
    assert report.weights_file == tmp_path / "weights.pkl"
    assert (report.model_iter, report.lr, report.unfolded) == (7, 0.5, False)
    assert (report.missing, report.resized) == (("conv1_w", "pred_b_momentum"), ("pred_b",))
    assert (report.reshaped, report.inflated) == (("pred_w",), ("res2_0_branch2a_w",))
    assert set(report.loaded) == {*TRAINABLE, *STATISTICS} - {"conv1_w", "pred_b"}
    assert report.unused == ("other_w",)


def test_a_report_of_everything_is_complete_and_exact(tmp_path):
    report = load_weights(tiny(), write(tmp_path, arrays(tiny()) | {"pred_b_momentum": np.zeros(5, "f4")}))
    assert report == LoadReport(tmp_path / "weights.pkl", loaded=tuple(model_blobs(tiny())))
    report.require_complete()
    report.require_exact()


@pytest.mark.parametrize(
    ("report", "complete", "exact"),
    [
        ({"missing": ("a_w", "b_w")}, r"f.pkl: lacks 2 of the model's 3 blobs, .*\(a_w, b_w\)", "lacks 2 blobs .a_w"),
        ({"resized": ("pred_w",)}, r"f.pkl: lacks 1 of the model's 2 blobs, .*\(pred_w\)", "f.pkl: .*lacks 1 blobs"),
        ({"unused": ("d_w", "c_w")}, None, "it lacks none and has 2 blobs .c_w, .... besides"),
        (
            {"unused": ("c_bn_rm",), "unfolded": True},
            "f.pkl: the file holds batch norms .*modify_caffe2_ftvideo.py",
            "has 1 blobs .c_bn_rm",
        ),
    ],
)
def test_callers_may_require_more_of_a_file(report, complete, exact):
    report = LoadReport("f.pkl", loaded=("x_w",), **report)
    for require, message in ((report.require_complete, complete), (report.require_exact, exact)):
        if message is None:
            require()
        else:
            with pytest.raises(UserError, match=message) as error:
                require()
            assert "\n" not in str(error.value)


def test_a_file_that_has_been_read_is_not_read_again(tmp_path):
    path = write(tmp_path, arrays(tiny(1)))
    checkpoint = read_checkpoint(path)
    path.unlink()
    model = tiny()
    assert load_weights(model, checkpoint).weights_file == path
    assert_same(arrays(model), arrays(tiny(1)))


@pytest.mark.parametrize(
    "contents", [[], {}, {"blobs": []}, {"blobs": {}}, {"lr": 1.0}, "text", {"blobs": {"lr": 1.0}}]
)
def test_what_is_no_checkpoint_is_refused(tmp_path, contents):
    dump(contents, tmp_path / "file.pkl")
    with pytest.raises(PickleError, match="file.pkl: expected a checkpoint"):
        load_blobs(tmp_path / "file.pkl")


# Which file, at which iteration


def start(
    model, folder, momentum=None, resume=True, params_file="", reset=False, resume_from=-1, batch_size=8
):
    momentum = momentum_of(model) if momentum is None else momentum
    return resume_or_initialize(model, momentum, folder, resume, params_file, reset, resume_from, batch_size)


def save(folder, iteration, seed):
    model = tiny(seed)
    save_checkpoint(
        checkpoint_path(folder, iteration), model, momentum_of(model, seed), 0.5, iteration, {"at": iteration}
    )
    return model


def test_checkpoints_are_found_by_number(tmp_path):
    assert find_checkpoints(tmp_path) == []
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    for name in (
        "c2_model_iter10.pkl",
        "c2_model_iter9.pkl",
        "c2_model_iter.pkl",
        "c2_model_iter5.pkl.tmp",
        ".c2_model_iter7.pkl",
        "c2_model_iter8.pkl~",
        "model_iter3.pkl",
        "c2_model_iter\u0663.pkl",
    ):
        (folder / name).touch()
    assert find_checkpoints(tmp_path) == [folder / "c2_model_iter9.pkl", folder / "c2_model_iter10.pkl"]
    with pytest.raises(UserError, match="cannot be listed: Not a directory"):
        find_checkpoints(folder / "c2_model_iter9.pkl")


def test_the_newest_checkpoint_is_resumed_with_its_history(tmp_path):
    save(tmp_path, 9, seed=1)
    saved = save(tmp_path, 10, seed=2)
    model = tiny()
    momentum = momentum_of(model)
    # RESET_START_ITER and RESUME_FROM_BATCH_SIZE belong to TRAIN.PARAMS_FILE: a resumed run just goes on.
    found = start(model, tmp_path, momentum, params_file="/missing.pkl", reset=True, resume_from=64)
    assert found == StartPoint(10, 0.5, {"at": 10}, checkpoint_path(tmp_path, 10))
    assert_same(arrays(model), arrays(saved))
    assert_same(momentum, momentum_of(saved, 2))


def test_a_checkpoint_of_the_legacy_program_has_no_state(tmp_path):
    model = tiny()
    save_checkpoint(checkpoint_path(tmp_path, 4), model, momentum_of(model), 0.5, 4)
    assert start(tiny(1), tmp_path) == StartPoint(4, 0.5, None, checkpoint_path(tmp_path, 4))


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:-100],
        lambda data: b"",
        lambda data: pickle.dumps([1], 2),
        lambda data: b"cos\nsystem\n(U\x02lstR.",
    ],
)
def test_a_damaged_checkpoint_falls_back_to_the_one_before(tmp_path, caplog, damage):
    saved = save(tmp_path, 9, seed=1)
    save(tmp_path, 10, seed=2)
    newest = checkpoint_path(tmp_path, 10)
    newest.write_bytes(damage(newest.read_bytes()))
    model = tiny()
    assert start(model, tmp_path) == StartPoint(9, 0.5, {"at": 9}, checkpoint_path(tmp_path, 9))
    assert_same(arrays(model), arrays(saved))
    (line,) = (message for message in caplog.messages if message.startswith("Damaged checkpoint"))
    assert str(newest) in line


def test_nothing_but_damaged_checkpoints_is_an_error(tmp_path):
    save(tmp_path, 9, seed=1)
    checkpoint_path(tmp_path, 9).write_bytes(b"")
    with pytest.raises(UserError, match="no checkpoint can be read .*c2_model_iter9.pkl.*RESUME False"):
        start(tiny(), tmp_path, params_file="/missing.pkl")
    assert start(tiny(), tmp_path, resume=False) == StartPoint()


def test_a_checkpoint_that_may_not_be_read_is_not_taken_for_damaged(tmp_path, monkeypatch):
    save(tmp_path, 9, seed=1)
    save(tmp_path, 10, seed=2)

    def forbidden(path, *args, **kwargs):
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os, "stat", forbidden)
    with pytest.raises(UserError, match="c2_model_iter10.pkl: cannot read: Permission denied"):
        start(tiny(), tmp_path)


def test_a_checkpoint_of_another_shape_ends_the_run(tmp_path):
    blobs = load_blobs(save(tmp_path, 9, seed=1) and checkpoint_path(tmp_path, 9))
    dump({"blobs": blobs | {"conv1_w": np.zeros((4, 3, 5, 7, 7), "f4")}}, checkpoint_path(tmp_path, 10))
    with pytest.raises(UserError, match="c2_model_iter10.pkl: conv1_w: expected shape"):
        start(tiny(), tmp_path)


def without(path, name):
    dump({"blobs": {key: value for key, value in load_blobs(path).items() if key != name}}, path)


def test_resuming_needs_the_rate(tmp_path):
    save(tmp_path, 9, seed=1)
    without(checkpoint_path(tmp_path, 9), "lr")
    with pytest.raises(UserError, match="c2_model_iter9.pkl: no lr in it"):
        start(tiny(), tmp_path)


@pytest.mark.parametrize(
    ("options", "iteration"),
    [
        ({}, 30),
        ({"reset": True}, 0),
        ({"resume_from": 64, "batch_size": 48}, 40),
        ({"resume_from": 7, "batch_size": 8}, 26),
        ({"reset": True, "resume_from": 64}, 0),
        ({"resume_from": 0}, 30),
    ],
)
def test_weights_to_start_from(tmp_path, options, iteration):
    source, model = tiny(1), tiny(0)
    save_checkpoint(tmp_path / "weights.pkl", source, momentum_of(source, 3), 0.5, 30, {"at": 30})
    momentum = momentum_of(model)
    found = start(model, tmp_path, momentum, params_file=str(tmp_path / "weights.pkl"), **options)
    assert found == StartPoint(iteration, 0.5, None, tmp_path / "weights.pkl")
    assert_same(arrays(model), arrays(source))
    assert not any(history.any() for history in momentum.values())


def test_a_checkpoint_that_does_not_say_its_iteration_starts_at_0_with_its_history(tmp_path):
    source, model = tiny(1), tiny(0)
    path = checkpoint_path(tmp_path, 5)
    save_checkpoint(path, source, momentum_of(source, 3), 0.5, 5)
    without(path, "model_iter")
    momentum = momentum_of(model)
    assert start(model, tmp_path, momentum) == StartPoint(0, 0.5, None, path)
    assert_same(arrays(model), arrays(source))
    assert all(torch.equal(momentum[name], history) for name, history in momentum_of(source, 3).items())


def test_the_log_says_what_training_starts_from(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    source = tiny(1)
    save_checkpoint(tmp_path / "weights.pkl", source, momentum_of(source), 0.0125, 30)
    start(tiny(), tmp_path, params_file=str(tmp_path / "weights.pkl"))
    whence, which, *_, loaded = caplog.messages[1:]
    assert whence == "Initializing from pre-trained file..."
    assert which == f"Initializing model params from file: {tmp_path}/weights.pkl"
    assert loaded == "Loaded: start_model_iter: 30; prev_lr: 0.01250000"
    assert f"conv1_w loaded from weights file into: gpu_0/conv1_w {tuple(source.conv1.weight.shape)}" in caplog.messages
    caplog.clear()
    save_checkpoint(checkpoint_path(tmp_path, 7), source, momentum_of(source), 0.1, 7)
    start(tiny(), tmp_path)
    assert caplog.messages[1] == "Initializing from checkpoints..."
    assert caplog.messages[-1] == "Loaded: start_model_iter: 7; prev_lr: 0.10000000"


def test_a_converted_file_starts_at_0(tmp_path):
    path = write(tmp_path, {"conv1_w": np.zeros((4, 3, 1, 7, 7), "f4"), "lr": 0.01})
    assert start(tiny(), tmp_path, params_file=str(path)) == StartPoint(0, 0.01, None, path)


def test_weights_without_lr_start_only_from_0(tmp_path):
    path = str(write(tmp_path, {"conv1_w": np.zeros((4, 3, 1, 7, 7), "f4")}))
    assert start(tiny(), tmp_path, params_file=path, reset=True).lr == 1.0
    with pytest.raises(UserError, match="no lr in it"):
        start(tiny(), tmp_path, params_file=path)


def test_from_scratch(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    model = tiny()
    before = arrays(model)
    assert start(model, tmp_path) == StartPoint(iteration=0, lr=None, state=None, path=None)
    assert caplog.messages == ["No checkpoint found; training from scratch..."]
    assert_same(arrays(model), before)


def test_pruning_keeps_the_last(tmp_path):
    def kept():
        return [int(path.stem.removeprefix("c2_model_iter")) for path in find_checkpoints(tmp_path)]

    for iteration in (2, 4, 6, 8, 10, 100):
        checkpoint_path(tmp_path, iteration).parent.mkdir(exist_ok=True)
        checkpoint_path(tmp_path, iteration).touch()
    for keep in (0, -1, 6):
        prune_checkpoints(tmp_path, keep, newest=10)
        assert kept() == [2, 4, 6, 8, 10, 100]
    # 100 is of an earlier run in the same folder: a new run must neither delete it nor count it.
    prune_checkpoints(tmp_path, 2, newest=10)
    assert kept() == [8, 10, 100]


# The legacy program's own files


@pytest.mark.parametrize("path", sorted(PICKLES.glob("small_*.pkl")), ids=lambda path: path.stem)
def test_legacy_files_load_into_a_model(path):
    class Legacy(nn.Module):
        def __init__(self):
            super().__init__()
            self.res_conv1_bn = nn.BatchNorm3d(64)
            self.res2_0 = nn.Module()
            self.res2_0.branch2a = nn.Conv3d(64, 4, (3, 1, 1), bias=False)
            self.pred = nn.Linear(2048, 10)

    expected = json.loads((PICKLES / "small_values.json").read_text())
    model = Legacy()
    momentum = momentum_of(model)
    assert initialize_params_from_file(model, path, momentum) == (4, *expected["lr"])
    blobs = model_blobs(model) | {f"{name}_momentum": history for name, history in momentum.items()}
    for name in expected.keys() - {"lr", "model_iter"}:
        assert blobs[name].flatten().tolist()[: len(expected[name])] == expected[name], name


def test_saving_gives_the_legacy_checkpoints_blobs(shared, tmp_path):
    """What was read from a real checkpoint is written as the same keys, shapes, types and values."""
    path = shared / "reference/pickles/c2_model_iter4.pkl"
    legacy = load_blobs(path)
    model = nn.Module()
    for name in legacy:
        # Module and parameter names from blob names: one module per layer is enough to carry them.
        layer, _, suffix = name.rpartition("_")
        if name.endswith("_momentum") or name in ("lr", "model_iter") or suffix in ("rm", "riv"):
            continue
        if layer not in dict(model.named_children()):
            model.add_module(layer, nn.Module())
        module, norm = model.get_submodule(layer), layer.endswith("bn")
        kind = {"w": "weight", "s": "weight", "b": "bias"}[suffix]
        module.register_parameter(kind, nn.Parameter(torch.zeros(legacy[name].shape)))
        if norm and kind == "weight":
            module.register_buffer("running_mean", torch.zeros(legacy[name].shape))
            module.register_buffer("running_var", torch.zeros(legacy[name].shape))
    momentum = momentum_of(model)
    model_iter, lr = initialize_params_from_file(model, path, momentum)
    save_checkpoint(tmp_path / "again.pkl", model, momentum, lr, model_iter)
    again = load_blobs(tmp_path / "again.pkl")
    assert_same(again, legacy)
    for name, value in legacy.items():
        assert type(again[name]) is type(value)
        assert (
            np.shape(again[name]) == np.shape(value)
            and np.asarray(again[name]).dtype == np.asarray(value).dtype
        )
