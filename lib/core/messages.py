"""Errors about options: one bounded line, whatever the value is."""

import reprlib

from utils.errors import UserError


class ConfigError(UserError):
    """An option, or a file of options, that cannot be accepted."""


class _ShortRepr(reprlib.Repr):
    def repr_int(self, number: int, level: int) -> str:
        # Python refuses to convert longer integers to decimal digits.
        return super().repr_int(number, level) if number.bit_length() < 10_000 else "an integer of thousands of digits"


_short_repr = _ShortRepr()
_short_repr.maxlevel = 3
_short_repr.maxstring = _short_repr.maxother = _short_repr.maxlong = 100


def shown(value: object) -> str:
    """One line of bounded length: a YAML alias can stand for a value of any size."""
    return _short_repr.repr(value)


def shown_key(key: str) -> str:
    return key if key.isprintable() and len(key) <= 100 else shown(key)
