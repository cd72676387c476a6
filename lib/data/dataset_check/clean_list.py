"""The records without a finding, as a list."""

from collections.abc import Collection, Iterator

from data.dataset_check.splits import Split, label_problem
from data.records import RecordError


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
                yield b"%s %d\n" % (record.path.encode("utf-8", "surrogateescape"), record.label)
