"""Files with the names of the classes."""

import json
import os
from collections.abc import Sequence
from pathlib import Path

from utils.errors import UserError

# The names of the 400 classes of the released models.
KINETICS = Path(__file__).resolve().parents[2] / "process_data/kinetics/classids.json"
_UTF8 = "utf-8-sig"  # also with a byte order mark, as Windows programs write it


def read_class_ids(path: str | os.PathLike) -> dict[str, int]:
    """Read a JSON object {class name: id}.

    Legacy wrote some names with quotes inside (`"\\"petting cat\\""`); these are removed.

    Returns:
        dict from name to id (int >= 0), in the order of the file.

    Raises:
        UserError: the file cannot be read, has other contents, or two names are equal or share an id.
    """
    try:
        with open(path, encoding=_UTF8) as file:
            # As pairs, to detect a name that occurs twice.
            pairs = json.load(file, object_pairs_hook=list)
    except OSError as error:
        raise UserError(f"{path}: cannot read the class ids: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: expected JSON {{class name: id}}, got: {error}") from error
    ids: dict[str, int] = {}
    for pair in pairs if isinstance(pairs, list) else [pairs]:
        if not (isinstance(pair, tuple) and type(pair[1]) is int and pair[1] >= 0):
            raise UserError(f"{path}: expected {{class name: id}} with ids >= 0, got {pair!r:.100}")
        name, class_id = pair[0].strip('"'), pair[1]
        if name in ids or class_id in ids.values():
            raise UserError(f"{path}: class {name!r} or its id {class_id} occurs twice")
        ids[name] = class_id
    if not ids:
        raise UserError(f"{path}: expected {{class name: id}}, got nothing")
    return ids


def read_class_names(path: str | os.PathLike, num_classes: int | None = None) -> list[str]:
    """Read the names of the classes, in the order of their ids.

    Args:
        path: a JSON object {class name: id} if the name ends in .json (see read_class_ids); else a text file with one
            name per line, class 0 first.
        num_classes: the expected number of classes, if known.

    Raises:
        UserError: the file cannot be read, has other contents, the ids are not 0, 1, 2, ..., or their number differs.
    """
    names = _class_names(path)
    if num_classes is not None and len(names) != num_classes:
        raise UserError(f"{path}: expected names for the classes 0 to {num_classes - 1}, got {len(names)}")
    return names


def names_of_folders(paths: Sequence[str], labels: Sequence[int], num_classes: int) -> list[str] | None:
    """The names of the classes by the folders that their videos are in, `.../class name/video.mp4`.

    A class without videos has its number for a name. None if the videos are not in a folder for each class.
    """
    folders: dict[int, str] = {}
    for path, label in zip(paths, labels, strict=True):
        folder = Path(path).parent.name
        if not folder or folders.setdefault(label, folder) != folder:
            return None
    if len(set(folders.values())) != len(folders):
        return None
    return [folders.get(label, str(label)) for label in range(num_classes)]


def _class_names(path):
    if Path(path).suffix.lower() == ".json":
        ids = read_class_ids(path)
        names = sorted(ids, key=ids.get)
        gap = next((i for i, name in enumerate(names) if ids[name] != i), None)
        if gap is not None:
            raise UserError(f"{path}: expected the ids 0 to {len(ids) - 1}, but no class has the id {gap}")
        return names
    try:
        names = Path(path).read_text(encoding=_UTF8).splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot read the class names: {getattr(error, 'strerror', None) or error}") from error
    names = [name.strip() for name in names]
    while names and not names[-1]:
        names.pop()
    if not names or "" in names:
        where = f"nothing in line {names.index('') + 1}" if names else "an empty file"
        raise UserError(f"{path}: expected one class name per line, got {where}")
    return names
