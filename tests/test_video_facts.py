import json
import logging
import os
import subprocess
import sys
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from video import video_facts
from video.sampling import open_video
from video.video_facts import Fingerprint, VideoFacts, VideoFactsCache

PATHS = ["a.mp4", "/b c/ü.avi", "line\nbreak.mp4", os.fsdecode(b"\xff.mp4")]


@pytest.fixture
def fingerprint(tmp_path):
    (tmp_path / "v").write_bytes(b"video")
    return fingerprint_of(tmp_path / "v")


def fingerprint_of(path):
    return open_video(str(path)).fingerprint


def fill(facts, fingerprint, paths=PATHS):
    for i, path in enumerate(paths):
        facts.put(path, fingerprint, VideoFacts(i + 1, "damage: “x”" if i % 2 else None))


def assert_filled(facts, fingerprint, paths=PATHS):
    for i, path in enumerate(paths):
        assert facts.get(path, fingerprint) == VideoFacts(i + 1, "damage: “x”" if i % 2 else None)


@pytest.mark.parametrize("outlives", [False, True])
def test_what_is_put_is_got(tmp_path, fingerprint, outlives):
    file = tmp_path / "counts.txt" if outlives else None
    facts = VideoFactsCache(file)
    assert facts.get("a.mp4", fingerprint) is None
    fill(facts, fingerprint)
    assert_filled(facts, fingerprint)
    if outlives:
        assert_filled(VideoFactsCache(file), fingerprint)
    facts.put("a.mp4", fingerprint, VideoFacts(77, None))
    assert (VideoFactsCache(file) if outlives else facts).get("a.mp4", fingerprint) == VideoFacts(77, None)


def test_a_changed_file_is_not_known(tmp_path, fingerprint):
    fill(VideoFactsCache(tmp_path / "counts.txt"), fingerprint)
    os.utime(tmp_path / "v", ns=(5, 5))
    assert VideoFactsCache(tmp_path / "counts.txt").get("a.mp4", fingerprint_of(tmp_path / "v")) is None
    os.utime(tmp_path / "v", ns=(5, fingerprint.modified))
    assert VideoFactsCache(tmp_path / "counts.txt").get("a.mp4", fingerprint_of(tmp_path / "v")) == VideoFacts(1, None)
    (tmp_path / "v").write_bytes(b"longer video")
    os.utime(tmp_path / "v", ns=(5, fingerprint.modified))
    assert VideoFactsCache(tmp_path / "counts.txt").get("a.mp4", fingerprint_of(tmp_path / "v")) is None


def test_another_decoder_counts_again(tmp_path, fingerprint, monkeypatch):
    fill(VideoFactsCache(tmp_path / "counts.txt"), fingerprint)
    monkeypatch.setattr(video_facts, "DECODER", "opencv-0")
    assert VideoFactsCache(tmp_path / "counts.txt").get("a.mp4", fingerprint) is None


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_whatever_stands_in_the_file_no_count_is_wrong(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("counts")
    file = folder / "counts.txt"
    file.touch()
    fingerprint = Fingerprint(0, 1)
    fill(VideoFactsCache(file), fingerprint)
    content = bytearray(file.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content)))
        kind = data.draw(st.sampled_from(["cut", "insert", "overwrite"]))
        if kind == "cut":
            del content[at : at + data.draw(st.integers(1, 300))]
        else:
            junk = data.draw(st.binary(min_size=1, max_size=20))
            content[at : at + (len(junk) if kind == "overwrite" else 0)] = junk
    file.write_bytes(content)
    facts = VideoFactsCache(file)
    for i, path in enumerate(PATHS):
        assert facts.get(path, fingerprint) in (None, VideoFacts(i + 1, "damage: “x”" if i % 2 else None))
    # What is learned from now on is remembered all the same.
    fill(facts, fingerprint)
    assert_filled(VideoFactsCache(file), fingerprint)


def test_a_line_that_was_cut_short_spoils_no_other(tmp_path, fingerprint):
    file = tmp_path / "counts.txt"
    fill(VideoFactsCache(file), fingerprint)
    file.write_bytes(file.read_bytes()[:-3] + b"\n00000000 ")  # the checksum of nothing
    fill(VideoFactsCache(file), fingerprint, ["new.mp4"])
    facts = VideoFactsCache(file)
    assert_filled(facts, fingerprint, PATHS[:-1])
    assert facts.get(PATHS[-1], fingerprint) is None
    assert facts.get("new.mp4", fingerprint) == VideoFacts(1, None)


@pytest.mark.parametrize("kind", ["folder", "fifo", "no such folder"])
def test_a_file_that_cannot_be_used_hurts_nobody(tmp_path, fingerprint, caplog, kind):
    file = tmp_path / ("no/such/file" if kind == "no such folder" else "counts.txt")
    if kind == "folder":
        file.mkdir()
    elif kind == "fifo":
        os.mkfifo(file)
    with caplog.at_level(logging.WARNING):
        facts = VideoFactsCache(file)
        fill(facts, fingerprint)
    assert_filled(facts, fingerprint)
    assert [record.message.split(":")[0] for record in caplog.records] == [
        f"Frame counts are not remembered in {file}"
    ]


def test_a_full_disk_hurts_nobody(tmp_path, fingerprint, caplog, monkeypatch):
    facts = VideoFactsCache(tmp_path / "counts.txt")
    monkeypatch.setattr(os, "write", lambda *arguments: os.open("/dev/full/x", os.O_RDONLY))
    fill(facts, fingerprint)
    assert_filled(facts, fingerprint)
    assert len(caplog.records) == 1


WRITER = """
import os, sys
sys.path.insert(0, {lib!r})
from video.video_facts import Fingerprint, VideoFacts, VideoFactsCache
facts = VideoFactsCache({file!r})
for i in range(300):
    facts.put(f"{{sys.argv[1]}}/{{i}}", Fingerprint(1, 2), VideoFacts(i + 1, None))
"""


def test_processes_share_a_file(repo, tmp_path):
    program = WRITER.format(lib=str(repo / "lib"), file=str(tmp_path / "counts.txt"))
    writers = [subprocess.Popen([sys.executable, "-c", program, str(n)]) for n in range(3)]
    assert [writer.wait(60) for writer in writers] == [0, 0, 0]
    facts = VideoFactsCache(tmp_path / "counts.txt")
    for n in range(3):
        for i in range(300):
            assert facts.get(f"{n}/{i}", Fingerprint(1, 2)) == VideoFacts(i + 1, None)


def line(*content):
    content = json.dumps([video_facts.DECODER, *content]).encode()
    return b"\n%08x %s" % (zlib.crc32(content), content)


@pytest.mark.parametrize("skips", [None, True, False])
def test_the_format(tmp_path, fingerprint, skips):
    """Files outlive versions of the program: this one's form is fixed."""
    file = tmp_path / "counts.txt"
    known = VideoFacts(280, None, skips, reorder=2, turn=(0, 1, -1, 0), remarks={"rate": "60 frames a second"},
                       format="avi", length=281)
    VideoFactsCache(file).put("a b.mp4", fingerprint, known)
    content = [280, None, skips, 2, False, [0, 1, -1, 0], {"rate": "60 frames a second"}, "avi", 281]
    assert file.read_bytes() == line("a b.mp4", [5, fingerprint.modified, False], content)
    read = VideoFactsCache(file).get("a b.mp4", fingerprint)
    assert read == known and read.length == 281
    file.write_bytes(line("a b.mp4", [5, fingerprint.modified, False], content[:-1]))  # as before there were lengths
    read = VideoFactsCache(file).get("a b.mp4", fingerprint)
    assert read == known and read.length is None


@pytest.mark.parametrize("entry", [
    ("v.mp4", 5, 1, 280, "damage"), ("v.mp4", 5, 1, 280, None, True), ("v.mp4",), (), ("v.mp4", [5], [280, None]),
    ("v.mp4", [5, 1, False], ["280", None]), ("v.mp4", [5, 1, False], {"count": 3}), ("v.mp4", None, None),
    (["v.mp4"], [5, 1, False], [280, None]), ("v.mp4", [5, 1, False], [280, None, None, 0, False, None, []]),
    ("v.mp4", [5, 1, False], [280, None, None, 0, False, [1], {}]), ({}, {}, {}), (["v.mp4"] * 4,), (None, 1, 2),
    ("v.mp4", [5, 1, False], "text"), ("v.mp4", [5, 1, False], [280.0, None]), ("v.mp4", [5, 1, False], [True, None]),
    ("v.mp4", [5, 1, False], [-280, None]), ("v.mp4", [5, 1, False], [10**30, None]),
    ("v.mp4", [5, 1, False], [280, None, True, -1]), ("v.mp4", [5, 1, False], [280, None, True, 1 << 70]),
    ("v.mp4", [5, 1, False], [280, None, 1]), ("v.mp4", [5, 1, False], [280, 3]),
    ("v.mp4", [5, 1, False], [280, None, None, 0, False, ["0", "1", "-1", "0"]]),
    ("v.mp4", [5, 1, False], [280, None, None, 0, False, [0, 7, 7, 0]]),
    ("v.mp4", [5, 1, False], [280, None, None, 0, False, [[], {}, 1, 0]]),
    ("v.mp4", [5, 1, False], [280, None, None, 0, False, None, {"long": 3}]),
    ("v.mp4", [5, 1, False], [280, None, True, 0, False, None, {}, "hls"]),  # would be followed to other files
    ("v.mp4", [5, 1, False], [280, None, True, 0, False, None, {}, "avi,concat"]),
    ("v.mp4", [5, 1, False], [280, None, True, 0, False, None, {}, "avi", "280"]),
    ("v.mp4", [5, 1, False], [280, None, True, 0, False, None, {}, "avi", 280, 1, 2, 3]),
    ("v.mp4", [5, 1, False], [float("nan"), None]), ("v.mp4", [float("inf"), 1, False], [280, None, None]),
])  # fmt: skip
def test_lines_of_another_shape_are_passed_over(tmp_path, entry):
    """As another version may have written them."""
    sound = line("sound.mp4", [5, 1, False], [280, None])
    (tmp_path / "counts.txt").write_bytes(line(*entry) + sound + line(*entry))
    facts = VideoFactsCache(tmp_path / "counts.txt")
    assert facts.get("v.mp4", Fingerprint(5, 1)) is None
    assert facts.get("sound.mp4", Fingerprint(5, 1)) == VideoFacts(280, None)


@pytest.mark.parametrize("content", [
    b"3", b"null", b'"text"', b"[", b"{}", b"\xff", b"[" * 100_000, b"[" * 900 + b"]" * 900, b"1" * 10_000, b"[1e999]",
    json.dumps([video_facts.DECODER, "v.mp4", [5, 1, False], [280, "x" * (2 << 20)]]).encode(),
], ids=range(11))  # fmt: skip
def test_lines_that_are_no_entries(tmp_path, content):
    (tmp_path / "counts.txt").write_bytes(b"\n%08x %s" % (zlib.crc32(content), content))
    assert VideoFactsCache(tmp_path / "counts.txt").get("v.mp4", Fingerprint(5, 1)) is None
