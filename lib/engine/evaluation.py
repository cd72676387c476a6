"""The evaluation of a network during training."""

import math

import torch

from utils.metrics import Averages, first_n_errors, print_test_line, topk_errors
from utils.timer import Timer


def count_batches(cfg) -> int:
    return math.ceil(cfg.TEST.DATASET_SIZE / cfg.TEST.BATCH_SIZE)


@torch.inference_mode()
def evaluate(model, val_data, prepare, cfg, replicas, interruption) -> dict[str, float]:
    """Errors in percent of a network, averaged over count_batches() batches.

    Args:
        model: network in inference mode.
        val_data: the val loader, which continues where the last evaluation ended.
        prepare: function that normalises a loader's batch, on the device.
        interruption: asked before each batch.

    Returns:
        {"err", "err5"}, and with METRICS.EVAL_FIRST_N {"err_N_way", "err5_N_way"}.
    """
    batches, batch_size = count_batches(cfg), cfg.TEST.BATCH_SIZE
    averages, timer = Averages(), Timer()
    for i in range(batches):
        interruption.check()
        timer.tic()
        counts = torch.zeros(4 if cfg.METRICS.EVAL_FIRST_N else 2, device=replicas.device)
        for clips, labels in prepare(next(val_data)):
            scores = model(clips)
            errors = topk_errors(scores, labels)
            if cfg.METRICS.EVAL_FIRST_N:
                errors = torch.cat([errors, first_n_errors(scores, labels, cfg.METRICS.FIRST_N)])
            counts += errors
        names = ("err", "err5", "err_N_way", "err5_N_way")
        sums = replicas.sum(counts).tolist()
        values = {name: 100 * count / batch_size for name, count in zip(names, sums, strict=False)}
        averages.update(values, batch_size)
        timer.toc()
        if replicas.is_root and ((i + 1) % cfg.LOG_PERIOD == 0 or i + 1 == batches):
            print_test_line(i, batches, timer.diff, values, averages, batch_size, averages.weight)
    return {name: averages[name] for name in values}
