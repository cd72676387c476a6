#!/usr/bin/env python3
"""Say what happens in videos: the most probable classes of each, from a trained network.

    python tools/predict_video.py --weights i3d_nonlocal_8x8_IN_pretrain_400k.pkl --video FILE_OR_FOLDER...
    python tools/predict_video.py --config_file configs/F.yaml --weights W.pkl --video FILE_OR_FOLDER... [KEY VALUE]...
    python tools/predict_video.py --weights W_8x8.pkl --video LONG.mp4 --sliding 2 --csv L.csv --timeline L.png

The options of a network are read from its weights and the name of their file, which tells frames x stride; another file
needs a file of options.

A video is scored as tools/test_net_video.py does it: the probabilities of its views (clips over time x crops over
space) are averaged. A video that cannot be read is reported in one line, and the others go on; the exit status is 0
only if every video was scored.

With --sliding SECONDS, each window of so many seconds is scored by itself, with clips centred in it, in one pass over
the video. CSV and JSON have a row for each window, the picture of --timeline shows all of them. If that is interrupted,
the CSV holds the windows so far; JSON and picture are written at the end.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import _init_paths  # noqa: F401, I001  (lib/ on the path, a Python that is new enough)

import argparse
import contextlib
import logging
import re

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from data.class_ids import KINETICS, read_class_names
from video.bad_videos import BadVideos
from engine.launcher import launch
from engine.prediction import find_videos, load_model, predict_videos, prediction_config, ranking
from engine.sliding_prediction import predict_windows, window_length
from engine.weights_options import load_configuration
from reports.prediction_tables import as_text, write_csv, write_json
from reports.timeline import Timeline
from reports.window_tables import WindowCsv, WindowJson, as_line
from utils import cli
from utils.errors import UserError
from utils.files import atomic_write, check_writable, growing_file

logger = logging.getLogger(__name__)


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


def choose_names(path, num_classes):
    """The names of the classes, or None (and a line that says so) if the file has another number of them."""
    names = read_class_names(path)
    if len(names) == num_classes:
        return names
    logger.warning("%s has %d names and the network %d classes: classes are shown by number (--classids FILE)",
                   path, len(names), num_classes)
    return None


def load(cfg, replicas, args):
    """The network. Raises UserError."""
    if not cfg.TEST.PARAMS_FILE:
        raise UserError("TEST.PARAMS_FILE is not set: give the weights to predict with")
    return load_model(cfg, cfg.TEST.PARAMS_FILE, replicas.device, args.views)


def predict(cfg, replicas, args, names):
    """Score the videos of the command line and show them. Returns the exit status."""
    videos, model = find_videos(args.video), load(cfg, replicas, args)
    bad_videos, results = BadVideos(), []
    with contextlib.ExitStack() as stack:
        # Opened first: a name that cannot be written must not show after hours of work.
        outputs = {name: stack.enter_context(atomic_write(path, "w", encoding="utf-8", errors="surrogateescape"))
                   for name, path in (("json", args.json), ("csv", args.csv)) if path}
        stack.enter_context(logging_redirect_tqdm())
        scored = predict_videos(model, videos, bad_videos)
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
                tqdm.write(as_text(video, result["top"]))
            results.append(result)
        if "json" in outputs:
            write_json(outputs["json"], results, weights=cfg.TEST.PARAMS_FILE, views="{}x{}".format(*args.views))
        if "csv" in outputs:
            write_csv(outputs["csv"], results)
    return status(sum("error" in result for result in results), len(videos))


def predict_over_time(cfg, replicas, args, names):
    """Score the windows of the videos of the command line and show them. Returns the exit status."""
    videos = find_videos(args.video)
    if args.timeline:
        if len(videos) > 1:
            raise UserError(f"--timeline: expected one video for the picture, got {len(videos)}")
        check_writable(args.timeline)
    model, bad_videos, timeline, tables = load(cfg, replicas, args), BadVideos(), Timeline(), []
    with contextlib.ExitStack() as stack:
        if args.json:
            file = stack.enter_context(atomic_write(args.json, "w", encoding="utf-8", errors="surrogateescape"))
            tables.append(WindowJson(file, weights=cfg.TEST.PARAMS_FILE, views="{}x{}".format(*args.views),
                                     sliding=float(args.sliding)))
        if args.csv:
            top = min(args.top, cfg.MODEL.NUM_CLASSES)
            tables.append(WindowCsv(stack.enter_context(growing_file(args.csv)), top))
        stack.enter_context(logging_redirect_tqdm())
        for video in videos:
            for table in tables:
                table.begin(video)
            tqdm.write(video)
            show_windows(model, video, args, names, bad_videos, tables, timeline)
            bad, damaged = bad_videos.known()
            for table in tables:
                table.end(damaged.get(video), bad.get(video))
            tqdm.write("")
        for table in tables:
            table.finish()
    if args.timeline and len(timeline):
        timeline.draw(args.timeline, names, Path(videos[0]).name)
    return status(len(bad_videos.paths), len(videos))


def show_windows(model, video, args, names, bad_videos, tables, timeline):
    """Score the windows of a video; each goes to the screen, the tables and the timeline."""
    bar = tqdm(unit=" s of video", disable=None, file=sys.stderr)
    with bar, contextlib.closing(predict_windows(model, video, args.sliding, bad_videos)) as windows:
        for window in windows:
            top = ranking(window.probabilities, names, args.top)
            for table in tables:
                table.add(window.start, window.end, top)
            timeline.add(window.end, window.probabilities)
            tqdm.write(as_line(window.start, window.end, top))
            bar.total = window.stated
            bar.update(window.end - window.start)


def status(failed, videos):
    """The exit status; says how many videos failed."""
    if failed:
        logger.warning("%d of %d videos could not be scored", failed, videos)
    return 1 if failed else 0


def main():
    parser = cli.argument_parser(__doc__)
    parser.add_argument("--config_file", metavar="YAML",
                        help="file of options; without it, they are read from the weights")
    parser.add_argument("--video", nargs="+", required=True, action="extend", metavar="FILE_OR_FOLDER",
                        help="videos; of a folder, all files below it, links followed, that have the suffix of a video")
    parser.add_argument("--weights", metavar="FILE", help="checkpoint or converted file (TEST.PARAMS_FILE)")
    parser.add_argument("--views", type=parse_views, metavar="CLIPSxCROPS",
                        help="clips spread over the video, each cut into 3 crops of TRAIN.JITTER_SCALES[0] (as "
                             "TEST.TEST_FULLY_CONV), 6 (..._FLIP: and their mirror images), or 1 of 224 in the centre; "
                             "default: 10x3; 10x1 is three times as fast, 1x1 looks at the start of the video only; "
                             "with --sliding, those of a window, default: 1x3")
    parser.add_argument("--sliding", metavar="SECONDS", help="score each window of so many seconds, not whole videos")
    parser.add_argument("--timeline", metavar="PNG", help="with --sliding: draw the classes of one video over time")
    parser.add_argument("--classids", default=KINETICS, metavar="FILE",
                        help="class names: JSON {name: id} (*.json), or text with a name a line; default: Kinetics")
    parser.add_argument("--top", type=int, default=5, metavar="N", help="classes shown of each video; default: 5")
    parser.add_argument("--json", metavar="FILE", help="write the results as JSON, too")
    parser.add_argument("--csv", metavar="FILE", help="write the results as CSV, too")
    parser.add_argument("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE",
                        help="options over those of the file")
    if len(sys.argv) == 1:
        parser.print_help()
        return 1
    args = parser.parse_args()
    if args.top < 1:
        raise UserError(f"--top: expected a number of at least 1, got {args.top}")
    args.video, opts = split_words(args.video)
    if not args.video:
        raise UserError("--video: expected a file or folder, got none")
    if args.sliding is not None:
        args.sliding = window_length(args.sliding)
    elif args.timeline:
        raise UserError("--timeline: expected --sliding SECONDS with it")
    if args.timeline and not args.timeline.lower().endswith(".png"):
        raise UserError(f"--timeline: expected a name ending in .png, got {args.timeline}")
    args.views = args.views or ((10, 3) if args.sliding is None else (1, 3))
    work = predict if args.sliding is None else predict_over_time
    logging.basicConfig(level=logging.WARNING, format="%(message)s", force=True)  # stdout is for the results
    words = [*(["TEST.PARAMS_FILE", args.weights] if args.weights else []), *opts, *args.opts]
    cfg = prediction_config(load_configuration(args.config_file, words), args.views)
    names = choose_names(args.classids, cfg.MODEL.NUM_CLASSES)
    return launch(lambda cfg, replicas: work(cfg, replicas, args, names), cfg)


if __name__ == "__main__":
    cli.run(main)
