"""Score files of a test with one byte changed: refused, or the test that goes on from them gives the same scores."""

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from fuzzing import Area, Wrong

from formats.result_file import SCORED, TODO, UNREADABLE, ResultFile
from reports.video_scores import read_results
from utils.errors import UserError

CLIPS, CLASSES = 60, 20
IDENTITY = {"weights": "a" * 64, "configuration": "b" * 64, "list": "c" * 64}
VIDEOS = np.arange(CLIPS, dtype=np.int32) // 6
UNREADABLE_CLIPS = np.arange(12, 18)


def true_scores():
    return np.random.default_rng(0).random((CLIPS, CLASSES), np.float32)


def open_scores(path):
    return ResultFile(path, "scores of a test", IDENTITY, CLIPS, {"scores": (CLASSES,)}, {"video_indices": VIDEOS},
                      make_way=True)


def compute(file):
    """Score what is left to do, as a test does."""
    left = np.flatnonzero(file.status == TODO)
    good = np.setdiff1d(left, UNREADABLE_CLIPS)
    file.write(good, true_scores()[good], SCORED)
    file.write(np.intersect1d(left, UNREADABLE_CLIPS), None, UNREADABLE)


@dataclass
class Case:
    path: Path
    size: int
    resumed: bool
    what: str

    def __str__(self):
        return self.what


class Scores(Area):
    name = "scores"
    error = UserError
    memory = 5_000_000, 1000
    # A test writes; what it may write to is looked at below.
    allowed_events = frozenset({"os.remove", "os.rename", "os.listdir", "open", "shutil.rmtree"})

    def __init__(self, folder):
        logging.disable()
        self.path, self.whole = folder / "results_scores.h5", {}
        for done in (25, CLIPS):
            self.path.unlink(missing_ok=True)
            with open_scores(self.path) as file:
                file.status[done:] = UNREADABLE  # as far as compute() is told
                compute(file)
            self.whole[done] = self.path.read_bytes()

    def make(self, rng):
        for left in self.path.parent.iterdir():
            left.unlink()
        done, resumed = rng.choice(list(self.whole)), rng.random() < 0.7
        data = bytearray(self.whole[done])
        place, value = rng.randrange(len(data)), rng.randrange(1, 256)
        data[place] ^= value
        self.path.write_bytes(data)
        return Case(self.path, len(data), resumed, f"{done} of {CLIPS} rows done, byte {place} of {len(data)} ^ "
                    f"{value}, {'resumed' if resumed else 'read'}")

    def load(self, case):
        if case.resumed:
            with open_scores(case.path) as file:
                compute(file)
        return read_results(case.path)

    def check(self, case, result):
        videos, scores = result
        known = np.array([np.flatnonzero((true_scores() == row).all(1)) for row in scores])
        if known.shape != (len(scores), 1) or not np.array_equal(VIDEOS[known[:, 0]], videos):
            raise Wrong("other scores")
        expected = np.setdiff1d(np.arange(CLIPS), UNREADABLE_CLIPS)
        if case.resumed and not np.array_equal(known[:, 0], expected):
            raise Wrong(f"the scores of {len(known)} clips, not of {len(expected)}")
        if set(self.path.parent.iterdir()) - {self.path} - set(self.path.parent.glob("results_scores.*.h5")):
            raise Wrong("other files")

    def check_refusal(self, case, error):
        message = str(error)
        if not message.startswith(f"{case.path}: ") or not message.isprintable() or len(message) > 500:
            raise Wrong(f"a message that is not one line about the file: {message!r:.200}")
