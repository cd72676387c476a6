"""The videos below a folder: links are followed, and what is left out is said."""

import logging
import os

import pytest

from engine.prediction import find_videos
from utils.errors import UserError
from video.video_search import find_below


def make(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def relative(folder, videos):
    return [os.path.relpath(video, folder) for video in videos]


def test_links_are_followed(tmp_path):
    make(tmp_path, "real/a.mp4", "real/deep/b.avi", "top/c.mp4", "elsewhere.webm")
    (tmp_path / "top/link").symlink_to("../real")
    (tmp_path / "top/other").symlink_to(tmp_path / "real")
    (tmp_path / "top/d.webm").symlink_to(tmp_path / "elsewhere.webm")
    (tmp_path / "start").symlink_to("top")
    expected = ["c.mp4", "d.webm", "link/a.mp4", "link/deep/b.avi", "other/a.mp4", "other/deep/b.avi"]
    for start in (tmp_path / "top", tmp_path / "start"):
        found = find_below(str(start))
        assert relative(start, found.videos) == expected and not found.left_out()


def test_links_that_lead_back(tmp_path):
    make(tmp_path, "top/a/x.mp4", "top/b/y.mp4")
    (tmp_path / "top/a/up").symlink_to("..")
    (tmp_path / "top/a/self").symlink_to(".")
    (tmp_path / "top/b/a").symlink_to("../a")
    (tmp_path / "top/knot").symlink_to("knot")
    found = find_below(str(tmp_path / "top"))
    assert relative(tmp_path / "top", found.videos) == ["a/x.mp4", "b/a/x.mp4", "b/y.mp4"]
    assert sorted(relative(tmp_path / "top", [path for path, _ in found.unreachable])) == [
        "a/self", "a/up", "b/a/self", "b/a/up", "knot"]
    assert found.left_out()[-2].endswith("/top/b/a/up (a link to a folder that it lies in)")


def test_frames_behind_a_link(tmp_path):
    make(tmp_path, "frames/000001.jpg", "frames/000002.jpg", "top/a.mp4")
    (tmp_path / "top/link").symlink_to("../frames")
    assert relative(tmp_path / "top", find_below(str(tmp_path / "top")).videos) == ["a.mp4", "link"]


def test_what_is_left_out_is_counted(tmp_path, caplog):
    make(tmp_path, "a.mp4", "b.gif", "c.GIF", "deep/d.txt", "README", ".mp4")
    (tmp_path / "broken.mp4").symlink_to("nowhere.mp4")
    os.mkfifo(tmp_path / "f.mp4")
    assert find_videos([str(tmp_path)]) == [f"{tmp_path}/a.mp4"]
    assert [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING] == [
        f"{tmp_path}: left out: 5 files without the ending of a video (none: 2, .gif: 2, .txt: 1); "
        f"{tmp_path}/broken.mp4 (a broken link); {tmp_path}/f.mp4 (neither a file nor a folder)"]


def test_many_kinds_are_counted_in_short(tmp_path):
    make(tmp_path, *(f"{i}.{i}" for i in range(9)))
    for i in range(9):
        (tmp_path / f"link{i}").symlink_to("nowhere")
    lines = find_below(str(tmp_path)).left_out()
    assert lines[0].startswith("9 files without the ending of a video (") and lines[0].endswith(", ...)")
    assert len(lines) == 7 and lines[-1] == "4 more that cannot be reached"


def test_a_folder_without_videos(tmp_path):
    make(tmp_path, "a.gif")
    with pytest.raises(UserError, match=r"expected a folder with videos, found no file that ends in .*, but 1 files "
                                        r"without the ending of a video \(.gif: 1\)$"):
        find_videos([str(tmp_path)])


@pytest.mark.skipif(os.geteuid() == 0, reason="root may list any folder")
def test_a_folder_that_cannot_be_listed(tmp_path):
    make(tmp_path, "a.mp4", "closed/b.mp4")
    (tmp_path / "closed").chmod(0)
    found = find_below(str(tmp_path))
    (tmp_path / "closed").chmod(0o700)
    assert found.unreachable == [(f"{tmp_path}/closed", "Permission denied")]
