"""Inputs that real use found wrong (the folder `cases` beside the reference numbers), with what is right for each.

    python -m pytest tests/test_cases.py
"""

import ast
import re
import subprocess
import sys
from pathlib import Path

import legacy_run
import numpy as np
import pytest
from limited_memory import run_limited
from plain_decoder import all_frames
from video_files import H264

import predict_video
import report_test
from data.lists import iter_list, read_list
from data.lmdb_writer import train_items
from engine.prediction import find_videos
from utils.errors import UserError
from video.bad_videos import BadVideo
from video.decoder_processes import DecoderProcesses
from video.sampling import count_frames, open_video, sample_frames
from video.video_facts import VideoFactsCache


@pytest.fixture
def cases(shared):
    folder = shared / "cases"
    if not folder.is_dir():
        pytest.skip("the cases are not available")
    return folder


FOLDERS = {"pixel-format-changes", "size-changes", "rotation", "edit-list", "av1", "long-video", "thin-video",
           "playlists", "nan-weights", "report-bomb", "scores-damage", "symlinked-folder", "odd-lists"}


def test_every_folder_has_its_test(cases):
    assert {path.name for path in cases.iterdir() if path.is_dir()} == FOLDERS


# ------------------------------------------------------------------------------------------------------------- videos


def read(path, as_stored=False):
    """(VideoFacts, all frames)."""
    frames = []
    facts = sample_frames(open_video(str(path), as_stored), range, lambda places, frame: frames.append(frame.copy()),
                          VideoFactsCache())
    return facts, frames


def test_a_pixel_format_that_changes(cases):
    facts, frames = read(cases / "pixel-format-changes/input.avi")
    assert facts.count == 8 and not facts.damage and facts.remarks.keys() == {"format"}
    # The same pictures without loss, but all in the first format, whose chroma they had to be brought to.
    _, right = read(cases / "pixel-format-changes/right.mkv")
    for frame, other in zip(frames, right, strict=True):
        assert np.abs(frame.astype(int) - other).mean() < 1
    for _ in range(3):
        assert all(map(np.array_equal, read(cases / "pixel-format-changes/input.avi")[1], frames))


@pytest.mark.parametrize(("name", "sizes"), [
    ("rt1.h264", [(720, 1280)] * 25 + [(360, 640)] * 25), ("ab.h264", [(240, 320)] * 50 + [(240, 640)] * 50)])
def test_sizes_that_change(cases, name, sizes):
    facts, frames = read(cases / "size-changes" / name)
    assert [frame.shape[:2] for frame in frames] == sizes and not facts.damage
    assert facts.remarks.keys() == {"size"}
    assert all(map(np.array_equal, frames, all_frames(cases / "size-changes" / name)))


def test_a_turned_video(cases):
    path = cases / "rotation/input.mp4"
    facts, upright = read(path)
    _, stored = read(path, as_stored=True)
    # The container's matrix asks for a quarter turn against the clock.
    assert all(map(np.array_equal, upright, map(np.rot90, stored)))
    assert facts.remarks == {"rotation": "turned by 270 degrees"}


def test_frames_that_an_edit_list_hides(cases):
    facts, frames = read(cases / "edit-list/input.mp4")
    assert facts.count == len(frames) == 35 and not facts.damage and not facts.remarks


def test_av1(cases):
    assert count_frames(str(cases / "av1/input.mp4")) == 25


def test_a_long_video(cases):
    path = str(cases / "long-video/input.mp4")
    with DecoderProcesses(1, 60) as decoders:
        ((_, outcome),) = decoders.decode([path])
    assert outcome.facts.count == 10_000
    assert outcome.facts.remarks == {"long": "has more than 10000 frames; the rest is not looked at"}


def test_a_thin_video(cases):
    with pytest.raises(BadVideo, match="has frames of 2 x 32000 pixels; expected no side longer than 16 times"):
        read(cases / "thin-video/thin.avi")


opened = []
sys.addaudithook(lambda event, arguments: opened.append(arguments[0]) if event == "open" else None)


@pytest.mark.parametrize("name", ["live.mp4", "local.mp4"])
def test_playlists(cases, name):
    path = str(cases / "playlists" / name)
    opened.clear()
    with pytest.raises(BadVideo, match="is a text file"):
        count_frames(path)
    assert [Path(other).name for other in opened if str(cases) in str(other)] == [name]


def test_a_folder_with_a_link(cases, tmp_path, monkeypatch, caplog):
    subprocess.run(["bash", cases / "symlinked-folder/make_input.sh", H264], cwd=tmp_path, check=True)
    monkeypatch.chdir(tmp_path)
    Path("top/x.gif").touch()
    assert find_videos(["top"]) == ["top/c.mp4", "top/link/a.mp4"]
    assert caplog.messages == ["top: left out: 1 files without the ending of a video (.gif: 1)"]


# -------------------------------------------------------------------------------------------------- weights and scores


def test_weights_that_are_no_numbers(cases, shared, repo, tmp_path, call_tool):
    weights = shared / "reference/pickles/c2_model_iter4.pkl"
    subprocess.run([sys.executable, cases / "nan-weights/make_input.py", repo, weights], cwd=tmp_path, check=True)
    words = legacy_run.words(tmp_path, tmp_path, MODEL__VIDEO_ARC_CHOICE=2, RESNETS__STEM_OUT_CHANNELS=64,
                             TRAIN__CROP_SIZE=224, TRAIN__VIDEO_LENGTH=8, TEST__PARAMS_FILE=tmp_path / "nan.pkl")
    status, output, errors = call_tool(predict_video, "--video", H264, "--views", "1x1", "--json", tmp_path / "r.json",
                                       *words)
    assert (status, output) == (1, "") and not (tmp_path / "r.json").exists()
    assert errors.splitlines()[-1] == (f"error: {tmp_path}/nan.pkl: pred_w: expected finite numbers, got 20480 of "
                                       "20480 that are NaN or infinite")


def test_a_small_file_of_many_scores(cases, repo):
    folder = cases / "report-bomb"
    run = run_limited(repo / "tools/report_test.py", folder / "bomb26.pkl", "--truth", folder / "truth.txt")
    assert (run.returncode, run.stderr) == (1, f"error: {folder}/bomb26.pkl: expected a list of [video index, list of "
                                               "scores], as in results_probs.pkl\n")


@pytest.mark.parametrize("name", ["exc3.h5", "exc4.h5", "exc5.h5", "exc6.h5"])
def test_damaged_scores(cases, tmp_path, call_tool, name):
    """Refused in a line, or the damage is where the report does not look."""
    file = cases / "scores-damage" / name
    (tmp_path / "truth.txt").write_text("a.mp4 0\n" * 6)
    status, output, errors = call_tool(report_test, file, "--truth", tmp_path / "truth.txt", "--output", tmp_path)
    if status:
        assert re.fullmatch(f"error: {file}: .+\n", errors)
    else:
        assert "top-1 accuracy" in output and errors == ""


# -------------------------------------------------------------------------------------------------------------- lists

LISTS = {  # the entries, or what the error says
    "blank_last": [("/a/b.mp4", 3), ("/a/c.mp4", 0)],
    "bom": "begins with a byte order mark",
    "cr_inside": [("/a/b.mp4", 3), ("/a/c.mp4", 0)],
    "crlf": [("/a/b.mp4", 3), ("/a/c.mp4", 0)],
    "latin1": [("/a/\udce9t\udce9.mp4", 3), ("/a/c.mp4", 0)],
    "many_fields": [("/a/b.mp4", 3), ("/a/c.mp4", 0)],
    "multi_label": [("/a/b.mp4", 3), ("/a/c.mp4", 0)],
    "multi_label_space": "got '/a/b.mp4 3, 4'",
    "negative": [("/a/b.mp4", -1), ("/a/c.mp4", 0)],
    "plus": [("/a/b.mp4", 3), ("/a/c.mp4", 0)],
    "quote": [('"/a/b.mp4"', 3)],
    "space_then_number": [("/a/my 7 video.mp4", 3), ("/a/c.mp4", 0)],
    "spaces_name": [("/a/my video.mp4", 3), ("/a/c.mp4", 0)],
    "tabs": [("/a/b.mp4", 3), ("/a/c.mp4", 0)],
    "three_ints": [("/a/b.mp4", 3), ("/a/c.mp4", 0)],
    "underscore": "got '/a/b.mp4 1_0'",
    "utf8": [("vidéo/日本.mp4", 3), ("/a/ü.mp4", 1)],
    "word_label": "got '/a/b.mp4 dog'",
    "x85": [("/a/x\udc85y.mp4", 3), ("/a/c.mp4", 0)],
}
# Legacy took a mark for a part of the path, and could not read names with spaces.
NOT_AS_LEGACY = {"bom", "space_then_number"}


def test_every_list_is_known(cases):
    assert {path.stem for path in (cases / "odd-lists").glob("*.txt")} - {"legacy_outcome"} == set(LISTS)


@pytest.mark.parametrize("name", LISTS)
def test_odd_lists(cases, name):
    file, expected = cases / f"odd-lists/{name}.txt", LISTS[name]
    if isinstance(expected, str):
        with pytest.raises(UserError, match=re.escape(expected)):
            read_list(file)
    else:
        found = read_list(file)
        assert [(found.path(line), found.label(line)) for line in range(len(found))] == expected


def test_odd_lists_as_legacy_read_them(cases):
    text = (cases / "odd-lists/legacy_outcome.txt").read_text()
    outcomes = re.findall(r"^(\w+) train: legacy ok.*?(b'.*')\)?$", text, re.MULTILINE)
    assert len(outcomes) == 5
    for name, record in outcomes:
        if name not in NOT_AS_LEGACY:
            with (cases / f"odd-lists/{name}.txt").open("rb") as lines:
                assert next(iter(train_items(iter_list(lines, name))))[1] == ast.literal_eval(record), name
