"""What every command line shares: the log's form, and a user's mistake told in one line."""

import contextlib
import logging
import os
import sys
import traceback

from utils.errors import Hang, UserError

LOG_FORMAT = "[%(levelname)s: %(filename)s: %(lineno)4d]: %(message)s"

# Where a process that another one has started writes its error, so that it is shown once (engine.launcher).
ERROR_FILE = "NLNET_ERROR_FILE"


def setup_logging():
    """Log records to standard output, in the form that parsers of the released logs know."""
    logging.basicConfig(level=logging.INFO, format=LOG_FORMAT, stream=sys.stdout, force=True)


def run(main, *args):
    """Call main(*args) and exit: with what it returns (None is 0), or 1 after a UserError's one line on stderr."""
    hangs = False
    try:
        status = main(*args)
    except UserError as error:
        hangs = isinstance(error, Hang)
        status = _fail(f"error: {error}\n")
    except BrokenPipeError:
        # The reader of our output (head, a closed pager) went away: nothing to tell it.
        sys.stderr.close()
        status = 1
    except KeyboardInterrupt:
        status = _fail("error: interrupted\n", status=130)
    except Exception:
        status = _fail(traceback.format_exc())
    if "RANK" not in os.environ and not hangs:
        sys.exit(status)
    # A thread hangs, and the interpreter would wait for it. Or this is one of several processes: Gloo's threads may
    # still hold tensors of the last exchange, and letting go of one while the interpreter is being taken down aborts
    # the process (pybind11's lock in PyTorch 2.13). Leave without.
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # gone or closed: see above
            stream.flush()
    os._exit(status or 0)


def _fail(message, status=1):
    sys.stdout.flush()
    if ERROR_FILE not in os.environ:
        sys.stderr.write(message)
        return status
    with contextlib.suppress(OSError), open(os.environ[ERROR_FILE], "w") as file:
        file.write(message)
    # No farewell: the connections to the other processes close with this one, and its error came first.
    os._exit(status)
