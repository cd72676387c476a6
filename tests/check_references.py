"""Compare the port with a folder of numbers computed by the legacy program. Prints one line per comparison.

    python tests/check_references.py FOLDER [NAME]... [--processes 2] [--markdown FILE]

FOLDER holds forward/*.npz, train/*.json, precisebn_*.json, lr_schedules.jsonl, test_clips.json (of the videos in
FOLDER/../videos), lmdb/, pickles/ and end_to_end/. NAMEs select the cases whose name contains one of them. The
references were made with two replicas: --processes 2 runs each in its own process. --markdown also writes the results
as a page. Exit status 1 if any error is over its bar.
"""

import argparse
import json
import logging
import sys
from collections import OrderedDict
from pathlib import Path

import numpy as np
import torch
from torch import nn

REPO = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(REPO / folder) for folder in ("lib", "tests/helpers", "tests/fuzz")]

import reference_data  # noqa: E402
import reference_recipe as recipe  # noqa: E402

from core.config import load_config  # noqa: E402
from engine.launcher import launch  # noqa: E402
from engine.replicas import forward_backward  # noqa: E402
from engine.solver import Solver  # noqa: E402
from formats.blobs import model_blobs  # noqa: E402
from models.complexity import count_operations  # noqa: E402
from models.inference import for_inference  # noqa: E402
from models.model_builder_video import create_model  # noqa: E402
from utils import cli  # noqa: E402
from utils.bn_helper import compute_precise_bn  # noqa: E402
from utils.errors import UserError  # noqa: E402
from utils.files import atomic_write  # noqa: E402
from utils.lr_policy import get_lr_at_iter  # noqa: E402

SOFTMAX_BAR, PRED_BAR, MOMENTUM_BAR, OPTIMISED_BAR = 5e-6, 1e-5, 1e-2, 1e-5


def reference_cfg(meta, **more):
    more = {"TRAIN.DROPOUT_RATE": 0.0, "MODEL.PRECISION": "float32", **more}
    options = [word for pair in more.items() for word in map(str, pair)]
    return load_config(REPO / "configs" / meta["yaml"], [*meta["opts"], *options])


def check_blobs(model, shapes):
    """Check names and shapes of the model's blobs; raises SystemExit if they differ."""
    blobs = {name: list(tensor.shape) for name, tensor in model_blobs(model).items()}
    # The fully convolutional classifier is the same matrix with three trailing ones.
    expected = {name: shape[:2] if name == "pred_w" else shape for name, shape in shapes.items()}
    if blobs != expected:
        raise SystemExit(f"blobs differ: {sorted(set(map(str, blobs.items())) ^ set(map(str, expected.items())))}")


def reference_model(meta, cfg, split):
    model = create_model(cfg, split)
    if "param_shapes" in meta:
        check_blobs(model, meta["param_shapes"])
    recipe.fill(model, meta["seed"], meta.get("weight_scales"))
    return model


@torch.inference_mode()
def scores_and_probabilities(model, clips):
    """(pred, softmax) of the clips as N x K arrays, averaged over the positions that pool5 leaves."""
    features = nn.Sequential(*(getattr(model, name) for name in model.trunk))(clips)
    outputs = []
    for model.output in ("pred", "softmax"):
        outputs.append(model.head(features).numpy())
    return outputs


@torch.inference_mode()
def inference_probabilities(model, clips):
    """The softmax as the tools compute it, with all optimisations for prediction."""
    model.output = "softmax"
    return for_inference(model)(clips).numpy()


def check_forward(path, _):
    with np.load(path) as file:
        meta = json.loads(str(file["meta"]))
        softmax, pred = file["softmax"], file["pred"]
    model = reference_model(meta, reference_cfg(meta), meta["split"])
    counted = count_operations(model, tuple(meta["input_shape"][1:]))
    yield "operations and parameters", max(abs(counted[0] - meta["flops"]), abs(counted[1] - meta["params"])), 0
    clips = recipe.clips(meta["input_shape"], "data", meta["seed"])
    scores, probabilities = scores_and_probabilities(model, clips)
    pred = pred.reshape(*pred.shape[:2], -1).mean(2)  # over the positions, as the port reports scores
    yield "softmax", np.abs(probabilities - softmax).max(), SOFTMAX_BAR
    yield "pred", np.abs(scores - pred).max() / np.abs(pred).max(), PRED_BAR
    faster = inference_probabilities(model, clips)
    yield "softmax, optimised against unoptimised", np.abs(faster - probabilities).max(), OPTIMISED_BAR


def sampled_error(actual, expected, scale=None):
    """Largest difference of the 8 sampled values, relative to the blob's root mean square (or a given scale)."""
    flat = actual.detach().reshape(-1)
    points = [int(i) for i in np.linspace(0, flat.numel() - 1, 8)]
    rms = expected["l2"] / np.sqrt(expected["n"]) if scale is None else scale
    return np.abs(flat[points].numpy() - np.array(expected["sample"])).max() / rms


def train_cfg(meta):
    batch_size = meta["ngpu"] * meta["bpg"]
    return reference_cfg(meta, **{"NUM_GPUS": meta["ngpu"], "TRAIN.BATCH_SIZE": batch_size,
                                  "TEST.BATCH_SIZE": batch_size})


def run_training(meta, replicas, dtype=torch.float32):
    """Run a reference's iterations; yield (expected numbers, learning rate, losses, blobs, histories) after each."""
    cfg = train_cfg(meta)
    model = reference_model(meta, cfg, "train").to(replicas.device, dtype)
    solver = Solver.from_config(model, cfg)
    solver.lr = get_lr_at_iter(0, cfg)
    parallel_model = replicas.parallel(model)
    for it, expected in enumerate(meta["iters"]):
        lr = get_lr_at_iter(it, cfg)
        solver.set_lr(lr, it)
        batch = [(recipe.clips(meta["data_shape"], f"train_{it}_gpu_{r}", meta["seed"]).to(dtype),
                  recipe.labels(meta["bpg"], cfg.MODEL.NUM_CLASSES, f"train_labels_{it}_gpu_{r}", meta["seed"]))
                 for r in replicas.local]
        batch = [(clips.to(replicas.device), labels.to(replicas.device)) for clips, labels in batch]
        losses = replicas.sum(forward_backward(parallel_model, batch, replicas, cfg.RNG_SEED, it))[:, 0].cpu().numpy()
        solver.step()
        yield expected, lr, losses, model_blobs(model), solver.history


def momentum_error(history, expected):
    scale = max(e["l2"] / np.sqrt(e["n"]) for e in expected.values())
    return max(sampled_error(history[name], e, scale) for name, e in expected.items())


def check_train(path, replicas):
    meta = json.loads(path.read_text())
    first_loss = later_loss = lr_error = 0.0
    momentum = {}
    for it, (expected, lr, losses, blobs, history) in enumerate(run_training(meta, replicas)):
        lr_error = max(lr_error, abs(lr - expected["lr"]))
        error = np.abs(losses / expected["losses"] - 1).max()
        if it == 0:
            first_loss = error
        else:
            later_loss = max(later_loss, error)
        if "params" not in expected:
            continue
        when, bar = ("first", 5e-4) if it == 0 else ("last", 3e-3)
        statistics = {n: e for n, e in expected["params"].items() if n.endswith("_rm")}
        # Legacy's CPU build updates the running variance with the biased batch variance, PyTorch and GPUs with the
        # unbiased one.
        weights = {n: e for n, e in expected["params"].items() if not n.endswith(("_rm", "_riv"))}
        yield f"parameters after the {when} iteration", max(sampled_error(blobs[n], e) for n, e in weights.items()), bar
        if statistics:
            error = max(sampled_error(blobs[n], e) for n, e in statistics.items())
            yield f"_bn_rm after the {when} iteration", error, 1e-2
        momentum[it] = (when, momentum_error(history, expected["momentum"]))
    yield "loss of the first iteration", first_loss, 1e-5
    yield f"losses of iterations 2..{it + 1}", later_loss, 1e-3
    yield "learning rates", lr_error, 0

    exact = {}
    if max(error for _, error in momentum.values()) > MOMENTUM_BAR:
        # Find out how far the reference itself, computed in float32, is from float64 arithmetic.
        double = run_training(meta, replicas, torch.float64)
        exact = {it: momentum_error(step[4], step[0]["momentum"]) for it, step in enumerate(double) if it in momentum}
    for it, (when, error) in momentum.items():
        yield f"momentum after the {when} iteration", error, MOMENTUM_BAR, exact.get(it, 0)


def precise_bn_blobs(meta, replicas, layers=None):
    """Blobs of the whole network, or of its first layers, after the reference's precise BN."""
    model = create_model(reference_cfg(meta), "train")
    recipe.fill(model, meta["seed"], meta.get("weight_scales"))
    if layers is not None:
        model = nn.Sequential(OrderedDict((name, getattr(model, name)) for name in model.trunk[:layers]))
    batches = iter([[recipe.clips(meta["data_shape"], f"bn_{i}_gpu_{r}", meta["seed"]) for r in replicas.local]
                    for i in range(meta["iters"])])
    compute_precise_bn(model, lambda: next(batches), meta["iters"], replicas, 0, 1000)
    return model_blobs(model)


def precise_bn_errors(blobs, stats):
    """(what, error, bar) of the means and of the variances."""
    for suffix, bar in (("_rm", 1e-4), ("_riv", 1e-3)):
        chosen = {n: e for n, e in stats.items() if n.endswith(suffix)}
        yield f"_bn{suffix}", max(sampled_error(blobs[n], e) for n, e in chosen.items()), bar


def check_precise_bn(path, replicas):
    meta = json.loads(path.read_text())
    yield from precise_bn_errors(precise_bn_blobs(meta, replicas), meta["stats"])


def check_schedules(path, _):
    for line in path.read_text().splitlines():
        schedule = json.loads(line)
        cfg = load_config(REPO / "configs" / schedule["yaml"], schedule["opts"])
        error = max(abs(get_lr_at_iter(int(it), cfg) - lr) for it, lr in schedule["lrs"].items())
        yield f"{schedule['yaml'][4:-5]} {' '.join(schedule['opts'][1::2])}".strip(), error, 0


def cases(folder):
    """(name, function, path) of every case in a folder of references."""
    for path in sorted(folder.glob("forward/*.npz")):
        yield path.stem, check_forward, path
    for path in sorted(folder.glob("train/*.json")):
        yield path.stem, check_train, path
    for path in sorted(folder.glob("precisebn_*.json")):
        yield path.stem, check_precise_bn, path
    for path in sorted(folder.glob("lr_schedules.jsonl")):
        yield path.stem, check_schedules, path
    for name, check, pattern in (
        ("test_clips", reference_data.check_clips, "test_clips.json"),
        ("lmdb", reference_data.check_lmdbs, "lmdb"),
        ("pickles", reference_data.check_pickles, "pickles"),
        ("end_to_end", reference_data.check_end_to_end, "end_to_end"),
    ):
        yield from ((name, check, path) for path in folder.glob(pattern))
    for path in sorted(folder.glob("pickles/*_of_*.json")):
        yield path.stem.partition("_of_")[0], reference_data.check_conversion, path


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="*", help="run only cases whose name contains one of these")
    parser.add_argument("--processes", default="1")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write a page of the results")
    args = parser.parse_args()
    cli.setup_logging()
    logging.getLogger().setLevel(logging.WARNING)
    cfg = load_config(None, ["NUM_GPUS", "2", "NUM_PROCESSES", args.processes])
    return launch(lambda _, replicas: check_all(args, replicas), cfg)


def check_all(args, replicas):
    chosen = [case for case in cases(args.folder) if not args.names or any(name in case[0] for name in args.names)]
    if not chosen:
        raise UserError(f"{args.folder}: no reference with such a name")
    over, rows = 0, []
    for name, check, path in chosen:
        for what, error, bar, *noise in check(path, replicas):
            # If the legacy program's own float32 rounding (its distance from float64 arithmetic) exceeds the bar, no
            # other float32 program can be held to it: up to twice that distance, the error counts as noise.
            verdict, note = ("ok", "") if error <= bar else ("OVER", "")
            if noise and noise[0] > bar:
                note = f"  (the reference itself is {noise[0]:.2e} from float64)"
                if bar < error <= 2 * noise[0]:
                    verdict = "noise"
            over += verdict == "OVER"
            rows.append((name, what, f"{error:.1e}" if error else "0", f"{bar:.0e}" if bar else "0", verdict + note))
            if replicas.is_root:
                print(f"{verdict:5s} {name:34s} {what:48s} error {error:.2e}  bar {bar:.0e}{note}", flush=True)
    if replicas.is_root:
        print("all within their bars" if not over else f"{over} over their bars")
        if args.markdown:
            write_page(args.markdown, rows)
    # Running statistics are those of the root replica, so only the root can check them.
    return 1 if over and replicas.is_root else 0


INTRODUCTION = """# Parity with the Caffe2 program

Made by `python tests/check_references.py FOLDER --markdown FILE` on a CPU in strict float32; FOLDER holds numbers that
the Caffe2 program computed. An error is relative or absolute as its bar; "noise" is where the reference itself,
computed in float32, is farther than the bar from the same steps in float64.
"""


def write_page(path, rows):
    """Write rows of strings as a Markdown page."""
    head = ("reference", "what", "error", "bar", "")
    with atomic_write(path, "w", encoding="utf-8") as file:
        print(INTRODUCTION, file=file)
        for row in (head, ["---"] * len(head), *rows):
            print("|", " | ".join(row), "|", file=file)


if __name__ == "__main__":
    cli.run(main)
