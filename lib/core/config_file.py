"""Writing a file of options."""

from collections.abc import Iterable, Sequence
from typing import IO, Any

import yaml

from core.assignment import as_written, option_values
from core.yaml_file import read_yaml
from utils.collections import AttrDict, value_at
from utils.files import StrPath


class _Dumper(yaml.SafeDumper):
    """With a line for each option, also where it is a list."""


_Dumper.add_representer(list, lambda dumper, items: dumper.represent_sequence("tag:yaml.org,2002:seq", items, True))


def given_keys(config_file: StrPath, opts: Sequence[str] = ()) -> list[str]:
    """The dotted keys that a file and the words of a command line set, in that order, each once.

    Both have been read before without an error (core.config.load_config).
    """
    options = read_yaml(config_file) or {}
    return list(dict.fromkeys([*(key for key, _ in option_values(options)), *opts[::2]]))


def write_config(file: IO[str], cfg: AttrDict, keys: Iterable[str], comment: str) -> None:
    """Write the values of some options as YAML, from which load_config reads the same.

    Args:
        file: open for writing text.
        cfg: configuration.
        keys: dotted keys; those without a group come first, and groups in the order of their first key.
        comment: one line for the top of the file.
    """
    nested: dict[str, Any] = {}
    for key in keys:
        *groups, name = key.split(".")
        group = nested
        for part in groups:
            group = group.setdefault(part, {})
        group[name] = as_written(value_at(cfg, key))
    file.write(f"# {comment}\n\n")
    for name, value in sorted(nested.items(), key=lambda item: isinstance(item[1], dict)):
        file.write("\n" if isinstance(value, dict) else "")
        yaml.dump({name: value}, file, _Dumper, sort_keys=False, width=110)
