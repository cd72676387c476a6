#!/usr/bin/env python3
"""Check that every released model predicts without any option as with those of its script, bit for bit.

    python tests/check_released.py [NAME]... [--video FILE]

Makes a network of full size for each, with random weights, under the name of the released file; predicts a view of a
video by tools/predict_video.py with the name alone, and with the options of the script that trains the model. Prints a
line for each. Takes minutes: the networks of 128 frames are large.
"""

import argparse
import contextlib
import io
import json
import sys
import tempfile
import time
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(REPO / folder) for folder in ("lib", "tools", "tests/helpers")]

import recipe_blobs  # noqa: E402
from script_options import options_of_script  # noqa: E402

import predict_video  # noqa: E402
from formats.caffe2_pickle import dump  # noqa: E402
from models.model_builder_video import create_model  # noqa: E402
from models.released import RELEASED  # noqa: E402
from utils import cli  # noqa: E402
from utils.collections import leaves  # noqa: E402
from utils.errors import UserError  # noqa: E402

# Not those of the network.
LEFT_OUT = ("DATADIR", "FILENAME_GT", "TRAIN.PARAMS_FILE", "TEST.PARAMS_FILE", "CHECKPOINT.DIR", "SOLVER.STEPS")


def call_tool(tool, *words):
    """Run a tool's command line in this process: exit status, what it printed, and nothing."""
    sys.argv = [f"{tool.__name__}.py", *map(str, words)]
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        return tool.main(), printed.getvalue(), ""


def predictions(name, video, folder, *words, call=call_tool):
    """Every class of a video with its probability, by the name of a released model alone and by its script's options.

    `words`: further KEY VALUE words for a smaller network of the same kind.
    """
    cfg = options_of_script(REPO, RELEASED[name].script, *words)
    model = create_model(cfg, "test")
    recipe_blobs.fill(model, seed=1)
    weights, elsewhere, output, yaml = (Path(folder, file) for file in (f"{name}.pkl", "w.pkl", "out.json", "f.yaml"))
    dump({"blobs": recipe_blobs.values(model)}, weights)
    del model

    def predict(weights, *words):
        status, _, errors = call(predict_video, "--weights", weights, "--video", video, "--views", "1x1", "--top", 400,
                                 "--json", output, *words)
        if status:
            raise UserError(f"{name}: the prediction ended with status {status}: {errors}")
        return json.loads(output.read_text())["videos"]

    found = predict(weights)
    weights.rename(elsewhere)  # a name that tells nothing
    yaml.write_text("")
    options = [str(word) for key, value in leaves(cfg) if key not in LEFT_OUT for word in (key, value)]
    return found, predict(elsewhere, "--config_file", yaml, *options)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="default: all")
    parser.add_argument("--video", default=REPO / "tests/data/h264.mp4", metavar="FILE")
    args = parser.parse_args()
    if unknown := set(args.names) - RELEASED.keys():
        raise UserError(f"{min(unknown)!r}: expected names of released models, such as {next(iter(RELEASED))}")
    same = []
    for name in args.names or RELEASED:
        start = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            found, expected = predictions(name, args.video, folder)
        same.append(found == expected)
        print(f"{name:<42}{'the same' if same[-1] else 'DIFFERENT'}{time.monotonic() - start:6.0f} s", flush=True)
    print(f"{sum(same)} of {len(same)} models predict the same")
    return 0 if all(same) else 1


if __name__ == "__main__":
    cli.run(main)
