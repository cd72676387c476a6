#!/usr/bin/env python3
"""Check that every released model predicts without any option as with those of its script, bit for bit.

    python tests/check_released.py [NAME]... [--video FILE]

Makes a network of full size for each, with random weights, under the name of the released file; predicts a view of a
video by tools/predict_video.py with the name alone, and with the options of the script that trains the model. Prints a
line for each. Takes minutes: the networks of 128 frames are large.
"""

import argparse
import json
import logging
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(REPO / folder) for folder in ("lib", "tests/helpers")]

import recipe_blobs  # noqa: E402
from script_options import options_of_script  # noqa: E402

from formats.caffe2_pickle import dump  # noqa: E402
from models.model_builder_video import create_model  # noqa: E402
from models.released import RELEASED  # noqa: E402
from utils import cli  # noqa: E402
from utils.collections import leaves  # noqa: E402

# Not those of the network.
LEFT_OUT = ("DATADIR", "FILENAME_GT", "TRAIN.PARAMS_FILE", "TEST.PARAMS_FILE", "CHECKPOINT.DIR", "SOLVER.STEPS")


def predict(weights, video, output, *words):
    """Classes and probabilities of a video, all of them."""
    subprocess.run([sys.executable, REPO / "tools/predict_video.py", "--weights", weights, "--video", video, "--views",
                    "1x1", "--top", "400", "--json", output, *words], check=True, stdout=subprocess.DEVNULL)
    [result] = json.loads(Path(output).read_text())["videos"]
    return result["top"]


def check(name, video, folder):
    """Whether both predictions of a model are the same; a line that says so."""
    start = time.monotonic()
    cfg = options_of_script(REPO, RELEASED[name].script)
    model = create_model(cfg, "test")
    recipe_blobs.fill(model, seed=1)
    weights, elsewhere = Path(folder, f"{name}.pkl"), Path(folder, "w.pkl")
    dump({"blobs": recipe_blobs.values(model)}, weights)
    del model
    found = predict(weights, video, Path(folder, "found.json"))
    weights.rename(elsewhere)  # its name tells nothing now
    (yaml := Path(folder, "empty.yaml")).write_text("")
    words = [str(word) for key, value in leaves(cfg) if key not in LEFT_OUT for word in (key, value)]
    expected = predict(elsewhere, video, Path(folder, "expected.json"), "--config_file", yaml, *words)
    same = found == expected and len(found) == 400
    frames = f"{cfg.TRAIN.VIDEO_LENGTH} x {cfg.TRAIN.SAMPLE_RATE}"
    print(f"{name:<42}{frames:>8}  {'the same' if same else 'DIFFERENT'}{time.monotonic() - start:6.0f} s", flush=True)
    return same


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", choices=[[], *RELEASED], help="default: all")
    parser.add_argument("--video", default=REPO / "tests/data/h264.mp4", metavar="FILE")
    args = parser.parse_args()
    logging.disable(logging.INFO)
    with tempfile.TemporaryDirectory() as folder:
        good = [check(name, args.video, folder) for name in args.names or RELEASED]
    print(f"{sum(good)} of {len(good)} models predict the same")
    return 0 if all(good) else 1


if __name__ == "__main__":
    cli.run(main)
