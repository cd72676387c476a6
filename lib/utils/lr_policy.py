"""Learning rate policies, bit-identical to legacy's float32. Adding a policy means adding one entry to POLICIES."""

from collections.abc import Callable

import numpy as np

from core.config import config
from utils.collections import AttrDict
from utils.errors import UserError


def get_lr_at_iter(it: int, cfg: AttrDict = config) -> float:
    """The learning rate of 0-based iteration `it`, as a Python float that is exactly representable in float32.

    Raises:
        UserError: SOLVER.LR_POLICY is unknown, or SOLVER.LRS is too short for this iteration.
    """
    solver = cfg.SOLVER
    lr = policy_lr(it, solver)
    warmup = solver.WARMUP
    if warmup.WARMUP_ON and it < warmup.WARMUP_END_ITER:
        start, end = np.float32(warmup.WARMUP_START_LR), policy_lr(warmup.WARMUP_END_ITER, solver)
        # Legacy subtracts in float32 and continues in float64. With WARMUP_END_ITER 1, only the start is used.
        slope = float(end - start) / max(warmup.WARMUP_END_ITER - 1, 1)
        lr = np.float32(float(start) + it * slope)
    return float(lr)


def policy_lr(it: int, solver: AttrDict) -> np.float32:
    """The learning rate at iteration `it` without warm-up. `solver` holds the SOLVER options."""
    if solver.LR_POLICY not in POLICIES:
        raise UserError(f"SOLVER.LR_POLICY: expected one of {', '.join(POLICIES)}, got {solver.LR_POLICY!r}")
    return np.float32(POLICIES[solver.LR_POLICY](it, solver))


def step_index(it: int, solver: AttrDict) -> int:
    """Index of the step that contains iteration `it`; from MAX_ITER on, of the last step."""
    ends = [*solver.STEPS, solver.MAX_ITER]
    return next((k - 1 for k, end in enumerate(ends) if it < end), len(solver.STEPS) - 1)


def _listed(it: int, solver: AttrDict) -> float:
    k = step_index(it, solver)
    if k >= len(solver.LRS):
        raise UserError(f"SOLVER.LRS: expected a value for step {k} of SOLVER.STEPS {solver.STEPS}, got {solver.LRS}")
    return solver.LRS[k]


# Policy name -> learning rate of an iteration, given the SOLVER options (without warm-up).
POLICIES: dict[str, Callable[[int, AttrDict], float]] = {
    "steps_with_relative_lrs": lambda it, solver: _listed(it, solver) * solver.BASE_LR,
    "steps_with_lrs": _listed,
    "steps_with_decay": lambda it, solver: solver.BASE_LR * solver.GAMMA ** step_index(it, solver),
    "step": lambda it, solver: solver.BASE_LR * solver.GAMMA ** (it // solver.STEP_SIZE),
}
