"""The learning rate of an iteration, to the last bit of legacy's float32."""

import numpy as np

from core.config import config
from utils.errors import UserError


def get_lr_at_iter(it, cfg=config):
    """The learning rate of 0-based iteration `it` as a Python float that float32 holds exactly.

    Raises:
        UserError: SOLVER.LR_POLICY is unknown, or SOLVER.LRS is too short for that iteration.
    """
    solver = cfg.SOLVER
    lr = policy_lr(it, solver)
    warmup = solver.WARMUP
    if warmup.WARMUP_ON and it < warmup.WARMUP_END_ITER:
        start, end = np.float32(warmup.WARMUP_START_LR), policy_lr(warmup.WARMUP_END_ITER, solver)
        # Legacy subtracts in float32 and goes on in float64. With WARMUP_END_ITER 1 there is only the start.
        slope = float(end - start) / max(warmup.WARMUP_END_ITER - 1, 1)
        lr = np.float32(float(start) + it * slope)
    return float(lr)


def policy_lr(it, solver):
    """The policy's value at iteration `it` without warm-up, float32."""
    if solver.LR_POLICY not in POLICIES:
        raise UserError(f"SOLVER.LR_POLICY: expected one of {', '.join(POLICIES)}, got {solver.LR_POLICY!r}")
    return np.float32(POLICIES[solver.LR_POLICY](it, solver))


def step_index(it, solver):
    """Index k of the step that iteration `it` lies in; the last one from MAX_ITER on."""
    ends = [*solver.STEPS, solver.MAX_ITER]
    return next((k - 1 for k, end in enumerate(ends) if it < end), len(solver.STEPS) - 1)


def _listed(it, solver):
    k = step_index(it, solver)
    if k >= len(solver.LRS):
        raise UserError(f"SOLVER.LRS: expected a value for step {k} of SOLVER.STEPS {solver.STEPS}, got {solver.LRS}")
    return solver.LRS[k]


POLICIES = {
    "steps_with_relative_lrs": lambda it, solver: _listed(it, solver) * solver.BASE_LR,
    "steps_with_lrs": _listed,
    "steps_with_decay": lambda it, solver: solver.BASE_LR * solver.GAMMA ** step_index(it, solver),
    "step": lambda it, solver: solver.BASE_LR * solver.GAMMA ** (it // solver.STEP_SIZE),
}
