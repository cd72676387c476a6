"""Exceptions that are reported in one line: the user's input, or the machine, is at fault."""


class UserError(Exception):
    """A problem with what the program was given (file, option, record), described in one line.

    The message names the file, key or record, what was expected and what was found. Tools print it without a traceback
    and exit with status 1 (utils.cli.run). Any other exception that escapes is a bug and keeps its traceback.
    """


class Hang(UserError):
    """A thread of this process hangs and cannot be stopped: the process must exit without waiting for it."""


class SharedError(UserError):
    """A problem that is raised in every process of a run, so that it need not be reported by each."""


class LostPeer(UserError):
    """Another process of the run has ended or cannot be reached: all that are left notice."""
