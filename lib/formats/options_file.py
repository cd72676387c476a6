"""The options of a training, as JSON beside its checkpoint: c2_model_iterN.options.json.

The Caffe2 program takes every file of a checkpoint folder that ends in .pkl for a checkpoint, and ignores the others.
There is one for each checkpoint, as a run may go on with other options, and as the two files can then be moved
together. It is written before its checkpoint gets its name; which one it belongs to, it says itself.
"""

import contextlib
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from utils import stopping
from utils.collections import to_json
from utils.errors import UserError
from utils.files import StrPath, atomic_write, is_regular

SUFFIX = ".options.json"
LARGEST = 1 << 20  # bytes; those of a training are some 5000


@dataclass(frozen=True)
class StoredOptions:
    """What a file says of the weights that it belongs to.

    Attributes:
        origin: the file, for messages.
        options: {group: {option: value}}, as they were written; not checked.
        classifier: classifier_digest() of the weights.
        numbers: `lr` and `model_iter`, as far as they are there; not checked.
    """

    origin: str
    options: dict[str, Any]
    classifier: str
    numbers: dict[str, Any] = field(default_factory=dict)


def classifier_digest(pred_w: np.ndarray) -> str:
    """SHA-256 of a classifier, hexadecimal. No two checkpoints of a training have the same."""
    return hashlib.sha256(np.ascontiguousarray(pred_w, "<f4").tobytes()).hexdigest()


def as_text(options: Mapping[str, Any], pred_w: np.ndarray, **numbers: float) -> str:
    """The JSON of StoredOptions. Raises ValueError for options that are no plain values."""
    return to_json({"classifier": classifier_digest(pred_w), **numbers, "options": options}, indent=1)


def parse(text: str | bytes, origin: str) -> StoredOptions:
    """What as_text() has written. Raises UserError, which begins with the origin."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _damaged(origin, f"no JSON ({str(error) or type(error).__name__:.100})") from error
    if not isinstance(value, dict):
        raise _damaged(origin, f"a {type(value).__name__}")
    for name, kind in {"options": dict, "classifier": str}.items():
        if not isinstance(value.get(name), kind):
            raise _damaged(origin, f"no {name!r}" if name not in value else f"another kind of {name!r}")
    numbers = {name: value[name] for name in ("lr", "model_iter") if name in value}
    return StoredOptions(origin, value["options"], value["classifier"], numbers)


def _damaged(origin: str, found: str) -> UserError:
    return UserError(f"{origin}: expected the options of a training as this program writes them, got {found}")


_in_work: set[Path] = set()  # weights that this process is writing, perhaps with options already there


def _remove_if_alone(weights_file: Path) -> None:
    if not weights_file.exists():
        remove_options(weights_file)


def _remove_all_alone() -> None:
    for weights_file in list(_in_work):
        _remove_if_alone(weights_file)


stopping.at_last(_remove_all_alone)


def options_path(weights_file: StrPath) -> Path:
    """Where the options of a file of weights are: c2_model_iter4.pkl -> c2_model_iter4.options.json."""
    return Path(weights_file).with_suffix(SUFFIX)


@contextlib.contextmanager
def options_beside(weights_file: StrPath, options: Mapping[str, Any] | None, pred_w: np.ndarray) -> Iterator[None]:
    """Write the options of weights, in one step, and let the block write the weights; None: there are to be none.

    Options of checkpoints in that folder that are not there are removed: a killed run did not get to them, or they were
    deleted. So are these if the block does not get to its weights.

    Raises:
        UserError: the file cannot be written.
    """
    _clear_orphans(Path(weights_file).parent)
    path = Path(weights_file)
    _in_work.add(path)
    try:
        if options is None:
            remove_options(path)
        else:
            with atomic_write(options_path(path), "w", encoding="utf-8") as file:
                file.write(as_text(options, pred_w) + "\n")
        yield
    finally:
        _remove_if_alone(path)
        _in_work.discard(path)


def read_options(weights_file: StrPath) -> StoredOptions | None:
    """The options that lie beside a file of weights; None if there are none.

    Raises:
        UserError: what is there is something else, or damaged.
    """
    path = options_path(weights_file)
    try:
        if not is_regular(path):
            raise _damaged(str(path), "a folder or device")
        with open(path, "rb") as file:
            text = file.read(LARGEST + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    if len(text) > LARGEST:
        raise _damaged(str(path), f"more than {LARGEST} bytes")
    return parse(text, str(path))


def remove_options(weights_file: StrPath) -> None:
    """Remove the options of a file of weights, if there are any."""
    with contextlib.suppress(OSError):
        options_path(weights_file).unlink()


def _clear_orphans(folder: Path) -> None:
    for path in folder.glob(f"c2_model_iter*{SUFFIX}"):
        _remove_if_alone(path.with_name(path.name.removesuffix(SUFFIX) + ".pkl"))
