"""Predictions as text, JSON and CSV."""

import csv

from utils.collections import to_json

COLUMNS = ["video", "rank", "class_id", "class_name", "probability", "error"]


def as_text(video: str, top: list[dict]) -> str:
    """Lines for the screen. `top` has a dict for each class: class_id, class_name or None, probability."""
    lines = []
    for rank, row in enumerate(top, start=1):
        name = row["class_name"] or f"class {row['class_id']}"
        lines.append(f"{rank:4}  {100 * row['probability']:6.2f} %  {name}")
    return "\n".join([video, *lines, ""])


def write_json(file, results: list[dict], **about) -> None:
    """Write {**about, "videos": results}; each result has `video`, and `top` or `error`."""
    file.write(to_json({**about, "videos": results}, indent=1) + "\n")


def write_csv(file, results: list[dict]) -> None:
    """Write a row for each class of each video, and one with the error for a bad video."""
    writer = csv.DictWriter(file, COLUMNS, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for result in results:
        if "error" in result:
            writer.writerow(result)
        for rank, row in enumerate(result.get("top", ()), start=1):
            writer.writerow({"video": result["video"], "rank": rank} | row)
