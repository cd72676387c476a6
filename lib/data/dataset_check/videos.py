"""The videos of the records: whether they can be opened, and what decoding them to their end reveals."""

import itertools
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor

from tqdm import tqdm

from data.dataset_check.findings import Findings
from data.dataset_check.records import Scan, missing_numbers
from data.dataset_check.splits import Split
from video.bad_videos import BadVideo
from video.decoder_processes import DecoderProcesses
from video.sampling import open_video
from video.video_facts import Fingerprint, VideoFacts, VideoFactsCache

_THREADS = 16  # a network file system answers many requests at once


def check_files(videos: Mapping[str, str], findings: Findings, as_stored: bool) -> dict[str, Fingerprint]:
    """{path: Fingerprint} of the videos that can be opened.

    videos: path -> name of the place it came from. as_stored: see sampling.open_video.
    """

    def fingerprint_or_reason(path):
        try:
            return open_video(path, as_stored).fingerprint
        except BadVideo as error:
            return error.reason

    results: dict[str, Fingerprint | str] = {}
    paths = iter(tqdm(videos, "files", unit="", unit_scale=True))
    with ThreadPoolExecutor(_THREADS) as pool:
        while chunk := list(itertools.islice(paths, 1 << 14)):  # a bounded number of tasks
            parts = [chunk[i : i + 256] for i in range(0, len(chunk), 256)]
            found = pool.map(lambda part: [fingerprint_or_reason(path) for path in part], parts)
            results |= zip(chunk, itertools.chain.from_iterable(found), strict=True)
    for path, result in results.items():
        if isinstance(result, str):
            findings.add("file", path, f"{result} ({videos[path]})")
    return {path: result for path, result in results.items() if not isinstance(result, str)}


def decode_new(
    fingerprints: Mapping[str, Fingerprint],
    cache: VideoFactsCache,
    workers: int,
    time_limit: float,
    as_stored: bool,
) -> tuple[dict[str, VideoFacts], int]:
    """Decode the videos of which the cache does not know enough.

    What follows from a video is put into the cache, what may come from the machine's state is not.

    Args:
        fingerprints: from check_files.
        cache: what is known.
        workers, time_limit, as_stored: see DecoderProcesses. A sound video is also decoded if it is unknown whether
            packets may be left out.

    Returns:
        {path: VideoFacts} of all videos, and the number of those decoded.
    """
    known = {path: cache.get(path, fingerprint) for path, fingerprint in fingerprints.items()}
    facts = {path: what for path, what in known.items()
             if what is not None and (what.skips is not None or what.damage)}
    new = [path for path in fingerprints if path not in facts]
    if not new:
        return facts, 0
    with DecoderProcesses(workers, time_limit, as_stored) as decoders:
        for path, outcome in tqdm(decoders.decode(new), "videos", len(new), unit="", smoothing=0.05):
            facts[path] = outcome.facts
            if outcome.lasting:
                cache.put(path, fingerprints[path], facts[path])
    return {path: facts[path] for path in fingerprints}, len(new)


def check_videos(
    videos: Mapping[str, str],
    facts: Mapping[str, VideoFacts],
    clip_frames: int | None,
    findings: Findings,
    remarks: Findings,
) -> None:
    """What decoding has revealed. clip_frames: frames that a clip spans, or None. videos: see check_files."""
    for path, what in facts.items():
        if what.damage:
            kind = "damaged" if what.count else "undecodable"
            findings.add(kind, path, f"{what.damage} ({videos[path]})")
        if clip_frames and 0 < what.count < clip_frames:
            findings.add("short", path, f"{what.count} frames, a clip spans {clip_frames} ({videos[path]})")
        for kind, remark in what.remarks.items():
            remarks.add(kind, path, remark)


def flawed(facts: Mapping[str, VideoFacts], clip_frames: int | None) -> set[str]:
    """Paths of the videos for which check_videos finds something."""
    return {path for path, what in facts.items() if what.damage or what.count < (clip_frames or 0)}


def check_classes(split: Split, scan: Scan, unreadable: Collection[str], findings: Findings) -> None:
    """Whether every class of a split that needs them all has a video that is not among the unreadable ones (paths)."""
    if not split.all_classes or not scan.labels:
        return
    number = split.num_classes
    if number is None:
        number = max(label for _, label in scan.labels) + 1
    if missing := missing_numbers({label for path, label in scan.labels if path not in unreadable}, number):
        findings.add("class", split.name, f"no readable video of {missing} of {number} classes")


def note_single_class(split: Split, scan: Scan, remarks: Findings) -> None:
    """Remark that all records to train on have the same label."""
    labels = {label for _, label in scan.labels}
    if split.all_classes and len(labels) == 1:
        remarks.add("one class", split.name, f"the label of all {len(scan.labels)} videos is {labels.pop()}")


def check_bad_images(number: int, allowed: int, findings: Findings) -> None:
    """Whether a training survives its number of unreadable videos. allowed: DATALOADER.MAX_BAD_IMAGES."""
    if number > allowed:
        findings.add("options", "DATALOADER.MAX_BAD_IMAGES", f"is {allowed}, a training reads {number} bad videos")
