"""The report of a run: one HTML file, made from what the run has left in its folder."""

import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from data.class_ids import names_of_folders, read_class_names
from data.lists import read_list
from engine.run_folder import RunFolder, read_run_folders
from engine.run_pictures import attention_pictures, strip_of
from reports import page_tables as tables
from reports.calibration import reliability
from reports.class_report import ClassReport, check_class_count, class_rows, count_by_class, true_classes
from reports.curves import curves
from reports.run_page import render
from reports.scored_videos import ScoredVideo, ScoredVideos
from reports.throughput import Throughput, measure
from reports.video_scores import Report, read_results, score_videos
from utils.errors import Hang, UserError
from utils.files import StrPath, atomic_write
from utils.visualize import as_label
from video.video_facts import VideoFactsCache

MISTAKES, CLOSEST, ATTENDED = 12, 6, 4  # videos
EVALUATIONS = 500  # the last ones, as numbers


class LeftOut(Exception):
    """Why a part is not in a report."""


@dataclass(frozen=True)
class Test:
    """The results of a run's test, of K classes: names of the classes, paths and labels of its videos, accuracies."""

    names: list[str]
    paths: list[str]
    labels: np.ndarray
    truth: str  # the list
    report: Report
    classes: ClassReport
    videos: ScoredVideos


def write_report(folders: Sequence[StrPath], output: StrPath | None, truth: StrPath | None = None,
                 classes: StrPath | None = None) -> tuple[Path, dict[str, str]]:
    """Write the report of the first of some runs, and their curves.

    Args:
        folders: of the runs.
        output: the file; None for report.html in the first folder.
        truth: the list of the test's videos; None for the FILENAME_GT in the log.
        classes: a file of names, see read_class_names; None for the folders that the videos are in, or numbers.

    Returns:
        The file, and {part that was left out: why}.

    Raises:
        UserError: there is no such folder, or no log or a damaged score file in it; what was given does not fit; the
            file cannot be written.
    """
    runs = read_run_folders(folders)
    path = runs[0].path / "report.html" if output is None else Path(output)
    # Opened first: a name that cannot be written must not show after the work.
    with atomic_write(path, "w", encoding="utf-8") as file:
        content, left_out = gather(runs, truth, classes)
        file.write(render(left_out=left_out, **content))
    return path, left_out


def gather(runs: Sequence[RunFolder], truth: StrPath | None,
           classes: StrPath | None) -> tuple[dict[str, Any], dict[str, str]]:
    """What the page says, and {part that is left out: why}; see write_report."""
    left_out: dict[str, str] = {}

    def part(name: str, make: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return make(*arguments)
        except LeftOut as why:
            left_out[name] = str(why)
            return None

    run = runs[0]
    content = what_the_log_says(run)
    data: dict[str, Any] = {"runs": [{"name": as_label(one.name), "curves": curves(one.log)} for one in runs]}
    content |= {"runs": [run_row(one) for one in runs] if len(runs) > 1 else [],
                "differing": tables.differing_options([one.options for one in runs])}
    test = part("test", read_test, run, truth, classes)
    content |= {"test": test, "data_rows": data_rows(run, test), "attention": None, "calibration": None}
    if test is not None:
        content |= what_the_scores_say(run, test)
        content |= {"attention": part("attention", attention, run, test),
                    "calibration": part("calibration", calibration, test)}
        data |= {"confusion": tables.confusion_data(test.classes, test.names), "calibration": content["calibration"]}
    return content | {"data": data}, left_out


def what_the_log_says(run: RunFolder) -> dict[str, Any]:
    """What the page says of a run by its log."""
    log, speed = run.log, measure([line.time for line in run.log.train])
    return {
        "title": run.name, "folder": as_label(str(run.path), longest=200),
        "written": datetime.fromtimestamp(run.log_file.stat().st_mtime).strftime("%Y-%m-%d %H:%M"),
        "facts": {key: as_label(text, longest=300) for key, text in log.facts.items()},
        "progress": log.train[-1] if log.train else None, "logged": log.report,
        "evaluations": tables.evaluation_rows(log)[-EVALUATIONS:], "best": tables.best_evaluation(log),
        "speed": speed, "clips_per_second": clips_per_second(run, speed),
        "scoring": measure([line.time for line in log.batches]), "options": tables.option_rows(run.options),
    }


def what_the_scores_say(run: RunFolder, test: Test) -> dict[str, Any]:
    """What the page says of a run by its test."""
    return {
        "by_class": class_rows(test.classes, test.names),
        "hardest": tables.hardest_classes(test.classes, test.names),
        "pairs": tables.confused_pairs(test.classes, test.names),
        "mistakes": [card(run, test, video) for video in test.videos.mistakes(MISTAKES)],
        "closest": [card(run, test, video) for video in test.videos.closest(CLOSEST)],
    }


def read_test(run: RunFolder, truth: StrPath | None, classes: StrPath | None) -> Test:
    """The results of a run's test. Raises LeftOut if there is none, or its videos are not known."""
    if run.scores_file is None:
        raise LeftOut(f"no scores of a test in {run.path}: it has not been tested, or not to the end")
    video_ids, scores = read_results(run.scores_file)
    check_class_count(run.scores_file, scores)
    videos = read_list(truth or list_of_test(run))
    try:
        labels = true_classes(videos, run.scores_file, video_ids, scores.shape[1])
    except UserError as error:
        if truth:
            raise
        raise LeftOut(f"{error}; --truth gives another list") from error
    paths, count = videos.paths(), scores.shape[1]
    names = read_class_names(classes, count) if classes else names_of_folders(paths, labels.tolist(), count)
    clips = run.test_options.get("TEST.NUM_TEST_CLIPS")
    return Test(
        [as_label(name, longest=100) for name in names or map(str, range(count))], paths, labels, videos.name,
        score_videos(video_ids, scores, labels, clips if type(clips) is int else int(np.bincount(video_ids).max())),
        count_by_class(video_ids, scores, labels), ScoredVideos(video_ids, scores, labels))


def list_of_test(run: RunFolder) -> Path:
    """The list that the log names. Raises LeftOut if it does not, or there is none."""
    given = run.test_options.get("FILENAME_GT")
    if not isinstance(given, str) or not given:
        raise LeftOut("the log names no list of the test's videos (FILENAME_GT): --truth gives it")
    found = run.find(given)
    if found is None or not found.is_file():
        raise LeftOut(f"the list of the test's videos, {given} (FILENAME_GT), is not there: --truth gives it")
    return found


def card(run: RunFolder, test: Test, video: ScoredVideo) -> dict[str, Any]:
    """What the page shows of a video."""
    path = test.paths[video.index]
    strip, why = strip_of(run, path)
    return tables.video_card(video, path, test.names) | {"strip": strip, "why": why}


def attention(run: RunFolder, test: Test) -> list[dict[str, Any]]:
    """Pictures of attention for a few videos. Raises LeftOut."""
    if (weights := run.weights()) is None:
        raise LeftOut(f"no weights in {run.path / 'checkpoints'}")
    candidates = test.videos.mistakes(ATTENDED // 2) + test.videos.most_certain_by_class(ATTENDED)
    found = {path: video for video in reversed(candidates) if (path := run.find(test.paths[video.index]))}
    if not found:
        raise LeftOut("none of the videos is at its path")
    chosen = dict(list(reversed(found.items()))[:ATTENDED])
    try:
        pictures = attention_pictures(run, weights, list(chosen))
    except Hang:
        raise
    except UserError as error:
        raise LeftOut(str(error)) from error
    return [asdict(picture) | tables.video_card(video, test.paths[video.index], test.names)
            for picture, video in zip(pictures, chosen.values(), strict=True)]


def calibration(test: Test) -> dict[str, Any]:
    """Reliability by bins. Raises LeftOut."""
    if not test.videos.are_probabilities:
        raise LeftOut("the scores of the test are not probabilities (TEST.OUTPUT_NAME softmax gives these)")
    found = reliability(test.videos.confidences, test.videos.hits)
    return {"bins": tables.calibration_rows(found), "error": found.error, "overconfidence": found.overconfidence}


def run_row(run: RunFolder) -> dict[str, Any]:
    """What the page says of a run among others."""
    log, speed = run.log, measure([line.time for line in run.log.train])
    return {"name": as_label(run.name), "iterations": log.train[-1].iteration if log.train else None,
            "best": tables.best_evaluation(log), "top1": log.report.get("top1_accuracy"),
            "top5": log.report.get("top5_accuracy"), "clips_per_second": clips_per_second(run, speed)}


def clips_per_second(run: RunFolder, speed: Throughput | None) -> float | None:
    """Clips that a training took in a second, all steps in its log together."""
    batch = run.options.get("TRAIN.BATCH_SIZE")
    return batch / speed.mean if type(batch) is int and speed and speed.mean else None


def data_rows(run: RunFolder, test: Test | None) -> list[tuple[str, str]]:
    """(what, value) about the data of a run."""
    options, rows = run.options, []
    for what, key in (("Data set", "DATASET"), ("Classes", "MODEL.NUM_CLASSES"), ("Folder of the data", "DATADIR"),
                      ("Training videos", "TRAIN.DATASET_SIZE"), ("Test videos", "TEST.DATASET_SIZE")):
        if options.get(key) not in (None, ""):
            rows.append((what, as_label(str(options[key]), longest=200)))
    if test is not None:
        counts = test.classes.videos
        rows += [("List of the test", as_label(os.path.normpath(test.truth), longest=200)),
                 ("Test videos of a class", tables.span(counts)),
                 ("Scored videos", f"{len(test.videos.seen)} of {len(test.labels)}"),
                 ("Clips of a video", f"{tables.span(test.report.clips_per_video)} "
                                      f"(expected: {test.report.expected_clips})")]
    known = run.path / "frame_counts.txt"
    if known.is_file() and (facts := VideoFactsCache(known).all()):
        frames = np.array([one.count for one in facts])
        rows += [("Videos that were decoded", str(len(facts))),
                 ("Their frames", f"{tables.span(frames)}, median {np.median(frames):g}"),
                 ("Damaged ones", str(sum(one.damage is not None for one in facts)))]
    return rows
