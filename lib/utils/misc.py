"""Small values that several tools print."""

import datetime
import os

import torch


def eta(seconds: float) -> str:
    """Remaining seconds as 'H:MM:SS', or 'D days, H:MM:SS' from one day on."""
    return str(datetime.timedelta(seconds=int(seconds)))


def used_memory(device: torch.device) -> str:
    """Memory of the device in use, e.g. '11171 MiB'; for a CPU, the resident memory of this process."""
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        used = total - free
    else:
        with open("/proc/self/statm") as statm:
            used = int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return f"{used // 2**20} MiB"
