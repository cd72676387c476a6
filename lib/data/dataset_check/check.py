"""The whole check of some splits."""

import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.dataset_check.clean_list import clean_lines
from data.dataset_check.findings import Findings
from data.dataset_check.ground_truth import check_ground_truth
from data.dataset_check.records import scan_split
from data.dataset_check.splits import Split
from data.dataset_check.videos import (
    check_bad_images,
    check_classes,
    check_files,
    check_videos,
    decode_new,
    flawed,
    note_single_class,
)
from utils.errors import UserError
from utils.files import atomic_write
from video.video_facts import VideoFacts, VideoFactsCache


@dataclass(frozen=True)
class Decoding:
    """How videos are decoded: where facts are remembered, and what DecoderProcesses takes."""

    facts_file: str | os.PathLike
    workers: int
    time_limit: float


@dataclass(frozen=True)
class Limits:
    """What a configuration says; None: unknown, so not checked.

    Attributes:
        clip_frames: frames that a clip spans.
        max_bad: DATALOADER.MAX_BAD_IMAGES.
        ground_truth: FILENAME_GT.
        as_stored: DATALOADER.AS_STORED.
    """

    clip_frames: int | None = None
    max_bad: int | None = None
    ground_truth: str | None = None
    as_stored: bool = False


def check_splits(
    splits: Sequence[Split],
    limits: Limits,
    decoding: Decoding | None,
    findings: Findings,
    remarks: Findings,
    clean_list: str | os.PathLike | None = None,
) -> dict[str, Any]:
    """Check splits; what is wrong goes into findings, what is only unusual into remarks.

    Args:
        splits: what to check.
        limits: what to check it against.
        decoding: how to decode the videos; None: do not.
        findings: where faults go; of KINDS.
        remarks: where what is unusual about sound videos goes; of REMARKS.
        clean_list: file to write the records without a finding to; needs a single split, with training records.

    Returns:
        A summary, for JSON: the splits, and numbers of videos.
    """
    if clean_list and (len(splits) != 1 or splits[0].test):
        raise UserError("--write_clean_list: expected one split with the records of a training (--list, --lmdb, or "
                        f"--split train), got {', '.join(split.name for split in splits) or 'none'}")
    scans = [scan_split(split, findings) for split in splits]
    videos: dict[str, str] = {}
    for split, scan in zip(splits, scans, strict=True):
        for path, place in scan.videos.items():
            videos.setdefault(path, split.place_name(place))

    fingerprints = check_files(videos, findings, limits.as_stored)
    facts: dict[str, VideoFacts] = {}
    decoded = 0
    if fingerprints and decoding:
        facts, decoded = decode_new(fingerprints, VideoFactsCache(decoding.facts_file), decoding.workers,
                                    decoding.time_limit, limits.as_stored)
    check_videos(videos, facts, limits.clip_frames, findings, remarks)
    unreadable = {path for path in videos if path not in fingerprints or path in facts and not facts[path].count}

    for split, scan in zip(splits, scans, strict=True):
        check_classes(split, scan, unreadable, findings)
        note_single_class(split, scan, remarks)
        if split.test and limits.ground_truth is not None:
            check_ground_truth(limits.ground_truth, split, scan, findings)
    if limits.max_bad is not None:
        read = {path for split, scan in zip(splits, scans, strict=True) if not split.test for path in scan.videos}
        check_bad_images(len(read & unreadable), limits.max_bad, findings)
    if clean_list:
        _write_clean_list(clean_list, splits[0], unreadable | flawed(facts, limits.clip_frames))
    return {
        "splits": [
            {"name": split.name, "path": str(split.path), "records": scan.records, "videos": len(scan.videos)}
            for split, scan in zip(splits, scans, strict=True)
        ],
        "videos": {"distinct": len(videos), "decoded": decoded, "known": len(facts) - decoded,
                   "skips": sum(what.skips is True for what in facts.values())},
    }  # fmt: skip


def _write_clean_list(path: str | os.PathLike, split: Split, unclean: Collection[str]) -> None:
    with atomic_write(Path(path)) as file:
        file.writelines(clean_lines(split, unclean))
