"""The released models: the README's tables, the scripts that train them, and options read from their weights."""

import re

import check_released
import numpy as np
import pytest
import recipe_blobs
from script_options import options_of_script

from core.config import load_config
from engine.weights_options import configuration_of_weights, load_configuration, options_of_weights
from formats.blobs import Checkpoint
from formats.caffe2_pickle import dump
from models.model_builder_video import nonlocal_places
from models.released import LINK, RELEASED
from utils.errors import UserError

SMALL = ["RESNETS.WIDTH_PER_GROUP", "2", "RESNETS.STEM_OUT_CHANNELS", "8"]


def is_3d(cfg):
    return cfg.MODEL.VIDEO_ARC_CHOICE in (2, 4)


def test_the_tables_of_the_readme(repo):
    """Accuracies and links are those of the table here, and the marks those of the scripts' options."""
    rows, expected, heads = {}, {}, []
    for line in (repo / "README.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if cells[0] == "script" and "model" in cells:
            heads = cells
        if cells[0].startswith("`run_") and "[model]" in line:
            rows[cells[0].strip("`")] = dict(zip(heads[1:], cells[1:], strict=True))
    for model in RELEASED.values():
        cfg, yes = options_of_script(repo, model.script), {True: "yes", False: ""}
        expected[f"{model.script}.sh"] = {
            "frames": str(cfg.TRAIN.VIDEO_LENGTH), "GPUs": str(cfg.NUM_GPUS), "frozen BN": yes[cfg.MODEL.USE_AFFINE],
            "3D conv": yes[is_3d(cfg)], "non-local": yes[cfg.NONLOCAL.CONV4_NONLOCAL], "top-1": f"{model.top1:.1f}",
            "in paper": f"{model.in_paper or 0:.1f}", "top-5": f"{model.top5:.1f}", "model": f"[model]({model.link})",
            "log": f"[log]({model.log_link})"}
        assert (cfg.NUM_GPUS == 8) == ("GPUs" not in rows[f"{model.script}.sh"])
        assert bool(model.in_paper) == ("in paper" in rows[f"{model.script}.sh"])
    assert rows.keys() == expected.keys()
    assert rows == {script: {head: cells[head] for head in rows[script]} for script, cells in expected.items()}


@pytest.mark.parametrize("name", RELEASED)
def test_the_description_in_its_script(name, repo):
    """The first lines of a script say what it trains; so do its name and that of the file."""
    script = RELEASED[name].script
    cfg, start = options_of_script(repo, script), (repo / f"scripts/{script}.sh").read_text().partition("source ")[0]
    described = " ".join(line.strip("# ") for line in start.splitlines()[1:])
    network, frames = ("I3D" if is_3d(cfg) else "C2D"), cfg.TRAIN.VIDEO_LENGTH
    blocks = len(nonlocal_places(cfg.NONLOCAL, cfg.MODEL.DEPTH))
    iterations = f"{cfg.SOLVER.MAX_ITER // 1000}k"
    assert described.startswith(
        f"{network} ResNet-{cfg.MODEL.DEPTH}" + (f" with {blocks} non-local blocks" if blocks else "")
        + (", frozen batch norm" if cfg.MODEL.USE_AFFINE else "")
        + f", {frames} frames with stride {cfg.TRAIN.SAMPLE_RATE}: {iterations} iterations"), described
    assert f"{cfg.NUM_GPUS} GPUs" in described
    start_from = cfg.TRAIN.PARAMS_FILE.split("/")[-2].replace("pretrained_model", "ImageNet weights")
    assert re.search(rf", from (the converted model of )?{start_from}(\.sh)?\.$", described)
    assert name.startswith(f"{network.lower()}_{'nonlocal' if blocks else 'baseline'}_{frames}x{cfg.TRAIN.SAMPLE_RATE}_"
                           f"{'I3D' if cfg.MODEL.USE_AFFINE else 'IN'}_pretrain_{iterations}")
    assert script.startswith(f"run_{network.lower()}_{'nlnet' if blocks else 'baseline'}_") and iterations in script


def test_other_pages_and_scripts_name_only_what_was_released(repo):
    """Also the pages of the folders, the tools' help and the scripts' comments."""
    pages = [*repo.glob("*.md"), *repo.glob("[!.]*/*.md"), *repo.glob("scripts/*.sh"), *repo.glob("tools/*.py"),
             *repo.glob("configs/*.yaml"), *repo.glob("lib/**/*.py")]
    found = set()
    for page in pages:
        text = page.read_text()
        names = re.findall(r"\b[ci][23]d_(?:baseline|nonlocal)_\w+_pretrain_\w+", text)
        found |= set(names) - {model.log for model in RELEASED.values()}
        for link in re.findall(r"https://dl.fbaipublicfiles.com/[^\s)\"']+", text):
            assert link in {LINK, f"{LINK}pretrained_model.tar.gz"} | {
                each for model in RELEASED.values() for each in (model.link, model.log_link)}, (page, link)
    assert found == set(RELEASED)


def for_prediction(cfg):
    """What of a configuration determines predictions."""
    return (cfg.MODEL, cfg.NONLOCAL, cfg.RESNETS, cfg.TRAIN.VIDEO_LENGTH, cfg.TRAIN.SAMPLE_RATE,
            cfg.TRAIN.JITTER_SCALES[0], cfg.TEST.BATCH_SIZE // cfg.NUM_GPUS, cfg.TEST.SCALE, cfg.TEST.OUTPUT_NAME)


@pytest.mark.parametrize("name", RELEASED)
def test_the_weights_tell_the_options_of_their_script(name, repo):
    cfg = options_of_script(repo, RELEASED[name].script, *SMALL)
    blobs = recipe_blobs.shapes(cfg)
    _, base, found = options_of_weights(Checkpoint(f"{name}.pkl", blobs), {})
    words = [str(word) for option in found.items() for word in option]
    assert for_prediction(load_config(base, words)) == for_prediction(cfg)


@pytest.mark.parametrize("options", [
    {"MODEL.VIDEO_ARC_CHOICE": 4, "MODEL.DEPTH": 101}, {"NONLOCAL.AFTER": ["res3_0", "res5_2"]},
    {"NONLOCAL.AFFINITY": "gaussian"}, {"NONLOCAL.AFFINITY": "concatenation"}, {"NONLOCAL.NO_BIAS": 1},
    {"NONLOCAL.USE_BN": False}, {"NONLOCAL.USE_BN": False, "NONLOCAL.USE_AFFINE": True},
    {"NONLOCAL.CONV3_NONLOCAL": False, "MODEL.NUM_CLASSES": 7}, {"RESNETS.NUM_GROUPS": 2},
])
def test_other_networks(options, repo):
    base = repo / "configs/DBG_kinetics_resnet_8gpu_c2d_nonlocal_400k.yaml"
    cfg = load_config(base, [*SMALL, *(str(word) for option in options.items() for word in option)])
    blobs = recipe_blobs.shapes(cfg)
    _, _, found = options_of_weights(Checkpoint("x_8x8.pkl", blobs), {})
    again = load_config(base, [str(word) for option in found.items() for word in option])
    assert {name: value.shape for name, value in recipe_blobs.shapes(again).items()} == \
        {name: value.shape for name, value in blobs.items()}


@pytest.mark.parametrize(("name", "change", "message"), [
    ("w.pkl", {}, "trained with: expected --config_file, or w.options.json of their training, or a name with one of "
     "8x8, 32x4, 32x2, 128x1 ("),
    ("w_16x4.pkl", {}, "do not tell the clips"),
    ("w_8x8_32x2.pkl", {}, "do not tell the clips"),
    ("w_8x8.pkl", {"conv1_w": np.zeros((64, 3, 7, 7))}, "a blob conv1_w of 5 dimensions, got one of shape"),
    ("w_8x8.pkl", {"conv1_w": np.zeros((10**9, 0, 1, 7, 7))}, "a blob conv1_w of 5 dimensions, got one of shape"),
    ("w_8x8.pkl", {"pred_w": None}, "a blob pred_w of 2 dimensions, got none"),
    ("w_8x8.pkl", {"conv1_w": np.zeros((64, 3, 3, 7, 7))}, "conv1_w: expected a kernel over 1 or 5 frames, got 3"),
])
def test_weights_that_do_not_tell(name, change, message, repo):
    cfg = options_of_script(repo, "run_c2d_baseline_400k", *SMALL)
    blobs = {name: value for name, value in (recipe_blobs.shapes(cfg) | change).items()
             if value is not None}
    with pytest.raises(UserError, match=re.escape(message)):
        options_of_weights(Checkpoint(name, blobs), {})


def test_a_small_file_cannot_ask_for_a_large_network(repo):
    blobs = recipe_blobs.shapes(options_of_script(repo, "run_c2d_baseline_400k", *SMALL))
    blobs["conv1_w"] = np.zeros((3000, 3, 1, 7, 7), np.float32)
    with pytest.raises(UserError, match=r"expected the weights of a whole network, which has [\d,]{13,} numb"):
        configuration_of_weights(Checkpoint("w_8x8.pkl", blobs))


def test_the_users_word_counts(repo, tmp_path):
    cfg = options_of_script(repo, "run_i3d_nlnet_400k", *SMALL)
    dump(recipe_blobs.shapes(cfg), tmp_path / "mine.pkl")
    words = ["TEST.PARAMS_FILE", str(tmp_path / "mine.pkl"), "TRAIN.VIDEO_LENGTH", "16", "TRAIN.SAMPLE_RATE", "4",
             "MODEL.MODEL_NAME", "resnet_video_org"]
    found = load_configuration(None, words)
    assert (found.TRAIN.VIDEO_LENGTH, found.MODEL.MODEL_NAME, found.MODEL.VIDEO_ARC_CHOICE) == (
        16, "resnet_video_org", 2)


@pytest.mark.parametrize("name", ["i3d_nonlocal_8x8_IN_pretrain_400k", "c2d_baseline_32x2_IN_pretrain_400k",
                                  "i3d_nonlocal_32x4_I3D_pretrain_400k"])
def test_a_prediction_without_options(name, data, tmp_path, call_tool):
    """The same to the bit as with all of them. For networks of full size see tests/check_released.py."""
    found, expected = check_released.predictions(name, data / "v7.mp4", tmp_path, *SMALL, call=call_tool)
    assert found == expected and len(found[0]["top"]) == 400
