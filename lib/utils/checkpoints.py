"""Checkpoints in the Caffe2 program's format: blob names, loading into a model, saving, resuming.

A checkpoint is a pickle {"blobs": {name: value}}, a converted file the inner dict alone; both are read. The
values are float32 arrays of the blobs, `<blob>_momentum` of the trainable ones, `lr`, and `model_iter` (the
number of iterations done).
"""

import logging
import os
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from formats.caffe2_pickle import PickleError, dump, load
from utils.errors import UserError
from utils.files import temporary_name

logger = logging.getLogger(__name__)

CHECKPOINT_NAME = re.compile(r"c2_model_iter(\d+)\.pkl", re.ASCII)


# Blob names


def blob_name(parameter_name):
    """The Caffe2 blob of a parameter or buffer: `res2_0.branch2a_bn.weight` -> `res2_0_branch2a_bn_s`."""
    layer, _, kind = parameter_name.rpartition(".")
    suffixes = {"weight": "w", "bias": "b"}
    if layer.endswith("bn"):
        suffixes = {"weight": "s", "bias": "b", "running_mean": "rm", "running_var": "riv"}
    if not layer or kind not in suffixes:
        raise ValueError(f"no blob name for the parameter {parameter_name}")
    return f"{layer.replace('.', '_')}_{suffixes[kind]}"


def model_blobs(model):
    """{blob name: tensor} of a model: parameters, frozen affine layers and running statistics.

    The tensors are the model's own memory: writing into them changes the model.
    """
    return {
        blob_name(name): tensor
        for name, tensor in model.state_dict().items()
        if not name.endswith(".num_batches_tracked")
    }


def _momentum_blobs(momentum):
    return {f"{name}_momentum": history for name, history in momentum.items()}


# Reading


def load_blobs(weights_file):
    """{name: value} of a checkpoint or converted file. Raises PickleError if it is neither."""
    return _read(weights_file)[0]


def load_state(path):
    """What `save_checkpoint` was given as `state`; None for a file without (any of the Caffe2 program)."""
    return _read(path)[1]


def _read(path):
    contents = load(path)
    blobs, state = contents, None
    if isinstance(contents, dict) and "blobs" in contents:
        blobs, state = contents["blobs"], contents.get("state")
    if not isinstance(blobs, dict) or not any(isinstance(value, np.ndarray) for value in blobs.values()):
        raise PickleError(
            f"{path}: expected a checkpoint, a dictionary of arrays by blob name; got {_kind(blobs)}"
        )
    return blobs, state


def _kind(value):
    if isinstance(value, np.ndarray):
        return f"an array of shape {value.shape} and type {value.dtype}"
    if isinstance(value, dict):
        return "a dictionary without arrays"
    return f"a value of type {type(value).__name__}"


def _number(blobs, name, weights_file):
    """A number that the file holds as a Python or numpy one, or as an array of one element."""
    value = blobs[name]
    is_number = isinstance(value, (int, float, np.number, np.ndarray)) and not isinstance(value, bool)
    if (
        not is_number
        or np.size(value) != 1
        or np.asarray(value).dtype.kind not in "fiu"
        or not np.isfinite(value)
    ):
        raise UserError(f"{weights_file}: {name}: expected one finite number, got {_kind(value)}")
    return np.asarray(value).item()


def _iterations_done(blobs, weights_file):
    count = _number(blobs, "model_iter", weights_file)
    if count < 0 or count != int(count):
        raise UserError(f"{weights_file}: model_iter: expected a number of iterations, got {count}")
    return int(count)


# Loading into a model


def initialize_params_from_file(
    model, weights_file, momentum=None, reset_start_iter=False, training=False, complete=False
):
    """Load a checkpoint or converted file into a model, in full or not at all.

    The model asks for its own blobs by name; the log says what became of each. A blob that the file lacks
    (`<name> not found`) and a classifier (`pred` in the name) of another size keep their values; a classifier
    of the same size is reshaped (K x C and K x C x 1 x 1 x 1 are the same weights). 2-D weights K x C x H x W
    are inflated into a kernel K x C x T x H x W: repeated T times and divided by T.

    Args:
        model: a module whose parameters are named as `blob_name` expects. Changed in place.
        weights_file: the pickle.
        momentum: {blob name: tensor} of update histories to fill as well, in place.
        reset_start_iter: take the weights only: the iteration returned is 0.
        training: the rate that the history was made with is needed. Then a file without `lr` is an error, or
            1.0 with reset_start_iter.
        complete: nothing is trained afterwards: every blob of the model must be in the file, with its size.

    Returns: (model_iter, lr): iterations done, 0 if the file does not say; the file's learning rate, None if
        it has none and needs none.

    Raises: UserError for a file that cannot be read, holds nothing of the model, or a blob of a wrong shape
        or type. The model is untouched then.
    """
    blobs = load_blobs(weights_file)
    return _initialize(model, blobs, weights_file, momentum, reset_start_iter, training, complete)


def _initialize(model, blobs, weights_file, momentum, reset_start_iter, training, complete=False):
    logger.info("Initializing model params from file: %s", weights_file)
    own = model_blobs(model)
    targets = own | _momentum_blobs(momentum or {})
    sources = {name: _fit(blobs, name, tensor.shape, weights_file) for name, tensor in targets.items()}
    sources = {name: source for name, source in sources.items() if source is not None}
    model_iter = 0 if reset_start_iter or "model_iter" not in blobs else _iterations_done(blobs, weights_file)
    lr = _number(blobs, "lr", weights_file) if "lr" in blobs else None
    if lr is None and training:
        if not reset_start_iter:
            raise UserError(
                f"{weights_file}: no lr in it, which training goes on from; "
                "TRAIN.RESET_START_ITER True takes the weights only"
            )
        lr = 1.0
    _report(own, sources, blobs, weights_file, complete)
    # All is checked: from here on nothing can fail halfway.
    for name, source in sources.items():
        targets[name].copy_(source)
        logger.info("%s loaded from weights file: %s", name, tuple(source.shape))
    return model_iter, lr


def _fit(blobs, name, shape, weights_file):
    """The file's blob as a float32 tensor of the model's shape; None (and a log line) to keep the model's."""
    if name not in blobs:
        logger.info("%s not found", name)
        return None
    value = blobs[name]
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "fiu":
        raise UserError(f"{weights_file}: {name}: expected an array of numbers, got {_kind(value)}")
    source, found = torch.from_numpy(value.astype(np.float32, copy=False)), value.shape
    if found == tuple(shape):
        return source
    if "pred" in name:
        if source.numel() == shape.numel():
            return source.reshape(shape)
        logger.info(
            "%s: the classifier does not match, keeping the initial one: %s in the file, %s in the model",
            name,
            found,
            tuple(shape),
        )
        return None
    if len(found) == 4 and len(shape) == 5 and found == (*shape[:2], *shape[-2:]):
        return (source / shape[2]).unsqueeze(2).expand(shape)
    raise UserError(
        f"{weights_file}: {name}: expected shape {tuple(shape)}, got {found}: "
        "is this a checkpoint of another architecture?"
    )


def _report(own, sources, blobs, weights_file, complete):
    """Say how much of the model the file holds. Nothing of it (or less than all) is the user's mistake: UserError."""
    found = [name for name in own if name in sources]
    if not found:
        raise UserError(
            f"{weights_file}: none of the model's {len(own)} blobs ({next(iter(own))}, ...) is in it: "
            "is this a checkpoint of another architecture?"
        )
    unused = [
        name
        for name in blobs
        if name not in own and name not in ("lr", "model_iter", "epoch") and not name.endswith("_momentum")
    ]
    logger.log(
        logging.INFO if len(found) == len(own) else logging.WARNING,
        "%d of %d blobs of the model found, %d blobs of the file not used: %s",
        len(found),
        len(own),
        len(unused),
        weights_file,
    )
    if any(name.endswith("_bn_rm") and name[:-2] + "s" in own for name in unused):
        unfolded = (
            "The file holds batch norms and the model frozen affine layers, which need them folded: "
            "convert it with process_data/convert_models/modify_caffe2_ftvideo.py"
        )
        if complete:
            raise UserError(f"{weights_file}: t{unfolded[1:]}")
        logger.warning(unfolded)
    if complete and len(found) < len(own):
        lacking = [name for name in own if name not in sources]
        raise UserError(
            f"{weights_file}: lacks {len(lacking)} of the model's {len(own)} blobs, or has them in another size "
            f"({', '.join(lacking[:3])}{', ...' if len(lacking) > 3 else ''}): are the options those of its training?"
        )


# Saving


def save_checkpoint(path, model, momentum, lr, model_iter, state=None):
    """Write a checkpoint with exactly the blobs that the Caffe2 program saved, so that it can read it.

    Args:
        path: see `checkpoint_path`; its folder is made. Replaced in one step.
        model: a module whose parameters are named as `blob_name` expects.
        momentum: {blob name: tensor}, the update history of every trainable parameter.
        lr: learning rate of the last iteration. Saved as a float32 array of shape ().
        model_iter: iterations done.
        state: dict of plain values that an exact resume needs beside the blobs. Saved as a second entry
            beside "blobs", where the Caffe2 program does not look.

    Raises: UserError if the file cannot be written.
    """
    path = Path(path)
    logger.info("Saving model params to weights file %s", path)
    trainable = [blob_name(name) for name, parameter in model.named_parameters() if parameter.requires_grad]
    tensors = model_blobs(model) | _momentum_blobs({name: momentum[name] for name in trainable})
    blobs = {name: tensor.detach().to("cpu", torch.float32).numpy() for name, tensor in tensors.items()}
    blobs |= {"lr": np.array(float(lr), np.float32), "model_iter": int(model_iter)}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # What a killed process was writing: nobody will finish it, and each is as large as a checkpoint.
        for leftover in path.parent.glob(temporary_name("c2_model_iter*", "*")):
            leftover.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"{error.filename}: cannot be written: {error.strerror}") from error
    dump({"blobs": blobs} if state is None else {"blobs": blobs, "state": state}, path)


def checkpoint_path(checkpoint_dir, iteration):
    """Where a checkpoint stands: CHECKPOINT.DIR/checkpoints/c2_model_iter<iterations done>.pkl."""
    return Path(checkpoint_dir, "checkpoints", f"c2_model_iter{iteration}.pkl")


def find_checkpoints(checkpoint_dir):
    """Paths of the checkpoints under CHECKPOINT.DIR, by number of iterations, the newest last."""
    folder = checkpoint_path(checkpoint_dir, 0).parent
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise UserError(f"{folder}: cannot be listed: {error.strerror}") from error
    return sorted(
        (folder / name for name in names if CHECKPOINT_NAME.fullmatch(name)), key=_iterations_in_name
    )


def _iterations_in_name(path):
    return int(CHECKPOINT_NAME.fullmatch(path.name)[1])


def prune_checkpoints(checkpoint_dir, keep, newest):
    """Delete all but the last `keep` checkpoints up to iteration `newest`; none if keep is not positive.

    Those of more iterations are of another run, whose numbers say nothing of their age: they stay.
    """
    if keep > 0:
        candidates = [
            path for path in find_checkpoints(checkpoint_dir) if _iterations_in_name(path) <= newest
        ]
        for path in candidates[:-keep]:
            try:
                path.unlink()
            except OSError as error:
                logger.warning("%s: cannot be deleted: %s", path, error.strerror)


# Which file, at which iteration


@dataclass(frozen=True)
class StartPoint:
    """Where training starts.

    Attributes:
        iteration: the first one to do, 0-based.
        lr: learning rate that the update history was made with; None from scratch, where there is no history.
        state: what `save_checkpoint` got as `state`; None unless a checkpoint with one is resumed.
        path: the file that was loaded; None from scratch.
    """

    iteration: int = 0
    lr: float | None = None
    state: dict | None = None
    path: Path | None = None


def resume_or_initialize(
    model, momentum, checkpoint_dir, resume, params_file, reset_start_iter, resume_from_batch_size, batch_size
):
    """Load what training starts from into the model and, when it resumes, its update history.

    1. With `resume`, the newest checkpoint under checkpoint_dir, with its history, at its iteration. If it is
       damaged, the one before it.
    2. Else params_file, without history, at its iteration; times resume_from_batch_size / batch_size if that
       is positive; at 0 with reset_start_iter.
    3. Else nothing: from scratch, at 0.

    Args:
        model: a module whose parameters are named as `blob_name` expects.
        momentum: {blob name: tensor} of the trainable parameters, filled in place.
        checkpoint_dir, resume: the options CHECKPOINT.DIR and RESUME.
        params_file, reset_start_iter, resume_from_batch_size, batch_size: the options TRAIN.PARAMS_FILE,
            RESET_START_ITER, RESUME_FROM_BATCH_SIZE and BATCH_SIZE.

    Returns: StartPoint.

    Raises: UserError as `initialize_params_from_file` does, and if there are checkpoints but all are damaged.
    """
    checkpoints = find_checkpoints(checkpoint_dir) if resume else []
    if checkpoints:
        path, blobs, state = _newest_readable(checkpoints)
        if "model_iter" not in blobs:
            raise UserError(f"{path}: no model_iter in it, so training cannot resume from it")
        iteration, lr = _initialize(model, blobs, path, momentum, reset_start_iter=False, training=True)
        return StartPoint(iteration, lr, state, path)
    if params_file:
        iteration, lr = initialize_params_from_file(
            model, params_file, reset_start_iter=reset_start_iter, training=True
        )
        if resume_from_batch_size > 0:
            iteration = int(iteration * resume_from_batch_size / batch_size)
        return StartPoint(iteration, lr, None, Path(params_file))
    logger.info("No checkpoint found; training from scratch...")
    return StartPoint()


def _newest_readable(checkpoints):
    for path in reversed(checkpoints):
        try:
            return path, *_read(path)
        except PickleError as error:
            if isinstance(error.__cause__, PermissionError):
                raise
            logger.warning("Damaged checkpoint, trying the one before it: %s", error)
            damage = error
    raise UserError(
        f"{checkpoints[0].parent}: no checkpoint can be read ({len(checkpoints)} tried; the last error: "
        f"{damage}); remove them or set CHECKPOINT.RESUME False to start anew"
    )
