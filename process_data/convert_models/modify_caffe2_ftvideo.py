#!/usr/bin/env python3
"""Convert a checkpoint for training on longer clips (MODEL.USE_AFFINE): batch norms folded, no classifier.

    python process_data/convert_models/modify_caffe2_ftvideo.py IN OUT
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from convert_to_finetune import (
    bn_to_affine,
    convert_file,
    remove_momentum,
    remove_named,
    remove_non_parameters,
)

from utils import cli  # convert_to_finetune put lib/ on the path

LR = 0.00125


def convert(blobs):
    blobs = remove_named(remove_momentum(remove_non_parameters(blobs)), "pred")
    return bn_to_affine(blobs) | {"lr": LR}


if __name__ == "__main__":
    cli.run(convert_file, __doc__, convert)
