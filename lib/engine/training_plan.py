"""The same training with another batch, number of replicas, or data set: what its options become.

The linear rule, of which the 4-GPU configurations are an instance: the learning rate follows the batch, and so many
iterations are done that every video is seen as often.
"""

from fractions import Fraction
from itertools import accumulate, pairwise

from utils.collections import value_at
from utils.errors import UserError

# Iteration counts that a positive number stands for (CHECKPOINT_PERIOD -1 means something else).
_PERIODS = ("TRAIN.EVAL_PERIOD", "CHECKPOINT.CHECKPOINT_PERIOD")


def plan_training(cfg, num_gpus=None, batch_size=None, dataset_size=None, epochs=None):
    """The options that change for a training like cfg's.

    Args:
        cfg: configuration (core.config), the training to go by.
        num_gpus: replicas. Without a batch_size each keeps its share: the batch grows with their number.
        batch_size: clips per iteration over all replicas.
        dataset_size: videos to train on.
        epochs: passes over them; by default as many as cfg has.

    Returns: {dotted key: value} of the options that differ from cfg's. Rates are exact products rounded once,
        iterations the nearest whole number, so that planning back from a larger number of iterations gives cfg again.

    Raises: UserError for numbers that are not positive, or a batch that the replicas cannot share.
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
    # The ends are scaled, not the sizes: their rounding would add up.
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
    # Through the decimals that the file has: 0.01 is a hundredth.
    return float(Fraction(repr(rate)) * factor)
