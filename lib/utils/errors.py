"""The exceptions that are told in one line: the user's input, or the machine, is wrong, and this line says how."""


class UserError(Exception):
    """A mistake in what the program was given (file, option, record), told in one line.

    The message names the file, key or record, what was expected and what came. Tools print it without a
    traceback and exit with status 1 (utils.cli.run). Anything else that escapes is a bug and keeps its traceback.
    """


class Hang(UserError):
    """A thread of this process hangs and cannot be ended: the process must end without waiting for it."""
