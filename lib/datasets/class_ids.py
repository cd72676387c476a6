"""The files that name the classes."""

import json

from utils.errors import UserError


def read_class_ids(path):
    """Read a JSON object {class name: id}.

    Names that legacy wrote with quotes of their own (`"\\"petting cat\\""`) come without them.

    Returns:
        dict from name to id (int >= 0), in the order of the file.

    Raises:
        UserError: the file cannot be read, is something else, or two names are equal or share an id.
    """
    try:
        with open(path, encoding="utf-8") as file:
            # As pairs, so that a name that is there twice shows.
            pairs = json.load(file, object_pairs_hook=list)
    except OSError as error:
        raise UserError(f"{path}: cannot read the class ids: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: expected JSON {{class name: id}}, got: {error}") from error
    ids = {}
    for pair in pairs if isinstance(pairs, list) else [pairs]:
        if not (isinstance(pair, tuple) and type(pair[1]) is int and pair[1] >= 0):
            raise UserError(f"{path}: expected {{class name: id}} with ids >= 0, got {pair!r:.100}")
        name, class_id = pair[0].strip('"'), pair[1]
        if name in ids or class_id in ids.values():
            raise UserError(f"{path}: class {name!r} or its id {class_id} is there twice")
        ids[name] = class_id
    if not ids:
        raise UserError(f"{path}: expected {{class name: id}}, got nothing")
    return ids


def read_class_names(path, num_classes):
    """Names of the classes 0..num_classes - 1, from a JSON file of ids or a text file of a name a line.

    Raises:
        UserError: the file cannot be read, or names another number of classes.
    """
    if str(path).endswith(".json"):
        names = {class_id: name for name, class_id in read_class_ids(path).items()}
    else:
        try:
            with open(path, encoding="utf-8") as file:
                names = dict(enumerate(file.read().strip().splitlines()))
        except (OSError, ValueError) as error:
            raise UserError(f"{path}: cannot read the class names: {getattr(error, 'strerror', error)}") from error
    if names.keys() != set(range(num_classes)):
        raise UserError(f"{path}: expected names for the classes 0 to {num_classes - 1}, got {len(names)} with ids "
                        f"{min(names, default=0)} to {max(names, default=0)}")
    return [names[class_id] for class_id in range(num_classes)]
