#!/usr/bin/env python3
"""Train a network on videos, evaluate it along the way, and test it at the end.

    python tools/train_net_video.py --config_file configs/F.yaml [KEY VALUE]...
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import _init_paths  # noqa: F401, I001  (lib/ on the path, a Python that is new enough)

from utils.stopping import stop_when_asked

if __name__ == "__main__":
    stop_when_asked()  # from here on, as the imports below take seconds

import argparse
import logging

from core.config import load_config
from engine.launcher import launch
from engine.training import train_net
from utils import cli

logger = logging.getLogger(__name__)


def main():
    parser = cli.argument_parser(__doc__)
    parser.add_argument("--config_file", help="YAML file of options")
    parser.add_argument("--test_net", default=True, help="accepted for old command lines; TRAIN.TEST_AFTER_TRAIN rules")
    parser.add_argument("--node_id", type=int, default=0, help="accepted for old command lines")
    parser.add_argument("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="options that override the file's")
    if len(sys.argv) == 1:
        parser.print_help()
        return 1
    args = parser.parse_args()
    if args.config_file is None and "--config_file" not in args.opts:  # there it is in the wrong place
        parser.error("the following arguments are required: --config_file")
    cli.setup_logging()
    if args.test_net is not True or args.node_id:
        logger.warning("--test_net and --node_id have no effect here: TRAIN.TEST_AFTER_TRAIN says whether to test")
    return launch(train_net, load_config(args.config_file, args.opts))


if __name__ == "__main__":
    cli.run(main)
