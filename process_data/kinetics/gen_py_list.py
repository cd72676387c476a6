#!/usr/bin/env python3
"""List the videos of a folder of class folders: one line `path label` for each.

Every file in a class folder counts as a video, and so does a folder of numbered images (000001.jpg, ... or
img_00001.jpg, ...; or png).

Class folders with spaces in their names are renamed ("petting cat" to "petting_cat"), as a space separates
the path from the label. Paths begin with FOLDER as given: an absolute FOLDER makes a list that can be used anywhere.

For your own classes, --make_classids numbers the folders, and --val_list sets videos of each class apart.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))
import _init_paths  # noqa: F401, I001  (lib/ on the path, a Python that is new enough)

import argparse
import difflib
import json
import logging
import os
import zlib
from collections.abc import Iterable, Iterator
from contextlib import ExitStack

import numpy as np

from data.class_ids import read_class_ids  # noqa: E402
from data.lists import format_line  # noqa: E402
from utils import cli  # noqa: E402
from utils.errors import UserError  # noqa: E402
from utils.files import atomic_write  # noqa: E402
from video.frame_folder import is_frame_folder  # noqa: E402

HERE = Path(__file__).resolve().parent

logger = logging.getLogger(__name__)


def main() -> None:
    parser = cli.argument_parser(__doc__)
    parser.add_argument(
        "folder", nargs="?", default="YOUR_DATASET_FOLDER/train/",
        help="folder of class folders (default: %(default)s)",
    )
    parser.add_argument(
        "list_file", nargs="?", default="trainlist.txt", help="list to write (default: %(default)s)"
    )
    classes = parser.add_mutually_exclusive_group()
    classes.add_argument(
        "--classids", default=str(HERE / "classids.json"),
        help="JSON file {class name: id} (default: the 400 classes of Kinetics)",
    )
    classes.add_argument(
        "--make_classids", metavar="FILE",
        help="write such a file of the class folders, numbered in the order of their names, and use it",
    )
    parser.add_argument(
        "--val_list", metavar="FILE", help="list to write a share of each class's videos to, instead of LIST_FILE"
    )
    parser.add_argument("--val_share", type=float, metavar="S", help="that share (default: 0.2)")
    parser.add_argument(
        "--seed", type=int, default=2, help="determines which videos these are (default: %(default)s)"
    )
    args = parser.parse_args()
    cli.setup_logging()
    share = split_share(args)

    class_ids = make_class_ids(args.folder, args.make_classids) if args.make_classids else read_class_ids(args.classids)
    labels = folder_labels(args.folder, class_ids)
    if len(labels) == 1:
        logger.warning("%s: only one class, %r: nothing can be learned from it; expected a folder for each class",
                       args.folder, *labels)
    rename_folders(args.folder, labels)
    counts = dict.fromkeys(filter(None, (args.list_file, args.val_list)), 0)
    with ExitStack() as stack:
        files = [stack.enter_context(atomic_write(name)) for name in counts]
        for name, paths in videos_of_classes(args.folder, labels):
            parts = [paths] if share is None else split(paths, share, args.seed, name)
            for list_file, file, part in zip(counts, files, parts, strict=True):
                file.writelines(line_of(path, labels[name]) for path in part)
                counts[list_file] += len(part)
        for list_file, videos in counts.items():
            if not videos:
                more = "" if list_file == args.list_file else f" for {list_file}, two or more in each"
                raise UserError(f"{args.folder}: expected videos in its class folders{more}, got none")
    for list_file, videos in counts.items():
        logger.info("%s: %d videos of %d classes", list_file, videos, len(labels))


def line_of(path: str, label: int) -> bytes:
    try:
        return format_line(os.fsencode(path), label) + b"\n"
    except ValueError as error:
        raise UserError(str(error)) from None


def split_share(args: argparse.Namespace) -> float | None:
    """The share of the second list; None if there is none."""
    if args.val_list is None:
        if args.val_share is not None:
            raise UserError("--val_share: expected --val_list FILE with it")
        return None
    share = 0.2 if args.val_share is None else args.val_share
    if not 0 < share < 1 or args.seed < 0:
        raise UserError(f"expected --val_share between 0 and 1 and --seed >= 0, got {share} and {args.seed}")
    if os.path.realpath(args.val_list) == os.path.realpath(args.list_file):
        raise UserError(f"--val_list: expected another file than {args.list_file}")
    return share


def class_folders(folder: str) -> list[str]:
    """Names of the class folders in `folder`, sorted. Hidden folders do not count."""
    try:
        names = sorted(e.name for e in os.scandir(folder) if e.is_dir() and not e.name.startswith("."))
    except OSError as error:
        raise UserError(f"{folder}: cannot list the folder: {error.strerror}") from error
    if not names:
        raise UserError(f"{folder}: expected a folder for each class in it, got none")
    return names


def make_class_ids(folder: str, path: str) -> dict[str, int]:
    """Number the class folders, write {name: id} to path, and return it.

    A file that exists already must have the same content: lists and models that were made with it would mix up classes.
    """
    names = sorted(class_folders(folder), key=spaceless)
    class_ids = {name: class_id for class_id, name in enumerate(names)}
    if os.path.exists(path):
        existing = read_class_ids(path)
        if {spaceless(name): i for name, i in existing.items()} != {spaceless(n): i for n, i in class_ids.items()}:
            raise UserError(f"{path}: has other classes than the folders of {folder}: "
                            "remove it to number them again, or use it with --classids")
        return existing
    with atomic_write(path, "w", encoding="utf-8") as file:
        json.dump(class_ids, file, indent=1)
    return class_ids


def spaceless(name: str) -> str:
    """A class name as a folder has it."""
    return name.replace(" ", "_")


def split(paths: list[str], share: float, seed: int, name: str) -> tuple[list[str], list[str]]:
    """Split paths into (the rest, a share), both in their order, with at least one in each if there are two.

    The seed and the class determine the draw.
    """
    second = min(max(round(share * len(paths)), 1), len(paths) - 1) if paths else 0
    rng = np.random.default_rng([seed, zlib.crc32(os.fsencode(spaceless(name)))])
    chosen = set(rng.permutation(len(paths))[:second].tolist())
    return ([path for i, path in enumerate(paths) if i not in chosen],
            [path for i, path in enumerate(paths) if i in chosen])


def folder_labels(folder: str, class_ids: dict[str, int]) -> dict[str, int]:
    """The class folders in `folder`, as {name: id}. Raises UserError for one that is not a class, or occurs twice."""
    # The two spellings of a class: that of the file, and without spaces.
    known = class_ids | {spaceless(name): class_id for name, class_id in class_ids.items()}
    names = class_folders(folder)
    seen: dict[str, str] = {}
    for name in names:
        if name not in known:
            nearest = "".join(difflib.get_close_matches(name, known, n=1, cutoff=0))
            raise UserError(f"{os.path.join(folder, name)}: no such class; the nearest is {nearest!r}. For classes of "
                            "your own: --make_classids FILE")
        other = seen.setdefault(spaceless(name), name)
        if other != name:
            raise UserError(f"{folder}: {other!r} and {name!r} are the same class: expected one folder")
    return {name: known[name] for name in names}


def rename_folders(folder: str, names: Iterable[str]) -> None:
    """Rename class folders so that their names contain no spaces."""
    for name in names:
        if " " in name:
            os.rename(os.path.join(folder, name), os.path.join(folder, spaceless(name)))


def videos_of_classes(folder: str, names: Iterable[str]) -> Iterator[tuple[str, list[str]]]:
    """Yield (class folder, paths of its videos), by class folder, then by name. Hidden entries do not count."""
    for name in names:
        class_folder = os.path.join(folder, spaceless(name))
        entries = [entry for entry in os.scandir(class_folder) if not entry.name.startswith(".")]
        videos = sorted(entry.name for entry in entries if entry.is_file() or is_frame_folder(entry))
        if not videos:
            logger.warning("%s: no videos", class_folder)
        yield name, [os.path.join(class_folder, video) for video in videos]


if __name__ == "__main__":
    cli.run(main)
