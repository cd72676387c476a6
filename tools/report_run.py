#!/usr/bin/env python3
"""Make a report of a training or test: one HTML file, to be opened in a browser, that needs no network.

    python tools/report_run.py data/checkpoints/run_i3d_nlnet_400k [OTHER_RUN ...] [--output report.html]

It shows options, data, curves (of all runs), accuracy by class, confusion, the most certain mistakes with frames of
their videos, attention maps, calibration, and speed: what the run has left of these in its folder. What is missing is
left out, with a line that says why.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import _init_paths  # noqa: F401, I001  (lib/ on the path, a Python that is new enough)

import logging

from engine.run_report import write_report
from utils import cli


def main() -> None:
    parser = cli.argument_parser(__doc__)
    parser.add_argument("runs", nargs="+", metavar="RUN_FOLDER",
                        help="CHECKPOINT.DIR of a run; further ones are compared with the first")
    parser.add_argument("--output", metavar="HTML", help="default: report.html in the first folder")
    parser.add_argument("--truth", metavar="LIST",
                        help="list of the test's videos, 'path label' lines; default: FILENAME_GT in the log")
    parser.add_argument("--classes", metavar="FILE", help="classids.json, or a text file with one name per line; "
                        "default: the folders that the videos are in, or class numbers")
    args = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(message)s", force=True)
    path, left_out = write_report(args.runs, args.output, args.truth, args.classes)
    for part, why in left_out.items():
        print(f"Left out: {part}: {why}")
    print(f"Report saved to: {path}")


if __name__ == "__main__":
    cli.run(main)
