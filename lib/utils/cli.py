"""Shared by all command lines: their parser, the log format, and reporting a user's mistake in one line."""

import argparse
import contextlib
import io
import logging
import os
import signal
import sys
import traceback
from collections.abc import Callable
from typing import Any, NoReturn

from utils import stopping
from utils.errors import Hang, UserError
from utils.version import VERSION

logger = logging.getLogger(__name__)

LOG_FORMAT = "[%(levelname)s: %(filename)s: %(lineno)4d]: %(message)s"

# File to which a process started by engine.launcher writes its error, so that it is shown only once.
ERROR_FILE = "NLNET_ERROR_FILE"


def argument_parser(description: str) -> argparse.ArgumentParser:
    """A parser whose --help shows a description as it is written, and that knows --version."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--version", action="version", version=f"video-nonlocal-net {VERSION}")
    return parser


def setup_logging() -> None:
    """Log to standard output, in the format that parsers of the released logs expect."""
    logging.basicConfig(level=logging.INFO, format=LOG_FORMAT, stream=sys.stdout, force=True)


def _say_that_it_stops() -> None:
    if number := stopping.asked():
        logger.info("%s: stopping; run the same command again to resume", signal.Signals(number).name)
    sys.stdout.flush()


stopping.at_last(_say_that_it_stops)


def run(main: Callable[..., int | None], *args: Any) -> NoReturn:
    """Call main(*args) and exit with the status that it returns (None is 0).

    A UserError is printed to stderr as one line and gives status 1. A signal that asks for the end gives 128 and its
    number (130 after Ctrl-C), unless the tool has called stopping.stop_when_asked(). Any other exception is a bug: it
    is printed with its traceback and gives 1.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # None if it is closed
            # Names of files can be any bytes, and the terminal's encoding any.
            stream.reconfigure(errors="backslashreplace")
    hangs = False
    try:
        with stopping.interruptible():
            status = main(*args)
            if not status:
                stopping.interrupt_again()
    except UserError as error:
        hangs = isinstance(error, Hang)
        status = _fail(f"error: {error}\n")
    except BrokenPipeError:
        # The reader of our output (head, a pager) has exited.
        sys.stderr.close()
        status = 1
    except KeyboardInterrupt:
        status = _fail("error: interrupted\n", status=128 + (stopping.asked() or signal.SIGINT))
    except Exception:
        status = _fail(traceback.format_exc())
    stopping.ignore_from_here()
    if "RANK" not in os.environ and not hangs:
        sys.exit(status)
    # Skip the interpreter's teardown, which would wait for a hanging thread. Also, in one of several processes, Gloo's
    # threads may still hold tensors of the last exchange; releasing one during the teardown aborts the process
    # (pybind11's lock in PyTorch 2.13).
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # reader gone or stream closed, see above
            stream.flush()
    os._exit(status or 0)


def _fail(message: str, status: int = 1) -> int:
    if sys.stdout is not None:  # as it is if it is closed
        sys.stdout.flush()
    if ERROR_FILE not in os.environ:
        sys.stderr.write(message)
        return status
    with contextlib.suppress(OSError), open(os.environ[ERROR_FILE], "w", errors="backslashreplace") as file:
        file.write(message)
    # Exit at once: this closes the connections to the other processes, whose errors must come after this one.
    os._exit(status)
