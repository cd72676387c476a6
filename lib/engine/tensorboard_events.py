"""The numbers of a training's log lines as TensorBoard events, where the tensorboard package is there."""

import contextlib
import logging
from pathlib import Path

logger = logging.getLogger(__name__)


class Events:
    """Writes scalars under folder/train and folder/val, two runs whose curves TensorBoard lays over each other.

    Args:
        folder: made when there is something to write.
        first_train, first_val: the first step, counted from 1, that is still to come of each. Events from there on of
            a run that was ended are hidden, as this one writes them anew.

    Without the package nothing is written. No trouble with it is more than a warning: a training does not end for it.
    """

    def __init__(self, folder, first_train, first_val):
        self._writers = {}
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            return
        except Exception as error:  # versions of packages that do not go together raise anything
            logger.warning("TensorBoard events are not written: the package does not load: %s", error)
            return
        with self._guarded():
            self._writers = {run: SummaryWriter(str(Path(folder) / run), purge_step=first)
                             for run, first in (("train", first_train), ("val", first_val))}
            logger.info("TensorBoard events are written to: %s", folder)

    def add(self, run, step, values):
        """Write {tag: number} of a step of a run, "train" or "val"."""
        if not self._writers:
            return
        with self._guarded():
            for tag, value in values.items():
                self._writers[run].add_scalar(tag, value, step)
            self._writers[run].flush()  # before the next checkpoint: a resumed run does not write this again

    def close(self):
        with self._guarded():
            for writer in self._writers.values():
                writer.close()
        self._writers = {}

    @contextlib.contextmanager
    def _guarded(self):
        try:
            yield
        except OSError as error:
            logger.warning("TensorBoard events are no longer written: %s", error)
            self._writers = {}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
