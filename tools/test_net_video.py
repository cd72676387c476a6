#!/usr/bin/env python3
"""Test a network on whole videos: several clips over time; one, three or six crops over space, or whole frames.

    python tools/test_net_video.py --config_file configs/F.yaml TEST.PARAMS_FILE W.pkl TEST.TEST_FULLY_CONV True

Without --config_file the options of the network are read from its weights, unless MODEL.MODEL_NAME and
MODEL.NUM_CLASSES are among the KEY VALUE words: these are then all that is set.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import _init_paths  # noqa: F401, I001  (lib/ on the path, a Python that is new enough)

from utils.stopping import stop_when_asked

if __name__ == "__main__":
    stop_when_asked()  # from here on, as the imports below take seconds

import argparse

from core.config import load_config, log_options_without_effect
from engine.agreement import agree_on_options
from engine.launcher import launch
from engine.testing import test_net
from engine.weights_options import load_configuration
from utils import cli
from utils.errors import UserError

# With these two, which have no default that works, a command line describes a network itself.
NETWORK = {"MODEL.MODEL_NAME", "MODEL.NUM_CLASSES"}


def run_test(cfg, replicas):
    log_options_without_effect(cfg)
    agree_on_options(cfg, replicas)
    test_net(cfg, replicas)


def main():
    parser = cli.argument_parser(__doc__)
    parser.add_argument("--config_file", metavar="YAML",
                        help="file of options; without it, they are read from the weights (TEST.PARAMS_FILE)")
    parser.add_argument("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="options that override the file's")
    if len(sys.argv) == 1:
        parser.print_help()
        return 1
    args = parser.parse_args()
    cli.setup_logging()
    load = load_config if set(args.opts[::2]) >= NETWORK else load_configuration
    cfg = load(args.config_file, args.opts)
    if args.config_file is None and not cfg.MODEL.MODEL_NAME:
        raise UserError("no --config_file, and neither TEST.PARAMS_FILE nor MODEL.MODEL_NAME among the words: which "
                        "network?")
    return launch(run_test, cfg)


if __name__ == "__main__":
    cli.run(main)
