"""TensorBoard events of a training, with a writer that only records its arguments."""

import logging
import re
import shutil
import sys
import types

import legacy_run
import pytest

import train_net_video
from engine.tensorboard_events import Events

NAME = "torch.utils.tensorboard"


class Writer:
    """The part of SummaryWriter that this program uses."""

    made = []

    def __init__(self, folder, purge_step):
        self.run, self.first, self.values, self.unflushed, self.closed = folder, purge_step, {}, False, False
        Writer.made.append(self)

    def add_scalar(self, tag, value, step):
        assert (step, tag) not in self.values and not self.closed
        self.values[step, tag] = value
        self.unflushed = True

    def flush(self):
        self.unflushed = False

    def close(self):
        self.closed = True


@pytest.fixture
def writers(monkeypatch):
    monkeypatch.setattr(Writer, "made", [])
    monkeypatch.setitem(sys.modules, NAME, types.SimpleNamespace(SummaryWriter=Writer))
    return Writer.made


@pytest.fixture
def train(job, tmp_path, call_tool):
    def run(**options):
        status, output, errors = call_tool(train_net_video, *legacy_run.words(
            job.data, tmp_path, TRAIN__COMPUTE_PRECISE_BN=False, TRAIN__TEST_AFTER_TRAIN=False, **options))
        assert (status, errors) == (0, "")
        return output

    return run


def of_log(output):
    """{(step, tag): value} of the training lines, and of the evaluations, as printed."""
    train, val = {}, {}
    for lr, it, loss, top1, top5 in re.findall(
            r"^\| Train .* LR: (\S+)  Iters \[(\d+)/.*Loss +(\S+)  top1 +(\S+) top5 +(\S+)$", output, re.MULTILINE):
        values = {"learning_rate": lr, "loss": loss, "top1_error": top1, "top5_error": top5}
        train |= {(int(it), tag): float(value) for tag, value in values.items()}
    for it, top1, top5 in re.findall(r"^\* Finished #iters \[(\d+)\|\d+\]: top1: (\S+) top5: (\S+)", output,
                                     re.MULTILINE):
        val |= {(int(it), "top1_error"): float(top1), (int(it), "top5_error"): float(top5)}
    return train, val


def test_events_have_the_values_of_the_log_lines(writers, train, tmp_path):
    output = train(LOG_PERIOD=2, TRAIN__BATCH_SIZE=2)
    assert output.count(f"TensorBoard events are written to: {tmp_path}/tensorboard\n") == 1
    assert [(writer.run, writer.first) for writer in writers] == [
        (f"{tmp_path}/tensorboard/train", 1), (f"{tmp_path}/tensorboard/val", 1)]
    for writer, expected in zip(writers, of_log(output), strict=True):
        assert {step for step, _ in expected} == {2, 4}
        assert writer.values == pytest.approx(expected, abs=5e-4)
        assert writer.closed and not writer.unflushed


def test_a_resumed_run_has_no_step_twice(writers, train, job, tmp_path):
    # Its checkpoint was saved before the evaluation of iteration 4, which is repeated.
    shutil.copytree(job.folder / "checkpoints", tmp_path / "checkpoints")
    output = train(SOLVER__MAX_ITER=6, SOLVER__STEP_SIZES="[9]")
    assert [writer.first for writer in writers] == [5, 4]
    for writer, expected, steps in zip(writers, of_log(output), ({5, 6}, {4, 6}), strict=True):
        assert {step for step, _ in writer.values} == steps
        assert writer.values == pytest.approx(expected, abs=5e-4)


def test_errors_among_the_first_classes(writers, train):
    train(METRICS__EVAL_FIRST_N=True, METRICS__FIRST_N=2, SOLVER__MAX_ITER=2, TRAIN__BATCH_SIZE=2)
    assert {tag for _, tag in writers[1].values} == {
        "top1_error", "top5_error", "top1_error_N_way", "top5_error_N_way"}


def test_without_the_package_nothing_is_logged_or_written(monkeypatch, caplog, tmp_path):
    monkeypatch.setitem(sys.modules, NAME, None)  # makes the import fail
    caplog.set_level(logging.INFO)
    with Events(tmp_path / "tensorboard", 1, 1) as events:
        events.add("train", 1, {"loss": 1.0})
    assert not caplog.records and not list(tmp_path.iterdir())


def test_a_package_that_cannot_be_imported_gives_a_warning(monkeypatch, caplog, tmp_path):
    class Broken:
        def __getattr__(self, name):
            raise TypeError("Descriptors cannot be created directly.")

    monkeypatch.setitem(sys.modules, NAME, Broken())
    with Events(tmp_path / "tensorboard", 1, 1) as events:
        events.add("train", 1, {"loss": 1.0})
    assert [record.getMessage() for record in caplog.records] == [
        "TensorBoard events are not written: the package cannot be imported: Descriptors cannot be created directly."]


@pytest.mark.parametrize("when", ["__init__", "flush", "close"])
def test_a_full_disk_gives_a_warning(when, writers, monkeypatch, caplog, tmp_path):
    def fail(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Writer, when, fail)
    with Events(tmp_path, 1, 1) as events:
        for step in (1, 2):
            events.add("train", step, {"loss": 1.0})
            events.add("val", step, {"top1_error": 1.0})
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert set(warnings) == {"TensorBoard events are no longer written: [Errno 28] No space left on device"}
