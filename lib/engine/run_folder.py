"""What a training or test has left in its folder, CHECKPOINT.DIR."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from engine.testing import RESULTS_FILE, SCORES_FILE
from reports.log_parser import Log, read_log
from reports.logged_options import read_options
from utils.checkpoints import find_checkpoints
from utils.collections import leaves
from utils.errors import UserError
from utils.files import StrPath
from utils.visualize import log_names

LOG_NAME = "log.txt"  # by scripts/_run.sh
SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"


@dataclass(frozen=True)
class RunFolder:
    """The folder of a run.

    Attributes:
        path: the folder.
        name: a short one.
        log: of the run.
        options: {dotted key: value} as the training logged them last; those of the test if there was no training, and
            none in a log without them.
        test_options: as the last test logged them; otherwise `options`.
    """

    path: Path
    name: str
    log: Log
    options: dict[str, Any]
    test_options: dict[str, Any]

    @property
    def log_file(self) -> Path:
        return self.path / LOG_NAME

    @property
    def scores_file(self) -> Path | None:
        """The scores of its test, if there was one."""
        return next((path for name in (SCORES_FILE, RESULTS_FILE) if (path := self.path / name).exists()), None)

    def weights(self) -> Path | None:
        """The weights that were tested, or the newest checkpoint; None if neither is there."""
        checkpoints = find_checkpoints(self.path)
        tested = self.test_options.get("TEST.PARAMS_FILE")
        if isinstance(tested, str) and tested:
            own = [path for path in checkpoints if path.name == Path(tested).name]
            found = own[0] if own else self.find(tested)
            if found is not None and found.is_file():
                return found
        return checkpoints[-1] if checkpoints else None

    def find(self, path: StrPath) -> Path | None:
        """What a path leads to that the run was given or has read in a list; None if that is not there.

        A relative path starts from where the run was started. That is not in its log, but its CHECKPOINT.DIR led from
        there to this folder.
        """
        try:
            return next((found for base in self._bases if (found := base / path).exists()), None)
        except (OSError, ValueError):  # a name that is too long, or with a zero byte
            return None

    @cached_property
    def _bases(self) -> list[Path]:
        """Folders that the run may have been started from, likely ones first."""
        candidates, given = [Path.cwd(), SCRIPTS], str(self.options.get("CHECKPOINT.DIR", ""))
        inner = os.path.normpath(given).removeprefix("../")
        here = os.path.abspath(self.path)
        if here.endswith(f"/{inner}"):  # of a script, maybe in another copy of this program
            candidates.append(Path(here.removesuffix(inner)) / "scripts")
        certain = [base for base in candidates if os.path.realpath(base / given) == os.path.realpath(self.path)]
        return certain or candidates


def read_run_folders(paths: Sequence[StrPath]) -> list[RunFolder]:
    """The folders of runs.

    Raises:
        UserError: there is no such folder, or no log of a run in it.
    """
    for path in paths:
        if not os.path.isdir(path):
            found = "a file" if os.path.exists(path) else "none"
            raise UserError(f"{path}: expected the folder of a run (its CHECKPOINT.DIR), got {found}")
    files = [Path(path, LOG_NAME) for path in paths]
    return [_read(file, name) for file, name in zip(files, log_names(files), strict=True)]


def _read(log_file, name):
    if not log_file.exists():
        raise UserError(f"{log_file.parent}: expected the folder of a run, with the {LOG_NAME} that the scripts write, "
                        "found none")
    log, configurations = read_log(log_file), [dict(leaves(found)) for found in read_options(log_file)]
    tests = [options for options in configurations if options.get("TEST.DATA_TYPE") == "test"]
    trainings = [options for options in configurations if options not in tests]
    options = next(reversed(trainings or tests), {})
    return RunFolder(log_file.parent, name, log, options, next(reversed(tests), options))
