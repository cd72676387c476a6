"""Gain of each optimisation of the network: time, rate and memory, for the variants of the reference numbers.

    python tests/bench/bench_model.py [VARIANT]... [--what inference] [--batch 1] [--device cuda] [--repetitions 5]

Each build runs in its own process; the builds take turns. They add one optimisation after another to the plain network:
eager, contiguous, unfolded, with the P x Q matrix of the non-local blocks in memory. VARIANT selects the variants whose
name contains one of the words. `of product` is relative to the rate at which this machine multiplies matrices of the
same type, measured in the same run. `memory` is the peak beyond that of the process without a network.
"""

import json
import resource
import sys
import time

import torch
from common import REPO, Worker, measure, parser, print_table
from torch.nn import functional as F

from core.config import load_config
from engine.replicas import Replicas, forward_backward
from engine.solver import Solver
from models import nonlocal_helper
from models.compilation import Compiled
from models.complexity import count_operations
from models.inference import fold_norms, for_inference
from models.model_builder_video import create_model
from models.precision import set_precision

VARIANTS = json.loads((REPO / "tests/data/reference/forward.json").read_text())
INFERENCE = ("plain", "+ channels last", "+ fused attention", "+ norms folded", "+ flat convolutions", "+ compiled",
             "bfloat16, eager", "bfloat16, compiled")
TRAINING = ("plain", "+ channels last", "+ fused attention", "+ compiled", "bfloat16", "bfloat16, compiled",
            "activations recomputed")


def plain_attention(theta, phi, g, use_scale):
    affinity = theta @ phi.transpose(1, 2)
    return (affinity * theta.shape[-1] ** -0.5 if use_scale else affinity).softmax(2) @ g


def configuration(variant, **options):
    meta = VARIANTS[variant]
    options = {"NUM_GPUS": 1, "TRAIN.DROPOUT_RATE": 0.5, **options}
    words = [str(word) for pair in options.items() for word in pair]
    return load_config(REPO / "configs" / meta["yaml"], [*meta["opts"], *words])


def clip_shape(variant, what):
    shape = VARIANTS[variant]["input_shape"][1:]
    return tuple(shape) if what == "inference" else (*shape[:2], 224, 224)


def choose_layout_and_attention(build, clips):
    """The clips in the build's memory format. For the builds without fused attention, also replaces the attention."""
    if build in ("plain", "+ channels last"):
        nonlocal_helper.softmax_attention = plain_attention
    return clips if build == "plain" else clips.contiguous(memory_format=torch.channels_last_3d)


def inference_pass(variant, build, clips):
    model = create_model(configuration(variant), "test").to(clips.device)
    clips = choose_layout_and_attention(build, clips)
    level = INFERENCE.index(build)
    if build.startswith("bfloat16"):
        network = for_inference(model, "bfloat16")
    elif level >= INFERENCE.index("+ flat convolutions"):
        network = for_inference(model)
    else:
        network = model
        if level:
            network.to(memory_format=torch.channels_last_3d)
        if build == "+ norms folded":
            fold_norms(network)
    if build.endswith("compiled"):
        network = Compiled(network)
    return lambda: network(clips)


def training_step(variant, build, clips):
    precision = "bfloat16" if build.startswith("bfloat16") else "tf32"
    set_precision(precision)
    cfg = configuration(variant, **{"TRAIN.CHECKPOINT_ACTIVATIONS": build == "activations recomputed"})
    model = create_model(cfg, "train").to(clips.device)
    clips = choose_layout_and_attention(build, clips)
    solver = Solver.from_config(model, cfg)
    solver.lr = 1e-6
    parallel = torch.compile(model) if build.endswith("compiled") else model
    labels = torch.zeros(len(clips), dtype=torch.int64, device=clips.device)
    replicas = Replicas(1, device=clips.device)

    def step():
        forward_backward(parallel, [(clips, labels)], replicas, 0, 0, precision)
        solver.step()

    return step


class Build:
    """The function of a worker process: makes the build at the first call, and runs it once per call."""

    def __init__(self, variant, what, build, batch, device):
        self.arguments = variant, what, build, batch, device
        self.run = None

    def __call__(self, question="run"):
        variant, what, build, batch, device = self.arguments
        if question == "peak":
            return self.peak()
        if question == "rate":
            return product_rate(torch.bfloat16 if "bfloat16" in build else torch.float32, device)
        if self.run is None:
            self.before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
            clips = torch.randn(batch, *clip_shape(variant, what), device=device)
            make = inference_pass if what == "inference" else training_step
            with torch.inference_mode(what == "inference"):
                self.run = make(variant, build, clips)
        with torch.inference_mode(what == "inference"):
            self.run()
        if device == "cuda":
            torch.cuda.synchronize()
        return None

    def peak(self):
        if self.arguments[-1] == "cuda":
            return torch.cuda.max_memory_allocated()
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - self.before


def product_rate(dtype, device):
    """Operations per second of a product of square matrices, with the faster of the libraries that PyTorch calls."""
    n = 2048 if device == "cpu" else 8192
    a, b = (torch.randn(n, n, device=device, dtype=dtype) for _ in range(2))
    products = [lambda: F.linear(a, b), lambda: F.conv2d(a.T[None, :, :, None], b[:, :, None, None])]
    seconds = []
    for product in products * 6:
        start = time.perf_counter()
        product()
        if device == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return 2 * n**3 / min(seconds[len(products):])


def compare(variant, what, builds, batch, device, repetitions):
    workers = {build: Worker(Build(variant, what, build, batch, device)) for build in builds}
    times = measure(workers, [()], repetitions)
    meta_model = create_model(configuration(variant), "test").to("meta")
    operations = 2 * batch * count_operations(meta_model, clip_shape(variant, what))[0]
    if what == "training":
        operations *= 3  # the backward pass has two products for each one in the forward pass
    rates = {}
    for build, worker in workers.items():
        rates["bfloat16" in build] = max(rates.get("bfloat16" in build, 0), worker.result("rate"))
    rows = []
    for build, worker in workers.items():
        seconds, rate = times[build][1], rates["bfloat16" in build]
        rows.append([build, f"{seconds:.3f}", times[builds[0]][1] / seconds, f"{operations / seconds / 1e9:.0f}",
                     f"{100 * operations / seconds / rate:.0f} %", f"{worker.result('peak') / 2**20:.0f}"])
    title = f"{variant}: {what}, batch {batch}, {' x '.join(map(str, clip_shape(variant, what)))}, {device}"
    print_table(title, ["build", "seconds", "ratio", "GFLOP/s", "of product", "memory MiB"], rows)


def main():
    arguments = parser(__doc__)
    arguments.add_argument("variants", nargs="*", help="words in the names of variants (default: all)")
    arguments.add_argument("--what", choices=["inference", "training"], action="append")
    arguments.add_argument("--build", action="append", help="only these builds, besides the first")
    arguments.add_argument("--batch", type=int, default=1)
    arguments.add_argument("--device", default="cpu")
    args = arguments.parse_args()
    chosen = [name for name in VARIANTS if not args.variants or any(word in name for word in args.variants)]
    if not chosen:
        sys.exit(f"no such variant; expected one of {', '.join(VARIANTS)}")
    for variant in chosen:
        for what in args.what or ["inference", "training"]:
            known = INFERENCE if what == "inference" else TRAINING
            builds = [build for build in known if not args.build or build == known[0] or build in args.build]
            compare(variant, what, builds, args.batch, args.device, args.repetitions)


if __name__ == "__main__":
    main()
