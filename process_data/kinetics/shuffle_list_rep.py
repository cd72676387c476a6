#!/usr/bin/env python3
"""Write a list many times in a row, shuffled each time.

Training reads an LMDB in its order, so the order of this list is the order of training. Only the positions of
the lines are held in memory, neither the list nor the output.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))
import _init_paths  # noqa: F401, I001  (lib/ on the path, a Python that is new enough)

import logging
import mmap
import re
import zlib
from array import array
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
from tqdm import tqdm

from data.lists import open_list  # noqa: E402
from utils import cli  # noqa: E402
from utils.errors import UserError  # noqa: E402
from utils.files import atomic_write  # noqa: E402

logger = logging.getLogger(__name__)


def main() -> None:
    parser = cli.argument_parser(__doc__)
    parser.add_argument("out", help="list to write")
    parser.add_argument(
        "--list_file", default="trainlist.txt", help="list to shuffle (default: %(default)s)"
    )
    parser.add_argument(
        "--repetitions", type=int, default=100, help="number of repetitions (default: %(default)s)"
    )
    parser.add_argument(
        "--seed", type=int, default=2, help="determines the order (default: %(default)s)"
    )
    args = parser.parse_args()
    cli.setup_logging()
    if args.repetitions < 1 or args.seed < 0:
        expected = "--repetitions >= 1 and --seed >= 0"
        raise UserError(f"expected {expected}, got {args.repetitions} and {args.seed}")

    with open_list(args.list_file) as source:
        starts = line_starts(source)
        if len(starts) < 2:
            raise UserError(f"{args.list_file}: expected a list of videos, got an empty file")
        # Read through a memory map: the system's page cache is the only copy of the list.
        with mmap.mmap(source.fileno(), 0, access=mmap.ACCESS_READ) as text, atomic_write(args.out) as out:
            if not re.search(rb"\S", text):
                raise UserError(f"{args.list_file}: expected a list of videos, got empty lines")
            for repetition in tqdm(range(args.repetitions), unit="repetition"):
                out.writelines(shuffled_lines(text, starts, args.seed, repetition))
    logger.info("%s: %d lines %d times", args.out, len(starts) - 1, args.repetitions)


def line_starts(file: BinaryIO) -> np.ndarray:
    """Offsets of the lines of a binary file and of its end: int64, one more than the number of lines."""
    starts = array("q", [0])
    for line in file:
        starts.append(starts[-1] + len(line))
    return np.frombuffer(starts, dtype=np.int64)


def shuffled_lines(text: bytes | mmap.mmap, starts: np.ndarray, seed: int, repetition: int) -> Iterator[bytes]:
    """Yield the lines of `text` in the order of one repetition. Blank lines are left out."""
    generator = np.random.default_rng([seed, zlib.crc32(b"shuffle_list_rep"), repetition])
    order = generator.permutation(len(starts) - 1)
    for begin, end in zip(starts[order], starts[order + 1], strict=True):
        line = text[begin:end].strip()
        if line:
            yield line + b"\n"


if __name__ == "__main__":
    cli.run(main)
