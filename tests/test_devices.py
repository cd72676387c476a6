"""The device of a process: a GPU that cannot be used is told, and a run says what it runs on."""

import pytest
import torch

from engine import devices
from engine.replicas import Replicas
from utils.errors import UserError
from utils.version import VERSION

DRIVER = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  470.57.02  Tue Jul 13 16:14:05 UTC 2021\nGCC version: 9\n"


@pytest.fixture
def driver(monkeypatch, tmp_path):
    """A machine with NVIDIA's driver, of which PyTorch sees no GPU."""
    (tmp_path / "version").write_text(DRIVER)
    monkeypatch.setattr(devices, "DRIVER", tmp_path / "version")
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def test_a_build_for_cpus_on_a_machine_with_a_gpu(driver, monkeypatch):
    monkeypatch.setattr("torch.version.cuda", None)
    with pytest.raises(UserError, match="has an NVIDIA GPU that cannot be used: PyTorch .* is a build for CPUs"):
        devices.set_up_device(0, "float32")


def test_a_driver_that_is_too_old(driver, monkeypatch):
    def init():
        raise RuntimeError("The NVIDIA driver on your system is too old (found version 11040).\nMore.")

    monkeypatch.setattr("torch.version.cuda", "13.0")
    monkeypatch.setattr("torch.cuda.init", init)
    with pytest.raises(UserError, match=r"driver 470.57.02 does not serve PyTorch .* with CUDA 13.0 \(The NVIDIA "
                                        r"driver on your system is too old \(found version 11040\)\.\)\. To run on "):
        devices.set_up_device(0, "float32")


@pytest.mark.parametrize("hidden", ["", "-1"])
def test_who_hides_the_gpu_wants_the_cpu(driver, monkeypatch, hidden):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
    assert devices.set_up_device(0, "float32").type == "cpu"


def test_a_gpu_without_kernels(monkeypatch):
    def zeros(*_, **__):
        raise RuntimeError("CUDA error: no kernel image is available for execution on the device\nMore.")

    for name, value in {"is_available": True, "set_device": None, "get_device_capability": (3, 7),
                        "get_device_name": "Tesla K80", "get_arch_list": ["sm_75", "sm_90"]}.items():
        monkeypatch.setattr(f"torch.cuda.{name}", lambda *_, value=value: value)
    monkeypatch.setattr("torch.zeros", zeros)
    monkeypatch.setattr("torch.backends.cudnn.benchmark", False)
    with pytest.raises(UserError, match=r"^cuda:0: PyTorch .* has no kernels for Tesla K80 \(sm_37\), only for sm_75, "
                                        "sm_90$"):
        devices.set_up_device(0, "float32")


@pytest.mark.parametrize("supported", [False, True])
@pytest.mark.parametrize("precision", ["float32", "tf32", "bfloat16"])
def test_a_cpu_without_kernels_for_bfloat16(monkeypatch, caplog, supported, precision):
    monkeypatch.setattr(devices, "CPU_HAS_FAST_BFLOAT16", supported)
    monkeypatch.setattr(devices, "set_precision", lambda precision: None)
    assert devices.set_up_device(0, precision).type == "cpu"
    assert ("float32 is many times faster here" in caplog.text) == (precision == "bfloat16" and not supported)


def test_the_line_about_devices():
    rest = (f"in 1 process on 1 x CPU ({torch.get_num_threads()} threads); PyTorch {torch.__version__}, "
            f"video-nonlocal-net {VERSION}")
    assert devices.describe(Replicas(8)) == f"8 replicas {rest}"
    assert devices.describe(Replicas(1)) == f"1 replica {rest}"


def test_a_run_says_what_it_runs_on(job):
    assert f" in 1 process on 1 x CPU ({torch.get_num_threads()} threads); PyTorch" in job.output
