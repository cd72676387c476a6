#!/usr/bin/env python3
"""Convert a checkpoint for fine-tuning on other classes: no classifier, running statistics or history.

    python process_data/convert_models/modify_blob_rm.py IN OUT
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from convert_to_finetune import convert_file, remove_named

from utils import cli  # convert_to_finetune put lib/ on the path

LR = 0.01


def convert(blobs):
    blobs = {name: value for name, value in blobs.items() if name != "model_iter"}
    return remove_named(blobs, "_riv", "_rm", "_momentum", "pred") | {"lr": LR}


if __name__ == "__main__":
    cli.run(convert_file, __doc__, convert)
