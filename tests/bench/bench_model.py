"""Gain of each optimisation of the network: time, rate and memory, for the variants of the reference numbers.

    python tests/bench/bench_model.py [VARIANT]... [--what inference] [--batch 1] [--device cuda] [--repetitions 5]

Each build runs in its own process; on a CPU they take turns. They add one optimisation after another to the plain
network: eager, contiguous, three-dimensional convolutions, the P x Q matrix of the non-local blocks in memory, norms
not folded. "plain, compiled" is that network given to torch.compile, which is what any other implementation can have;
"plain, bfloat16, compiled" is the same under autocast.
Those after "+ compiled" start from all others. On CPUs all have the allocator setting of the tools
(`engine/malloc.py`). VARIANT selects the variants whose name contains one of the words. `of product` is relative to the
rate at which this machine multiplies matrices of the same type, measured in the same run. `memory` is the peak beyond
that of the process without a network. Several variants end with a table of all.
"""

import json
import resource
import sys
import time
from typing import NamedTuple

import torch
from common import REPO, Worker, measure, parser, print_table
from torch.nn import functional as F

from core.config import load_config
from engine.malloc import keep_freed_memory
from engine.replicas import Replicas, forward_backward
from engine.solver import Solver
from models.affinities import EmbeddedGaussian
from models.compilation import Compiled
from models.complexity import count_operations
from models.convolution import Conv3d
from models.inference import fold_norms, for_inference
from models.model_builder_video import create_model
from models.precision import autocast, leave_out_amx, set_precision

VARIANTS = json.loads((REPO / "tests/data/reference/forward.json").read_text())
# Each adds one optimisation, up to "+ compiled"; those after that start from everything but compilation.
STEPS = ("plain", "+ channels last", "+ cudnn.benchmark", "+ flat convolutions", "+ fused attention")
COMPILED_PLAIN = ("plain, compiled", "plain, bfloat16, compiled")
INFERENCE = ("plain", *COMPILED_PLAIN, *STEPS[1:], "+ norms folded", "+ compiled", "bfloat16", "bfloat16, two products",
             "bfloat16, compiled")
TRAINING = ("plain", *COMPILED_PLAIN, *STEPS[1:], "+ compiled", "bfloat16", "bfloat16, two products",
            "bfloat16, compiled", "activations recomputed")


def plain_attend(self, block, theta, phi, g):
    """The softmax form with its P x Q matrix in memory."""
    return (theta @ phi.transpose(1, 2) * self._scale(theta)).softmax(2) @ g


def configuration(variant, **options):
    meta = VARIANTS[variant]
    options = {"NUM_GPUS": 1, "TRAIN.DROPOUT_RATE": 0.5, **options}
    words = [str(word) for pair in options.items() for word in pair]
    return load_config(REPO / "configs" / meta["yaml"], [*meta["opts"], *words])


def clip_shape(variant, what):
    shape = VARIANTS[variant]["input_shape"][1:]
    return tuple(shape) if what == "inference" else (*shape[:2], 224, 224)


def base_of(build):
    """The build that a compiled one is compiled from, where that is one of STEPS."""
    return "plain" if build in COMPILED_PLAIN else build


def precision_of(build):
    return "bfloat16" if "bfloat16" in build else "tf32"


def prepare(build, clips):
    """Undo the program's optimisations that a build does without. Returns the clips in its memory format."""
    level = STEPS.index(base_of(build)) if base_of(build) in STEPS else len(STEPS)
    torch.backends.cudnn.benchmark = level >= STEPS.index("+ cudnn.benchmark")
    if level < STEPS.index("+ flat convolutions"):
        Conv3d.forward = torch.nn.Conv3d.forward
    if level < STEPS.index("+ fused attention") or "two products" in build:
        EmbeddedGaussian.attend = plain_attend
    return clips if base_of(build) == "plain" else clips.contiguous(memory_format=torch.channels_last_3d)


def network_of(variant, build, split, device, **options):
    model = create_model(configuration(variant, **options), split).to(device)
    return model.to(memory_format=torch.contiguous_format) if base_of(build) == "plain" else model


def inference_pass(variant, build, clips):
    clips = prepare(build, clips)
    set_precision(precision_of(build))
    network = network_of(variant, build, "test", clips.device)
    if build.startswith("bfloat16"):
        network = for_inference(network, "bfloat16")
    elif build == "+ norms folded":
        fold_norms(network)
    elif build == "+ compiled":
        network = for_inference(network)
    if build.endswith("compiled"):
        network = Compiled(network, constant=base_of(build) != "plain")

    def predict():
        with autocast(precision_of(build) if base_of(build) == "plain" else "tf32", clips.device):
            network(clips)

    return predict


def training_step(variant, build, clips):
    clips = prepare(build, clips)
    precision = precision_of(build)
    set_precision(precision)
    model = network_of(variant, build, "train", clips.device,
                       **{"TRAIN.CHECKPOINT_ACTIVATIONS": build == "activations recomputed"})
    solver = Solver.from_config(model, configuration(variant))
    solver.lr = 1e-6
    labels = torch.zeros(len(clips), dtype=torch.int64, device=clips.device)
    replicas = Replicas(1, device=clips.device)
    network = Compiled(model, constant=False) if build.endswith("compiled") else model

    def step():
        forward_backward(network, [(clips, labels)], replicas, 0, 0, precision)
        solver.step()

    return step


class Measured(NamedTuple):
    """A build's median time and the peak of its memory in MiB."""

    variant: str
    what: str
    build: str
    seconds: float
    peak: float


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
            dtype = torch.bfloat16 if precision_of(build) == "bfloat16" else torch.float32
            return product_rate(dtype, device)
        if question == "operations":
            return self.operations()
        if self.run is None:
            if device == "cpu":
                keep_freed_memory()
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
        """Bytes at the peak."""
        if self.arguments[-1] == "cuda":
            return torch.cuda.max_memory_allocated()
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - self.before


    def operations(self):
        """Operations of a run. Not computed by the parent, whose threads a forked worker would wait for."""
        variant, what, _, batch, _ = self.arguments
        multiply_adds = count_operations(create_model(configuration(variant), "test"), clip_shape(variant, what))[0]
        # The backward pass has two products for each one in the forward pass.
        return 2 * batch * multiply_adds * (3 if what == "training" else 1)


def product_rate(dtype, device):
    """Operations per second of a product of square matrices, with the faster of the libraries that PyTorch calls."""
    n = 2048 if device == "cpu" else 8192
    a, b = (torch.randn(n, n, device=device, dtype=dtype) for _ in range(2))
    products = [lambda: F.linear(a, b), lambda: F.conv2d(a.T[None, :, :, None], b[:, :, None, None])]
    seconds = []
    for product in products * 4:
        start = time.perf_counter()
        product()
        if device == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return 2 * n**3 / min(seconds[len(products):])


def compare(variant, what, builds, batch, device, repetitions):
    workers = {build: Worker(Build(variant, what, build, batch, device)) for build in builds}
    shape = clip_shape(variant, what)
    print(f"\n{variant}: {what}, batch {batch}, {' x '.join(map(str, shape))}, {device}", flush=True)
    rows, first, measured = [], None, []
    # On a CPU the builds take turns. A GPU has no other load, and not the memory for all at once.
    for group in [builds] if device == "cpu" else [[build] for build in builds]:
        try:
            times = measure({build: workers[build] for build in group}, [()], repetitions)
        except RuntimeError as error:
            print(f"{', '.join(group)}: failed: {str(error).splitlines()[0]}", flush=True)
            continue
        for build in group:
            seconds, rate = times[build][1], workers[build].result("rate")
            first = first or seconds
            peak = workers[build].result("peak") / 2**20
            operations = workers[build].result("operations")
            measured.append(Measured(variant, what, build, seconds, peak))
            rows.append([build, f"{1e3 * seconds:.1f}", first / seconds, f"{batch / seconds:.1f}",
                         f"{operations / seconds / 1e9:.0f}", f"{100 * operations / seconds / rate:.0f} %",
                         f"{peak:.0f}"])
            workers[build].close()
            if device != "cpu":
                print(*rows[-1], sep="  ", flush=True)  # at once: compilation may take longer than one waits
    print_table("", ["build", "ms", "ratio", "clips/s", "GFLOP/s", "of product", "memory MiB"], rows)
    return measured


def print_all(measured):
    """A line for each variant: what each build of a kind of work takes, relative to the first one, and its memory."""
    for what in dict.fromkeys(each.what for each in measured):
        chosen = [each for each in measured if each.what == what]
        builds = list(dict.fromkeys(each.build for each in chosen))
        rows = []
        for variant in dict.fromkeys(each.variant for each in chosen):
            of_build = {each.build: each for each in chosen if each.variant == variant}
            if (first := of_build.get(builds[0])) is None:
                continue
            cells = [f"{first.seconds / of_build[b].seconds:.2f} / {of_build[b].peak:.0f}" if b in of_build else "-"
                     for b in builds[1:]]
            rows.append([variant, f"{1e3 * first.seconds:.0f} / {first.peak:.0f}", *cells])
        print_table(f"{what}: ms / MiB of {builds[0]}; of the others ratio / MiB", ["", *builds], rows)


def main():
    arguments = parser(__doc__)
    arguments.add_argument("variants", nargs="*", help="words in the names of variants (default: all)")
    arguments.add_argument("--what", choices=["inference", "training"], action="append")
    arguments.add_argument("--build", action="append", help="only these builds, besides the first")
    arguments.add_argument("--batch", type=int, default=1)
    arguments.add_argument("--device", default="cpu")
    args = arguments.parse_args()
    leave_out_amx()  # as the tools do
    chosen = [name for name in VARIANTS if not args.variants or any(word in name for word in args.variants)]
    if not chosen:
        sys.exit(f"no such variant; expected one of {', '.join(VARIANTS)}")
    measured = []
    for variant in chosen:
        for what in args.what or ["inference", "training"]:
            known = INFERENCE if what == "inference" else TRAINING
            builds = [build for build in known if not args.build or build == known[0] or build in args.build]
            # What the program does on the other kind of device alone.
            absent = "+ cudnn.benchmark" if args.device == "cpu" else "+ flat convolutions"
            builds = [build for build in builds if build != absent]
            measured += compare(variant, what, builds, args.batch, args.device, args.repetitions)
    if len(chosen) > 1:
        print_all(measured)


if __name__ == "__main__":
    main()
