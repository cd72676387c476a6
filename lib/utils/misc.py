"""Small things that several tools print."""

import datetime
import os

import torch


def eta(seconds):
    """Seconds left -> 'H:MM:SS', or 'D days, H:MM:SS' beyond a day."""
    return str(datetime.timedelta(seconds=int(seconds)))


def used_memory(device):
    """Memory of the device in use ('11171 MiB'); on a CPU, the resident memory of this process."""
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        used = total - free
    else:
        with open("/proc/self/statm") as statm:
            used = int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return f"{used // 2**20} MiB"
