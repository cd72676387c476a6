"""Cost of spreading the replicas over processes: two processes with a replica each vs one process with both.

    python tests/bench/bench_processes.py [--iterations N] [--rounds N] [--width N] [KEY VALUE]...

Times training iterations on synthetic clips, without decoding, in alternating rounds. `not compute` is the share of an
iteration beyond the same passes and update without communication. With GPUs, two processes use two of them.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time

import torch
from common import REPO, print_table

from core.config import load_config
from engine.launcher import launch
from engine.replicas import Replicas, forward_backward
from engine.solver import Solver
from models.model_builder_video import create_model
from utils import cli


def measure(cfg, replicas):
    """Print the median times of an iteration with and without communication, in seconds, as JSON (root only)."""
    model = create_model(cfg, "train").to(replicas.device)
    solver = Solver.from_config(model, cfg)
    solver.lr = cfg.SOLVER.BASE_LR
    share = cfg.TRAIN.BATCH_SIZE // cfg.NUM_GPUS
    size = cfg.TRAIN.CROP_SIZE
    clips = torch.randn(share, 3, cfg.TRAIN.VIDEO_LENGTH, size, size, device=replicas.device)
    labels = torch.zeros(share, dtype=torch.int64, device=replicas.device)
    batch = [(clips, labels)] * len(replicas.local)
    ways = {"whole": (replicas.parallel(model), replicas), "compute": (model, AloneWith(replicas))}
    seconds = {name: [] for name in ways}
    for it in range(int(os.environ["NLNET_BENCH_ITERATIONS"]) + 2):
        for name, (network, place) in ways.items():
            replicas.sum(torch.zeros(1, device=replicas.device)).item()  # makes all processes start together
            start = time.perf_counter()
            results = place.sum(forward_backward(network, batch, place, cfg.RNG_SEED, it))
            solver.step()
            results.tolist()  # waits for the device
            if it >= 2:
                seconds[name].append(time.perf_counter() - start)
    if replicas.is_root:
        print(json.dumps({name: statistics.median(values) for name, values in seconds.items()}))
    return 0


class AloneWith(Replicas):
    """The same local replicas, in a world of one process."""

    def __init__(self, replicas):
        super().__init__(replicas.total, device=replicas.device)
        object.__setattr__(self, "hosted", replicas.local)

    @property
    def local(self):
        return self.hosted


def worker(options):
    cli.setup_logging()
    return launch(measure, load_config(REPO / "configs/DBG_kinetics_resnet_8gpu_c2d_nonlocal_400k.yaml", options))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--iterations", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--width", type=int, default=8, help="RESNETS.WIDTH_PER_GROUP; 64 in the paper")
    parser.add_argument("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE")
    args = parser.parse_args()
    options = ["NUM_GPUS", "2", "TRAIN.BATCH_SIZE", "4", "MODEL.VIDEO_ARC_CHOICE", "1", "TRAIN.VIDEO_LENGTH", "2",
               "RESNETS.WIDTH_PER_GROUP", str(args.width), *args.opts]
    found = {1: [], 2: []}
    for _ in range(args.rounds):
        for processes, values in found.items():
            words = [sys.executable, __file__, "--worker", *options, "NUM_PROCESSES", str(processes)]
            output = subprocess.run(words, check=True, capture_output=True, text=True,
                                    env=os.environ | {"NLNET_BENCH_ITERATIONS": str(args.iterations)}).stdout
            values.append(json.loads(output.splitlines()[-1]))
    whole = {n: statistics.median(v["whole"] for v in values) for n, values in found.items()}
    compute = {n: statistics.median(v["compute"] for v in values) for n, values in found.items()}
    header = ("NUM_GPUS 2, 4 clips", "iteration, ms", "of one process", "not compute")
    rows = [(f"{n} process{'es' if n > 1 else ''}", f"{1000 * whole[n]:.0f}", f"{whole[n] / whole[1]:.2f}x",
              f"{max(0, 1 - compute[n] / whole[n]):.1%}") for n in found]
    print_table(f"Training iterations, {'GPU' if torch.cuda.is_available() else 'CPU'}", header, rows)
    return 0


if __name__ == "__main__":
    cli.run((lambda: worker(sys.argv[2:])) if sys.argv[1:2] == ["--worker"] else main)
