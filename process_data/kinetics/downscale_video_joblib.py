#!/usr/bin/env python3
"""Rescale the videos of a list to a height of 256 pixels with ffmpeg.

FOLDER/<class>/<file> becomes OUT/<class>/<file>, where <class>/<file> are the last two parts of a path in the
list. What OUT has already is skipped, so the same command continues a run that was stopped. A video appears
in OUT only when it is complete. At the end, the videos that failed are listed with the reason; then the exit status
is 1.
"""

import argparse
import fcntl
import logging
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path, PurePath

from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "lib"))

from data.lists import open_list, split_line  # noqa: E402
from utils import cli  # noqa: E402
from utils.errors import UserError  # noqa: E402
from utils.files import make_folder, temporary_name  # noqa: E402

logger = logging.getLogger(__name__)

HEIGHT = 256
# An even width, as most encoders require; oh is the output's height, a the input's aspect ratio.
SCALE = f"scale=trunc(oh*a/2)*2:{HEIGHT}"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
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
    args = parser.parse_args()
    cli.setup_logging()
    ffmpeg = shutil.which("ffmpeg")
    if ffmpeg is None:
        raise UserError("ffmpeg: not found on PATH; install it, e.g. apt-get install ffmpeg")
    if args.jobs < 1:
        raise UserError(f"--jobs: expected a number >= 1, got {args.jobs}")
    if args.folder.resolve() == args.out.resolve():
        raise UserError(f"--out: expected another folder than --folder, got {args.out}")

    names, failures = read_names(args.list_file)
    if not args.folder.is_dir():
        raise UserError(f"--folder: expected the folder of the videos, got {args.folder}, which is not a folder")
    with alone_in(args.out):
        todo = [name for name in names if not (args.out / name).exists()]
        logger.info("%d videos, %d done before", len(names) + len(failures), len(names) - len(todo))
        failures |= downscale_all(ffmpeg, args.folder, args.out, todo, args.jobs)
    logger.info("%d videos rescaled, %d failed", len(todo) - len(failures.keys() & set(todo)), len(failures))
    for name, reason in sorted(failures.items()):
        # A name that is not UTF-8 must not prevent the list of failures from being shown.
        logger.error("%s: %s", os.fsencode(name).decode(errors="backslashreplace"), reason)
    return 1 if failures else 0


def read_names(list_file: str) -> tuple[list[str], dict[str, str]]:
    """The distinct `<class>/<file>` of a list, and {line: reason} of the lines without one."""
    names: dict[str, None] = {}
    failures: dict[str, str] = {}
    with open_list(list_file) as file:
        for line in filter(None, map(bytes.strip, file)):
            path = os.fsdecode(split_line(line)[0] or line)
            parts = PurePath(path).parts[-2:]
            # `..` would lead out of OUT.
            if len(parts) < 2 or ".." in parts or PurePath(parts[0]).is_absolute():
                failures[os.fsdecode(line)] = "expected a path that ends with <class>/<file>"
            else:
                names[os.path.join(*parts)] = None
    if not names and not failures:
        raise UserError(f"{list_file}: expected a list of videos, got an empty file")
    return list(names), failures


@contextmanager
def alone_in(out: Path) -> Iterator[None]:
    """Make the folder and hold a lock in it, as two runs would write to the same unfinished files."""
    make_folder(out)
    try:
        lock = open(out / ".downscale.lock", "w")  # noqa: SIM115
    except OSError as error:
        raise UserError(f"{error.filename}: {error.strerror}") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"{out}: another downscale_video_joblib.py is running there") from None
        yield


def downscale_all(ffmpeg: str, folder: Path, out: Path, names: list[str], jobs: int) -> dict[str, str]:
    """Rescale `names` from `folder` to `out`, `jobs` at a time. Returns {name: reason} of those that failed."""
    failures: dict[str, str] = {}
    running: set[subprocess.Popen] = set()
    # On Ctrl-C, and on a scheduler's SIGTERM, stop what runs, start nothing more, and clean up.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with ThreadPoolExecutor(jobs) as pool:
        futures = {
            pool.submit(downscale, ffmpeg, folder / name, out / name, running): name for name in names
        }
        try:
            for future in tqdm(as_completed(futures), total=len(futures), unit="video"):
                try:
                    future.result()
                except (DownscaleError, OSError) as error:
                    failures[futures[future]] = str(error)
        except KeyboardInterrupt:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in list(running):
                process.kill()
            raise UserError("stopped; run the same command again to continue") from None
    return failures


class DownscaleError(Exception):
    """Why one video was not rescaled."""


def downscale(ffmpeg: str, source: Path, target: Path, running: set[subprocess.Popen]) -> None:
    """Rescale one video. `target` appears when it is complete, or not at all.

    Args:
        ffmpeg: the program.
        source, target: paths of videos.
        running: set that contains the process while it runs.

    Raises:
        DownscaleError: it failed; the message is the reason.
    """
    if not source.is_file():
        raise DownscaleError(f"no such file: {source}")
    target.parent.mkdir(parents=True, exist_ok=True)
    # ffmpeg chooses the format by the suffix. One name for all runs, which a lock keeps apart: so what a killed run has
    # left is found. It is removed first, as a process of that run may still write to it.
    partial = target.with_name(temporary_name(target.name, "downscale", target.suffix))
    partial.unlink(missing_ok=True)
    try:
        # file:, as a name may look like a protocol; only files, as a video may be a playlist of addresses.
        command = [
            ffmpeg, "-nostdin", "-v", "error", "-y", "-protocol_whitelist", "file", "-i", f"file:{source}",
            "-vf", SCALE, "-q:v", "1", "-c:a", "copy", f"file:{partial}",
        ]
        with subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        ) as process:
            running.add(process)
            try:
                messages = process.communicate()[1]
            finally:
                running.discard(process)
        if process.returncode < 0:
            raise DownscaleError(f"ffmpeg was killed by signal {-process.returncode}")
        if process.returncode > 0:
            raise DownscaleError(f"ffmpeg ended with status {process.returncode}: {last_line(messages)}")
        if not partial.exists() or not partial.stat().st_size:
            raise DownscaleError(f"ffmpeg wrote nothing: {last_line(messages)}")
        with open(partial, "rb") as file:
            os.fsync(file.fileno())
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)


def last_line(messages: bytes) -> str:
    """The last line with text, shortened."""
    lines = messages.decode(errors="replace").split("\n")
    return next((line.strip()[:300] for line in reversed(lines) if line.strip()), "no message")


if __name__ == "__main__":
    cli.run(main)
