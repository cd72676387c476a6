#!/usr/bin/env python3
"""Replace a folder name in the paths of a list, e.g. after the videos have been moved or downscaled.

    change_listname.py trainlist_full.txt trainlist.txt /data/train/ /data/train_256/
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))
import _init_paths  # noqa: F401, I001  (lib/ on the path, a Python that is new enough)

import logging
import os

from data.lists import open_list, path_of  # noqa: E402
from utils import cli  # noqa: E402
from utils.errors import UserError  # noqa: E402
from utils.files import atomic_write  # noqa: E402

logger = logging.getLogger(__name__)


def main() -> None:
    parser = cli.argument_parser(__doc__)
    parser.add_argument("src", help="list to read")
    parser.add_argument("out", help="list to write")
    parser.add_argument("old", help="folder name in the paths of SRC")
    parser.add_argument("new", help="its replacement, everywhere")
    args = parser.parse_args()
    cli.setup_logging()
    if not args.old:
        raise UserError("OLD: expected a folder name, got ''")

    old, new = os.fsencode(args.old), os.fsencode(args.new)
    changed, copied = 0, 0
    first_copied = None
    with open_list(args.src) as source, atomic_write(args.out) as out:
        for number, line in enumerate(source, 1):
            path = path_in(line)
            if old in path:
                changed += 1
            elif line.strip():
                copied += 1
                first_copied = first_copied or number
            out.write(line.replace(path, path.replace(old, new), 1))
        if not changed:
            raise UserError(f"{args.src}: expected {args.old!r} in its paths, got {copied} lines without it")
    lines = changed + copied
    logger.info("%s: %d of %d lines changed", args.out, changed, lines)
    if copied:
        logger.warning("%s: %d of %d lines copied as they are, without %r in their path, the first from %s:%d",
                       args.out, copied, lines, args.old, args.src, first_copied)


def path_in(line: bytes) -> bytes:
    """The path in a line of a list; empty if there is none."""
    try:
        return path_of(line.strip())
    except ValueError:
        return b""


if __name__ == "__main__":
    cli.run(main)
