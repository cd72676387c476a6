"""Tuning malloc for a CPU process that repeats the same computation."""

import contextlib
import ctypes

# mallopt(3) of the GNU C library.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4


def keep_freed_memory() -> None:
    """Make malloc keep freed memory for reuse, up to the peak usage, instead of returning it to the system.

    Every training step frees and allocates the same hundreds of megabytes. Getting them from the system again, zeroed
    page by page, takes as long as the arithmetic of a small network. No effect without the GNU C library.
    """
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, -1)
        mallopt(_M_TOP_PAD, 64 << 20)
