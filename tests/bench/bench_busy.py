"""A training step alone and beside busy neighbours, by what OpenMP's threads do while they wait.

    python tests/bench/bench_busy.py [--neighbours 3] [--seconds 15] [--repetitions 3]

Each neighbour is another PyTorch process with two threads, as its environment has it by default: its threads spin. The
`fair share` of a step is its time alone, times the number of processes. Settings take turns.
"""

import contextlib
import os
import statistics
import subprocess
import sys
import time

from common import REPO, parser, print_conditions, print_table

SETTINGS = {
    "threads spin (OpenMP's default)": {},
    "threads sleep (the tools' default)": {"OMP_WAIT_POLICY": "PASSIVE"},
    "threads spin for some time": {"GOMP_SPINCOUNT": "10000"},
}
NEIGHBOUR = """
import torch
torch.set_num_threads(2)
a = torch.randn(64, 256, 28, 28)
layer = torch.nn.Conv2d(256, 64, 1)
with torch.inference_mode():
    while True:
        layer(a).relu_()
"""
STEPS = """
import sys, time
sys.path[:0] = {paths}
import torch
from bench_model import training_step
from engine.malloc import keep_freed_memory
torch.set_num_threads(2)
keep_freed_memory()
step = training_step("{variant}", "+ fused attention", torch.randn(1, 3, 8, 224, 224))
step()
print("ready", flush=True)
for line in sys.stdin:
    begin, times = time.monotonic(), []
    while not times or time.monotonic() - begin < float(line):
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    print(*times, flush=True)
"""


class Stepper:
    """A process that makes training steps when it is asked to."""

    def __init__(self, setting):
        paths = [str(REPO / folder) for folder in ("lib", "tests/bench", "tests/helpers", "tests/fuzz")]
        environment = {name: value for name, value in os.environ.items() if name not in ("OMP_WAIT_POLICY",)}
        self.process = subprocess.Popen(
            [sys.executable, "-c", STEPS.format(paths=paths, variant="fwd_i3d_nlnet_8x8_val")], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, text=True, env=environment | setting)
        assert self.process.stdout.readline() == "ready\n"

    def step_time(self, seconds):
        """Median time of the steps of some seconds."""
        self.process.stdin.write(f"{seconds}\n")
        self.process.stdin.flush()
        return statistics.median(map(float, self.process.stdout.readline().split()))


@contextlib.contextmanager
def neighbours(count):
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    processes = [subprocess.Popen([sys.executable, "-c", NEIGHBOUR], env=environment) for _ in range(count)]
    try:
        time.sleep(5 if count else 0)  # until they have started
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def main():
    arguments = parser(__doc__)
    arguments.add_argument("--neighbours", type=int, default=3, help="(default: %(default)s)")
    arguments.add_argument("--seconds", type=float, default=15, help="of steps, each time (default: %(default)s)")
    args = arguments.parse_args()
    print_conditions()
    steppers = {name: Stepper(setting) for name, setting in SETTINGS.items()}
    times = {name: {"alone": [], "busy": []} for name in SETTINGS}
    for _ in range(args.repetitions):
        for where, count in (("alone", 0), ("busy", args.neighbours)):
            with neighbours(count):
                for name, stepper in steppers.items():
                    times[name][where].append(stepper.step_time(args.seconds))
    found = {name: {where: statistics.median(of) for where, of in both.items()} for name, both in times.items()}
    spinning = found[next(iter(SETTINGS))]["alone"]
    rows = [[name, both["alone"], both["alone"] / spinning, both["busy"],
             both["busy"] / (spinning * (1 + args.neighbours))] for name, both in found.items()]
    print_table(f"Seconds of a training step (I3D-NL 8x8, 1 clip), alone and beside {args.neighbours} neighbours",
                ["", "alone", "of spinning", "beside neighbours", "of fair share"], rows)
    for stepper in steppers.values():
        stepper.process.kill()


if __name__ == "__main__":
    main()
