#!/usr/bin/env python3
"""Check data before a run that takes days: report what would go wrong.

    python tools/check_dataset.py --config_file configs/F.yaml [KEY VALUE]...
    python tools/check_dataset.py --list LIST
    python tools/check_dataset.py --lmdb FOLDER

With a configuration: all splits that its runs read, from LMDBs or lists, against its options. With --list or --lmdb:
only that one, also against the options if there is a configuration. Exit status: 0 if all is well, 1 if not. What is
unusual about sound videos (their frame rate, a change of size, ...) is told as well, and does not count.

Every video is decoded to its end, in separate processes, and again to find out what need not be decoded for a clip.
What that reveals is remembered in frame_counts.txt, in CHECKPOINT.DIR (where a training finds it) or next to the list
or LMDB: a second check decodes only what is new.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import _init_paths  # noqa: F401, I001  (lib/ on the path, a Python that is new enough)

import argparse
import os

from core.config import load_config
from data.dataset_check.check import Decoding, Limits, check_splits
from data.dataset_check.findings import REMARKS, Findings
from data.dataset_check.splits import Split, lmdb_split
from engine.dataset_check import SPLITS, configured_splits, facts_file, limits_of
from utils import cli
from utils.collections import to_json
from utils.files import atomic_write

EXAMPLES = 5  # of each kind of finding, in the report for people


def check(args, cfg, findings, remarks):
    """Check everything that the command line asks for. Returns a summary; see check_splits."""
    num_classes = cfg.MODEL.NUM_CLASSES if cfg else None
    if args.list:
        splits = [Split("list", None, Path(args.list), num_classes, all_classes=True)]
    elif args.lmdb:
        splits = [lmdb_split(Path(args.lmdb), num_classes)]
    else:
        splits = configured_splits(cfg, args.split, findings)
    decoding = None
    if not args.no_decode:
        file = facts_file(cfg) if cfg else Path(args.list or args.lmdb).resolve().parent / "frame_counts.txt"
        decoding = Decoding(file, args.workers, args.time_limit)
    limits = limits_of(cfg) if cfg else Limits()
    return check_splits(splits, limits, decoding, findings, remarks, args.write_clean_list)


def report(summary, findings, remarks):
    """Print what was checked and found."""
    for split in summary["splits"]:
        print(f"{split['name']}: {split['records']} records, {split['videos']} videos ({split['path']})")
    videos = summary["videos"]
    print(f"{videos['distinct']} distinct videos, {videos['decoded']} decoded now, {videos['known']} known before")
    if videos["skips"]:
        print(f"{videos['skips']} of them decode faster, without the packets that a clip does not need")
    if remarks:
        print("Unusual, but sound:")
    for line in (*remarks.lines(EXAMPLES), *findings.lines(EXAMPLES)):
        print(line)
    total = sum(findings.counts.values())
    print(f"{total} findings" if total else "Nothing wrong found")


def positive(kind):
    def convert(text):
        value = kind(text)
        if not value > 0:
            raise ValueError
        return value

    convert.__name__ = f"positive {kind.__name__}"  # for argparse's message
    return convert


def parse_arguments():
    parser = cli.argument_parser(__doc__)
    parser.add_argument("--config_file", help="YAML file of options")
    one = parser.add_mutually_exclusive_group()
    one.add_argument("--list", help="check this list")
    one.add_argument("--lmdb", metavar="FOLDER", help="check this LMDB")
    parser.add_argument("--split", action="append", choices=SPLITS,
                        help="check only this split of the configuration; may be repeated")
    parser.add_argument("--no_decode", action="store_true", help="check records, files and consistency only")
    parser.add_argument("--workers", type=positive(int), default=len(os.sched_getaffinity(0)), metavar="N",
                        help="videos decoded at the same time (default: the number of cores, %(default)s)")
    parser.add_argument("--time_limit", type=positive(float), default=60, metavar="SECONDS",
                        help="longest time that decoding a video may take (default: %(default)s)")
    parser.add_argument("--json", metavar="FILE", help="also write the report to this file")
    parser.add_argument("--write_clean_list", metavar="FILE", help="write a list of the records without any finding")
    parser.add_argument("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="options that override the file's")
    if len(sys.argv) == 1:
        parser.print_help()
        return None
    args = parser.parse_args()
    if not (args.config_file or args.list or args.lmdb):
        parser.error("one of --config_file, --list and --lmdb is needed")
    if args.opts and not args.config_file:
        parser.error(f"KEY VALUE options need a --config_file: {' '.join(args.opts)}")
    return args


def main():
    args = parse_arguments()
    if args is None:
        return 1
    cli.setup_logging()
    cfg = load_config(args.config_file, args.opts) if args.config_file else None
    findings, remarks = Findings(), Findings(REMARKS)
    summary = check(args, cfg, findings, remarks)
    report(summary, findings, remarks)
    if args.json:
        with atomic_write(args.json, "w", encoding="utf-8") as file:
            file.write(to_json({"clean": not findings, **summary, "findings": findings.as_dict(),
                                "remarks": remarks.as_dict()}, indent=1))
    return 1 if findings else 0


if __name__ == "__main__":
    cli.run(main)
