"""The loop of a training and the tools on a GPU: never waiting for it, stopping and going on."""

import signal
import subprocess
import sys
import time

import pytest
import tiny_job
import torch

from core.config import load_config
from data import data_builder
from engine.fetching import fetch
from engine.replicas import Replicas
from engine.training import Training, is_log_due
from models.precision import set_precision
from video.bad_videos import BadVideos


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    tiny_job.make_data(folder)
    return folder


def configuration(repo, data, folder, **options):
    words = tiny_job.command(repo, data, folder, **options)
    return load_config(words[2], words[3:])


def test_iterations_do_not_wait_for_the_device(device, repo, data, tmp_path):
    """Only the iterations with a log line fetch something from the GPU."""
    if device.type == "cpu":
        pytest.skip("a CPU does not lag behind")
    set_precision("tf32")
    cfg = configuration(repo, data, tmp_path, LOG_PERIOD=4, SOLVER__MAX_ITER=8, TRAIN__EVAL_PERIOD=100,
                        CHECKPOINT__CHECKPOINT_PERIOD=-1)
    watched = []

    class Watched(Training):
        def step(self, network, it):
            watch = it > 0 and not is_log_due(it, self.cfg)
            watched.append(watch)
            torch.cuda.set_sync_debug_mode("error" if watch else "default")
            try:
                super().step(network, it)
            finally:
                torch.cuda.set_sync_debug_mode("default")

    Watched(cfg, Replicas(cfg.NUM_GPUS, device=device)).run()
    assert sum(watched) == 5


def test_batches_are_not_overwritten_before_a_late_device_has_them(device, repo, data, tmp_path):
    if device.type == "cpu":
        pytest.skip("a CPU does not lag behind")
    cfg = configuration(repo, data, tmp_path)

    def batches(where, delay):
        prepare = data_builder.Preprocessor(cfg, where)
        with data_builder.train_loader(cfg, Replicas(2, device=where), BadVideos()) as loader:
            for _ in range(12):
                if delay:
                    torch.cuda._sleep(200_000_000)  # cycles, about a tenth of a second
                yield from [clips for clips, _ in prepare.batch(next(loader))]

    late = list(batches(device, delay=True))
    for found, expected in zip(late, batches(torch.device("cpu"), delay=False), strict=True):
        assert (found.cpu() - expected).abs().max() <= 2.4e-7


def test_fetching_waits_for_nothing_later(device):
    if device.type == "cpu":
        pytest.skip("a CPU does not lag behind")
    values, ended = torch.ones(5, device=device), torch.cuda.Event()
    fetched = fetch(values * 2)
    torch.cuda._sleep(2_000_000_000)  # cycles, about a second
    ended.record()
    assert fetched().tolist() == [2] * 5
    assert not ended.query()


@pytest.fixture(scope="module")
def run(repo, data, tmp_path_factory):
    """run(tool, folder, stop=seconds or text, **options) -> (status, log); stop sends SIGTERM."""
    logs = tmp_path_factory.mktemp("logs")

    def run_tool(tool, folder, stop_at=None, **options):
        tool, *words = tiny_job.command(repo, data, folder, tool=tool, **options)
        log = logs / f"{len(list(logs.iterdir()))}.log"
        with open(log, "w") as file:
            process = subprocess.Popen([sys.executable, str(repo / f"tools/{tool}.py"), *words], stdout=file,
                                       stderr=subprocess.STDOUT)
        while stop_at and process.poll() is None:
            if stop_at in log.read_text():
                process.send_signal(signal.SIGTERM)
                break
            time.sleep(0.01)
        return process.wait(timeout=300), log.read_text()

    return run_tool


def test_a_training_is_stopped_and_goes_on(device, run, data, tmp_path):
    """SIGTERM ends it with 75 and a checkpoint; the second run trains the rest and tests, all on the device."""
    options = {"LOG_PERIOD": 1, "SOLVER__MAX_ITER": 40, "SOLVER__STEP_SIZES": "[20,20,20]", "TRAIN__EVAL_PERIOD": 20,
               "TRAIN__TEST_AFTER_TRAIN": True}
    status, log = run("train_net_video", tmp_path, stop_at="Iters [5/40]", **options)
    assert status == 75, log[-3000:]
    checkpoints = list((tmp_path / "checkpoints").glob("c2_model_iter*.pkl"))
    assert checkpoints
    status, log = run("train_net_video", tmp_path, **options)
    assert status == 0, log[-3000:]
    assert "testing finished" in log
    assert (tmp_path / "checkpoints/c2_model_iter40.pkl").exists()
    assert (tmp_path / "results_probs.pkl").exists()
    if device.type == "cuda":
        assert torch.cuda.get_device_name(device) in log


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_eight_replicas_on_one_device(run, device, precision, tmp_path):
    status, log = run("train_net_video", tmp_path, NUM_GPUS=8, TRAIN__BATCH_SIZE=8, TEST__BATCH_SIZE=8,
                      SOLVER__MAX_ITER=2, MODEL__PRECISION=precision, SOLVER__STEP_SIZES="[1,1,1]")
    assert status == 0, log[-3000:]
    assert "nan" not in log
