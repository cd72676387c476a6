#!/usr/bin/env python3
"""Say class by class what a test found, from its results_probs.pkl or results_scores.h5.

    python tools/report_test.py results_probs.pkl --truth vallist.txt --classes classids.json [--output FOLDER]

Prints the report of the test tool, and writes per_class.csv (accuracies of every class, and which other class its
videos went to most) and confusion.png (the whole matrix).
"""

import _init_paths  # noqa: F401, I001  (puts lib/ on the path)

import argparse
from pathlib import Path

import numpy as np

from data.class_ids import read_class_names
from data.lists import read_list
from utils import cli
from reports.class_report import count_by_class, write_class_table
from utils.errors import UserError
from utils.files import make_folder
from reports.video_scores import read_results, score_videos
from utils.visualize import plot_confusion


def read_labels(truth, scores_file, video_ids, num_classes):
    """(videos,) true classes from a list, checked against the scores that they are for."""
    videos = read_list(truth)
    labels = np.array([videos.label(i) for i in range(len(videos))])
    if not (video_ids.min() >= 0 and video_ids.max() < len(labels)):
        raise UserError(f"{scores_file}: has the video indices {video_ids.min()} to {video_ids.max()}, expected 0 to "
                        f"{len(labels) - 1}: {truth} has {len(labels)} lines")
    outside = np.flatnonzero((labels < 0) | (labels >= num_classes))
    if len(outside):
        raise UserError(f"{truth}:{outside[0] + 1}: the label {labels[outside[0]]} is not in 0..{num_classes - 1}, the "
                        f"classes of {scores_file}")
    return labels


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scores", metavar="SCORES", help="results_probs.pkl or results_scores.h5 of a test")
    parser.add_argument("--truth", required=True, metavar="LIST", help="FILENAME_GT of the test: 'path label' lines")
    parser.add_argument("--classes", metavar="FILE", help="classids.json, or a text file with a name a line; "
                        "default: the numbers of the classes")
    parser.add_argument("--clips", type=int, metavar="N", help="TEST.NUM_TEST_CLIPS of the test; default: the most "
                        "clips that a video has")
    parser.add_argument("--output", metavar="FOLDER", help="default: the folder of the scores")
    args = parser.parse_args()
    cli.setup_logging()
    video_ids, scores = read_results(args.scores)
    labels = read_labels(args.truth, args.scores, video_ids, scores.shape[1])
    names = list(map(str, range(scores.shape[1])))
    if args.classes:
        names = read_class_names(args.classes, scores.shape[1])
    score_videos(video_ids, scores, labels, args.clips or int(np.bincount(video_ids).max())).log()
    report = count_by_class(video_ids, scores, labels)
    folder = Path(args.output) if args.output else Path(args.scores).parent
    make_folder(folder)
    write_class_table(folder / "per_class.csv", report, names)
    plot_confusion(report.confusion, names, folder / "confusion.png")
    print(f"Classes saved to: {folder / 'per_class.csv'}, {folder / 'confusion.png'}")


if __name__ == "__main__":
    cli.run(main)
