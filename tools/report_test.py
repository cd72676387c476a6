#!/usr/bin/env python3
"""Report the results of a test by class, from its results_probs.pkl or results_scores.h5.

    python tools/report_test.py results_probs.pkl --truth vallist.txt --classes classids.json [--output FOLDER]

Prints the report of the test tool, and writes per_class.csv (accuracies of every class, and the wrong class that most
of its videos were assigned to) and confusion.png (the whole matrix).
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import _init_paths  # noqa: F401, I001  (lib/ on the path, a Python that is new enough)

import numpy as np

from data.class_ids import read_class_names
from data.lists import read_list
from utils import cli
from reports.class_report import check_class_count, count_by_class, true_classes, write_class_table
from utils.files import make_folder
from reports.video_scores import read_results, score_videos
from utils.visualize import plot_confusion


def main() -> None:
    parser = cli.argument_parser(__doc__)
    parser.add_argument("scores", metavar="SCORES", help="results_probs.pkl or results_scores.h5 of a test")
    parser.add_argument("--truth", required=True, metavar="LIST", help="FILENAME_GT of the test: 'path label' lines")
    parser.add_argument("--classes", metavar="FILE", help="classids.json, or a text file with one name per line; "
                        "default: class numbers")
    parser.add_argument("--clips", type=int, metavar="N", help="TEST.NUM_TEST_CLIPS of the test; default: the "
                        "largest number of clips of any video")
    parser.add_argument("--output", metavar="FOLDER", help="default: the folder of the scores")
    args = parser.parse_args()
    cli.setup_logging()
    video_ids, scores = read_results(args.scores)
    check_class_count(args.scores, scores)
    labels = true_classes(read_list(args.truth), args.scores, video_ids, scores.shape[1])
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
