#!/usr/bin/env python3
"""Write a network with its weights in another format, checked against the network itself.

    python tools/export_model.py --config_file F.yaml --format torch_export --output model.pt2 TEST.PARAMS_FILE W.pkl
    python tools/export_model.py --config_file F.yaml --format onnx --output model.onnx TEST.PARAMS_FILE W.pkl
    python tools/export_model.py --config_file F.yaml --format state_dict --output model.pth TEST.PARAMS_FILE W.pkl
    python tools/export_model.py --config_file F.yaml --format pkl --output W.pkl --from_state_dict model.pth
    python tools/export_model.py --format safetensors --output model.safetensors TEST.PARAMS_FILE W.pkl
    python tools/export_model.py --format pkl --output W.pkl TEST.PARAMS_FILE model.safetensors

The first two run without this program, on normalised clips N x 3 x T x H x W of the test's length and crop, any N.
The others hold weights only, no momentum; .safetensors (which needs the package of that name) has the options of the
network in its metadata, .pkl in a file beside it. Without --config_file the options are read from the weights.

Next to each file OUTPUT.json says what it was made from (digests, options) and what goes in and out, or for weights the
map from parameter names to blobs, lr and model_iter. What was written is read back and run on random clips: if its
scores differ from the network's by more than 1e-5, there is no file and the exit status is not 0.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import _init_paths  # noqa: F401, I001  (lib/ on the path, a Python that is new enough)

import argparse

from engine.exporting import SUFFIXES, export_model
from engine.weights_options import load_configuration
from utils import cli


def main():
    parser = cli.argument_parser(__doc__)
    parser.add_argument("--config_file", metavar="YAML",
                        help="file of options; without it, they are read from the weights (TEST.PARAMS_FILE)")
    parser.add_argument("--output", required=True, help="file to write, or an existing folder for it")
    parser.add_argument("--format", required=True, choices=SUFFIXES)
    parser.add_argument("--from_state_dict", metavar="FILE", help="weights for --format pkl or safetensors")
    parser.add_argument("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="options that override the file's")
    args = parser.parse_args()
    cfg = load_configuration(args.config_file, args.opts)
    written = export_model(cfg, args.format, args.output, args.from_state_dict)
    for note in written.notes:
        print(note)
    print(f"{written.path}: written, read back and run: the scores differ by {written.difference:.1e}")


if __name__ == "__main__":
    cli.run(main)
