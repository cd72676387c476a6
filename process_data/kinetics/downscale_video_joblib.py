#!/usr/bin/env python3
"""Rescale the videos of a list to a height of 256 pixels with ffmpeg.

With --for_clips, as is recommended, clips are much cheaper to read from the new videos: see DATASET.md.

FOLDER/<class>/<file> becomes OUT/<class>/<file>, where <class>/<file> are the last two parts of a path in the
list. What OUT has already is skipped, so the same command continues a run that was stopped. A video appears
in OUT only when it is complete. At the end, the videos that failed are listed with the reason; then the exit status
is 1.
"""

import sys
from pathlib import Path, PurePath

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))
import _init_paths  # noqa: F401, I001  (lib/ on the path, a Python that is new enough)

import argparse
import contextlib
import fcntl
import logging
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from fractions import Fraction

from tqdm import tqdm

from data.lists import open_list, path_of  # noqa: E402
from utils import cli  # noqa: E402
from utils.errors import UserError  # noqa: E402
from utils.files import atomic_file, atomic_write, make_folder  # noqa: E402
from video.ffmpeg import ContainerError, Ffmpeg, FfmpegError  # noqa: E402
from video.rescaling import Rescaling  # noqa: E402

logger = logging.getLogger(__name__)

LOCK, OPTIONS = ".downscale.lock", ".downscale.options"
DEFAULT = str(Rescaling())


def main() -> int:
    parser = cli.argument_parser(__doc__)
    parser.add_argument(
        "--list_file", default="trainlist.txt", help="videos to rescale (default: %(default)s)"
    )
    parser.add_argument(
        "--folder", type=Path, default="YOUR_DATASET_FOLDER/train/",
        help="where they are (default: %(default)s)",
    )
    parser.add_argument(
        "--out", type=Path, default="YOUR_DATASET_FOLDER/train_256/",
        help="where they go (default: %(default)s)",
    )
    parser.add_argument("--jobs", type=int, default=16, help="videos processed at the same time (default: %(default)s)")
    parser.add_argument(
        "--for_clips", action="store_true",
        help="write H.264 from which clips are cheap to read, in MP4 whatever the suffix (.mov and .mkv keep theirs)",
    )
    parser.add_argument(
        "--short_side", type=int, metavar="N", help="pixels of the shorter side (default: the height becomes 256)"
    )
    parser.add_argument(
        "--fps", metavar="N", help="convert every video to N frames per second (default: its own rate)"
    )
    parser.add_argument("--drop_audio", action="store_true", help="do not copy the audio")
    args = parser.parse_args()
    cli.setup_logging()
    ffmpeg = find_ffmpeg()
    if args.jobs < 1:
        raise UserError(f"--jobs: expected a number >= 1, got {args.jobs}")
    rescaling = read_options(args, ffmpeg)
    if args.folder.resolve() == args.out.resolve():
        raise UserError(f"--out: expected another folder than --folder, got {args.out}")

    names, failures = read_names(args.list_file)
    if not args.folder.is_dir():
        raise UserError(f"--folder: expected the folder of the videos, got {args.folder}, which is not a folder")
    if rescaling.for_clips:
        logger.info("H.264 is written, in MP4 whatever the suffix (.mov and .mkv keep their container), or in Matroska "
                    "where that cannot hold the audio")
    with alone_in(args.out):
        remember_options(args.out, str(rescaling))
        todo = [name for name in names if not (args.out / name).exists()]
        logger.info("%d videos, %d done before", len(names) + len(failures), len(names) - len(todo))
        failures |= downscale_all(ffmpeg, rescaling, args.folder, args.out, todo, args.jobs)
    logger.info("%d videos rescaled, %d failed", len(todo) - len(failures.keys() & set(todo)), len(failures))
    for name, reason in sorted(failures.items()):
        # A name that is not UTF-8 must not prevent the list of failures from being shown.
        logger.error("%s: %s", os.fsencode(name).decode(errors="backslashreplace"), reason)
    return 1 if failures else 0


def find_ffmpeg() -> Ffmpeg:
    program = shutil.which("ffmpeg")
    if program is None:
        raise UserError("ffmpeg: not found on PATH; install it, e.g. apt-get install ffmpeg")
    return Ffmpeg(program)


def read_options(args: argparse.Namespace, ffmpeg: Ffmpeg) -> Rescaling:
    """How to rescale. Raises UserError for options that cannot be."""
    if args.short_side is not None and (args.short_side < 2 or args.short_side % 2):
        raise UserError(f"--short_side: expected an even number >= 2, got {args.short_side}")
    if args.for_clips and not ffmpeg.has_encoder("libx264"):
        raise UserError(f"--for_clips: expected an ffmpeg with libx264, got {ffmpeg.program}, which is without")
    return Rescaling(args.short_side, frame_rate(args.fps), not args.drop_audio, args.for_clips)


def frame_rate(text: str | None) -> Fraction | None:
    """Frames per second, from a number or a fraction. Raises UserError."""
    if text is None:
        return None
    with contextlib.suppress(ValueError, ZeroDivisionError):
        rate = Fraction(text)
        if 0 < rate <= 1000:
            return rate
    raise UserError(f"--fps: expected frames per second, such as 30 or 30000/1001, got {text}")


def read_names(list_file: str) -> tuple[list[str], dict[str, str]]:
    """The distinct `<class>/<file>` of a list, and {line: reason} of the lines without one."""
    names: dict[str, None] = {}
    failures: dict[str, str] = {}
    with open_list(list_file) as file:
        for line in filter(None, map(bytes.strip, file)):
            try:
                names[class_and_file(os.fsdecode(path_of(line)))] = None
            except ValueError as error:
                failures[os.fsdecode(line)] = str(error)
    if not names and not failures:
        raise UserError(f"{list_file}: expected a list of videos, got an empty file")
    return list(names), failures


def class_and_file(path: str) -> str:
    """The last two parts of a path. Raises ValueError if it has no such parts."""
    parts = PurePath(path).parts[-2:]
    # `..` would lead out of OUT.
    if len(parts) < 2 or ".." in parts or PurePath(parts[0]).is_absolute():
        raise ValueError("expected a path that ends with <class>/<file>")
    return os.path.join(*parts)


@contextlib.contextmanager
def alone_in(out: Path) -> Iterator[None]:
    """Make the folder and hold a lock in it, as two runs would write to the same unfinished files."""
    make_folder(out)
    try:
        lock = open(out / LOCK, "w")  # noqa: SIM115
    except OSError as error:
        raise UserError(f"{error.filename}: {error.strerror}") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"{out}: another downscale_video_joblib.py is running there") from None
        yield


def remember_options(out: Path, options: str) -> None:
    """Raise UserError if the folder has videos of a run with other options; else write down these."""
    try:
        before = (out / OPTIONS).read_text().strip()
    except FileNotFoundError:
        # Default options are not written down.
        before = DEFAULT if any(path.is_dir() for path in out.iterdir()) else options
    except (OSError, ValueError) as error:
        raise UserError(f"{out / OPTIONS}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if before != options:
        raise UserError(f"{out}: was begun with {before}; expected the same or another --out, got {options}")
    if options != DEFAULT:
        with atomic_write(out / OPTIONS, "w") as file:
            file.write(f"{options}\n")


def downscale_all(
    ffmpeg: Ffmpeg, rescaling: Rescaling, folder: Path, out: Path, names: list[str], jobs: int
) -> dict[str, str]:
    """Rescale `names` from `folder` to `out`, `jobs` at a time. Returns {name: reason} of those that failed."""
    failures: dict[str, str] = {}
    with ThreadPoolExecutor(jobs) as pool:
        try:
            futures = {
                pool.submit(downscale, ffmpeg, rescaling, folder / name, out / name): name for name in names
            }
            for future in tqdm(as_completed(futures), total=len(futures), unit="video"):
                try:
                    future.result()
                except (FfmpegError, OSError, UserError) as error:
                    failures[futures[future]] = str(error)
        except KeyboardInterrupt:  # stop what runs, start nothing more, and clean up
            pool.shutdown(wait=False, cancel_futures=True)
            ffmpeg.stop()
            logger.warning("Stopping; run the same command again to continue")
            raise
    return failures


def downscale(ffmpeg: Ffmpeg, rescaling: Rescaling, source: Path, target: Path) -> None:
    """Rescale one video. `target` appears when it is complete, or not at all.

    Raises:
        FfmpegError: it failed; the message is the reason.
    """
    if not source.is_file():
        raise FfmpegError(f"no such file: {source}")
    ffmpeg.check_video(source)
    target.parent.mkdir(parents=True, exist_ok=True)
    # ffmpeg chooses the format by the suffix.
    with atomic_file(target, target.suffix) as partial:
        convert(ffmpeg, rescaling, source, partial)


def convert(ffmpeg: Ffmpeg, rescaling: Rescaling, source: Path, target: Path) -> None:
    """Write the rescaled video, in the first container that can hold it."""
    *attempts, last = rescaling.attempts(target.suffix)
    for options in attempts:
        with contextlib.suppress(ContainerError):
            ffmpeg.convert(source, target, options)
            return
    ffmpeg.convert(source, target, last)
    if attempts:
        logger.warning("%s: no container can hold the audio, which is left out", source)


if __name__ == "__main__":
    cli.run(main)
