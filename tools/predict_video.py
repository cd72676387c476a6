#!/usr/bin/env python3
"""Say what happens in videos: the most probable classes of each, by a trained network.

    python tools/predict_video.py --config_file configs/F.yaml --video FILE_OR_FOLDER... TEST.PARAMS_FILE W.pkl

A video is scored as tools/test_net_video.py does it: the probabilities of its views (clips over time x crops over
space) are averaged. A video that cannot be read is reported in one line, and the others go on; the exit status is 0
only if every video was scored.
"""

import _init_paths  # noqa: F401, I001  (puts lib/ on the path)

import argparse
import contextlib
import copy
import csv
import json
import logging
import re
import sys
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from core.config import load_config
from data.class_ids import read_class_names
from data.data_builder import Preprocessor, temporal_positions, test_loader
from video.video_facts import VideoFactsCache
from data.loader import BadVideos, group_by_video
from data.sources import expand_test_videos
from models.model_builder_video import load_model
from test_net_video import derive_test_config
from utils import cli
from formats.blobs import load_blobs
from utils.errors import UserError
from utils.files import atomic_write
from engine.launcher import launch

logger = logging.getLogger(__name__)

KINETICS_NAMES = Path(__file__).resolve().parent.parent / "process_data/kinetics/classids.json"

# What is taken from a folder. A file that is named itself may have any name.
VIDEO_SUFFIXES = (".3gp", ".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".ogv",
                  ".ts", ".vob", ".webm", ".wmv")

# Crops of a clip -> the options of the test tool that make them.
CROPS = {1: (False, False), 3: (True, False), 6: (False, True)}


def parse_views(text):
    """'10x3' -> (10, 3): clips over time, crops of each."""
    found = re.fullmatch(r"([1-9]\d{0,3})x([136])", text, re.ASCII)
    if not found:
        raise argparse.ArgumentTypeError(f"expected CLIPSxCROPS with 1, 3 or 6 crops, such as 10x3, got {text!r}")
    return int(found[1]), int(found[2])


def split_words(words):
    """Words behind --video -> (videos, KEY VALUE words): these begin where a word looks like a key and is no file."""
    for i, word in enumerate(words):
        if re.fullmatch(r"[A-Z][A-Z0-9_]*(\.[A-Z0-9_]+)*", word) and not Path(word).exists():
            return words[:i], words[i:]
    return words, []


def find_videos(paths):
    """Files as they are, and the videos below folders (by their suffix, in order of their paths), each once.

    Raises UserError for a folder without any.
    """
    videos = {}
    for path in paths:
        found = [path]
        if Path(path).is_dir():
            found = sorted(str(file) for file in Path(path).rglob("*")
                           if file.suffix.lower() in VIDEO_SUFFIXES and file.is_file())
            if not found:
                raise UserError(f"{path}: expected a folder with videos, found no file that ends in "
                                f"{', '.join(VIDEO_SUFFIXES)}")
        videos |= dict.fromkeys(found)
    return list(videos)


def prediction_config(cfg, views):
    """A copy of the configuration for views = (clips, crops) on one device, giving probabilities.

    As many clips go through the network at once as in a test.
    """
    cfg = copy.deepcopy(cfg)
    clips, crops = views
    cfg.TEST.TEST_FULLY_CONV, cfg.TEST.TEST_FULLY_CONV_FLIP = CROPS[crops]
    cfg.TEST.USE_MULTI_CROP = 0
    cfg.TEST.NUM_TEST_CLIPS = clips * crops
    cfg.TEST.OUTPUT_NAME = "softmax"
    cfg.TEST.BATCH_SIZE //= cfg.NUM_GPUS
    cfg.NUM_GPUS = 1
    return derive_test_config(cfg)


def check_classifier(cfg):
    """Raise UserError where loading would keep an untrained classifier: one that is missing, or of another size."""
    weights_file = cfg.TEST.PARAMS_FILE
    if not weights_file:
        raise UserError("TEST.PARAMS_FILE is not set: give the weights to predict with")
    weights = load_blobs(weights_file).get("pred_w")
    if weights is None:
        raise UserError(f"{weights_file}: expected the weights of a trained network, but it has no classifier (pred_w)")
    if len(weights) != cfg.MODEL.NUM_CLASSES:
        raise UserError(f"{weights_file}: its classifier has {len(weights)} classes, but MODEL.NUM_CLASSES is "
                        f"{cfg.MODEL.NUM_CLASSES}")


def choose_names(path, num_classes):
    """The names of the classes, or None (and a line that says so) if the file has another number of them."""
    names = read_class_names(path)
    if len(names) == num_classes:
        return names
    logger.warning("%s has %d names and the network %d classes: classes are shown by number (--classids FILE)",
                   path, len(names), num_classes)
    return None


@torch.inference_mode()
def predict_videos(model, cfg, replicas, videos, bad_videos):
    """Yield (video, its K probabilities, float64) for each path, in order; None for those of a bad one.

    cfg is a prediction_config, and bad_videos (BadVideos) learns why a video is bad.
    """
    source = expand_test_videos(videos, cfg.TEST.USE_MULTI_CROP, temporal_positions(cfg))
    views = cfg.TEST.NUM_TEST_CLIPS
    at_once = cfg.TEST.BATCH_SIZE
    passes = [part for video in group_by_video(source.path_ids, np.arange(len(source)))
              for part in np.split(video, range(at_once, views, at_once))]
    prepare = Preprocessor(cfg, replicas.device)
    with test_loader(cfg, replicas, source, passes, bad_videos, counts=VideoFactsCache()) as loader:
        for video in videos:
            scores = [model(prepare.clips(clips)).float().cpu().numpy()
                      for clips, good in (next(loader) for _ in range(0, views, at_once)) if len(good)]
            yield video, np.concatenate(scores).sum(0, dtype=np.float64) / views if scores else None


def ranking(probabilities, names, count):
    """The `count` most probable classes as dicts; of equal ones the lower id first."""
    best = np.argsort(-probabilities, kind="stable")[:count]
    return [{"class_id": int(i), "class_name": names[i] if names else None, "probability": float(probabilities[i])}
            for i in best]


def table(video, top):
    """Lines for the screen."""
    lines = []
    for rank, row in enumerate(top, start=1):
        name = row["class_name"] or f"class {row['class_id']}"
        lines.append(f"{rank:4}  {100 * row['probability']:6.2f} %  {name}")
    return "\n".join([video, *lines, ""])


def write_json(file, results, **about):
    json.dump({**about, "videos": results}, file, indent=1)
    file.write("\n")


def write_csv(file, results):
    """One row for each class of each video; one with an error for a bad video."""
    columns = ["video", "rank", "class_id", "class_name", "probability", "error"]
    writer = csv.DictWriter(file, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for result in results:
        if "error" in result:
            writer.writerow(result)
        for rank, row in enumerate(result.get("top", ()), start=1):
            writer.writerow({"video": result["video"], "rank": rank} | row)


def predict(cfg, replicas, args, names):
    """Score the videos of the command line and show them. Returns the exit status."""
    videos = find_videos(args.video)
    check_classifier(cfg)
    clip_shape = (3, cfg.TRAIN.VIDEO_LENGTH, cfg.TRAIN.CROP_SIZE, cfg.TRAIN.CROP_SIZE)
    model = load_model(cfg, cfg.TEST.PARAMS_FILE, replicas.device, clip_shape, cfg.TEST.OUTPUT_NAME)
    bad_videos, results = BadVideos(), []
    with contextlib.ExitStack() as stack:
        # Opened first: a name that cannot be written must not show after hours of work.
        outputs = {name: stack.enter_context(atomic_write(path, "w", encoding="utf-8", errors="surrogateescape"))
                   for name, path in (("json", args.json), ("csv", args.csv)) if path}
        stack.enter_context(logging_redirect_tqdm())
        scored = predict_videos(model, cfg, replicas, videos, bad_videos)
        # disable=None: no bar where stderr is no terminal.
        for video, probabilities in tqdm(scored, total=len(videos), unit="video", disable=None, file=sys.stderr):
            result = {"video": video}
            bad, damaged = bad_videos.known()
            if video in damaged:
                result["damage"] = damaged[video]
            if probabilities is None:
                result["error"] = bad[video]
            else:
                result["top"] = ranking(probabilities, names, args.top)
                tqdm.write(table(video, result["top"]))
            results.append(result)
        if "json" in outputs:
            write_json(outputs["json"], results, weights=cfg.TEST.PARAMS_FILE, views="{}x{}".format(*args.views))
        if "csv" in outputs:
            write_csv(outputs["csv"], results)
    failed = sum("error" in result for result in results)
    if failed:
        logger.warning("%d of %d videos could not be scored", failed, len(videos))
    return 1 if failed else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config_file", metavar="YAML", help="file of options")
    parser.add_argument("--video", nargs="+", required=True, action="extend", metavar="FILE_OR_FOLDER",
                        help="videos; of a folder, all files below it that have the suffix of a video")
    parser.add_argument("--views", type=parse_views, default=(10, 3), metavar="CLIPSxCROPS",
                        help="clips spread over the video, each cut into 3 crops of TRAIN.JITTER_SCALES[0] (as "
                             "TEST.TEST_FULLY_CONV), 6 (..._FLIP: and their mirror images), or 1 of 224 in the centre; "
                             "default: 10x3; 10x1 is three times as fast, 1x1 looks at the start of the video only")
    parser.add_argument("--classids", default=KINETICS_NAMES, metavar="FILE",
                        help="class names: JSON {name: id} (*.json), or text with a name a line; default: Kinetics")
    parser.add_argument("--top", type=int, default=5, metavar="N", help="classes shown of each video; default: 5")
    parser.add_argument("--json", metavar="FILE", help="write the results as JSON, too")
    parser.add_argument("--csv", metavar="FILE", help="write the results as CSV, too")
    parser.add_argument("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE",
                        help="options over those of the file; TEST.PARAMS_FILE (the weights) is needed")
    if len(sys.argv) == 1:
        parser.print_help()
        return 1
    args = parser.parse_args()
    if args.top < 1:
        raise UserError(f"--top: expected a number of at least 1, got {args.top}")
    args.video, opts = split_words(args.video)
    if not args.video:
        raise UserError("--video: expected a file or folder, got none")
    logging.basicConfig(level=logging.WARNING, format="%(message)s", force=True)  # stdout is for the results
    cfg = prediction_config(load_config(args.config_file, [*opts, *args.opts]), args.views)
    names = choose_names(args.classids, cfg.MODEL.NUM_CLASSES)
    return launch(lambda cfg, replicas: predict(cfg, replicas, args, names), cfg)


if __name__ == "__main__":
    cli.run(main)
