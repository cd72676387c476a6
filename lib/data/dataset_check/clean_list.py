"""The records without a finding, as a list."""

from collections.abc import Collection, Iterator

from data.dataset_check.splits import Split
from data.lists import format_line
from data.records import RecordError, TrainRecord, label_problem
from utils.errors import UserError


def clean_lines(split: Split, unclean: Collection[str]) -> Iterator[bytes]:
    """Yield the lines (`path label`) of a training split whose record is good and whose path is not in unclean."""
    for place, value in split.entries():
        try:
            record = split.training_record(place, value)
        except RecordError:
            continue
        if label_problem(record.label, split.num_classes) is None and record.path not in unclean:
            if split.folder is None:
                yield value + b"\n"
            else:
                yield _line(split.place_name(place), record) + b"\n"


def _line(name: str, record: TrainRecord) -> bytes:
    try:
        return format_line(record.path.encode("utf-8", "surrogateescape"), record.label)
    except ValueError as error:
        raise UserError(f"{name}: {error}") from None
