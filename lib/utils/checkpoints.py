"""Checkpoints in the Caffe2 program's format (formats.blobs): loading into a model, saving, finding, resuming."""

import logging
import os
import re
from collections import defaultdict
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from formats.blobs import Checkpoint, blob_name, check_finite, is_weight, model_blobs, momentum_name, read_checkpoint
from formats.blobs import load_blobs as load_blobs  # other programs look for it here
from formats.caffe2_pickle import PickleError, dump
from formats.options_file import options_beside, remove_options
from utils.errors import UserError
from utils.files import clear_leftovers

logger = logging.getLogger(__name__)

CHECKPOINT_NAME = re.compile(r"c2_model_iter(\d+)\.pkl", re.ASCII)

_UNFOLDED = ("he file holds batch norms and the model frozen affine layers, which need them folded: "
             "convert it with process_data/convert_models/modify_caffe2_ftvideo.py")


# Loading into a model


@dataclass(frozen=True)
class LoadReport:
    """What became of the blobs of a model, and of those of a file, when the file was loaded. Callers judge it.

    The blobs of the model include the update histories `<blob>_momentum` if they were asked for.

    Attributes:
        weights_file: the file.
        loaded: blobs that now have the file's values.
        missing: blobs that the file lacks; they keep their values.
        resized: those of a classifier of another size; they keep their values.
        reshaped: loaded ones that have another shape in the file.
        inflated: loaded ones that are 2-D in the file.
        unused: weights in the file that the model does not have.
        unfolded: whether the file has batch norms where the model has frozen affine layers.
        model_iter: iterations done; None if the file does not say.
        lr: learning rate of the last iteration; None if the file does not say.
    """

    weights_file: str | PathLike
    loaded: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    resized: tuple[str, ...] = ()
    reshaped: tuple[str, ...] = ()
    inflated: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    unfolded: bool = False
    model_iter: int | None = None
    lr: float | None = None

    def require_complete(self) -> None:
        """Raise UserError unless the file filled the whole model. For models that are not trained any further."""
        if self.unfolded:
            raise UserError(f"{self.weights_file}: t{_UNFOLDED}")
        lacking = self.missing + self.resized
        if lacking:
            shown = ", ".join(lacking[:3]) + (", ..." if len(lacking) > 3 else "")
            raise UserError(f"{self.weights_file}: lacks {len(lacking)} of the model's "
                            f"{len(self.loaded) + len(lacking)} blobs, or has them in another size ({shown}): "
                            "are the options those of its training?")

    def require_exact(self) -> None:
        """Raise UserError unless the file filled the whole model and holds no other weights."""
        lacking = self.missing + self.resized
        if lacking or self.unused:
            raise UserError(f"{self.weights_file}: expected the weights of exactly the configuration's network; it "
                            f"lacks {_some(lacking)} and has {_some(self.unused)} besides: do the options fit?")

    def warn_if_unfolded(self) -> None:
        """Log a warning if the file's batch norms should have been folded into the model's affine layers."""
        if self.unfolded:
            logger.warning("T" + _UNFOLDED)


def _some(names: tuple[str, ...]) -> str:
    return f"{len(names)} blobs ({min(names)}, ...)" if names else "none"


def load_weights(model: nn.Module, weights: str | PathLike | Checkpoint,
                 momentum: dict[str, Tensor] | None = None) -> LoadReport:
    """Load a checkpoint or converted file into a model.

    The model asks for its own blobs by name; the log says what became of each. A blob that the file lacks
    (`<name> not found`) and a classifier (`pred` in the name) of another size keep their values; a classifier
    of the same size is reshaped (K x C and K x C x 1 x 1 x 1 are the same weights). 2-D weights K x C x H x W
    are inflated into a kernel K x C x T x H x W: repeated T times and divided by T.

    Args:
        model: a module whose parameters are named as `blob_name` expects. Changed in place.
        weights: the file, or its contents if it has been read already (formats.blobs.read_checkpoint).
        momentum: {blob name: tensor} of update histories to fill as well, in place.

    Raises:
        UserError: the file cannot be read, or holds no blob of the model, or one of a wrong shape or type, or one with
            a NaN or an infinity in it. The model is unchanged then.
    """
    checkpoint = weights if isinstance(weights, Checkpoint) else read_checkpoint(weights)
    logger.info("Initializing model params from file: %s", checkpoint.path)
    own = model_blobs(model)
    targets = own | {momentum_name(name): history for name, history in (momentum or {}).items()}
    outcomes: dict[str, list[str]] = defaultdict(list)
    sources: dict[str, Tensor] = {}
    for name, tensor in targets.items():
        outcome, source = _fit(checkpoint, name, tensor.shape)
        outcomes[outcome].append(name)
        if source is not None:
            sources[name] = source
    unused = tuple(name for name in checkpoint.blobs if name not in own and is_weight(name))
    unfolded = any(name.endswith("_bn_rm") and name[:-2] + "s" in own for name in unused)
    kinds = {kind: tuple(outcomes[kind]) for kind in ("missing", "resized", "reshaped", "inflated")}
    report = LoadReport(checkpoint.path, tuple(sources), **kinds, unused=unused, unfolded=unfolded,
                        model_iter=checkpoint.model_iter, lr=checkpoint.lr)
    _log_summary(report, own)
    # Everything has been checked: from here on nothing can fail halfway.
    for name, source in sources.items():
        targets[name].copy_(source)
        found, shape = checkpoint.blobs[name].shape, tuple(source.shape)
        change = "" if found == shape else f" {'inflated' if name in report.inflated else 'reshaped'} to {shape}"
        logger.info("%s loaded from weights file into: gpu_0/%s %s%s", name, name, found, change)
    return report


def _fit(checkpoint: Checkpoint, name: str, shape: torch.Size) -> tuple[str, Tensor | None]:
    """What becomes of a blob, and the file's value as a float32 tensor of the model's shape; None to keep the model's.

    The first is the name of LoadReport's field.
    """
    if name not in checkpoint.blobs:
        logger.info("%s not found", name)
        return "missing", None
    source = checkpoint.tensor(name)
    found = tuple(source.shape)
    if found == tuple(shape):
        return "loaded", source
    if "pred" in name:
        if source.numel() == shape.numel():
            return "reshaped", source.reshape(shape)
        logger.info("%s: the classifier does not match, keeping the initial one: %s in the file, %s in the model",
                    name, found, tuple(shape))
        return "resized", None
    if len(found) == 4 and len(shape) == 5 and found == (*shape[:2], *shape[-2:]):
        return "inflated", (source / shape[2]).unsqueeze(2).expand(shape)
    raise UserError(f"{checkpoint.path}: {name}: expected shape {tuple(shape)}, got {found}: "
                    "is this a checkpoint of another architecture?")


def _log_summary(report: LoadReport, own: dict[str, Tensor]) -> None:
    """Log how much of the model the file holds. UserError if that is nothing."""
    found = sum(name in own for name in report.loaded)
    if not found:
        raise UserError(f"{report.weights_file}: none of the model's {len(own)} blobs ({next(iter(own))}, ...) is in "
                        "it: is this a checkpoint of another architecture?")
    logger.log(logging.INFO if found == len(own) else logging.WARNING,
               "%d of %d blobs of the model found, %d blobs of the file not used: %s", found, len(own),
               len(report.unused), report.weights_file)


def initialize_params_from_file(model: nn.Module, weights_file: str | PathLike,
                                momentum: dict[str, Tensor] | None = None, reset_start_iter: bool = False,
                                training: bool = False) -> tuple[int, float | None]:
    """Load a checkpoint or converted file into a model: load_weights() under the Caffe2 program's name.

    Args:
        model, weights_file, momentum: see load_weights().
        reset_start_iter: take the weights only: the iteration returned is 0.
        training: the learning rate that the history was made with is needed. A file without `lr` is then an error,
            or stands for 1.0 with reset_start_iter.

    Returns:
        (model_iter, lr): iterations done, 0 if the file does not say; the file's learning rate, None if it has none
        and `training` is not set.

    Raises:
        UserError: see load_weights(). The model is unchanged then.
    """
    return _initialize(model, read_checkpoint(weights_file), momentum, reset_start_iter, training)


def _initialize(model, checkpoint, momentum=None, reset_start_iter=False, training=False):
    if training and not reset_start_iter and "lr" not in checkpoint.blobs:
        raise UserError(f"{checkpoint.path}: no lr in it, which training needs to continue; "
                        "TRAIN.RESET_START_ITER True takes the weights only")
    report = load_weights(model, checkpoint, momentum)
    report.warn_if_unfolded()
    lr = 1.0 if training and report.lr is None else report.lr
    iteration = 0 if reset_start_iter or report.model_iter is None else report.model_iter
    if training:
        logger.info("Loaded: start_model_iter: %d; prev_lr: %.8f", iteration, lr)
    return iteration, lr


# Saving


def save_checkpoint(path: str | PathLike, model: nn.Module, momentum: dict[str, Tensor], lr: float, model_iter: int,
                    state: dict | None = None, options: dict | None = None) -> None:
    """Write a checkpoint with exactly the blobs that the Caffe2 program saved, so that it can read it.

    Args:
        path: see `checkpoint_path`; its folder is created if necessary. Replaced in one step.
        model: a module whose parameters are named as `blob_name` expects.
        momentum: {blob name: tensor}, the update history of every trainable parameter.
        lr: learning rate of the last iteration. Saved as a float32 array of shape ().
        model_iter: iterations done.
        state: dict of plain values that an exact resume needs besides the blobs. Saved as a second entry
            next to "blobs", which the Caffe2 program ignores.
        options: the configuration, for a file beside it (formats.options_file).

    Raises:
        UserError: a file cannot be written, or there is a NaN or an infinity in what it is to hold.
    """
    path = Path(path)
    logger.info("Saving model params to weights file %s", path)
    trainable = [blob_name(name) for name, parameter in model.named_parameters() if parameter.requires_grad]
    tensors = model_blobs(model) | {momentum_name(name): momentum[name] for name in trainable}
    for name, tensor in tensors.items():
        check_finite(f"{path}: not written, and training cannot go on: {name}", tensor)
    arrays = {name: tensor.detach().to("cpu", torch.float32).numpy() for name, tensor in tensors.items()}
    blobs = arrays | {"lr": np.array(float(lr), np.float32), "model_iter": int(model_iter)}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{error.filename}: cannot be written: {error.strerror}") from error
    # Of any iteration: nobody will finish them, and they are as large as a checkpoint.
    clear_leftovers(path.parent, CHECKPOINT_NAME.fullmatch)
    with options_beside(path, options, arrays["pred_w"]):
        dump({"blobs": blobs} if state is None else {"blobs": blobs, "state": state}, path)


def checkpoint_path(checkpoint_dir: str | PathLike, iteration: int) -> Path:
    """Path of a checkpoint: CHECKPOINT.DIR/checkpoints/c2_model_iter<iterations done>.pkl."""
    return Path(checkpoint_dir, "checkpoints", f"c2_model_iter{iteration}.pkl")


def find_checkpoints(checkpoint_dir: str | PathLike) -> list[Path]:
    """Paths of the checkpoints under CHECKPOINT.DIR, by number of iterations, the highest last.

    Raises UserError if the folder cannot be listed.
    """
    folder = checkpoint_path(checkpoint_dir, 0).parent
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise UserError(f"{folder}: cannot be listed: {error.strerror}") from error
    return sorted((folder / name for name in names if CHECKPOINT_NAME.fullmatch(name)), key=_iterations_in_name)


def _iterations_in_name(path: Path) -> int:
    return int(path.stem.removeprefix("c2_model_iter"))


def prune_checkpoints(checkpoint_dir: str | PathLike, keep: int, newest: int) -> None:
    """Delete all but the last `keep` checkpoints up to iteration `newest`, with their options; none if keep <= 0.

    Those of later iterations stay: they belong to another run, and their numbers say nothing about their age.
    """
    if keep > 0:
        candidates = [path for path in find_checkpoints(checkpoint_dir) if _iterations_in_name(path) <= newest]
        for path in candidates[:-keep]:
            try:
                path.unlink()
                remove_options(path)
            except OSError as error:
                logger.warning("%s: cannot be deleted: %s", path, error.strerror)


# Which file, at which iteration


@dataclass(frozen=True)
class StartPoint:
    """Where training starts.

    Attributes:
        iteration: the first one to do, 0-based.
        lr: learning rate that the update history was made with; None from scratch, without a history.
        state: what `save_checkpoint` was given as `state`; None unless a checkpoint with one is resumed.
        path: the file that was loaded; None from scratch.
    """

    iteration: int = 0
    lr: float | None = None
    state: dict | None = None
    path: Path | None = None


def resume_or_initialize(model: nn.Module, momentum: dict[str, Tensor], checkpoint_dir: str | PathLike, resume: bool,
                         params_file: str, reset_start_iter: bool, resume_from_batch_size: int,
                         batch_size: int) -> StartPoint:
    """Load the weights that training starts from, and its update history when it resumes.

    1. With `resume`, the newest checkpoint under checkpoint_dir, with its history, at its iteration (0 if it does not
       say). If it is damaged, the one before it.
    2. Else params_file, without history, at its iteration; times resume_from_batch_size / batch_size if that
       is positive; at 0 with reset_start_iter.
    3. Else nothing: from scratch, at 0.

    Args:
        model: a module whose parameters are named as `blob_name` expects.
        momentum: {blob name: tensor} of the trainable parameters, filled in place.
        checkpoint_dir, resume: the options CHECKPOINT.DIR and RESUME.
        params_file, reset_start_iter, resume_from_batch_size, batch_size: the options TRAIN.PARAMS_FILE,
            RESET_START_ITER, RESUME_FROM_BATCH_SIZE and BATCH_SIZE.

    Raises:
        UserError: as initialize_params_from_file(), and if there are checkpoints but all are damaged.
    """
    checkpoints = find_checkpoints(checkpoint_dir) if resume else []
    if checkpoints:
        logger.info("Initializing from checkpoints...")
        checkpoint = _newest_readable(checkpoints)
        iteration, lr = _initialize(model, checkpoint, momentum, training=True)
        return StartPoint(iteration, lr, checkpoint.state, Path(checkpoint.path))
    if params_file:
        logger.info("Initializing from pre-trained file...")
        iteration, lr = _initialize(model, read_checkpoint(params_file), None, reset_start_iter, training=True)
        if resume_from_batch_size > 0:
            iteration = int(iteration * resume_from_batch_size / batch_size)
        return StartPoint(iteration, lr, None, Path(params_file))
    logger.info("No checkpoint found; training from scratch...")
    return StartPoint()


def _newest_readable(checkpoints: list[Path]) -> Checkpoint:
    for path in reversed(checkpoints):
        try:
            return read_checkpoint(path)
        except PickleError as error:
            if isinstance(error.__cause__, PermissionError):
                raise
            logger.warning("Damaged checkpoint, trying the one before it: %s", error)
            damage = error
    raise UserError(f"{checkpoints[0].parent}: no checkpoint can be read ({len(checkpoints)} tried; the last error: "
                    f"{damage}); remove them or set CHECKPOINT.RESUME False to start from scratch")
