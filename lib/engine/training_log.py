"""What a training reports: its results, averages and timing, as log lines and TensorBoard events."""

import contextlib
import logging
import math
from collections.abc import Iterator

from utils.errors import UserError
from utils.metrics import Averages, BestErrors, print_finished_line, print_json_stats, print_train_line
from utils.misc import used_memory
from utils.timer import Timer

logger = logging.getLogger(__name__)

EVENT_TAGS = {"err": "top1_error", "err5": "top5_error", "err_N_way": "top1_error_N_way",
              "err5_N_way": "top5_error_N_way"}


class TrainingLog:
    """Collects the results of iterations, which may still be on the device, and writes the lines of the root process.

    Args:
        cfg: configuration.
        replicas: Replicas.
        averages: Averages.state() to continue from.
    """

    def __init__(self, cfg, replicas, averages):
        self.cfg, self.replicas = cfg, replicas
        self.averages, self.best, self.timer = Averages(**averages), BestErrors(), Timer()
        self.events = None
        self._unread = []  # results still on the device
        self._values = None  # of the last iteration read

    @contextlib.contextmanager
    def timed(self, synchronise: bool) -> Iterator[None]:
        """Time an iteration. With `synchronise`, wait for the device before and after: it may be iterations behind,
        and the time in a log line is that of its own iteration."""
        self.timer.tic()
        if synchronise:
            self.read_results()
            self.timer.lap()
        yield
        if synchronise:
            self.read_results()
        self.timer.toc()

    def add(self, it: int, results) -> None:
        """Take the (NUM_GPUS, 3) results of an iteration, see forward_backward, without reading them."""
        self._unread.append((it, results))

    def read_results(self) -> None:
        """Add the results since the last time to the averages. A NaN loss is a UserError."""
        for it, results in self._unread:
            self._values = batch_values(results, self.cfg.TRAIN.BATCH_SIZE, it)
            self.averages.update(self._values, self.cfg.TRAIN.BATCH_SIZE)
        self._unread.clear()

    def train_line(self, it: int, lr: float) -> None:
        """The line of the 0-based iteration `it`, whose results have been read."""
        if self.replicas.is_root:
            values = self._values
            print_train_line(it, self.cfg.SOLVER.MAX_ITER, lr, epoch(it + 1, self.cfg), self.timer, values)
            self.events.add("train", it + 1, {"loss": values["loss"], "top1_error": values["err"],
                                              "top5_error": values["err5"], "learning_rate": lr})

    def evaluation(self, it: int, lr: float, errors: dict[str, float]) -> None:
        """The lines of an evaluation's errors after iteration `it`; averages start again from here."""
        if self.replicas.is_root:
            self.best.update(errors)
            self.events.add("val", it + 1, {EVENT_TAGS[name]: value for name, value in errors.items()})
            print_finished_line(it, self.cfg.SOLVER.MAX_ITER, errors)
            print_json_stats(json_stats(self.cfg, it, lr, self.averages, errors, self.best, self.replicas.device))
        self.averages = Averages()


def batch_values(results, batch_size: int, it: int) -> dict[str, float]:
    """(NUM_GPUS, 3) losses and error counts -> loss, err and err5 (percent) of the batch. A NaN is a UserError."""
    losses, errors, errors5 = results.T.tolist()
    for replica, loss in enumerate(losses):
        if math.isnan(loss):
            logger.error("ERROR: NaN losses on gpu_%d", replica)
            raise UserError(f"the loss is not a number at iteration {it + 1}; checkpoints up to here are untouched")
    return {"loss": sum(losses), "err": 100 * sum(errors) / batch_size, "err5": 100 * sum(errors5) / batch_size}


def epoch(iterations: int, cfg) -> float:
    return iterations * cfg.TRAIN.BATCH_SIZE / cfg.TRAIN.DATASET_SIZE


def json_stats(cfg, it: int, lr: float, averages, errors: dict[str, float], best, device) -> dict:
    """The values of legacy's json_stats line after an evaluation, in its order."""
    stats = {
        "eval_period": cfg.TRAIN.EVAL_PERIOD,
        "batchSize": cfg.TRAIN.BATCH_SIZE,
        "dataset": cfg.DATASET,
        "num_classes": cfg.MODEL.NUM_CLASSES,
        "momentum": cfg.SOLVER.MOMENTUM,
        "weightDecay": cfg.SOLVER.WEIGHT_DECAY,
        "nGPU": cfg.NUM_GPUS,
        "LR": cfg.SOLVER.BASE_LR,
        "bn_momentum": cfg.MODEL.BN_MOMENTUM,
        "current_learning_rate": lr,
        "train_loss": averages["loss"],
        "train_err": averages["err"],
        "train_err5": averages["err5"],
        "test_err": errors["err"],
        "test_err5": errors["err5"],
        "best_err": best.best["err"],
        "best_err5": best.best["err5"],
        "used_gpu_memory": used_memory(device),
        "currentIter": it + 1,
        "epoch": epoch(it, cfg),
    }
    if "err_N_way" in errors:
        stats.update(test_err_N_way=errors["err_N_way"], test_err5_N_way=errors["err5_N_way"])
    return stats
