"""The version of this program; pyproject.toml and `--version` read it here."""

VERSION = "1.0.0"
