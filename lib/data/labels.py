"""Labels of records, of which there may be several: the first one counts."""

import logging
from collections.abc import Sequence

logger = logging.getLogger(__name__)

_told: set[str] = set()  # sources of which it has been said


def first_label(labels: Sequence[int], where: str, source: str) -> int:
    """The label that counts. That there are others is logged once for a source.

    Args:
        labels: of a record.
        where: it stands, for people.
        source: what is read: a list, or LMDBs.
    """
    if len(labels) > 1 and source not in _told:
        _told.add(source)
        logger.warning("%s: has the labels %s; the first one counts, here and in other records of %s", where,
                       ", ".join(map(str, labels[:10])), source)
    return labels[0]
