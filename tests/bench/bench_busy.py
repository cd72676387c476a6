"""A training step alone and beside busy neighbours, by what OpenMP's threads do while they wait.

    python tests/bench/bench_busy.py [i3d_nlnet_8x8|demo] [--neighbours 3] [--seconds 5] [--repetitions 7]

The step is that of I3D with non-local blocks (one clip of 8 frames), or of the demo (eight small clips, a narrow
network, in which threads wait for each other more often).

Each neighbour is another PyTorch process with two threads, as its environment has it by default: its threads spin. The
`fair share` of a step is its time alone, spinning, times the number of processes. Settings take turns; ratios are
medians over the turns.
"""

import contextlib
import os
import statistics
import subprocess
import sys
import time

from common import REPO, parser, print_conditions, print_table

# Before the import of _init_paths, which sets them for this process.
UNSET = {name: value for name, value in os.environ.items() if name not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}
sys.path.insert(0, str(REPO / "tools"))
from _init_paths import WHEN_BUSY, WHEN_IDLE  # noqa: E402

BUSY = "sleep, in short slices (the tools' choice on a busy machine)"
SETTINGS = {
    "spin (OpenMP's default)": {},
    "sleep": WHEN_BUSY,
    BUSY: WHEN_BUSY,
    "spin shortly (the tools' choice on an idle one)": WHEN_IDLE,
}
# The network's name in bench_model.py, and the shape of its clips.
STEPS = {"i3d_nlnet_8x8": ("fwd_i3d_nlnet_8x8_val", (1, 3, 8, 224, 224)), "demo": ("demo", (8, 3, 4, 200, 200))}
NEIGHBOUR = """
import torch
torch.set_num_threads(2)
a = torch.randn(64, 256, 28, 28)
layer = torch.nn.Conv2d(256, 64, 1)
with torch.inference_mode():
    while True:
        layer(a).relu_()
"""
PROGRAM = """
import sys, time
sys.path[:0] = {paths}
if {short_slices}:
    from _init_paths import ask_for_short_slices
    ask_for_short_slices()
import torch
from bench_model import VARIANTS, training_step
from engine.malloc import keep_freed_memory
torch.set_num_threads(2)
keep_freed_memory()
VARIANTS["demo"] = dict(yaml="demo.yaml", opts=[])
step = training_step({network!r}, "+ fused attention", torch.randn(*{clips}))
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

    def __init__(self, setting, which):
        network, clips = STEPS[which]
        paths = [str(REPO / folder) for folder in ("lib", "tools", "tests/bench", "tests/helpers", "tests/fuzz")]
        program = PROGRAM.format(paths=paths, short_slices=setting == BUSY, network=network, clips=clips)
        self.process = subprocess.Popen(
            [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env=UNSET | SETTINGS[setting])
        assert self.process.stdout.readline() == "ready\n"

    def step_time(self, seconds):
        """Median time of the steps of some seconds."""
        self.process.stdin.write(f"{seconds}\n")
        self.process.stdin.flush()
        return statistics.median(map(float, self.process.stdout.readline().split()))


@contextlib.contextmanager
def neighbours(count):
    processes = [subprocess.Popen([sys.executable, "-c", NEIGHBOUR], env=UNSET) for _ in range(count)]
    try:
        time.sleep(5 if count else 0)  # until they have started
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def main():
    arguments = parser(__doc__)
    arguments.add_argument("step", nargs="?", choices=STEPS, default="i3d_nlnet_8x8", help="(default: %(default)s)")
    arguments.add_argument("--neighbours", type=int, default=3, help="(default: %(default)s)")
    arguments.add_argument("--seconds", type=float, default=5, help="of steps, each turn (default: %(default)s)")
    args = arguments.parse_args()
    print_conditions()
    steppers = {name: Stepper(name, args.step) for name in SETTINGS}
    times = {name: {"alone": [], "busy": []} for name in SETTINGS}
    for repetition in range(args.repetitions):
        order = list(steppers)[:: -1 if repetition % 2 else 1]
        for where, count in (("alone", 0), ("busy", args.neighbours)):
            with neighbours(count):
                for name in order:
                    times[name][where].append(steppers[name].step_time(args.seconds))
    spinning = times[next(iter(SETTINGS))]["alone"]
    rows = []
    for name, both in times.items():
        alone, busy = (statistics.median(a / b for a, b in zip(both[where], spinning, strict=True)) for where in both)
        rows.append([name, statistics.median(both["alone"]), alone, statistics.median(both["busy"]),
                     busy / (1 + args.neighbours)])
    print_table(f"Seconds of a training step of {args.step}, alone and beside {args.neighbours} others",
                ["OpenMP's threads", "alone", "of spinning", "beside neighbours", "of fair share"], rows)
    for stepper in steppers.values():
        stepper.process.kill()


if __name__ == "__main__":
    main()
