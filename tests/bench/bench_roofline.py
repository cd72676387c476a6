"""What bounds a training step: operations and bytes by kind of layer, compared with the rates of the device.

    python tests/bench/bench_roofline.py [VARIANT] [--batch 8] [--precision bfloat16] [--device cuda] [--compiled]

First measures the device's rates for matrix products of that precision and for copies. A layer needs the time of its
operations at the first rate or of its bytes at the second, whichever is longer; a kind of layer is bound by whatever
takes most of its time. A tensor counts as read or written once for each use that fusion cannot eliminate: a batch norm
reads its input twice (statistics, then values), with ReLU and sum fused into it. The backward pass has two products for
each one in the forward pass, and a norm reads input and gradient twice.
"""

import argparse
import statistics
import time
from collections import defaultdict

import torch
from bench_model import VARIANTS, Build, clip_shape, configuration, product_rate
from common import print_table
from torch import nn

from models.model_builder_video import create_model
from models.nonlocal_helper import NonLocalBlock
from models.resnet_helper import FrozenAffine


def copy_rate(device):
    """Rate of a copy: bytes read plus bytes written, per second."""
    a = torch.empty(2**28 if device == "cuda" else 2**25, device=device)
    b = torch.empty_like(a)
    seconds = []
    for _ in range(8):
        start = time.perf_counter()
        b.copy_(a)
        if device == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return 2 * a.numel() * a.element_size() / min(seconds[2:])


def layers(model, shape, batch, size):
    """(kind, operations, bytes) of every layer in a training step; size is the bytes per activation element."""
    found = []

    def hook(module, inputs, output):
        read, written = inputs[0].numel() * size, output.numel() * size
        if isinstance(module, nn.Conv3d | nn.Linear):
            weights = module.weight.numel() * size
            operations = 2 * output.numel() * module.weight.numel() // module.weight.shape[0]
            kind = "classifier" if isinstance(module, nn.Linear) else f"convolutions {tuple(module.kernel_size)}"
            found.append((kind, 3 * operations, 3 * (read + written + weights)))
        elif isinstance(module, nn.BatchNorm3d):
            # Forward: read for the statistics, read, write. Backward: input and gradient twice, write.
            found.append(("batch norms, ReLUs, sums", 0, 3 * written + 5 * written))
        elif isinstance(module, FrozenAffine):
            found.append(("affine layers, ReLUs, sums", 0, 4 * written))
        elif isinstance(module, nn.MaxPool3d):
            found.append(("max pools", 0, 2 * (read + written)))
        elif isinstance(module, NonLocalBlock):
            n, _, t, h, w = inputs[0].shape
            t, n = (4, n * t // 4) if module.grouped else (t, n)
            positions, keys = t * h * w, t * (h // 2) * (w // 2) if module.use_maxpool else t * h * w
            inner = module.theta.out_channels
            # Two products forward; five backward, because the matrix is not kept.
            found.append(("attention", 7 * 2 * n * inner * positions * keys,
                          3 * n * inner * (2 * positions + 2 * keys) * size))

    for module in model.modules():
        module.register_forward_hook(hook)
    model(torch.empty(batch, *shape, device="meta"))
    return found


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("variant", nargs="?", default="fwd_i3d_nlnet_8x8_val", choices=VARIANTS)
    arguments.add_argument("--batch", type=int, default=8)
    arguments.add_argument("--precision", default="bfloat16", choices=["float32", "bfloat16"])
    arguments.add_argument("--device", default="cpu")
    arguments.add_argument("--compiled", action="store_true")
    arguments.add_argument("--repetitions", type=int, default=5)
    args = arguments.parse_args()

    dtype = torch.bfloat16 if args.precision == "bfloat16" else torch.float32
    products, copies = product_rate(dtype, args.device), copy_rate(args.device)
    with torch.device("meta"):
        model = create_model(configuration(args.variant), "train")
    kinds = defaultdict(list)
    shape = clip_shape(args.variant, "training")
    for kind, operations, moved in layers(model, shape, args.batch, dtype.itemsize):
        kinds[kind].append((operations, moved, operations / products, moved / copies))
    parameters = sum(p.numel() for p in model.parameters())
    # Gradient, weight and history are read, and the last two are written, in float32.
    kinds["update"].append((0, 20 * parameters, 0.0, 20 * parameters / copies))

    build = "bfloat16" if args.precision == "bfloat16" else "+ fused attention"
    if args.compiled:
        build = "bfloat16, compiled" if args.precision == "bfloat16" else "+ compiled"
    step, seconds = Build(args.variant, "training", build, args.batch, args.device), []
    for _ in range(args.repetitions + 1):
        start = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - start)

    rows, total = [], 0.0
    for kind, values in kinds.items():
        needed = sum(max(compute, memory) for *_, compute, memory in values)
        by_compute = sum(max(compute, memory) for *_, compute, memory in values if compute > memory)
        total += needed
        rows.append([kind, len(values), f"{sum(v[0] for v in values) / 1e9:.1f}",
                     f"{sum(v[1] for v in values) / 1e9:.2f}", f"{1e3 * needed:.2f}",
                     "products" if 2 * by_compute > needed else "memory"])
    measured = statistics.median(seconds[1:])
    rows.append(["all", "", "", "", f"{1e3 * total:.2f}", ""])
    print_table(f"{args.variant}: a training step of {args.batch} clips, {build}, {args.device}: products at "
                f"{products / 1e12:.2f} TFLOP/s, copies at {copies / 1e9:.0f} GB/s",
                ["layers", "number", "GFLOP", "GB", "needs ms", "bound by"], rows)
    print(f"measured {1e3 * measured:.1f} ms: {measured / total:.2f} times what these rates allow")


if __name__ == "__main__":
    main()
