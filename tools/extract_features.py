#!/usr/bin/env python3
"""Write what a network computes for videos into an HDF5 file: pool5, or any other of its blobs.

    python tools/extract_features.py --config_file configs/F.yaml --list LIST --blob pool5 --output features.h5 \
        TEST.PARAMS_FILE W.pkl TEST.NUM_TEST_CLIPS 10

Clips and crops are those of the test tool, with the same options: a row for each clip, for each video each crop, each
position in time; or with --average a row for each video. Run the same command again to resume an interrupted run.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import _init_paths  # noqa: F401, I001  (lib/ on the path, a Python that is new enough)

from utils.stopping import stop_when_asked

if __name__ == "__main__":
    stop_when_asked()  # from here on, as the imports below take seconds

import argparse
from functools import partial

from data.lists import read_list
from engine.feature_extraction import extract
from engine.launcher import launch
from engine.weights_options import load_configuration
from utils import cli


def main():
    parser = cli.argument_parser(__doc__)
    parser.add_argument("--config_file", metavar="YAML",
                        help="file of options; without it, they are read from the weights (TEST.PARAMS_FILE)")
    videos = parser.add_mutually_exclusive_group(required=True)
    videos.add_argument("--list", metavar="LIST", help="list of videos: 'path label' lines")
    videos.add_argument("--video", action="append", metavar="VIDEO", help="a video; may be given several times")
    parser.add_argument("--blob", action="append", required=True, metavar="NAME",
                        help="e.g. pool5, res5_2, nonlocal_conv4_5_theta; may be given several times")
    parser.add_argument("--output", required=True, metavar="H5", help="file to make, or to continue")
    parser.add_argument("--average", action="store_true", help="a row for each video, the mean over its clips")
    parser.add_argument("--pool", action="store_true", help="the mean of a blob over its positions in time and space")
    parser.add_argument("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="options that override the file's")
    args = parser.parse_args()
    cli.setup_logging()
    cfg = load_configuration(args.config_file, args.opts)
    videos = args.video or read_list(args.list).paths()
    return launch(partial(extract, videos=videos, blobs=args.blob, output=args.output, average=args.average,
                          pool=args.pool), cfg)


if __name__ == "__main__":
    cli.run(main)
