"""The training of a network: rate, step, checkpoint, log line, evaluation, and the test at the end."""

import contextlib
import logging
from pathlib import Path

from core.config import log_options_without_effect, print_cfg
from data.data_builder import Preprocessor, describe_training_data, train_loader, val_loader, warn_of_missing_test_data
from engine.agreement import agree, agree_on_options, tensor_digest
from engine.evaluation import count_batches, evaluate
from engine.interruption import Interrupted, Interruption
from engine.replicas import forward_backward
from engine.resume_state import ResumeState
from engine.run_lock import only_run_in
from engine.solver import Solver
from engine.tensorboard_events import Events
from engine.testing import config_after_training, keep_unfinished_scores, test_net
from engine.training_log import TrainingLog
from models.compilation import compiled_for_training
from models.complexity import count_operations
from models.inference import for_inference
from models.model_builder_video import create_model, log_architecture
from models.precision import autocast
from utils.bn_helper import batch_norms, compute_precise_bn
from utils.checkpoints import (
    StartPoint,
    checkpoint_path,
    find_checkpoints,
    prune_checkpoints,
    resume_or_initialize,
    save_checkpoint,
)
from utils.errors import UserError
from utils.files import make_writable_folder
from utils.lr_policy import get_lr_at_iter
from utils.stopping import EXIT_INTERRUPTED
from video.bad_videos import BadVideos

logger = logging.getLogger(__name__)


def train_net(cfg, replicas) -> int:
    """Train, then test the last checkpoint if TRAIN.TEST_AFTER_TRAIN. Returns the exit status."""
    print_cfg(cfg)
    log_options_without_effect(cfg)
    agree_on_options(cfg, replicas)
    with contextlib.ExitStack() as stack:
        def enter_folder():
            make_writable_folder(Path(cfg.CHECKPOINT.DIR, "checkpoints"))
            stack.enter_context(only_run_in(cfg.CHECKPOINT.DIR, "checkpoints"))

        replicas.from_root(enter_folder)
        return train_and_test(cfg, replicas)


def train_and_test(cfg, replicas) -> int:
    """train_net in a folder that no other run uses."""
    if cfg.TRAIN.TEST_AFTER_TRAIN:
        warn_of_missing_test_data(cfg)
    agree(replicas, lambda: describe_training_data(cfg))
    training = Training(cfg, replicas)
    if cfg.TRAIN.TEST_AFTER_TRAIN and training.start_iter < cfg.SOLVER.MAX_ITER:
        replicas.from_root(lambda: keep_unfinished_scores(cfg))
    try:
        training.run()
    except Interrupted:
        return EXIT_INTERRUPTED
    if not cfg.TRAIN.TEST_AFTER_TRAIN:
        return 0
    weights = replicas.from_root(training.weights_to_test)
    del training  # the test needs its memory
    test_net(config_after_training(cfg, weights), replicas)
    logger.info("10-clip spatial fcn testing finished")
    return 0


class Training:
    """One training run: its model, solver, data and log, and the steps that an iteration consists of."""

    def __init__(self, cfg, replicas):
        check_schedule(cfg)
        self.cfg, self.replicas = cfg, replicas
        logger.info("Test iters: %d", count_batches(cfg))
        self.model = create_model(cfg, "train").to(replicas.device)
        log_architecture(self.model, cfg, "train")
        self.solver = Solver.from_config(self.model, cfg)
        start, state = replicas.from_root(self.load_start)
        values = [*self.model.state_dict().values(), *self.solver.history.values()]
        replicas.broadcast(values)
        agree(replicas, lambda: {"iteration": start.iteration, "learning rate": start.lr, "state": state.as_dict(),
                                 "weights and history": tensor_digest(values)})
        self.solver.lr = start.lr
        self.start_iter = self.iterations_done = start.iteration
        self.train_position, self.val_position = state.train_position, state.val_position
        self.finished = state.finished
        self.precise_bn_iter = start.iteration - 1 if state.precise_bn else None
        self.log = TrainingLog(cfg, replicas, state.averages)
        self.prepare = Preprocessor(cfg, replicas.device).batch
        self.bad_videos = BadVideos(cfg.DATALOADER.MAX_BAD_IMAGES)

    def load_start(self) -> tuple[StartPoint, ResumeState]:
        """In the root: load what the training starts from."""
        cfg = self.cfg
        start = resume_or_initialize(
            self.model, self.solver.history, cfg.CHECKPOINT.DIR, cfg.CHECKPOINT.RESUME, cfg.TRAIN.PARAMS_FILE,
            cfg.TRAIN.RESET_START_ITER, cfg.TRAIN.RESUME_FROM_BATCH_SIZE, cfg.TRAIN.BATCH_SIZE,
        )
        check_iterations_left(start, cfg)
        return start, ResumeState.at(start, cfg.TRAIN.BATCH_SIZE)

    def weights_to_test(self) -> Path:
        """In the root: the checkpoint that this run has written, or the newest if no iteration was left to do."""
        folder = self.cfg.CHECKPOINT.DIR
        last = checkpoint_path(folder, self.iterations_done)
        return last if self.iterations_done > self.start_iter else next(reversed(find_checkpoints(folder)), last)

    def run(self) -> None:
        """Train up to SOLVER.MAX_ITER. Raises Interrupted when asked to stop, after writing a checkpoint to resume."""
        cfg = self.cfg
        logger.info("------------- Training model... -------------")
        first = self.start_iter if self.finished else self.start_iter - 1
        with train_loader(cfg, self.replicas, self.bad_videos, self.train_position) as self.train_data, \
                val_loader(cfg, self.replicas, self.bad_videos, self.val_position) as self.val_data, \
                self.open_events() as self.log.events, Interruption(self.replicas) as self.interruption:
            network = self.replicas.parallel(compiled_for_training(
                self.model, cfg.MODEL.COMPILE, cfg.SOLVER.MAX_ITER, cfg.TRAIN.CHECKPOINT_ACTIVATIONS,
                self.replicas.device))
            try:
                for it in range(first, max(cfg.SOLVER.MAX_ITER, self.start_iter)):
                    resumed = it < self.start_iter  # the interrupted run did its update, and maybe more of it
                    if not resumed:
                        if self.iterations_done > self.start_iter:
                            self.interruption.hold()
                        self.interruption.check()
                        self.step(network, it)
                    if is_checkpoint_due(it, cfg) and not (resumed and self.precise_bn_iter == it):
                        self.precise_bn(it)
                        self.save()
                    if is_log_due(it, cfg) and not resumed:
                        self.share_bad_videos()
                        self.log.train_line(it, self.solver.lr)
                    if (it + 1) % cfg.TRAIN.EVAL_PERIOD == 0:
                        self.precise_bn(it)
                        self.log.evaluation(it, self.solver.lr, self.evaluate())
                    self.finished = True
            except Interrupted:
                if self.iterations_done > self.start_iter:
                    self.save()
                raise
            self.share_bad_videos()  # also: nobody goes on before the root has written the last checkpoint

    def step(self, network, it) -> None:
        """One iteration: set the rate, forward and backward, update. Synchronises only when a log line is due."""
        line_due = is_log_due(it, self.cfg)
        with self.log.timed(line_due):
            self.solver.set_lr(get_lr_at_iter(it, self.cfg), it)
            batch = self.prepare(next(self.train_data))
            results = forward_backward(network, batch, self.replicas, self.cfg.RNG_SEED, it, self.cfg.MODEL.PRECISION)
            self.solver.step()
            self.log.add(it, self.replicas.sum(results))
        self.iterations_done, self.finished = it + 1, False
        if it == self.start_iter:
            report_complexity(self.model, self.cfg)

    def precise_bn(self, it) -> None:
        """Precise BN once per iteration, on the next records of the training stream."""
        self.log.read_results()
        if not self.cfg.TRAIN.COMPUTE_PRECISE_BN or not batch_norms(self.model):
            return
        if self.precise_bn_iter == it:
            logger.info("BN of iter %d computed. Update to GPU only.", it + 1)
            return
        position = self.train_data.position

        def next_clips():
            self.interruption.check()
            return (clips for clips, _ in self.prepare(next(self.train_data)))

        try:
            with autocast(self.cfg.MODEL.PRECISION, self.replicas.device):
                compute_precise_bn(self.model, next_clips, self.cfg.TRAIN.ITER_COMPUTE_PRECISE_BN, self.replicas, it,
                                   self.cfg.LOG_PERIOD)
        except Interrupted:
            self.train_data.position = position  # it starts again with the same records
            raise
        self.precise_bn_iter = it

    def save(self) -> None:
        """Write the checkpoint of the iterations done, with what else an exact continuation needs."""
        self.log.read_results()
        if not self.replicas.is_root:
            return
        state = ResumeState(self.train_data.position, self.val_position, self.log.averages.state(), self.finished,
                            precise_bn=self.precise_bn_iter == self.iterations_done - 1)
        folder = self.cfg.CHECKPOINT.DIR
        save_checkpoint(checkpoint_path(folder, self.iterations_done), self.model, self.solver.history, self.solver.lr,
                        self.iterations_done, state.as_dict(), self.cfg)
        prune_checkpoints(folder, self.cfg.CHECKPOINT.KEEP_LAST, self.iterations_done)

    def evaluate(self) -> dict[str, float]:
        """Errors in percent on the val split; its loader continues where the last evaluation ended."""
        logger.info("=> Testing model")
        self.replicas.broadcast(self.model.buffers())
        network = for_inference(self.model, self.cfg.MODEL.PRECISION)
        errors = evaluate(network, self.val_data, self.prepare, self.cfg, self.replicas, self.interruption)
        self.val_position = self.val_data.position
        return errors

    def open_events(self):
        """The root's Events, under CHECKPOINT.DIR/tensorboard. A resumed run repeats an unfinished evaluation."""
        if not self.replicas.is_root:
            return contextlib.nullcontext()
        return Events(Path(self.cfg.CHECKPOINT.DIR, "tensorboard"), first_train=self.start_iter + 1,
                      first_val=self.start_iter + self.finished)

    def share_bad_videos(self) -> None:
        """Let every process know the unreadable videos of all, for the root's log and for the limit on them."""
        for known in self.replicas.gather(self.bad_videos.known()):
            self.bad_videos.merge(known)


def check_schedule(cfg) -> None:
    """Raise UserError for a schedule that does not reach MAX_ITER: now, and not in a week."""
    for it in (0, *cfg.SOLVER.STEPS):
        if it < cfg.SOLVER.MAX_ITER:
            get_lr_at_iter(it, cfg)


def check_iterations_left(start, cfg) -> None:
    """Log that a StartPoint leaves nothing to train; raise UserError if no run here has got so far."""
    if start.iteration < cfg.SOLVER.MAX_ITER:
        return
    message = f"{start.iteration} iterations are done, SOLVER.MAX_ITER is {cfg.SOLVER.MAX_ITER}"
    if not find_checkpoints(cfg.CHECKPOINT.DIR):
        raise UserError(f"nothing to train: {message} (TRAIN.PARAMS_FILE {cfg.TRAIN.PARAMS_FILE!r}; "
                        "TRAIN.RESET_START_ITER True takes the weights only)")
    logger.info("Nothing to train: %s", message)


def is_checkpoint_due(it, cfg) -> bool:
    period = cfg.CHECKPOINT.CHECKPOINT_PERIOD
    return it + 1 == cfg.SOLVER.MAX_ITER or (period > 0 and (it + 1) % period == 0)


def is_log_due(it, cfg) -> bool:
    return (it + 1) % cfg.LOG_PERIOD == 0


def report_complexity(model, cfg) -> None:
    clip_shape = (3, cfg.TRAIN.VIDEO_LENGTH, cfg.TRAIN.CROP_SIZE, cfg.TRAIN.CROP_SIZE)
    operations, parameters = count_operations(model, clip_shape)
    logger.info("Total conv/fc/matMul FLOPs: %s(e9)", operations / 1e9)
    logger.info("Total conv/fc params: %s(e6)", parameters / 1e6)
