#!/usr/bin/env python3
"""List the videos of a folder of class folders: one line `path label` for each.

Class folders with spaces in their names are renamed ("petting cat" to "petting_cat"), as a space separates
the path from the label. Paths are written as FOLDER is given: an absolute FOLDER makes a list for any place.
"""

import argparse
import difflib
import logging
import os
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1] / "lib"))

from datasets.class_ids import read_class_ids  # noqa: E402
from utils import cli  # noqa: E402
from utils.errors import UserError  # noqa: E402
from utils.files import atomic_write  # noqa: E402

logger = logging.getLogger(__name__)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "folder", nargs="?", default="YOUR_DATASET_FOLDER/train/",
        help="folder of class folders (default: %(default)s)",
    )
    parser.add_argument(
        "list_file", nargs="?", default="trainlist.txt", help="list to write (default: %(default)s)"
    )
    parser.add_argument(
        "--classids", default=str(HERE / "classids.json"),
        help="JSON file {class name: id} (default: the 400 classes of Kinetics)",
    )
    args = parser.parse_args()
    cli.setup_logging()

    labels = folder_labels(args.folder, read_class_ids(args.classids))
    rename_folders(args.folder, labels)
    videos = 0
    with atomic_write(args.list_file, "w", encoding="utf-8", errors="surrogateescape") as file:
        for line in list_lines(args.folder, labels):
            file.write(line)
            videos += 1
        if not videos:
            raise UserError(f"{args.folder}: expected videos in its class folders, got none")
    logger.info("%s: %d videos of %d classes", args.list_file, videos, len(labels))


def folder_labels(folder, class_ids):
    """The class folders in `folder`, as {name: id}. UserError for one that is no class, or there twice."""
    # The two spellings of a class: of the file, and without spaces.
    known = class_ids | {name.replace(" ", "_"): class_id for name, class_id in class_ids.items()}
    try:
        names = sorted(e.name for e in os.scandir(folder) if e.is_dir() and not e.name.startswith("."))
    except OSError as error:
        raise UserError(f"{folder}: cannot list the folder: {error.strerror}") from error
    if not names:
        raise UserError(f"{folder}: expected a folder for each class in it, got none")
    spaceless = {}
    for name in names:
        if name not in known:
            nearest = "".join(difflib.get_close_matches(name, known, n=1, cutoff=0))
            raise UserError(f"{os.path.join(folder, name)}: no such class; the nearest is {nearest!r}")
        other = spaceless.setdefault(name.replace(" ", "_"), name)
        if other != name:
            raise UserError(f"{folder}: {other!r} and {name!r} are the same class: expected one folder")
    return {name: known[name] for name in names}


def rename_folders(folder, names):
    """Give the class folders their names without spaces."""
    for name in names:
        if " " in name:
            os.rename(os.path.join(folder, name), os.path.join(folder, name.replace(" ", "_")))


def list_lines(folder, labels):
    """Yield `path label` lines, by class folder, then by file name. Hidden files are no videos."""
    for name, label in labels.items():
        class_folder = os.path.join(folder, name.replace(" ", "_"))
        entries = os.scandir(class_folder)
        files = sorted(e.name for e in entries if e.is_file() and not e.name.startswith("."))
        if not files:
            logger.warning("%s: no videos", class_folder)
        for file in files:
            path = os.path.join(class_folder, file)
            if "\n" in path:
                raise UserError(f"{path!r}: a path with a line break cannot be listed")
            yield f"{path} {label}\n"


if __name__ == "__main__":
    cli.run(main)
