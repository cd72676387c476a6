"""The threads of loaders, as seen from outside."""

import threading
import time


def decoder_threads():
    """Names of the loaders' threads that are alive."""
    return [thread.name for thread in threading.enumerate() if thread.name.startswith(("decoder", "assembler"))]


def wait_for_their_end(seconds=10):
    """Return when no loader's thread is alive, and fail if that takes too long."""
    deadline = time.monotonic() + seconds
    while decoder_threads() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert decoder_threads() == []
