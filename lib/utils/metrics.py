"""Errors in percent, their running averages, and the log lines that show them."""

import json

import torch

from utils.misc import eta


def topk_errors(scores, labels, ks=(1, 5)):
    """How many clips miss their label among the k highest scores, for each k.

    Args:
        scores: N x K. Of equal scores the lower class index comes first; a NaN never counts as right.
        labels: N, int64.

    Returns:
        Tensor of len(ks) error counts (float32), on the device of the scores.
    """
    true = scores.gather(1, labels[:, None])
    classes = torch.arange(scores.shape[1], device=scores.device)
    before = ~(scores <= true) | ((scores == true) & (classes < labels[:, None]))
    rank = before.sum(1)
    return torch.stack([(rank >= k).sum() for k in ks]).float()


def first_n_errors(scores, labels, n, ks=(1, 5)):
    """topk_errors among the first n classes only; a label beyond them counts as an error."""
    inside = labels < n
    return topk_errors(scores[inside, :n], labels[inside], ks) + (~inside).sum()


class Averages:
    """Running averages of named values, weighted by a number of clips."""

    def __init__(self, sums=None, weight=0):
        self.sums = dict(sums or {})
        self.weight = weight

    def update(self, values, weight):
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, 0.0) + value * weight
        self.weight += weight

    def __getitem__(self, name):
        return self.sums[name] / self.weight

    def state(self):
        """Plain values from which Averages(**state) goes on exactly."""
        return {"sums": dict(self.sums), "weight": self.weight}


class BestErrors:
    """The lowest top-1 error of this process, and the top-5 error that came with it."""

    def __init__(self):
        self.best = {"err": float("inf"), "err5": float("inf")}
        self.best_n_way = {"err_N_way": float("inf"), "err5_N_way": float("inf")}

    def update(self, errors):
        """Take an evaluation's averages; print the lines that announce a new best."""
        if errors["err"] < self.best["err"]:
            self.best = {name: errors[name] for name in ("err", "err5")}
            print(f"\n* Best model: top1: {errors['err']:7.3f} top5: {errors['err5']:7.3f}\n", flush=True)
        if "err_N_way" in errors and errors["err_N_way"] < self.best_n_way["err_N_way"]:
            self.best_n_way = {name: errors[name] for name in ("err_N_way", "err5_N_way")}
            print(f"* Best: top1_N_way: {errors['err_N_way']:7.3f} top5_N_way: {errors['err5_N_way']:7.3f}", flush=True)


def print_train_line(it, max_iter, lr, epoch, timer, values):
    """The training line of 0-based iteration `it`; values: loss, err and err5 of this batch."""
    left = eta(timer.average_time * (max_iter - (it + 1)))
    print(f"| Train ETA: {left} LR: {lr:.8f}  Iters [{it + 1}/{max_iter}] [{epoch:.2f}ep]  Time {timer.diff:0.3f}  "
          f"Loss {values['loss']:7.4f}  top1 {values['err']:7.3f} top5 {values['err5']:7.3f}", flush=True)


def print_test_line(i, n, seconds, values, averages, batch, aggregated):
    """The line of 0-based batch i of n of an evaluation; values are this batch's, averages the evaluation's so far."""
    n_way = ""
    if "err_N_way" in values:
        n_way = (f"top1_N_way {values['err_N_way']:7.3f} ({averages['err_N_way']:7.3f})  "
                 f"top5_N_way {values['err5_N_way']:7.3f} ({averages['err5_N_way']:7.3f})  ")
    # Legacy has one space before the N-way errors and two before the batch sizes.
    print(f"| Test: [{i + 1}/{n}]  Time {seconds:0.3f}  top1 {values['err']:7.3f} ({averages['err']:7.3f})  "
          f"top5 {values['err5']:7.3f} ({averages['err5']:7.3f}) {n_way or ' '}"
          f"current batch {batch}  aggregated batch {aggregated}", flush=True)


def print_finished_line(it, max_iter, errors):
    n_way = ""
    if "err_N_way" in errors:
        n_way = f" top1_N_way: {errors['err_N_way']:.3f} top5_N_way: {errors['err5_N_way']:.3f}"
    print(f"* Finished #iters [{it + 1}|{max_iter}]: top1: {errors['err']:.3f} top5: {errors['err5']:.3f}{n_way}",
          flush=True)


def print_json_stats(stats):
    print(f"\njson_stats: {json.dumps(stats)}\n", flush=True)
