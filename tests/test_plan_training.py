"""Training plans, against the authors' files for fewer GPUs, and planned back again."""

import shlex

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import plan_training as tool
from core.config import load_config
from engine.training_plan import plan_training
from utils.errors import UserError
from utils.lr_policy import get_lr_at_iter


def yaml(repo, name):
    return str(repo / f"configs/DBG_kinetics_resnet_{name}.yaml")


def words_of(planned):
    return [str(word) for pair in planned.items() for word in pair]


@pytest.fixture(scope="module")
def eight(repo):
    return load_config(yaml(repo, "8gpu_c2d_nonlocal_400k"))


def test_the_authors_file_for_four_gpus(repo, eight):
    """It follows the linear scaling rule, except for its iterations: 600k, three quarters of what the rule gives."""
    four = load_config(yaml(repo, "4gpu_c2d_nonlocal_600k"))
    planned = plan_training(eight, num_gpus=4)
    assert planned["NUM_GPUS"] == four.NUM_GPUS
    assert (planned["TRAIN.BATCH_SIZE"], planned["TEST.BATCH_SIZE"]) == (four.TRAIN.BATCH_SIZE, four.TEST.BATCH_SIZE)
    assert planned["SOLVER.BASE_LR"] == four.SOLVER.BASE_LR
    assert planned["SOLVER.STEP_SIZES"] == [300000, 300000, 200000] and planned["SOLVER.MAX_ITER"] == 800000
    assert planned["TRAIN.EVAL_PERIOD"] == 40000
    assert planned | plan_training(eight, batch_size=32, num_gpus=4) == planned
    # With the authors' number of epochs.
    epochs = four.SOLVER.MAX_ITER * four.TRAIN.BATCH_SIZE / four.TRAIN.DATASET_SIZE
    assert plan_training(eight, num_gpus=4, epochs=epochs)["SOLVER.MAX_ITER"] == 600000


def test_another_batch_by_hand(eight):
    planned = plan_training(eight, num_gpus=1, batch_size=24, dataset_size=50000)
    # The batch is 24/64, and there are 50000/234643 of the videos.
    assert planned["SOLVER.BASE_LR"] == 0.00375
    assert planned["SOLVER.MAX_ITER"] == round(400000 * (64 / 24) * (50000 / 234643)) == 227296
    assert sum(planned["SOLVER.STEP_SIZES"]) == 227296
    assert planned["TRAIN.DATASET_SIZE"] == 50000 and planned["TEST.BATCH_SIZE"] == 8
    assert plan_training(eight) == {}
    assert plan_training(eight, dataset_size=1000, epochs=30)["SOLVER.MAX_ITER"] == round(30 * 1000 / 64)


def test_the_warm_up_is_planned_if_enabled(repo):
    cfg = load_config(yaml(repo, "8gpu_c2d_nonlocal_400k"), ["SOLVER.WARMUP.WARMUP_ON", "True"])
    planned = plan_training(cfg, num_gpus=4)
    assert planned["SOLVER.WARMUP.WARMUP_START_LR"] == cfg.SOLVER.WARMUP.WARMUP_START_LR / 2
    assert planned["SOLVER.WARMUP.WARMUP_END_ITER"] == 2 * cfg.SOLVER.WARMUP.WARMUP_END_ITER
    cfg.SOLVER.WARMUP.WARMUP_ON = False
    assert planned.keys() - plan_training(cfg, num_gpus=4) == {
        "SOLVER.WARMUP.WARMUP_START_LR", "SOLVER.WARMUP.WARMUP_END_ITER"}


@settings(max_examples=60, deadline=None)
@given(batch=st.integers(1, 64), videos=st.integers(234643, 10**7))
def test_planning_back_restores_the_configuration(batch, videos):
    # Smaller batches and more videos mean more iterations, so that rounding loses nothing.
    cfg = load_config(None, ["NUM_GPUS", "1"])
    planned = plan_training(cfg, batch_size=batch, dataset_size=videos)
    other = load_config(None, ["NUM_GPUS", "1", *words_of(planned)])
    back = plan_training(other, batch_size=64, dataset_size=234643)
    assert load_config(None, ["NUM_GPUS", "1", *words_of(planned | back)]) == cfg
    assert set(back) == set(planned)


@pytest.mark.parametrize(("words", "key", "value"), [
    (["SOLVER.LR_POLICY", "steps_with_lrs", "SOLVER.LRS", "[0.1,0.01,0.001,0.0001]"], "SOLVER.LRS",
     [0.05, 0.005, 0.0005, 0.00005]),
    (["SOLVER.LR_POLICY", "step", "SOLVER.STEP_SIZE", "30"], "SOLVER.STEP_SIZE", 60),
    (["SOLVER.STEPS", "[0,10,20]"], "SOLVER.STEPS", [0, 20, 40]),
])
def test_other_policies(repo, words, key, value):
    cfg = load_config(yaml(repo, "8gpu_c2d_nonlocal_400k"), words)
    assert plan_training(cfg, num_gpus=4)[key] == value


def test_a_negative_period_is_kept(repo):
    cfg = load_config(yaml(repo, "8gpu_c2d_nonlocal_400k"), ["CHECKPOINT.CHECKPOINT_PERIOD", "-1"])
    assert "CHECKPOINT.CHECKPOINT_PERIOD" not in plan_training(cfg, num_gpus=4)
    assert plan_training(cfg, dataset_size=1, epochs=1e-9)["SOLVER.MAX_ITER"] == 1


def test_command_line(repo, call_tool):
    status, output, errors = call_tool(tool, "--config_file", yaml(repo, "8gpu_c2d_nonlocal_400k"), "--gpus", 4)
    assert not status and not errors
    lines = output.splitlines()
    assert lines[0].endswith("64 clips per iteration, rate 0.01, 400000 iterations: 109.1 epochs of 234643 videos")
    assert lines[1].endswith("32 clips per iteration, rate 0.005, 800000 iterations: 109.1 epochs of 234643 videos")
    assert lines[2] == "  up to iteration 300000 (40.9 epochs): rate 0.005"
    # The last line can be appended verbatim.
    cfg = load_config(yaml(repo, "8gpu_c2d_nonlocal_400k"), shlex.split(lines[-1]))
    assert (cfg.SOLVER.STEPS, cfg.NUM_GPUS) == ([0, 300000, 600000, 800000], 4)
    assert get_lr_at_iter(300000, cfg) == pytest.approx(0.0005)


@pytest.mark.parametrize(("wrong", "part"), [
    ({"num_gpus": 0}, "--gpus: expected a number > 0, got 0"), ({"batch_size": -1}, "--batch_size"),
    ({"dataset_size": 2**40}, "--dataset_size"), ({"epochs": float("nan")}, "--epochs"),
    ({"num_gpus": 3, "batch_size": 64}, "--batch_size: expected a multiple of the 3 replicas, got 64"),
])
def test_wrong_numbers(eight, wrong, part):
    with pytest.raises(UserError, match=part):
        plan_training(eight, **wrong)
