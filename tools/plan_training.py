#!/usr/bin/env python3
"""Show which options to change for another number of GPUs, batch size, data set or number of epochs.

    python tools/plan_training.py --config_file configs/F.yaml --gpus 4
    python tools/plan_training.py --config_file configs/F.yaml --batch_size 16 --dataset_size 4000 --epochs 30
    python tools/plan_training.py --config_file configs/F.yaml --train_list D/train.txt --test_list D/test.txt \
        --output D/options.yaml [KEY VALUE]...

Lists tell the numbers of classes and videos and where the data are; --output writes a file of options for a training.

By the linear scaling rule: the learning rate is proportional to the batch size, and the iterations are adjusted to keep
the number of epochs. The last line has the KEY VALUE words to append to the command line that uses the file. To run on
fewer devices than NUM_GPUS, no change is needed: NUM_GPUS counts replicas, not devices.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import _init_paths  # noqa: F401, I001  (lib/ on the path, a Python that is new enough)

import argparse
import logging
import os
import shlex
from collections.abc import Iterator
from typing import Any

from core.assignment import as_written
from core.config import load_config
from core.config_file import given_keys, write_config
from core.messages import shown
from engine.dataset_plan import options_of_lists, warn_of_missing_splits
from engine.training_plan import plan_training
from utils import cli
from utils.collections import AttrDict
from utils.errors import UserError
from utils.files import atomic_write
from utils.lr_policy import get_lr_at_iter


def main() -> None:
    parser = cli.argument_parser(__doc__)
    parser.add_argument("--config_file", required=True, help="YAML file of options")
    parser.add_argument("--gpus", type=int, metavar="N", help="number of replicas; the batch size per replica is "
                        "kept unless --batch_size is given")
    parser.add_argument("--batch_size", type=int, metavar="B", help="clips per iteration over all replicas")
    parser.add_argument("--dataset_size", type=int, metavar="D", help="number of training videos")
    parser.add_argument("--train_list", metavar="LIST", help="training videos, 'path label' lines; DATADIR becomes its "
                        "folder, where a training reads train.txt, val.txt and test.txt, or LMDBs train, val and test")
    parser.add_argument("--test_list", metavar="LIST", help="test videos, as FILENAME_GT; goes with --train_list")
    parser.add_argument("--epochs", type=float, metavar="E", help="passes over them (default: as in the file)")
    parser.add_argument("--output", metavar="YAML", help="file to write: the options of --config_file, those that "
                        "follow, and those that are planned")
    parser.add_argument("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="options that override the file")
    args = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(message)s", force=True)
    cfg = load_config(args.config_file, args.opts)
    of_lists = read_lists(cfg, args)
    dataset_size = of_lists.pop("TRAIN.DATASET_SIZE", args.dataset_size)
    planned = of_lists | plan_training(cfg, args.gpus, args.batch_size, dataset_size, args.epochs)
    new_words = [word for key, value in planned.items() for word in (key, as_word(value))]
    planned_cfg = load_config(args.config_file, args.opts + new_words)
    print("given:  ", summary(cfg))
    print("planned:", summary(planned_cfg))
    for line in schedule(planned_cfg):
        print(f"  {line}")
    if args.train_list:
        warn_of_missing_splits(planned_cfg)
    if args.output:
        write_file(args, planned_cfg, planned)
        return
    print("\nAppend:" if planned else "\nNothing to change.")
    print(shlex.join(new_words))


def read_lists(cfg: AttrDict, args: argparse.Namespace) -> dict[str, Any]:
    """The options that follow from the lists; none without lists."""
    if bool(args.train_list) != bool(args.test_list):
        raise UserError("--train_list and --test_list go together: expected both or neither")
    if not args.train_list:
        return {}
    if args.dataset_size is not None:
        raise UserError("--dataset_size: not with --train_list, whose lines are counted")
    return options_of_lists(cfg, args.train_list, args.test_list, args.opts[::2])


def as_word(value: Any) -> str:
    return str(as_written(value)) if isinstance(value, str) else str(value).replace(" ", "")


def write_file(args: argparse.Namespace, cfg: AttrDict, planned: dict[str, Any]) -> None:
    """Write --output, which must be new."""
    if os.path.lexists(args.output):
        raise UserError(f"{args.output}: is there already: expected the name of a new file")
    keys = dict.fromkeys([*given_keys(args.config_file, args.opts), *planned])
    with atomic_write(args.output, "w", encoding="utf-8") as file:
        write_config(file, cfg, keys, f"By tools/plan_training.py from {shown(args.config_file)}")
    print(f"\nWritten to {args.output}. To train:")
    print(shlex.join(["python", "tools/train_net_video.py", "--config_file", args.output]))


def summary(cfg: AttrDict) -> str:
    replicas = f"{cfg.NUM_GPUS} replica{'s' if cfg.NUM_GPUS > 1 else ''}"
    return (f"{replicas}, {cfg.TRAIN.BATCH_SIZE} clips per iteration, rate {cfg.SOLVER.BASE_LR:.6g}, "
            f"{cfg.SOLVER.MAX_ITER} iterations: {epochs(cfg.SOLVER.MAX_ITER, cfg)} of {cfg.TRAIN.DATASET_SIZE} videos")


def epochs(iterations: int, cfg: AttrDict) -> str:
    return f"{iterations * cfg.TRAIN.BATCH_SIZE / cfg.TRAIN.DATASET_SIZE:.1f} epochs"


def schedule(cfg: AttrDict) -> Iterator[str]:
    """Lines that describe the learning rate schedule."""
    end = cfg.SOLVER.MAX_ITER
    if cfg.SOLVER.LR_POLICY == "step":
        yield f"rate {get_lr_at_iter(0, cfg):.6g} at the start, times {cfg.SOLVER.GAMMA} every {cfg.SOLVER.STEP_SIZE}"
        return
    for stop in [*(step for step in cfg.SOLVER.STEPS[1:] if step < end), end]:
        # The rate of its last iteration, because the first ones may be part of the warm-up.
        yield f"up to iteration {stop} ({epochs(stop, cfg)}): rate {get_lr_at_iter(stop - 1, cfg):.6g}"


if __name__ == "__main__":
    cli.run(main)
