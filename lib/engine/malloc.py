"""Memory of a process on the CPU that computes the same things again and again."""

import contextlib
import ctypes

# mallopt(3) of the GNU C library.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4


def keep_freed_memory():
    """Let malloc keep what is freed, up to the most that was in use, instead of giving it back to the system.

    A training step frees and allocates the same hundreds of megabytes each time. Getting them from the system anew,
    zeroed page by page, takes as long as a small network's arithmetic. No effect without the GNU C library.
    """
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, -1)
        mallopt(_M_TOP_PAD, 64 << 20)
