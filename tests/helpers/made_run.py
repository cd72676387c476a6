"""The folder of a run as the tools leave it, with a log and scores of any kind, without training anything."""

import contextlib
import io
import logging

import numpy as np

from core.config import load_config, print_cfg
from formats.result_file import SCORED, ResultFile
from reports.video_scores import score_videos, write_results
from utils.cli import LOG_FORMAT
from utils.metrics import print_json_stats, print_train_line
from utils.timer import Timer

CLIPS = 3  # of a video


def write_log(path, options, steps=40, seconds=(), evaluations=(), report=None):
    """Append to a log: options, training lines (of `seconds`, or 0.5 each), evaluations, and the report of a test.

    Args:
        options: {key: value} besides the defaults.
        evaluations: {key of json_stats: value}.
        report: a video_scores.Report.
    """
    text, root = io.StringIO(), logging.getLogger()
    handler, level = logging.StreamHandler(text), root.level
    handler.setFormatter(logging.Formatter(LOG_FORMAT))
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    try:
        with contextlib.redirect_stdout(text):
            print_cfg(load_config(None, [str(word) for pair in options.items() for word in pair]))
            timer = Timer()
            for it in range(steps):
                timer.diff = seconds[it] if len(seconds) else 0.5
                loss = 2 - it / steps
                print_train_line(it, steps, 0.01 if it < steps / 2 else 0.001, it / 4, timer,
                                 {"loss": loss, "err": 40 * loss, "err5": 10 * loss})
            for stats in evaluations:
                print_json_stats(stats)
            if report is not None:
                report.log()
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
    with open(path, "a", encoding="utf-8") as file:
        file.write(text.getvalue())


def random_scores(labels, classes, seed=0):
    """Probabilities of CLIPS clips of each video, right for about half of the videos: video indices, scores."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(len(labels), 1, classes)) + 0.3 * rng.normal(size=(len(labels), CLIPS, classes))
    logits[np.arange(len(labels)), :, labels] += rng.uniform(0, 2 * np.log(classes), (len(labels), 1))
    powers = np.exp(2 * logits)
    scores = (powers / powers.sum(2, keepdims=True)).astype(np.float32)
    return np.repeat(np.arange(len(labels)), CLIPS), scores.reshape(-1, classes)


def write_scores(path, video_ids, scores):
    """Write the scores of a test into a .pkl or an .h5, which is read faster."""
    if path.suffix == ".pkl":
        write_results(path, video_ids, scores)
        return
    with ResultFile(path, "scores of a test", {}, len(scores), {"scores": scores.shape[1:]},
                    {"video_indices": video_ids}) as file:
        file.write(np.arange(len(scores)), scores, SCORED)


def make_run(folder, names, labels, seed=0, scores_file="results_probs.pkl", **options):
    """Make a run that was trained and tested: log.txt, gt.txt, names.txt, and its scores."""
    folder.mkdir(parents=True, exist_ok=True)
    video_ids, scores = random_scores(labels, len(names), seed)
    write_scores(folder / scores_file, video_ids, scores)
    paths = [f"{folder}/videos/class{label}/{number}.mp4" for number, label in enumerate(labels)]
    (folder / "gt.txt").write_text("".join(f"{path} {label}\n" for path, label in zip(paths, labels, strict=True)))
    (folder / "names.txt").write_text("".join(f"{name}\n" for name in names))
    given = {"CHECKPOINT.DIR": folder, "FILENAME_GT": folder / "gt.txt", "MODEL.NUM_CLASSES": len(names),
             "TEST.NUM_TEST_CLIPS": CLIPS, "TEST.DATASET_SIZE": len(labels), "TRAIN.BATCH_SIZE": 8}
    given |= {name.replace("__", "."): value for name, value in options.items()}
    evaluations = [{"currentIter": 20, "test_err": 61.25, "test_err5": 12.5, "train_loss": 1.75, "train_err": 70.0,
                    "train_err5": 17.5}, {"currentIter": 40, "test_err": 42.5, "test_err5": 7.5, "train_loss": 1.25,
                                          "train_err": 50.0, "train_err5": 12.5}]
    write_log(folder / "log.txt", given, evaluations=evaluations,
              report=score_videos(video_ids, scores, labels, CLIPS))
