"""The videos below a folder."""

import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from video.formats import VIDEO_SUFFIXES
from video.frame_folder import is_frame_folder


@dataclass
class Found:
    """What there is below a folder.

    Attributes:
        videos: paths of files with the suffix of a video and of folders of frames, sorted.
        endings: {suffix of the name: number of other files}; the suffix is "" where there is none.
        unreachable: (path, reason) of what could not be looked at.
    """

    videos: list[str] = field(default_factory=list)
    endings: Counter[str] = field(default_factory=Counter)
    unreachable: list[tuple[str, str]] = field(default_factory=list)

    def left_out(self) -> list[str]:
        """What is not among the videos, in words."""
        lines = []
        if self.endings:
            shown = ", ".join(f"{suffix or 'none'}: {count}" for suffix, count in self.endings.most_common(5))
            more = ", ..." if len(self.endings) > 5 else ""
            lines.append(f"{self.endings.total()} files without the ending of a video ({shown}{more})")
        lines += [f"{path} ({reason})" for path, reason in self.unreachable[:5]]
        if len(self.unreachable) > 5:
            lines.append(f"{len(self.unreachable) - 5} more that cannot be reached")
        return lines


def find_below(folder: str) -> Found:
    """Look through a folder and those below it. Links are followed, but not back to a folder that they lie in."""
    found = Found()
    todo: list[tuple[str, frozenset[tuple[int, int]]]] = [(folder, frozenset())]
    while todo:
        path, above = todo.pop()
        try:
            status = os.stat(path)
            here = status.st_dev, status.st_ino
            if here in above:
                found.unreachable.append((path, "a link to a folder that it lies in"))
                continue
            names = sorted(os.listdir(path))
        except OSError as error:
            found.unreachable.append((path, error.strerror or str(error)))
            continue
        for entry in (Path(path, name) for name in names):
            # os.path, as the methods of Path raise for some broken links.
            if os.path.isdir(entry):
                if is_frame_folder(entry):
                    found.videos.append(str(entry))
                else:
                    todo.append((str(entry), above | {here}))
            elif not os.path.isfile(entry):
                reason = "neither a file nor a folder" if os.path.exists(entry) else "a broken link"
                found.unreachable.append((str(entry), reason))
            elif entry.suffix.lower() in VIDEO_SUFFIXES:
                found.videos.append(str(entry))
            else:
                found.endings[entry.suffix.lower()] += 1
    found.videos.sort()
    found.unreachable.sort()
    return found
