#!/usr/bin/env python3
"""Write a network with its weights in another format, checked against the network itself.

    python tools/export_model.py --config_file F.yaml --format torch_export --output model.pt2 TEST.PARAMS_FILE W.pkl
    python tools/export_model.py --config_file F.yaml --format onnx --output model.onnx TEST.PARAMS_FILE W.pkl
    python tools/export_model.py --config_file F.yaml --format state_dict --output model.pth TEST.PARAMS_FILE W.pkl
    python tools/export_model.py --config_file F.yaml --format pkl --output W.pkl --from_state_dict model.pth

The first two run without this program, on normalised clips N x 3 x T x H x W of the test's length and crop, any N.
The last two hold weights only, no momentum. Beside each file OUTPUT.json says what it was made from (digests, options)
and what goes in and out, or for weights the map from parameter names to blobs, lr and model_iter. What was written is
read back and run on random clips: if its scores differ from the network's by more than 1e-5, there is no file and the
exit status is not 0.
"""

import _init_paths  # noqa: F401, I001  (puts lib/ on the path)

import argparse
import json
import math
import os
from pathlib import Path

import numpy as np
import torch

from core.config import load_config
from models import export
from models.model_builder_video import create_model
from test_net_video import derive_test_config
from utils import cli
from formats.caffe2_pickle import dump
from utils.checkpoints import initialize_params_from_file, load_blobs, model_blobs
from utils.errors import UserError
from utils.files import atomic_write, make_folder, temporary_beside
from formats.result_file import file_digest
from formats.state_dict_file import blob_names, load_state_dict, write_state_dict

BAR = 1e-5
NOT_WEIGHTS = ("lr", "model_iter", "epoch")


SUFFIXES = {"torch_export": ".pt2", "onnx": ".onnx", "state_dict": ".pth", "pkl": ".pkl"}
PROGRAMS = ("torch_export", "onnx")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config_file", required=True, help="YAML file of options")
    parser.add_argument("--output", required=True, help="file to write, or an existing folder for it")
    parser.add_argument("--format", required=True, choices=SUFFIXES)
    parser.add_argument("--from_state_dict", metavar="FILE", help="weights for --format pkl")
    parser.add_argument("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="options over those of the file")
    args = parser.parse_args()
    cfg = derive_test_config(load_config(args.config_file, args.opts))
    weights_file = source_of_weights(args, cfg)
    if args.format == "onnx":
        export.check_onnx_is_there()

    network = empty_network(cfg)
    if args.from_state_dict:
        load_state_dict(network, weights_file)
        training = training_values(weights_file, cfg)
    else:
        training = load_all_weights(network, weights_file)
    path = output_path(args, weights_file)
    make_folder(path.parent)
    shape = (3, cfg.TRAIN.VIDEO_LENGTH, cfg.TRAIN.CROP_SIZE, cfg.TRAIN.CROP_SIZE)
    network.check_size(*shape[1:])
    with temporary_beside(path) as temporary:
        write, read = file_of(args.format, cfg, network, training, export.random_clips(shape, 2))
        write(temporary)
        difference = export.largest_difference(network, read(temporary), shape)
        if not difference <= BAR:
            raise UserError(f"{path}: not written: its scores differ from the network's by {difference:.1e}, "
                            f"expected at most {BAR:.0e}")
        os.replace(temporary, path)
    facts = provenance(args.format, cfg, weights_file, path, difference) | training
    if args.format in PROGRAMS:
        facts["input"], facts["output"] = interface(cfg, shape)
    else:
        facts["blob_names"] = blob_names(network)
    with atomic_write(facts_path(path), "w", encoding="utf-8") as file:
        json.dump(facts, file, indent=1)
    print(f"{path}: written, read back and run: the scores differ by {difference:.1e}")


def source_of_weights(args, cfg):
    if (args.format == "pkl") != bool(args.from_state_dict):
        raise UserError("--format pkl and --from_state_dict FILE go together: expected both or neither")
    if not (args.from_state_dict or cfg.TEST.PARAMS_FILE):
        raise UserError("TEST.PARAMS_FILE is not set: give the weights to export")
    return args.from_state_dict or cfg.TEST.PARAMS_FILE


def output_path(args, weights_file):
    output = Path(args.output)
    if output.is_dir() or args.output.endswith("/"):
        output /= Path(weights_file).stem + SUFFIXES[args.format]
    if output.exists() and output.samefile(weights_file):
        raise UserError(f"{output}: expected another file than the weights themselves for --output")
    return output


def facts_path(path):
    return Path(f"{path}.json")


def empty_network(cfg):
    """The network of a test, layer by layer under the names of the blobs: untransformed, as others have their own ways
    to make it faster."""
    network = create_model(cfg, "test")
    network.output = cfg.TEST.OUTPUT_NAME
    return network


def load_all_weights(network, weights_file):
    """Load a checkpoint, and refuse one that fills the network partly or holds more than it. Returns lr, model_iter."""
    blobs = load_blobs(weights_file)
    model_iter, lr = initialize_params_from_file(network, weights_file)
    own = model_blobs(network)
    lacking = [name for name, tensor in own.items()
               if name not in blobs or ("pred" in name and blobs[name].size != tensor.numel())]
    unused = [name for name in blobs.keys() - own.keys() if name not in NOT_WEIGHTS and not name.endswith("_momentum")]
    if lacking or unused:
        raise UserError(f"{weights_file}: expected the weights of exactly the configuration's network; it lacks "
                        f"{_some(lacking)} and has {_some(unused)} beside: do the options fit?")
    return {name: value for name, value in (("lr", lr), ("model_iter", model_iter)) if name in blobs}


def _some(names):
    return f"{len(names)} blobs ({min(names)}, ...)" if names else "none"


def training_values(state_dict_file, cfg):
    """lr and model_iter for a .pkl: what was written beside the very same file, else the configuration's rate."""
    facts = {}
    if facts_path(state_dict_file).exists():
        try:
            with open(facts_path(state_dict_file), encoding="utf-8") as file:
                facts = json.load(file)
            digest = facts["sha256"]
        except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
            raise UserError(f"{facts_path(state_dict_file)}: expected what --format state_dict has written, got "
                            f"something else ({type(error).__name__}): remove it to go without") from error
        if digest != file_digest(state_dict_file):
            facts = {}
    values = {name: facts[name] for name in ("lr", "model_iter") if name in facts}
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise UserError(f"{facts_path(state_dict_file)}: {name}: expected a number, got {value!r:.100}")
    if "lr" not in values:
        print(f"no lr known for {state_dict_file}: taking SOLVER.BASE_LR {cfg.SOLVER.BASE_LR}")
        values["lr"] = cfg.SOLVER.BASE_LR
    return values


def file_of(kind, cfg, network, training, clips):
    """Two functions of a path for a format: one writes the file, one reads it as a function from clips to scores."""

    def read_into_network(load):
        def read(path):
            other = empty_network(cfg)
            load(other, path)
            return other

        return read

    if kind == "state_dict":
        return lambda path: write_state_dict(network, path), read_into_network(load_state_dict)
    if kind == "pkl":
        return lambda path: write_pickle(network, training, path), read_into_network(initialize_params_from_file)
    if kind == "onnx":
        return lambda path: export.write_onnx(network, clips, path), export.read_onnx
    return lambda path: export.write_torch_program(network, clips, path), export.read_torch_program


def write_pickle(network, training, path):
    """Write the weights as the Caffe2 program has them, without momentum."""
    blobs = {name: tensor.numpy() for name, tensor in model_blobs(network).items()}
    blobs["lr"] = np.array(float(training["lr"]), np.float32)
    if "model_iter" in training:
        blobs["model_iter"] = int(training["model_iter"])
    dump({"blobs": blobs}, path)


def provenance(kind, cfg, weights_file, path, difference):
    return {
        "format": kind,
        "sha256": file_digest(path),
        "weights": os.fspath(weights_file),
        "weights_sha256": file_digest(weights_file),
        "largest_difference": difference,
        "torch": torch.__version__,
        "options": cfg,
    }


def interface(cfg, shape):
    """What goes into an exported program and what comes out."""
    channels = "BGR" if cfg.MODEL.USE_BGR else "RGB"
    clips = {"name": "clips", "shape": ["batch", *shape], "dtype": "float32", "channels": channels,
             "values": f"(grey level - {cfg.MODEL.MEAN}) / {cfg.MODEL.STD}", "frames": f"every {cfg.TRAIN.SAMPLE_RATE}",
             "short_side": cfg.TEST.SCALE}
    return clips, {"name": "scores", "shape": ["batch", cfg.MODEL.NUM_CLASSES], "values": cfg.TEST.OUTPUT_NAME}


if __name__ == "__main__":
    cli.run(main)
