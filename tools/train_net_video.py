#!/usr/bin/env python3
"""Train a network on videos, evaluate it as it goes, and test it at the end.

    python tools/train_net_video.py --config_file configs/F.yaml [KEY VALUE]...
"""

import _init_paths  # noqa: F401, I001  (puts lib/ on the path)

import argparse
import contextlib
import copy
import logging
import math
import sys
from pathlib import Path

import torch

from core.config import load_config, log_options_without_effect, print_cfg
from data.data_builder import Preprocessor, train_loader, val_loader, warn_of_missing_test_data
from video.bad_videos import BadVideos
from models.compilation import compiled_for_training
from models.complexity import count_operations
from models.inference import for_inference
from models.model_builder_video import create_model
from test_net_video import test_net
from utils import cli
from utils.bn_helper import batch_norms, compute_precise_bn
from utils.checkpoints import (
    checkpoint_path,
    find_checkpoints,
    prune_checkpoints,
    resume_or_initialize,
    save_checkpoint,
)
from utils.errors import UserError
from engine.tensorboard_events import Events
from utils.files import make_writable_folder
from engine.interruption import EXIT_INTERRUPTED, Interrupted, Interruption
from engine.launcher import launch
from utils.lr_policy import get_lr_at_iter
from utils.metrics import (
    Averages,
    BestErrors,
    first_n_errors,
    print_finished_line,
    print_json_stats,
    print_test_line,
    print_train_line,
    topk_errors,
)
from utils.misc import used_memory
from models.precision import autocast
from engine.replicas import forward_backward
from engine.solver import Solver
from utils.timer import Timer

logger = logging.getLogger(__name__)

EVENT_TAGS = {"err": "top1_error", "err5": "top5_error", "err_N_way": "top1_error_N_way",
              "err5_N_way": "top5_error_N_way"}


class Training:
    """One training run: its model, solver, data and meters, and the steps that an iteration consists of."""

    def __init__(self, cfg, replicas):
        for it in (0, *cfg.SOLVER.STEPS):
            if it < cfg.SOLVER.MAX_ITER:
                get_lr_at_iter(it, cfg)  # a schedule that does not reach to the end is an error now, not in a week
        self.cfg, self.replicas = cfg, replicas
        self.model = create_model(cfg, "train").to(replicas.device)
        self.solver = Solver.from_config(self.model, cfg)
        start = resume_or_initialize(
            self.model, self.solver.history, cfg.CHECKPOINT.DIR, cfg.CHECKPOINT.RESUME, cfg.TRAIN.PARAMS_FILE,
            cfg.TRAIN.RESET_START_ITER, cfg.TRAIN.RESUME_FROM_BATCH_SIZE, cfg.TRAIN.BATCH_SIZE,
        )
        if start.iteration >= cfg.SOLVER.MAX_ITER:
            message = f"{start.iteration} iterations are done, SOLVER.MAX_ITER is {cfg.SOLVER.MAX_ITER}"
            if not find_checkpoints(cfg.CHECKPOINT.DIR):
                raise UserError(f"nothing to train: {message} (TRAIN.PARAMS_FILE {cfg.TRAIN.PARAMS_FILE!r}; "
                                "TRAIN.RESET_START_ITER True takes the weights only)")
            logger.info("Nothing to train: %s", message)
        self.solver.lr = start.lr
        self.start_iter = self.iterations_done = start.iteration
        # A file of the legacy program says only how many iterations it has done.
        state = start.state or {"train_position": start.iteration * cfg.TRAIN.BATCH_SIZE, "val_position": 0,
                                "averages": {}, "finished": True, "precise_bn": False}
        self.finished = state["finished"]  # whether evaluation and checkpoint of the last iteration are done, too
        self.precise_bn_iter = start.iteration - 1 if state["precise_bn"] else None
        self.averages, self.best, self.timer = Averages(**state["averages"]), BestErrors(), Timer()
        self.unread, self.values = [], None  # results that are still on the device; what was read last
        self.prepare = Preprocessor(cfg, replicas.device).batch
        self.bad_videos = BadVideos(cfg.DATALOADER.MAX_BAD_IMAGES)
        self.train_position, self.val_position = state["train_position"], state["val_position"]

    def run(self):
        """Train up to SOLVER.MAX_ITER. Raises Interrupted when asked to end, with a checkpoint left to go on from."""
        with train_loader(self.cfg, self.replicas, self.bad_videos, self.train_position) as self.train_data, \
                val_loader(self.cfg, self.replicas, self.bad_videos, self.val_position) as self.val_data, \
                self.open_events() as self.events, Interruption(self.replicas) as self.interruption:
            parallel_model = compiled_for_training(
                self.replicas.parallel(self.model), self.cfg.MODEL.COMPILE, self.cfg.SOLVER.MAX_ITER,
                self.cfg.TRAIN.CHECKPOINT_ACTIVATIONS, self.replicas.device)
            try:
                if not self.finished:
                    self.finish_iteration(self.start_iter - 1, resumed=True)
                for it in range(self.start_iter, self.cfg.SOLVER.MAX_ITER):
                    self.interruption.check()
                    self.iterate(parallel_model, it)
                    self.finish_iteration(it)
            except Interrupted:
                if self.iterations_done > self.start_iter:
                    self.save()
                raise
        self.share_bad_videos()  # also: nobody goes on to the test before the root has written the last checkpoint

    def open_events(self):
        """The root's Events, under CHECKPOINT.DIR/tensorboard. A resumed run does an unfinished evaluation again."""
        if not self.replicas.is_root:
            return contextlib.nullcontext()
        return Events(Path(self.cfg.CHECKPOINT.DIR, "tensorboard"), first_train=self.start_iter + 1,
                      first_val=self.start_iter + self.finished)

    def iterate(self, parallel_model, it):
        """Rate, passes over the batch, update. Waits for the device in an iteration that has a training line, only."""
        line_due = (it + 1) % self.cfg.LOG_PERIOD == 0
        self.timer.tic()
        if line_due:
            self.read_results()
            self.timer.lap()  # a device may be iterations behind: the line tells the time of its own
        self.solver.set_lr(get_lr_at_iter(it, self.cfg), it)
        batch = self.prepare(next(self.train_data))
        results = forward_backward(parallel_model, batch, self.replicas, self.cfg.RNG_SEED, it,
                                   self.cfg.MODEL.PRECISION)
        self.solver.step()
        self.unread.append((it, self.replicas.sum(results)))
        if line_due:
            self.read_results()
        self.timer.toc()
        self.iterations_done, self.finished = it + 1, False
        if it == self.start_iter:
            report_complexity(self.model, self.cfg)

    def read_results(self):
        """Take the results of the iterations since the last time into the averages; a NaN loss ends the run."""
        for it, results in self.unread:
            self.values = batch_values(results, self.cfg.TRAIN.BATCH_SIZE, it)
            self.averages.update(self.values, self.cfg.TRAIN.BATCH_SIZE)
        self.unread.clear()

    def finish_iteration(self, it, resumed=False):
        """Checkpoint, training line and evaluation, those that are due. Resumed: what an interrupted run left of it."""
        cfg, replicas = self.cfg, self.replicas
        if checkpoint_due(it, cfg) and (not resumed or self.precise_bn_iter != it):
            self.read_results()
            self.precise_bn(it)
            self.save()
        if not resumed and (it + 1) % cfg.LOG_PERIOD == 0:
            self.share_bad_videos()
            if replicas.is_root:
                values = self.values
                print_train_line(it, cfg.SOLVER.MAX_ITER, self.solver.lr, epoch(it + 1, cfg), self.timer, values)
                self.events.add("train", it + 1, {
                    "loss": values["loss"], "top1_error": values["err"], "top5_error": values["err5"],
                    "learning_rate": self.solver.lr})
        if (it + 1) % cfg.TRAIN.EVAL_PERIOD == 0:
            self.read_results()
            self.precise_bn(it)
            errors = self.evaluate()
            if replicas.is_root:
                self.best.update(errors)
                self.events.add("val", it + 1, {EVENT_TAGS[name]: value for name, value in errors.items()})
                print_finished_line(it, cfg.SOLVER.MAX_ITER, errors)
                print_json_stats(json_stats(cfg, it, self.solver.lr, self.averages, errors, self.best, replicas.device))
            self.averages = Averages()
        self.finished = True

    def precise_bn(self, it):
        """Precise BN once per iteration, on the records that come next in the training stream."""
        if not self.cfg.TRAIN.COMPUTE_PRECISE_BN or not batch_norms(self.model):
            return
        if self.precise_bn_iter == it:
            logger.info("BN of iter %d computed. Update to GPU only.", it + 1)
            return
        position = self.train_data.position

        def next_clips():
            self.interruption.check()
            return [clips for clips, _ in self.prepare(next(self.train_data))]

        try:
            with autocast(self.cfg.MODEL.PRECISION, self.replicas.device):
                compute_precise_bn(self.model, next_clips, self.cfg.TRAIN.ITER_COMPUTE_PRECISE_BN, self.replicas, it,
                                   self.cfg.LOG_PERIOD)
        except Interrupted:
            self.train_data.position = position  # it starts anew with the same records
            raise
        self.precise_bn_iter = it

    def evaluate(self):
        """Errors in percent over ceil(TEST.DATASET_SIZE / TEST.BATCH_SIZE) batches of val; its reader goes on."""
        logger.info("=> Testing model")
        self.replicas.broadcast_buffers(self.model)
        network = for_inference(self.model, self.cfg.MODEL.PRECISION)
        errors = evaluate(network, self.val_data, self.prepare, self.cfg, self.replicas, self.interruption)
        self.val_position = self.val_data.position
        return errors

    def save(self):
        """Write the checkpoint of the iterations done, with what else an exact continuation needs."""
        self.read_results()
        if not self.replicas.is_root:
            return
        state = {
            "train_position": self.train_data.position,
            "val_position": self.val_position,
            "averages": self.averages.state(),
            "finished": self.finished,
            "precise_bn": self.precise_bn_iter == self.iterations_done - 1,
        }
        folder = self.cfg.CHECKPOINT.DIR
        save_checkpoint(checkpoint_path(folder, self.iterations_done), self.model, self.solver.history, self.solver.lr,
                        self.iterations_done, state)
        prune_checkpoints(folder, self.cfg.CHECKPOINT.KEEP_LAST, self.iterations_done)

    def share_bad_videos(self):
        """Let every process know of the unreadable videos of all, for the root's log and for the limit on them."""
        for known in self.replicas.gather(self.bad_videos.known()):
            self.bad_videos.merge(known)


def train_net(cfg, replicas):
    """Train, then test the last checkpoint if TRAIN.TEST_AFTER_TRAIN. Returns the exit status."""
    print_cfg(cfg)
    log_options_without_effect(cfg)
    if replicas.is_root:
        make_writable_folder(Path(cfg.CHECKPOINT.DIR, "checkpoints"))
    if cfg.TRAIN.TEST_AFTER_TRAIN:
        warn_of_missing_test_data(cfg)
    training = Training(cfg, replicas)
    try:
        training.run()
    except Interrupted:
        return EXIT_INTERRUPTED
    if not cfg.TRAIN.TEST_AFTER_TRAIN:
        return 0
    weights = checkpoint_path(cfg.CHECKPOINT.DIR, training.iterations_done)
    if training.iterations_done == training.start_iter:
        weights = next(reversed(find_checkpoints(cfg.CHECKPOINT.DIR)), weights)
    del training  # its memory is the test's
    test_cfg = copy.deepcopy(cfg)
    test_cfg.TEST.update(PARAMS_FILE=str(weights), OUTPUT_NAME="softmax",
                         TEST_FULLY_CONV=not cfg.TEST.TEST_FULL_SIZE)
    status = test_net(test_cfg, replicas)
    if status == 0:
        logger.info("10-clip spatial fcn testing finished")
    return status


def batch_values(results, batch_size, it):
    """(NUM_GPUS, 3) losses and error counts -> loss, err and err5 (percent) of the batch; a NaN ends the run."""
    losses, errors, errors5 = results.T.tolist()
    for replica, loss in enumerate(losses):
        if math.isnan(loss):
            logger.error("ERROR: NaN losses on gpu_%d", replica)
            raise UserError(f"the loss is not a number at iteration {it + 1}; checkpoints up to here are untouched")
    return {"loss": sum(losses), "err": 100 * sum(errors) / batch_size, "err5": 100 * sum(errors5) / batch_size}


def checkpoint_due(it, cfg):
    period = cfg.CHECKPOINT.CHECKPOINT_PERIOD
    return it + 1 == cfg.SOLVER.MAX_ITER or (period > 0 and (it + 1) % period == 0)


def epoch(iterations, cfg):
    return iterations * cfg.TRAIN.BATCH_SIZE / cfg.TRAIN.DATASET_SIZE


def report_complexity(model, cfg):
    clip_shape = (3, cfg.TRAIN.VIDEO_LENGTH, cfg.TRAIN.CROP_SIZE, cfg.TRAIN.CROP_SIZE)
    operations, parameters = count_operations(model, clip_shape)
    logger.info("Total conv/fc/matMul FLOPs: %s(e9)", operations / 1e9)
    logger.info("Total conv/fc params: %s(e6)", parameters / 1e6)


@torch.inference_mode()
def evaluate(model, val_data, prepare, cfg, replicas, interruption):
    """Errors in percent of a model in inference mode, averaged over the batches of an evaluation."""
    batches, batch_size = math.ceil(cfg.TEST.DATASET_SIZE / cfg.TEST.BATCH_SIZE), cfg.TEST.BATCH_SIZE
    averages, timer = Averages(), Timer()
    for i in range(batches):
        interruption.check()
        timer.tic()
        counts = 0
        for clips, labels in prepare(next(val_data)):
            scores = model(clips)
            errors = topk_errors(scores, labels)
            if cfg.METRICS.EVAL_FIRST_N:
                errors = torch.cat([errors, first_n_errors(scores, labels, cfg.METRICS.FIRST_N)])
            counts = counts + errors
        names = ("err", "err5", "err_N_way", "err5_N_way")
        counts = replicas.sum(counts).tolist()
        values = {name: 100 * count / batch_size for name, count in zip(names, counts, strict=False)}
        averages.update(values, batch_size)
        timer.toc()
        if replicas.is_root and ((i + 1) % cfg.LOG_PERIOD == 0 or i + 1 == batches):
            print_test_line(i, batches, timer.diff, values, averages, batch_size, averages.weight)
    return {name: averages[name] for name in values}


def json_stats(cfg, it, lr, averages, errors, best, device):
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


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config_file", help="YAML file of options")
    parser.add_argument("--test_net", default=True, help="accepted for old command lines; TRAIN.TEST_AFTER_TRAIN rules")
    parser.add_argument("--node_id", type=int, default=0, help="accepted for old command lines")
    parser.add_argument("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="options over those of the file")
    if len(sys.argv) == 1:
        parser.print_help()
        return 1
    args = parser.parse_args()
    if args.config_file is None and "--config_file" not in args.opts:  # there it is in the wrong place
        parser.error("the following arguments are required: --config_file")
    cli.setup_logging()
    if args.test_net is not True or args.node_id:
        logger.warning("--test_net and --node_id have no effect here: TRAIN.TEST_AFTER_TRAIN says whether to test")
    return launch(train_net, load_config(args.config_file, args.opts))


if __name__ == "__main__":
    cli.run(main)
