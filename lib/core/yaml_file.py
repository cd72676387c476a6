"""Strict reading of YAML files."""

from collections.abc import Hashable
from typing import Any

import yaml

from core.messages import ConfigError, shown
from utils.files import StrPath


class _UniqueKeyLoader(yaml.SafeLoader):
    """Safe, and strict: plain PyYAML silently lets a second `TRAIN:` override the first."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for key_node, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if isinstance(key_node, yaml.ScalarNode) and key_node.tag != "tag:yaml.org,2002:merge":
                if key_node.value in seen:
                    problem = f"duplicate key {shown(key_node.value)}"
                    raise yaml.constructor.ConstructorError(None, None, problem, key_node.start_mark)
                seen.add(key_node.value)
        return super().construct_mapping(node, deep)


def read_yaml(filename: StrPath) -> Any:
    """The contents of a YAML file; None if it is empty.

    Raises:
        ConfigError: the file is unreadable, not valid YAML, or has a duplicate key.
    """
    try:
        with open(filename, encoding="utf-8") as file:
            return yaml.load(file, _UniqueKeyLoader)
    except OSError as error:
        raise ConfigError(f"{filename}: cannot read the configuration: {error.strerror}") from error
    except RecursionError:
        raise ConfigError(f"{filename}: not a configuration: nested too deeply") from None
    except (yaml.YAMLError, ValueError, LookupError, AttributeError, TypeError) as error:
        # Besides its own errors, PyYAML lets those of its constructors through: a month 13, `!!bool x`, ...
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        what = " ".join(str(getattr(error, "problem", None) or error).split())
        raise ConfigError(f"{filename}: not valid YAML{where}: {what}") from error
