import json
import logging
import os
import subprocess
import sys
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datasets import frame_counts
from datasets.frame_counts import FrameCounts, Known

PATHS = ["a.mp4", "/b c/ü.avi", "line\nbreak.mp4", os.fsdecode(b"\xff.mp4")]


@pytest.fixture
def status(tmp_path):
    (tmp_path / "v").write_bytes(b"video")
    return os.stat(tmp_path / "v")


def fill(counts, status, paths=PATHS):
    for i, path in enumerate(paths):
        counts.put(path, status, Known(i + 1, "damage: “x”" if i % 2 else None))


def assert_filled(counts, status, paths=PATHS):
    for i, path in enumerate(paths):
        assert counts.get(path, status) == Known(i + 1, "damage: “x”" if i % 2 else None)


@pytest.mark.parametrize("outlives", [False, True])
def test_what_is_put_is_got(tmp_path, status, outlives):
    file = tmp_path / "counts.txt" if outlives else None
    counts = FrameCounts(file)
    assert counts.get("a.mp4", status) is None
    fill(counts, status)
    assert_filled(counts, status)
    if outlives:
        assert_filled(FrameCounts(file), status)
    counts.put("a.mp4", status, Known(77, None))
    assert (FrameCounts(file) if outlives else counts).get("a.mp4", status) == Known(77, None)


def test_a_changed_file_is_not_known(tmp_path, status):
    fill(FrameCounts(tmp_path / "counts.txt"), status)
    os.utime(tmp_path / "v", ns=(5, 5))
    assert FrameCounts(tmp_path / "counts.txt").get("a.mp4", os.stat(tmp_path / "v")) is None
    os.utime(tmp_path / "v", ns=(5, status.st_mtime_ns))
    assert FrameCounts(tmp_path / "counts.txt").get("a.mp4", os.stat(tmp_path / "v")) == Known(1, None)
    (tmp_path / "v").write_bytes(b"longer video")
    os.utime(tmp_path / "v", ns=(5, status.st_mtime_ns))
    assert FrameCounts(tmp_path / "counts.txt").get("a.mp4", os.stat(tmp_path / "v")) is None


def test_another_decoder_counts_anew(tmp_path, status, monkeypatch):
    fill(FrameCounts(tmp_path / "counts.txt"), status)
    monkeypatch.setattr(frame_counts, "_DECODER", "opencv-0")
    assert FrameCounts(tmp_path / "counts.txt").get("a.mp4", status) is None


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_whatever_stands_in_the_file_no_count_is_wrong(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("counts")
    file = folder / "counts.txt"
    file.touch()
    status = os.stat(file)
    fill(FrameCounts(file), status)
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
    counts = FrameCounts(file)
    for i, path in enumerate(PATHS):
        assert counts.get(path, status) in (None, Known(i + 1, "damage: “x”" if i % 2 else None))
    # What is met from now on is remembered all the same.
    fill(counts, status)
    assert_filled(FrameCounts(file), status)


def test_a_line_that_was_cut_short_spoils_no_other(tmp_path, status):
    file = tmp_path / "counts.txt"
    fill(FrameCounts(file), status)
    file.write_bytes(file.read_bytes()[:-3] + b"\n00000000 ")  # the checksum of nothing
    fill(FrameCounts(file), status, ["new.mp4"])
    counts = FrameCounts(file)
    assert_filled(counts, status, PATHS[:-1])
    assert counts.get(PATHS[-1], status) is None
    assert counts.get("new.mp4", status) == Known(1, None)


@pytest.mark.parametrize("kind", ["folder", "fifo", "no such folder"])
def test_a_file_that_cannot_be_used_hurts_nobody(tmp_path, status, caplog, kind):
    file = tmp_path / ("no/such/file" if kind == "no such folder" else "counts.txt")
    if kind == "folder":
        file.mkdir()
    elif kind == "fifo":
        os.mkfifo(file)
    with caplog.at_level(logging.WARNING):
        counts = FrameCounts(file)
        fill(counts, status)
    assert_filled(counts, status)
    assert [record.message.split(":")[0] for record in caplog.records] == [
        f"Frame counts are not remembered in {file}"
    ]


def test_a_full_disk_hurts_nobody(tmp_path, status, caplog, monkeypatch):
    counts = FrameCounts(tmp_path / "counts.txt")
    monkeypatch.setattr(os, "write", lambda *arguments: os.open("/dev/full/x", os.O_RDONLY))
    fill(counts, status)
    assert_filled(counts, status)
    assert len(caplog.records) == 1


WRITER = """
import os, sys
sys.path.insert(0, {lib!r})
from datasets.frame_counts import FrameCounts, Known
counts = FrameCounts({file!r})
for i in range(300):
    counts.put(f"{{sys.argv[1]}}/{{i}}", os.stat({lib!r}), Known(i + 1, None))
"""


def test_processes_share_a_file(repo, tmp_path):
    program = WRITER.format(lib=str(repo / "lib"), file=str(tmp_path / "counts.txt"))
    writers = [subprocess.Popen([sys.executable, "-c", program, str(n)]) for n in range(3)]
    assert [writer.wait(60) for writer in writers] == [0, 0, 0]
    counts = FrameCounts(tmp_path / "counts.txt")
    status = os.stat(repo / "lib")
    for n in range(3):
        for i in range(300):
            assert counts.get(f"{n}/{i}", status) == Known(i + 1, None)


def line(*content):
    content = json.dumps([frame_counts._DECODER, *content]).encode()
    return b"\n%08x %s" % (zlib.crc32(content), content)


@pytest.mark.parametrize("skips", [None, True, False])
def test_the_format(tmp_path, status, skips):
    """Files outlive versions of the program: this one's form is fixed."""
    file, known = tmp_path / "counts.txt", Known(280, None, skips)
    FrameCounts(file).put("a b.mp4", status, known)
    assert file.read_bytes() == line("a b.mp4", 5, status.st_mtime_ns, 280, None, skips)
    assert FrameCounts(file).get("a b.mp4", status) == known


def test_a_form_without_skips(tmp_path, status):
    (tmp_path / "counts.txt").write_bytes(line("a b.mp4", 5, status.st_mtime_ns, 280, "damage"))
    assert FrameCounts(tmp_path / "counts.txt").get("a b.mp4", status) == Known(280, "damage")
