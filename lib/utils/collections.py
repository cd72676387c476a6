"""Nested dictionaries: attribute access, values by dotted key, and JSON."""

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any


class AttrDict(dict):
    """A dict with `d.KEY` for `d["KEY"]`. Copies (deeply), pickles, compares and prints as a dict."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value

    def __delattr__(self, name: str) -> None:
        try:
            del self[name]
        except KeyError:
            raise AttributeError(name) from None


def leaves(mapping: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Pairs (dotted key, value) of everything in nested dictionaries that is not a dictionary itself, in order."""
    for name, value in mapping.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def value_at(mapping: Mapping[str, Any], key: str) -> Any:
    """The value (or the group) under a dotted key of nested dictionaries. Raises KeyError."""
    value: Any = mapping
    for name in key.split("."):
        if not isinstance(value, dict):
            raise KeyError(key)
        value = value[name]
    return value


def to_json(value: Any, indent: int | None = None) -> str:
    """json.dumps, but NaN and the infinities become null: JSON has no such numbers."""
    return json.dumps(_without_nan(value), indent=indent, allow_nan=False)


def _without_nan(value):
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
