"""Writing a network with its weights in another format, checked against the network itself."""

import contextlib
import json
import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from data.data_builder import protocol_of_test
from engine.testing import config_as_tested
from engine.weights_options import options_of_scores
from formats.blobs import Checkpoint, model_blobs, named_tensors, read_checkpoint
from formats.caffe2_pickle import dump
from formats.options_file import as_text, options_beside
from formats.result_file import file_digest
from formats.safetensors_file import check_safetensors_is_there, is_safetensors, write_safetensors
from formats.state_dict_file import blob_names, load_state_dict, write_state_dict
from models import export
from models.model_builder_video import SCORES, create_model
from models.resnet_video import ResNetVideo
from utils.checkpoints import load_weights
from utils.collections import AttrDict, to_json
from utils.errors import UserError
from utils.files import atomic_file, atomic_write, make_folder

# Largest difference of scores up to which a file counts as the network.
MAX_DIFFERENCE = 1e-5

SUFFIXES = {"torch_export": ".pt2", "onnx": ".onnx", "state_dict": ".pth", "safetensors": ".safetensors",
            "pkl": ".pkl"}
PROGRAMS = ("torch_export", "onnx")


@dataclass(frozen=True)
class ExportResult:
    """path: the file written. difference: largest difference of its scores from the network's. notes: for the user."""

    path: Path
    difference: float
    notes: tuple[str, ...] = ()


def export_model(cfg: AttrDict, kind: str, output: str, state_dict_file: str | None = None) -> ExportResult:
    """Write the network of a configuration with the weights of TEST.PARAMS_FILE.

    The file is read back and run on random clips before it appears. A .pkl comes with the options of its network beside
    it, a .safetensors file has them in its metadata. OUTPUT.json next to it says what it was made from
    (digests, options) and what goes in and out, or for weights the map from parameter names to blobs, lr, model_iter.

    Args:
        cfg: configuration; its test protocol says which clips go in.
        kind: key of SUFFIXES.
        output: the file, or an existing folder for it.
        state_dict_file: weights to take instead of TEST.PARAMS_FILE, a file of PyTorch's; for 'pkl' and 'safetensors'.

    Raises:
        UserError: options or weights that do not fit, or what was written differs from the network by more than
            MAX_DIFFERENCE. There is no new file then.
    """
    weights_file = _source_of_weights(cfg, kind, state_dict_file)
    protocol = protocol_of_test(cfg)
    if cfg.TEST.OUTPUT_NAME not in SCORES:
        raise UserError(f"TEST.OUTPUT_NAME: expected {' or '.join(SCORES)} for an export, got {cfg.TEST.OUTPUT_NAME!r}")
    if kind == "onnx":
        export.check_onnx_is_there()
    if kind == "safetensors":
        check_safetensors_is_there()
    network, notes = empty_network(cfg), []
    if state_dict_file:
        load_state_dict(network, weights_file)
        digest = file_digest(weights_file)
        training = training_values(weights_file)
    else:
        checkpoint = read_checkpoint(weights_file, with_digest=True)
        digest, training = checkpoint.digest, load_all_weights(network, checkpoint)
    if kind == "pkl" and "lr" not in training:
        notes.append(f"no lr known for {weights_file}: taking SOLVER.BASE_LR {cfg.SOLVER.BASE_LR}")
        training["lr"] = cfg.SOLVER.BASE_LR
    path = _output_path(output, kind, weights_file)
    make_folder(path.parent)
    shape = protocol.clip_shape
    network.check_size(*shape[1:])
    options, pred_w = options_of_scores(cfg), model_blobs(network)["pred_w"].numpy()
    beside = options_beside(path, options, pred_w) if kind == "pkl" else contextlib.nullcontext()
    with beside, atomic_file(path, SUFFIXES[kind]) as temporary:
        difference = _write_and_compare(cfg, kind, network, training, shape, temporary)
        if not difference <= MAX_DIFFERENCE:
            raise UserError(f"{path}: not written: its scores differ from the network's by {difference:.1e}, "
                            f"expected at most {MAX_DIFFERENCE:.0e}")
    facts = provenance(kind, config_as_tested(cfg, protocol), weights_file, digest, path, difference) | training
    if kind in PROGRAMS:
        facts["input"], facts["output"] = interface(cfg, shape)
    else:
        facts["blob_names"] = blob_names(network)
    with atomic_write(facts_path(path), "w", encoding="utf-8") as file:
        file.write(to_json(facts, indent=1))
    return ExportResult(path, difference, tuple(notes))


def _source_of_weights(cfg: AttrDict, kind: str, state_dict_file: str | None) -> str:
    if state_dict_file and kind not in ("pkl", "safetensors"):
        raise UserError(f"--from_state_dict: expected --format pkl or safetensors with it, got {kind}")
    if not (state_dict_file or cfg.TEST.PARAMS_FILE):
        raise UserError("TEST.PARAMS_FILE is not set: give the weights to export")
    return state_dict_file or cfg.TEST.PARAMS_FILE


def _output_path(output: str, kind: str, weights_file: str) -> Path:
    path = Path(output)
    if path.is_dir() or output.endswith("/"):
        path /= Path(weights_file).stem + SUFFIXES[kind]
    if kind == "safetensors" and not is_safetensors(path):
        raise UserError(f"{path}: expected a name that ends in {SUFFIXES[kind]} for --output")
    if path.exists() and path.samefile(weights_file):
        raise UserError(f"{path}: expected another file than the weights themselves for --output")
    return path


def facts_path(path: str | os.PathLike) -> Path:
    """Where the facts about an exported file are."""
    return Path(f"{path}.json")


def empty_network(cfg: AttrDict) -> ResNetVideo:
    """The network of a test with its initial values.

    Its layers have the names of the blobs; it is not transformed, as other programs have their own ways to make it
    faster.
    """
    network = create_model(cfg, "test")
    network.output = cfg.TEST.OUTPUT_NAME
    return network


def load_all_weights(network: ResNetVideo, checkpoint: Checkpoint) -> dict[str, float]:
    """Load exactly the weights of a network; returns the file's lr and model_iter, as far as it has them.

    Raises UserError if the checkpoint fills the network only partly or holds more than its weights.
    """
    report = load_weights(network, checkpoint)
    report.require_exact()
    numbers = {"lr": report.lr, "model_iter": report.model_iter}
    return {name: value for name, value in numbers.items() if value is not None}


def training_values(state_dict_file: str) -> dict[str, float]:
    """lr and model_iter of a state_dict file, as far as they were written next to the very same file."""
    path = facts_path(state_dict_file)
    facts = {}
    if path.exists():
        try:
            with open(path, encoding="utf-8") as file:
                facts = json.load(file)
            digest = facts["sha256"]
        except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
            raise UserError(f"{path}: expected what --format state_dict has written, got something else "
                            f"({type(error).__name__}): remove it to continue without") from error
        if digest != file_digest(state_dict_file):
            facts = {}
    values = {name: facts[name] for name in ("lr", "model_iter") if name in facts}
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise UserError(f"{path}: {name}: expected a number, got {value!r:.100}")
    return values


def _write_and_compare(cfg: AttrDict, kind: str, network: ResNetVideo, training: dict[str, float],
                       shape: tuple[int, ...], path: Path) -> float:
    """Write a file and return the largest difference of its scores from the network's."""
    other: Callable[[Tensor], Tensor]
    if kind == "torch_export":
        export.write_torch_program(network, export.random_clips(shape, 2), path)
        other = export.read_torch_program(path)
    elif kind == "onnx":
        export.write_onnx(network, export.random_clips(shape, 2), path)
        other = export.read_onnx(path)
    elif kind == "state_dict":
        write_state_dict(network, path)
        other = empty_network(cfg)
        load_state_dict(other, path)
    elif kind == "safetensors":
        pred_w = model_blobs(network)["pred_w"].numpy()
        write_safetensors(named_tensors(network), as_text(options_of_scores(cfg), pred_w, **training), path)
        other = empty_network(cfg)
        load_weights(other, path)
    else:
        write_pickle(network, training, path)
        other = empty_network(cfg)
        load_weights(other, path)
    return export.largest_difference(network, other, shape)


def write_pickle(network: ResNetVideo, training: dict[str, float], path: str | os.PathLike) -> None:
    """Write the weights as the Caffe2 program stores them, without momentum. `training`: lr, and perhaps model_iter."""
    blobs: dict[str, object] = {name: tensor.numpy() for name, tensor in model_blobs(network).items()}
    blobs["lr"] = np.array(float(training["lr"]), np.float32)
    if "model_iter" in training:
        blobs["model_iter"] = int(training["model_iter"])
    dump({"blobs": blobs}, path)


def provenance(kind: str, cfg: AttrDict, weights_file: str, digest: str, path: Path, difference: float) -> dict:
    """What a file was made from; `digest` is that of the weights."""
    return {
        "format": kind,
        "sha256": file_digest(path),
        "weights": os.fspath(weights_file),
        "weights_sha256": digest,
        "largest_difference": difference,
        "torch": torch.__version__,
        "options": cfg,
    }


def interface(cfg: AttrDict, shape: tuple[int, ...]) -> tuple[dict, dict]:
    """What goes into an exported program and what comes out."""
    channels = "BGR" if cfg.MODEL.USE_BGR else "RGB"
    clips = {"name": "clips", "shape": ["batch", *shape], "dtype": "float32", "channels": channels,
             "values": f"(grey level - {cfg.MODEL.MEAN}) / {cfg.MODEL.STD}", "frames": f"every {cfg.TRAIN.SAMPLE_RATE}",
             "short_side": cfg.TEST.SCALE}
    return clips, {"name": "scores", "shape": ["batch", cfg.MODEL.NUM_CLASSES], "values": cfg.TEST.OUTPUT_NAME}
