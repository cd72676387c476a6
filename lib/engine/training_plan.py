"""Adapting the options of a training to another batch size, number of replicas, or data set.

By the linear scaling rule, as in the 4-GPU configurations: the learning rate is proportional to the batch size, and the
number of iterations is such that every video is seen equally often.
"""

from fractions import Fraction
from itertools import accumulate, pairwise
from typing import Any

from utils.collections import AttrDict, value_at
from utils.errors import UserError

# Options that are iteration counts when positive (CHECKPOINT_PERIOD -1 means something else).
_PERIODS = ("TRAIN.EVAL_PERIOD", "CHECKPOINT.CHECKPOINT_PERIOD")


def plan_training(cfg: AttrDict, num_gpus: int | None = None, batch_size: int | None = None,
                  dataset_size: int | None = None, epochs: float | None = None) -> dict[str, Any]:
    """The options that must change to adapt the training that cfg describes.

    Args:
        cfg: configuration (core.config) of the original training.
        num_gpus: number of replicas. Without batch_size, the batch size per replica is kept.
        batch_size: clips per iteration over all replicas.
        dataset_size: number of training videos.
        epochs: passes over them; default: as in cfg.

    Returns:
        {dotted key: value} of the options that differ from cfg. Rates are exact products, rounded once; iterations are
        rounded to the nearest integer, so that planning back from a larger number of iterations restores cfg.

    Raises:
        UserError: a number is not positive, or the batch size is not a multiple of the number of replicas.
    """
    for name, value in (("gpus", num_gpus), ("batch_size", batch_size), ("dataset_size", dataset_size),
                        ("epochs", epochs)):
        if value is not None and not 0 < value < 2**31:
            raise UserError(f"--{name}: expected a number > 0, got {value}")
    num_gpus = num_gpus or cfg.NUM_GPUS
    batch_size = batch_size or cfg.TRAIN.BATCH_SIZE // cfg.NUM_GPUS * num_gpus
    dataset_size = dataset_size or cfg.TRAIN.DATASET_SIZE
    if batch_size % num_gpus:
        raise UserError(f"--batch_size: expected a multiple of the {num_gpus} replicas, got {batch_size}")
    rate = Fraction(batch_size, cfg.TRAIN.BATCH_SIZE)
    length = Fraction(dataset_size, cfg.TRAIN.DATASET_SIZE) / rate
    if epochs:
        length = Fraction(epochs) * dataset_size / batch_size / cfg.SOLVER.MAX_ITER

    planned = {
        "NUM_GPUS": num_gpus,
        "TRAIN.BATCH_SIZE": batch_size,
        "TEST.BATCH_SIZE": cfg.TEST.BATCH_SIZE // cfg.NUM_GPUS * num_gpus,
        "TRAIN.DATASET_SIZE": dataset_size,
        "SOLVER.MAX_ITER": _scaled(cfg.SOLVER.MAX_ITER, length),
        "SOLVER.BASE_LR": _scaled_rate(cfg.SOLVER.BASE_LR, rate),
        **_planned_steps(cfg.SOLVER, rate, length),
    }
    warmup = cfg.SOLVER.WARMUP
    if warmup.WARMUP_ON:
        planned |= {"SOLVER.WARMUP.WARMUP_START_LR": _scaled_rate(warmup.WARMUP_START_LR, rate),
                    "SOLVER.WARMUP.WARMUP_END_ITER": _scaled(warmup.WARMUP_END_ITER, length)}
    planned |= {key: _scaled(value_at(cfg, key), length) for key in _PERIODS if value_at(cfg, key) > 0}
    return {key: value for key, value in planned.items() if value != value_at(cfg, key)}


def _planned_steps(solver, rate, length):
    # Scale the ends of the steps, because rounding errors of the sizes would accumulate.
    steps = [_scaled(step, length) if step else 0 for step in solver.STEPS]
    planned = {"SOLVER.STEPS": steps}
    if list(accumulate(solver.STEP_SIZES, initial=0)) == solver.STEPS:
        planned = {"SOLVER.STEP_SIZES": [end - start for start, end in pairwise(steps)]}
    if solver.LR_POLICY == "steps_with_lrs":
        planned["SOLVER.LRS"] = [_scaled_rate(lr, rate) for lr in solver.LRS]
    if solver.LR_POLICY == "step":
        planned["SOLVER.STEP_SIZE"] = _scaled(solver.STEP_SIZE, length)
    return planned


def _scaled(iterations, factor):
    return max(round(iterations * factor), 1)


def _scaled_rate(rate, factor):
    # Exact in decimal: 0.01 is one hundredth.
    return float(Fraction(repr(rate)) * factor)
