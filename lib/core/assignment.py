"""Assigning values to options by dotted key: the key must exist, and the type must be the default's."""

import ast
import copy
import difflib
import sys
import warnings
from collections.abc import Iterator
from typing import Any

from core.defaults import OPTIONS
from core.messages import ConfigError, shown, shown_key
from core.option import Option
from utils.collections import AttrDict, leaves, value_at


def is_option(key: object) -> bool:
    """Whether `key` is the dotted key of an option (not of a group)."""
    try:
        return isinstance(value_at(OPTIONS, str(key)), Option)
    except KeyError:
        return False


def option_values(values: dict, group: dict | None = None, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Pairs (dotted key, value) of nested values, descending where the declaration has a group."""
    group = OPTIONS if group is None else group
    for name, value in values.items():
        declared = group.get(name)
        if isinstance(declared, dict) and isinstance(value, dict):
            yield from option_values(value, declared, f"{prefix}{name}.")
        elif not (isinstance(declared, dict) and value is None):  # an empty `TRAIN:` sets nothing
            yield f"{prefix}{name}", value


def set_options(cfg: AttrDict, values: list[tuple[str, Any]], source: str) -> None:
    """Assign all values (dotted key, value), or none of them. Raises ConfigError, which names `source`.

    Text is evaluated as a Python literal, wherever it comes from, and stays text if it is not one.
    """
    checked = [(key, _converted(key, _evaluated(value), source)) for key, value in values]
    for key, value in checked:
        *groups, name = key.split(".")
        group = value_at(cfg, ".".join(groups)) if groups else cfg
        group[name] = value


def as_written(value: Any) -> Any:
    """A value as it must stand in a file or on a command line to be read as itself: '600' in quotes, for example."""
    return repr(value) if isinstance(value, str) and _evaluated(value) != value else value


def _evaluated(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)  # a path such as '\d'
            return ast.literal_eval(value)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return value


def _converted(key: str, value: Any, source: str) -> Any:
    """`value` as it is stored for `key`, or a ConfigError."""
    what = f"{source}: {shown_key(key)} = {shown(value)} ({type(value).__name__})"
    try:
        option = value_at(OPTIONS, key)
    except KeyError:
        nearest = _nearest_key(key)
        kind = type(value_at(OPTIONS, nearest).default).__name__
        raise ConfigError(f"{what}: no such option; the nearest is {nearest} ({kind})") from None
    if isinstance(option, dict):
        raise ConfigError(f"{what}: {key} is a group of options: expected e.g. {key}.{next(iter(option))}")
    default = option.default
    if value is None or default is None or type(value) is type(default):
        return copy.deepcopy(value)
    if isinstance(default, float) and type(value) is int and abs(value) <= sys.float_info.max:
        return float(value)
    if type(default) is int and isinstance(value, bool):
        return int(value)
    expected = f"{type(default).__name__}, as of the default {default!r}"
    raise ConfigError(f"{what}: expected {expected}{_hint(value, default)}")


def _nearest_key(key: str) -> str:
    # Cut, as difflib's time grows with the square of the length.
    key = key[:200].upper()

    def similarity(option: str) -> float:
        # The name also counts without its group, which may be wrong or missing.
        names = zip((key, _name(key)), (option, _name(option)), strict=True)
        return sum(difflib.SequenceMatcher(None, a, b).ratio() for a, b in names)

    return max((option for option, _ in leaves(OPTIONS)), key=similarity)


def _name(key: str) -> str:
    return key.rsplit(".", 1)[-1]


def _hint(value: Any, default: Any) -> str:
    if isinstance(default, str) and isinstance(value, (int, float)):
        return f""" (in quotes: "'{shown(value)}'")"""
    if isinstance(default, list) and isinstance(value, tuple):
        return " (in square brackets)"
    return ""
