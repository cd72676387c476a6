"""Lists of videos, judged by a regular expression."""

import re
from dataclasses import dataclass
from pathlib import Path

from fuzzing import Area, Wrong, log_uniform, mutate_bytes

from data.lists import read_list
from utils.errors import UserError

SPACE = rb"[ \t\r\x0b\x0c]"
NUMBER = rb"[+-]?[0-9]+"
# What the Caffe2 program read of a line; only where the path ends like a video file is this certain.
LEGACY = re.compile(rb"%b*(\S+?)%b+(%b(?:,[+-]?[0-9]*)*)(?:%b.*)?" % (SPACE, SPACE, NUMBER, SPACE), re.DOTALL)
SPACED = re.compile(rb"%b*([^\n]*?[^\s])%b+([^\s]+)%b*" % (SPACE, SPACE, SPACE))
VIDEO = re.compile(rb".*\.(3gp|avi|flv|m2ts|m4v|mkv|mov|mp4|mpe?g|mts|ogv|ts|vob|webm|wmv)", re.DOTALL | re.IGNORECASE)
PATHS = (b"v.mp4", b"a b/c d.avi", b"v.MP4 3", b"a 7 b.avi", b"frames/x", b"frames/x 3", b"a 1,",
         b"\xff\xfe.mp4", b"x" * 5000, b"data/1 2", b"'q'", "ü.mp4".encode())
LABELS = (b"0", b"1", b"399", b"1,2", b"-1", b"2147483647", b"2147483648", b"-2147483649", b"1.0", b"", b"a", b"0x1",
          b"1,", b",1", b"+1", b"1_0", b"9" * 5000, b"\xd9\xa1", b"1, 2")  # fmt: skip
ENDS = (b"\n", b"\n", b"\n", b"\n", b"\r\n", b"\n\n", b" \n", b"\r", b"\x0b\n", b"\x00\n", b"")


def judged(data):
    """[(path, first label)] of a list, or None if it is not one."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff", b"\xef\xbb\xbf")):
        return None  # a byte order mark
    lines = data.split(b"\n")
    while lines and not lines[-1].strip():
        lines.pop()
    entries = [judged_line(line) for line in lines]
    return entries if entries and all(entries) else None


def judged_line(line):
    legacy, spaced = LEGACY.fullmatch(line), SPACED.fullmatch(line)
    entry = legacy if legacy and VIDEO.fullmatch(legacy[1]) else spaced
    if not entry or not all(re.fullmatch(NUMBER, label) and len(label) < 20 and -(2**31) <= int(label) < 2**31
                            for label in entry[2].split(b",")):
        return None
    if legacy and legacy[1] != entry[1] and not VIDEO.fullmatch(entry[1]):
        return None  # two readings
    return entry[1], int(entry[2].split(b",")[0])


@dataclass
class Case:
    path: Path
    data: bytes

    @property
    def size(self):
        return len(self.data) + 1

    def __str__(self):
        return f"{len(self.data)} bytes: {self.data[:200]!r}"


class Lists(Area):
    name = "lists"
    error = UserError
    memory = 100_000, 30
    allowed_events = frozenset({"sys._getframe", "object.__getattr__"})  # logging looks at its caller

    def __init__(self, folder):
        self.path = folder / "case.txt"

    def make(self, rng):
        kind = rng.randrange(6)
        if kind == 0:
            data = rng.randbytes(rng.randrange(200))
        elif kind == 1:
            data = rng.choice((b"v.mp4 1\n", b"\n", b" ", b"v", b"a 1 ")) * log_uniform(rng, 1, 20000)
        else:
            wild = rng.random() < 0.5
            data = b"".join(
                rng.choice(PATHS) + rng.choice((b" ", b" ", b"\t", b"  ")) + rng.choice(LABELS if wild else LABELS[:4])
                + rng.choice(ENDS if wild else ENDS[:6]) for _ in range(rng.randrange(1, 8)))
            data = mutate_bytes(rng, data) if kind == 2 else data
        self.path.write_bytes(data)
        return Case(self.path, data)

    def load(self, case):
        listed = read_list(case.path)
        return [(listed.path(i), listed.label(i)) for i in range(len(listed))]

    def check(self, case, result):
        expected = judged(case.data)
        if expected is None:
            raise Wrong("read, though it is not a list")
        if [(path.encode("utf-8", "surrogateescape"), label) for path, label in result] != expected:
            raise Wrong(f"{result!r:.100} where {expected!r:.100} was expected")

    def check_refusal(self, case, error):
        message = str(error)
        if not message.startswith(f"{case.path}:") or not message.isprintable() or len(message) > 1000:
            raise Wrong(f"a message that is not one line about the file: {message!r:.200}")
        if judged(case.data) is not None:
            raise Wrong(f"refused, though it is a list: {message!r:.200}")
