"""The list of true labels of a test."""

from pathlib import PurePath

from data.dataset_check.findings import Findings
from data.dataset_check.records import Scan
from data.dataset_check.splits import Split
from data.lists import list_lines, read_entry
from data.records import label_problem
from utils.errors import UserError


def check_ground_truth(file: str, split: Split, scan: Scan, findings: Findings) -> None:
    """Whether a list of true labels (FILENAME_GT) is that of the videos of a test split, in their order.

    Videos are compared by their file names without folder and suffix.
    """
    try:
        lines = list(list_lines(file))
    except UserError as error:
        findings.add("ground truth", file, str(error))
        return
    found = len(scan.test_videos)
    num_videos = split.test.num_videos if split.test else None
    if num_videos is not None and len(lines) != num_videos:
        findings.add("ground truth", file, f"{len(lines)} lines, TEST.DATASET_SIZE is {num_videos}")
    if found and len(lines) != found:
        findings.add("ground truth", file, f"{len(lines)} lines, {split.name} has {found} videos")
    for number, line in lines:
        where, video = f"{file}:{number}", number - 1
        try:
            entry = read_entry(line, file, number)
        except ValueError as error:
            findings.add("ground truth", where, str(error))
            continue
        label = entry.labels[0]
        if problem := label_problem(label, split.num_classes):
            findings.add("ground truth", where, problem)
        path = entry.path.decode("utf-8", "surrogateescape")
        if PurePath(path).stem != PurePath(tested := scan.test_videos.get(video, path)).stem:
            findings.add("ground truth", where, f"is of {path}, video {video} of {split.name} is {tested}")
        elif scan.test_labels.get(video, label) != label:
            findings.add("ground truth", where, f"has the label {label}, {split.name} has {scan.test_labels[video]}")
