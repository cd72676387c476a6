"""The numbers of the training log as TensorBoard events, if the tensorboard package is installed."""

import contextlib
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

from utils.files import StrPath

logger = logging.getLogger(__name__)


class Events:
    """Writes scalars to folder/train and folder/val, two runs whose curves TensorBoard overlays.

    Without the package nothing is written. Errors are only logged as warnings: they must not end a training.

    Args:
        folder: created if needed.
        first_train, first_val: the next step of each run, counted from 1. Events that an interrupted run wrote from
            there on are hidden, because they are written again.
    """

    def __init__(self, folder: StrPath, first_train: int, first_val: int) -> None:
        self._writers: dict[str, Any] = {}
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            return
        except Exception as error:  # incompatible package versions can raise anything
            logger.warning("TensorBoard events are not written: the package cannot be imported: %s", error)
            return
        with self._guarded():
            self._writers = {run: SummaryWriter(str(Path(folder) / run), purge_step=first)
                             for run, first in (("train", first_train), ("val", first_val))}
            logger.info("TensorBoard events are written to: %s", folder)

    def add(self, run: str, step: int, values: Mapping[str, float]) -> None:
        """Write {tag: number} for one step of a run, "train" or "val"."""
        if not self._writers:
            return
        with self._guarded():
            for tag, value in values.items():
                self._writers[run].add_scalar(tag, value, step)
            self._writers[run].flush()  # now: a run resumed from a later checkpoint does not write this again

    def close(self) -> None:
        with self._guarded():
            for writer in self._writers.values():
                writer.close()
        self._writers = {}

    @contextlib.contextmanager
    def _guarded(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            logger.warning("TensorBoard events are no longer written: %s", error)
            self._writers = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
