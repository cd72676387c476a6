"""Classification errors, their running averages, and the log lines that report them."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from utils.collections import to_json
from utils.misc import eta
from utils.timer import Timer


def topk_errors(scores: torch.Tensor, labels: torch.Tensor, ks: Sequence[int] = (1, 5)) -> torch.Tensor:
    """Number of clips whose label is not among the k highest scores, for each k.

    Args:
        scores: N x K. Ties go to the lower class index; a NaN never counts as correct.
        labels: N, int64.
        ks: the values of k.

    Returns:
        Tensor of len(ks) error counts, float32, on the device of the scores.
    """
    true = scores.gather(1, labels[:, None])
    classes = torch.arange(scores.shape[1], device=scores.device)
    before = ~(scores <= true) | ((scores == true) & (classes < labels[:, None]))
    rank = before.sum(1)
    return torch.stack([(rank >= k).sum() for k in ks]).float()


def first_n_errors(scores: torch.Tensor, labels: torch.Tensor, n: int, ks: Sequence[int] = (1, 5)) -> torch.Tensor:
    """topk_errors among the first n classes only; any other label counts as an error."""
    inside = labels < n
    return topk_errors(scores[inside, :n], labels[inside], ks) + (~inside).sum()


class Averages:
    """Running averages of named values, weighted by the number of clips."""

    def __init__(self, sums: Mapping[str, float] | None = None, weight: int = 0) -> None:
        self.sums = dict(sums or {})
        self.weight = weight

    def update(self, values: Mapping[str, float], weight: int) -> None:
        """Add values that are means over `weight` clips."""
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, 0.0) + value * weight
        self.weight += weight

    def __getitem__(self, name: str) -> float:
        return self.sums[name] / self.weight

    def state(self) -> dict[str, Any]:
        """Plain values, from which Averages(**state) continues exactly."""
        return {"sums": dict(self.sums), "weight": self.weight}


class BestErrors:
    """The lowest top-1 error seen by this process, and the top-5 error of the same evaluation."""

    def __init__(self) -> None:
        self.best = {"err": float("inf"), "err5": float("inf")}
        self.best_n_way = {"err_N_way": float("inf"), "err5_N_way": float("inf")}

    def update(self, errors: Mapping[str, float]) -> None:
        """Add the averages of an evaluation; print a line for each new best."""
        if errors["err"] < self.best["err"]:
            self.best = {name: errors[name] for name in ("err", "err5")}
            print(f"\n* Best model: top1: {errors['err']:7.3f} top5: {errors['err5']:7.3f}\n", flush=True)
        if "err_N_way" in errors and errors["err_N_way"] < self.best_n_way["err_N_way"]:
            self.best_n_way = {name: errors[name] for name in ("err_N_way", "err5_N_way")}
            print(f"\n* Best: top1_N_way: {errors['err_N_way']:7.3f} top5_N_way: {errors['err5_N_way']:7.3f}\n",
                  flush=True)


def print_train_line(it: int, max_iter: int, lr: float, epoch: float, timer: Timer,
                     values: Mapping[str, float]) -> None:
    """Print the training line of 0-based iteration `it`. values: loss, err and err5 of this batch."""
    left = eta(timer.average_time * (max_iter - (it + 1)))
    print(f"| Train ETA: {left} LR: {lr:.8f}  Iters [{it + 1}/{max_iter}] [{epoch:.2f}ep]  Time {timer.diff:0.3f}  "
          f"Loss {values['loss']:7.4f}  top1 {values['err']:7.3f} top5 {values['err5']:7.3f}", flush=True)


def print_test_line(i: int, n: int, seconds: float, values: Mapping[str, float],
                    averages: Averages | Mapping[str, float], batch: int, aggregated: int) -> None:
    """Print the line of 0-based batch i of n in an evaluation: the errors of this batch, and the averages so far."""
    n_way = ""
    if "err_N_way" in values:
        n_way = (f"top1_N_way {values['err_N_way']:7.3f} ({averages['err_N_way']:7.3f})  "
                 f"top5_N_way {values['err5_N_way']:7.3f} ({averages['err5_N_way']:7.3f})  ")
    # Legacy has one space before the N-way errors and two before the batch sizes.
    print(f"| Test: [{i + 1}/{n}]  Time {seconds:0.3f}  top1 {values['err']:7.3f} ({averages['err']:7.3f})  "
          f"top5 {values['err5']:7.3f} ({averages['err5']:7.3f}) {n_way or ' '}"
          f"current batch {batch}  aggregated batch {aggregated}", flush=True)


def print_finished_line(it: int, max_iter: int, errors: Mapping[str, float]) -> None:
    """Print the errors of the evaluation at 0-based iteration `it`."""
    n_way = ""
    if "err_N_way" in errors:
        n_way = f" top1_N_way: {errors['err_N_way']:.3f} top5_N_way: {errors['err5_N_way']:.3f}"
    print(f"* Finished #iters [{it + 1}|{max_iter}]: top1: {errors['err']:.3f} top5: {errors['err5']:.3f}{n_way}",
          flush=True)


def print_json_stats(stats: Mapping[str, Any]) -> None:
    """Print the measurements of an evaluation, and of the training since the previous one, as JSON."""
    print(f"\njson_stats: {to_json(stats)}\n", flush=True)
