"""Learning rates, against those of the Caffe2 program and against values computed by hand."""

import json
from pathlib import Path

import numpy as np
import pytest

from core.config import load_config
from utils.errors import UserError
from utils.lr_policy import POLICIES, get_lr_at_iter

SCHEDULES = [json.loads(line) for line in
             (Path(__file__).parent / "data/reference/lr_schedules.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: s["yaml"][4:-5] + ("-warm" if s["opts"] else ""))
def test_the_legacy_programs_rates(repo, schedule):
    cfg = load_config(repo / "configs" / schedule["yaml"], schedule["opts"])
    steps = cfg.SOLVER.STEPS
    assert steps == schedule["steps"]
    assert {it: get_lr_at_iter(int(it), cfg) for it in schedule["lrs"]} == schedule["lrs"]


def test_there_are_schedules_of_every_kind():
    assert len({schedule["yaml"] for schedule in SCHEDULES}) == 5
    assert {bool(schedule["opts"]) for schedule in SCHEDULES} == {True, False}


def rates(iterations, **options):
    words = [word for key, value in options.items() for word in (f"SOLVER.{key}".replace("__", "."), str(value))]
    cfg = load_config(None, words)
    return [get_lr_at_iter(it, cfg) for it in iterations]


def float32(values):
    return [float(np.float32(value)) for value in values]


STEPS = {"STEP_SIZES": [2, 3, 1], "MAX_ITER": 7, "BASE_LR": 0.3, "GAMMA": 0.1}


@pytest.mark.parametrize(("policy", "expected"), [
    ("steps_with_relative_lrs", [0.3, 0.3, 0.15, 0.15, 0.15, 0.06, 0.03]),
    ("steps_with_lrs", [1, 1, 0.5, 0.5, 0.5, 0.2, 0.1]),
    ("steps_with_decay", [0.3 * 0.1**k for k in (0, 0, 1, 1, 1, 2, 3)]),
])
def test_policies_by_steps(policy, expected):
    # From MAX_ITER on, the rate of the last step.
    found = rates([*range(7), 7, 100], LR_POLICY=policy, LRS=[1, 0.5, 0.2, 0.1], **STEPS)
    assert found == float32([*expected, expected[-1], expected[-1]])


def test_policy_step():
    assert rates(range(5), LR_POLICY="step", STEP_SIZE=2, BASE_LR=0.3, GAMMA=0.5) == float32(
        [0.3, 0.3, 0.15, 0.15, 0.075])


def test_warm_up_to_the_bit():
    start, end = np.float32(0.001), np.float32(0.007)
    expected = [float(np.float32(float(start) + it * float(end - start) / 12)) for it in range(13)]
    options = {"WARMUP__WARMUP_ON": True, "WARMUP__WARMUP_START_LR": 0.001, "WARMUP__WARMUP_END_ITER": 13}
    found = rates(range(15), BASE_LR=0.007, **options)
    np.testing.assert_array_max_ulp(np.float32(found[:13]), np.float32(expected), 0)
    assert found[0] == float(start)
    assert found[12:] == [float(end)] * 3


def test_warm_up_ends_at_the_rate_of_its_last_iteration():
    options = {"WARMUP__WARMUP_ON": True, "WARMUP__WARMUP_START_LR": 0.0, "WARMUP__WARMUP_END_ITER": 3}
    found = rates(range(4), BASE_LR=1.0, STEP_SIZES=[3, 3], LRS=[1, 0.5, 0.1], MAX_ITER=6, **options)
    assert found == [0.0, 0.25, 0.5, 0.5]


def test_a_warm_up_of_one_iteration():
    options = {"WARMUP__WARMUP_ON": True, "WARMUP__WARMUP_START_LR": 0.25, "WARMUP__WARMUP_END_ITER": 1}
    assert rates(range(2), BASE_LR=0.5, **options) == [0.25, 0.5]


def test_a_policy_is_added_with_one_entry(monkeypatch):
    monkeypatch.setitem(POLICIES, "halving", lambda it, solver: solver.BASE_LR / 2**it)
    assert rates(range(3), LR_POLICY="halving", BASE_LR=0.3) == float32([0.3, 0.15, 0.075])
    warmup = {"WARMUP__WARMUP_ON": True, "WARMUP__WARMUP_START_LR": 0.0, "WARMUP__WARMUP_END_ITER": 2}
    assert rates(range(4), LR_POLICY="halving", BASE_LR=4.0, **warmup) == [0.0, 1.0, 1.0, 0.5]
    with pytest.raises(UserError, match="expected one of .*, halving, got 'cosine'"):
        rates([0], LR_POLICY="cosine")


def test_unknown_policy():
    with pytest.raises(UserError, match="SOLVER.LR_POLICY: expected one of steps_with_relative_lrs, steps_with_lrs, "
                                        "steps_with_decay, step, got 'cosine'"):
        rates([0], LR_POLICY="cosine")


def test_too_few_rates():
    options = {"STEP_SIZES": [2, 2], "LRS": [1], "MAX_ITER": 5}
    assert rates([0, 1], **options) == float32([0.1, 0.1])
    with pytest.raises(UserError, match=r"SOLVER.LRS: expected a value for step 1 of SOLVER.STEPS \[0, 2, 4\]"):
        rates([2], **options)
