#!/usr/bin/env python3
"""Test the released models on your Kinetics, and print their accuracies beside the published ones.

    python tools/test_released_models.py [NAME]... [--quick N] [KEY VALUE]...

Tests those models of data/pretrained_model/ that are named, or all that are there; of the others it prints the links.
Each is tested as its accuracy was published, on 10 clips x 3 crops of 256 x 256: of the videos of FILENAME_GT, from
DATADIR, in a folder of its own in CHECKPOINT.DIR. Run the same command again to resume: a test that is finished only
reports again, unless its weights are others now.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import _init_paths  # noqa: F401, I001  (lib/ on the path, a Python that is new enough)

from utils.stopping import stop_when_asked

if __name__ == "__main__":
    stop_when_asked()  # from here on, as the imports below take seconds

import re
from functools import partial

from core.config import load_config
from engine.launcher import launch
from engine.released_tests import ReleasedTests, run_released_tests
from engine.weights_options import BATCH_NORM
from utils import cli
from utils.errors import UserError

REPO = Path(__file__).resolve().parent.parent
# As in the scripts.
DEFAULTS = {"DATADIR": "data/lmdb/kinetics_lmdb_multicrop", "FILENAME_GT": "process_data/kinetics/vallist.txt",
            "CHECKPOINT.DIR": "data/checkpoints/test_released"}


def split_words(words):
    """(names, KEY VALUE words): these begin with the first word that looks like a key."""
    first = next((i for i, word in enumerate(words) if re.fullmatch(r"[A-Z][A-Z0-9_.]*", word)), len(words))
    return words[:first], words[first:]


def main():
    parser = cli.argument_parser(__doc__)
    parser.add_argument("words", nargs="*", metavar="NAME", help="models, by the names of their files; default: all "
                        "that are there. KEY VALUE words may follow")
    parser.add_argument("--models", default=REPO / "data/pretrained_model", metavar="FOLDER",
                        help="where the files are; default: data/pretrained_model")
    parser.add_argument("--quick", type=int, metavar="N", help="test on a sample of N videos, spread evenly over the "
                        "list and the same each time, and print the confidence intervals of the accuracies")
    args = parser.parse_intermixed_args()
    cli.setup_logging()
    names, words = split_words(args.words)
    for key in ("TEST.PARAMS_FILE", "TEST.DATASET_SIZE"):
        if key in words[::2]:
            raise UserError(f"{key}: expected no such word here: it follows from --models and FILENAME_GT")
    words = [*(word for key, path in DEFAULTS.items() for word in (key, str(REPO / path))), *words]
    cfg = load_config(BATCH_NORM, words)
    return launch(partial(run_released_tests, request=ReleasedTests(args.models, names, words, args.quick)), cfg)


if __name__ == "__main__":
    cli.run(main)
