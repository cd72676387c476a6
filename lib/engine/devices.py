"""The device of a process: choosing it, setting it up, and telling what it is."""

import logging
import os
import re
from pathlib import Path

import torch

from engine.malloc import keep_freed_memory
from engine.replicas import Replicas
from models.precision import CPU_HAS_FAST_BFLOAT16, leave_out_amx, set_precision
from utils.errors import UserError
from utils.version import VERSION

logger = logging.getLogger(__name__)

# There where NVIDIA's driver is loaded.
DRIVER = Path("/proc/driver/nvidia/version")


def set_up_device(number: int, precision: str) -> torch.device:
    """The GPU of a number, or the CPU where there is no GPU; made ready for a MODEL.PRECISION.

    Raises:
        UserError: there is a GPU, but PyTorch cannot use it.
    """
    set_precision(precision)
    if not torch.cuda.is_available():
        require_no_gpu()
        keep_freed_memory()
        if precision == "bfloat16":
            leave_out_amx()
            if not CPU_HAS_FAST_BFLOAT16:
                logger.warning("MODEL.PRECISION bfloat16: this CPU has no fast kernels for it, which need AVX-512; "
                               "float32 is many times faster here")
        return torch.device("cpu")
    device = torch.device("cuda", number)
    torch.cuda.set_device(device)
    # The clips of a run have one size, for which the fastest algorithm is worth searching; legacy did as well.
    torch.backends.cudnn.benchmark = True
    _require_kernels(device)
    return device


def require_no_gpu() -> None:
    """Raise UserError if this machine has an NVIDIA GPU that PyTorch cannot use: on a CPU, training would take weeks.

    CUDA_VISIBLE_DEVICES set to nothing or -1 asks for the CPU.
    """
    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1") or not DRIVER.exists():
        return
    if torch.version.cuda is None:
        reason = (f"PyTorch {torch.__version__} is a build for CPUs; without .venv, scripts/setup_env.sh installs the "
                  "one for GPUs")
    else:
        reason = f"driver {_driver()} does not serve PyTorch {torch.__version__} with CUDA {torch.version.cuda}"
        try:
            torch.cuda.init()
        except (RuntimeError, AssertionError) as error:
            reason += f" ({str(error).splitlines()[0]})"
    raise UserError(f"this machine has an NVIDIA GPU that cannot be used: {reason}. To run on the CPU, set "
                    "CUDA_VISIBLE_DEVICES to nothing: CUDA_VISIBLE_DEVICES= bash ...")


def _require_kernels(device: torch.device) -> None:
    try:
        torch.zeros(1, device=device).add_(1).item()
    except RuntimeError as error:
        if "no kernel image" not in str(error):
            raise
        major, minor = torch.cuda.get_device_capability(device)
        name, built_for = torch.cuda.get_device_name(device), ", ".join(torch.cuda.get_arch_list())
        raise UserError(f"{device}: PyTorch {torch.__version__} has no kernels for {name} (sm_{major}{minor}), "
                        f"only for {built_for}") from error


def describe(replicas: Replicas) -> str:
    """One line for the log: replicas, processes, devices by name, versions. Collective (see Replicas)."""
    device = replicas.device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU ({torch.get_num_threads()} threads)"
    names = replicas.gather(name)
    devices = ", ".join(f"{names.count(each)} x {each}" for each in dict.fromkeys(names))
    versions = f"PyTorch {torch.__version__}"
    if device.type == "cuda":
        versions += (f", CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}, "
                     f"driver {_driver()}")
    count = f"{replicas.total} replica{'s' if replicas.total > 1 else ''}"
    processes = f"{replicas.processes} process{'es' if replicas.processes > 1 else ''}"
    return f"{count} in {processes} on {devices}; {versions}, video-nonlocal-net {VERSION}"


def _driver() -> str:
    """The version of NVIDIA's driver."""
    found = re.search(r"\d+(\.\d+)+", DRIVER.read_text()) if DRIVER.exists() else None
    return found[0] if found else "unknown"
