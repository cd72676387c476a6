#!/usr/bin/env python3
"""Replace a folder name in the paths of a list, e.g. after the videos have been moved or downscaled.

    change_listname.py trainlist_full.txt trainlist.txt /data/train/ /data/train_256/
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))
import _init_paths  # noqa: F401, I001  (lib/ on the path, a Python that is new enough)

import argparse
import logging
import os

from data.lists import open_list, split_line  # noqa: E402
from utils import cli  # noqa: E402
from utils.errors import UserError  # noqa: E402
from utils.files import atomic_write  # noqa: E402

logger = logging.getLogger(__name__)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("src", help="list to read")
    parser.add_argument("out", help="list to write")
    parser.add_argument("old", help="folder name in the paths of SRC")
    parser.add_argument("new", help="its replacement, everywhere")
    args = parser.parse_args()
    cli.setup_logging()
    if not args.old:
        raise UserError("OLD: expected a folder name, got ''")

    changed = total = 0
    with open_list(args.src) as source, atomic_write(args.out) as out:
        for line in source:
            new_line = change_path(line, os.fsencode(args.old), os.fsencode(args.new))
            changed += new_line != line
            total += 1
            out.write(new_line)
        if not changed:
            raise UserError(f"{args.src}: expected {args.old!r} in its paths, got {total} lines without it")
    logger.info("%s: %d of %d lines changed", args.out, changed, total)


def change_path(line: bytes, old: bytes, new: bytes) -> bytes:
    """`line` (`path label`) with every `old` in its path replaced. The rest of it stays as it is."""
    path, _ = split_line(line.strip())
    return line.replace(path, path.replace(old, new), 1) if path else line


if __name__ == "__main__":
    cli.run(main)
