#!/usr/bin/env python3
"""Show what a non-local block of a trained network attends to: figure 3 of the paper, for any video.

    python tools/visualize_attention.py --config_file configs/F.yaml --video FILE --output FOLDER TEST.PARAMS_FILE W.pkl

For each clip it writes a PNG, the frames side by side with arrows from a point to the positions that the block attends
to most, over a heat map of all positions, and an MP4 of all frames. The frames are those that the network sees: the
short side is TEST.SCALE pixels, and the square of TRAIN.JITTER_SCALES[0] in the centre is cropped. Without --position
the points with the most concentrated attention (the smallest entropy) are chosen, a quarter of the frame apart.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import _init_paths  # noqa: F401, I001  (lib/ on the path, a Python that is new enough)

import argparse
import logging
import re

from engine.attention import AttentionRequest, visualize
from engine.launcher import launch
from engine.weights_options import load_configuration
from reports.attention_pictures import STYLES
from utils import cli
from utils.errors import UserError


def parse_position(text):
    """'3,120,88' -> (3, 120, 88): frame of the clip, row and column in it."""
    if not re.fullmatch(r"\d{1,6},\d{1,6},\d{1,6}", text, re.ASCII):
        raise argparse.ArgumentTypeError(f"expected FRAME,ROW,COLUMN such as 0,120,88, got {text!r}")
    return tuple(map(int, text.split(",")))


def show(cfg, replicas, request):
    for pictures in visualize(cfg, replicas, request):
        print(*pictures.lines(), sep="\n")
    return 0


def main():
    parser = cli.argument_parser(__doc__)
    parser.add_argument("--config_file", metavar="YAML",
                        help="file of options; without it, they are read from the weights")
    parser.add_argument("--video", required=True, metavar="FILE")
    parser.add_argument("--output", required=True, metavar="FOLDER", help="for the pictures; created if necessary")
    parser.add_argument("--block", metavar="NAME", help="such as nonlocal_conv4_5; default: the last one")
    parser.add_argument("--position", type=parse_position, action="append", default=[], metavar="FRAME,ROW,COLUMN",
                        help="a point to look from: frame of the clip and pixel of the frame as the network sees it, "
                             "from 0; the nearest cell of the block's feature map is taken; may be repeated")
    parser.add_argument("--number", type=int, default=3, metavar="N",
                        help="how many points are chosen without --position; default: 3")
    parser.add_argument("--clips", type=int, default=1, metavar="N",
                        help="clips, spread over the video as in a test; default: one, from its start")
    parser.add_argument("--style", choices=STYLES, default="both", help="default: both")
    parser.add_argument("--arrows", type=int, default=20, metavar="N", help="arrows from a point; default: 20")
    parser.add_argument("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE",
                        help="options that override the file's; TEST.PARAMS_FILE (the weights) is required")
    if len(sys.argv) == 1:
        parser.print_help()
        return 1
    args = parser.parse_args()
    for name in ("number", "clips", "arrows"):
        if getattr(args, name) < 1:
            raise UserError(f"--{name}: expected a number of at least 1, got {getattr(args, name)}")
    logging.basicConfig(level=logging.WARNING, format="%(message)s", force=True)
    cfg = load_configuration(args.config_file, args.opts)
    cfg.NUM_GPUS = 1  # a single video
    request = AttentionRequest(args.video, args.output, args.block, args.position, args.number, args.clips, args.style,
                               args.arrows)
    return launch(lambda cfg, replicas: show(cfg, replicas, request), cfg)


if __name__ == "__main__":
    cli.run(main)
