"""The list tools of process_data/kinetics/, each as the command that a user types."""

import json
import os
import subprocess
import sys
from functools import partial

import numpy as np
import pytest
from kinetics_tools import assert_one_line, fork_tool, run_tool

from data.class_ids import read_class_ids
from utils.errors import UserError


@pytest.fixture
def tool(zygote, tmp_path):
    return partial(fork_tool, zygote, tmp_path)


@pytest.fixture
def new_tool(repo, tmp_path):
    """In a new process, whose sets have an order of their own."""
    return partial(run_tool, repo, tmp_path)


# Class ids


def test_class_ids_of_kinetics(repo):
    ids = read_class_ids(repo / "process_data/kinetics/classids.json")
    assert sorted(ids.values()) == list(range(400))
    known = {"abseiling": 0, "air drumming": 1, "hurling (sport)": 161, "petting cat": 213, "zumba": 399}
    assert ids | known == ids


def test_class_ids_against_the_list_of_names(repo, shared):
    names = (shared / "spec/kinetics400.txt").read_text().splitlines()
    ids = read_class_ids(repo / "process_data/kinetics/classids.json")
    assert ids == {name: i for i, name in enumerate(names)}


def test_class_ids_in_the_legacy_form(tmp_path):
    (tmp_path / "ids.json").write_text(r'{"\"petting cat\"": 229, "abseiling": 0}')
    assert read_class_ids(tmp_path / "ids.json") == {"petting cat": 229, "abseiling": 0}


@pytest.mark.parametrize("text", [
    "", "[1]", '"a"', "3", '[["a", 0]]', "{}", '{"a": "0"}', '{"a": true}', '{"a": -1}', '{"a": 1.0}',
    '{"a": {"b": 1}}', '{"a": 0, "b": 0}', '{"a": 0, "a": 1}', r'{"a": 0, "\"a\"": 1}', "[" * 100_000,
])
def test_bad_class_ids(tmp_path, text):
    (tmp_path / "ids.json").write_text(text)
    with pytest.raises(UserError) as caught:
        read_class_ids(tmp_path / "ids.json")
    assert str(caught.value).startswith(str(tmp_path / "ids.json"))
    assert "\n" not in str(caught.value)


# gen_py_list.py


@pytest.fixture
def train(tmp_path):
    (tmp_path / "ids.json").write_text(json.dumps({"petting cat": 229, "abseiling": 0, "zumba": 7}))
    videos = ["petting cat/b.mp4", "petting cat/a.mp4", "abseiling/c.mp4"]
    for name in [*videos, "abseiling/.d.mp4.downscale.tmp.mp4", "notes.txt"]:
        path = tmp_path / "train" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "train/abseiling/folder").mkdir()
    return tmp_path / "train"


def test_gen_py_list(tool, train, tmp_path):
    for _ in range(2):  # the second time the folder has its new name
        status, *_ = tool("gen_py_list.py", train, "list.txt", "--classids", "ids.json")
        assert status == 0
        assert (tmp_path / "list.txt").read_text() == (
            f"{train}/abseiling/c.mp4 0\n{train}/petting_cat/a.mp4 229\n{train}/petting_cat/b.mp4 229\n"
        )
    assert sorted(os.listdir(train)) == ["abseiling", "notes.txt", "petting_cat"]


def test_gen_py_list_has_the_old_defaults(tool, train, tmp_path):
    (tmp_path / "YOUR_DATASET_FOLDER").mkdir()
    (train / "notes.txt").unlink()
    train.rename(tmp_path / "YOUR_DATASET_FOLDER/train")
    assert tool("gen_py_list.py")[0] == 0
    lines = (tmp_path / "trainlist.txt").read_text().splitlines()
    assert lines[0] == "YOUR_DATASET_FOLDER/train/abseiling/c.mp4 0"
    assert len(lines) == 3


def test_gen_py_list_refuses(tool, train, tmp_path):
    def listing(folder):
        return tool("gen_py_list.py", folder, "list.txt", "--classids", "ids.json")

    assert_one_line(listing("none"), "none: cannot list the folder")
    (train / "petting cats").mkdir()
    assert_one_line(listing(train), "petting cats: no such class", "'petting cat'")
    (train / "petting cats").rename(train / "petting_cat")
    assert_one_line(listing(train), "'petting cat' and 'petting_cat'")
    assert (train / "petting cat").exists() and not (tmp_path / "list.txt").exists()
    assert_one_line(listing(train / "abseiling/folder"), "got none")
    (tmp_path / "empty/zumba").mkdir(parents=True)
    assert_one_line(listing("empty"), "expected videos in its class folders")
    assert not (tmp_path / "list.txt").exists()


def test_classes_of_ones_own_numbered_and_split(tool, new_tool, tmp_path):
    counts = {"my waving": 10, "jumping": 1, "zz top": 3, ".hidden": 2}
    for name, count in counts.items():
        (tmp_path / "own" / name).mkdir(parents=True)
        for i in range(count):
            (tmp_path / "own" / name / f"{i}.mp4").touch()

    def lists(*words):
        files = ("train.txt", "--make_classids", "ids.json", "--val_list", "val.txt")
        result = new_tool("gen_py_list.py", "own", *files, *words)
        assert result[0] == 0, result
        return [(tmp_path / name).read_text().splitlines() for name in ("train.txt", "val.txt")]

    train, val = lists()
    assert read_class_ids(tmp_path / "ids.json") == {"jumping": 0, "my waving": 1, "zz top": 2}
    # A fifth of each class, at least one and never all.
    assert [[sum(line.endswith(f" {label}") for line in lines) for label in range(3)] for lines in (train, val)] == [
        [1, 8, 2], [0, 2, 1]]
    every = [f"own/my_waving/{i}.mp4 1" for i in range(10)] + [f"own/zz_top/{i}.mp4 2" for i in range(3)]
    assert sorted(train + val) == sorted([*every, "own/jumping/0.mp4 0"])
    assert lists() == [train, val]  # the folders have their new names now
    assert lists("--seed", "3") != [train, val]
    assert [len(lines) for lines in lists("--val_share", "0.5")] == [1 + 5 + 1, 5 + 2]

    (tmp_path / "own/new").mkdir()
    words = ["gen_py_list.py", "own", "train.txt", "--make_classids", "ids.json"]
    assert_one_line(tool(*words), "ids.json: has other classes")
    (tmp_path / "own/new").rmdir()
    assert_one_line(tool(*words, "--val_share", "0.5"), "--val_list")
    assert_one_line(tool(*words, "--val_list", "v.txt", "--val_share", "1"), "--val_share between 0 and 1")
    assert_one_line(tool(*words, "--val_list", "./train.txt"), "another file than train.txt")
    (tmp_path / "one/a").mkdir(parents=True)
    (tmp_path / "one/a/1.mp4").touch()
    one = ["gen_py_list.py", "one", "t.txt", "--make_classids", "i.json", "--val_list", "v.txt"]
    assert_one_line(tool(*one), "for v.txt, two or more in each")
    assert not (tmp_path / "t.txt").exists()


def test_gen_py_list_takes_folders_of_frames_for_videos(tool, train, tmp_path):
    for name in ("abseiling/b frames", "abseiling/.hidden"):
        (train / name).mkdir()
        (train / name / "img_00001.jpg").touch()
    assert tool("gen_py_list.py", train, "list.txt", "--classids", "ids.json")[0] == 0
    lines = (tmp_path / "list.txt").read_text().splitlines()
    assert lines[:2] == [f"{train}/abseiling/b frames 0", f"{train}/abseiling/c.mp4 0"] and len(lines) == 4


# change_listname.py


def test_change_listname(tool, tmp_path):
    (tmp_path / "in.txt").write_text("/a/1/1.mp4 1\n/b/x y.mp4 1,2\n/a/1/2.mp4 1")
    assert tool("change_listname.py", "in.txt", "out.txt", "1", "ONE")[0] == 0
    assert (tmp_path / "out.txt").read_text() == "/a/ONE/ONE.mp4 1\n/b/x y.mp4 1,2\n/a/ONE/2.mp4 1"
    assert tool("change_listname.py", "in.txt", "in.txt", "/a/", "/c d/")[0] == 0
    assert (tmp_path / "in.txt").read_text() == "/c d/1/1.mp4 1\n/b/x y.mp4 1,2\n/c d/1/2.mp4 1"


def test_change_listname_refuses(tool, tmp_path):
    def change(*words):
        return tool("change_listname.py", *words)

    (tmp_path / "in.txt").write_text("/a/1.mp4 1\n")
    assert_one_line(change("in.txt", "out.txt", "/train/", "/x/"), "in.txt", "'/train/'")
    assert_one_line(change("in.txt", "out.txt", "", "/x/"), "OLD")
    assert_one_line(change("none.txt", "out.txt", "/a/", "/x/"), "cannot read the list none.txt")
    assert_one_line(change("in.txt", "no/out.txt", "/a/", "/x/"), "no/out.txt: cannot be written")
    assert os.listdir(tmp_path) == ["in.txt"]


# shuffle_list_rep.py


def test_shuffle(new_tool, tmp_path):
    lines = [f"/data/video_{i}.mp4 {i}" for i in range(50)]
    (tmp_path / "trainlist.txt").write_text("\n".join(lines))  # without a line break at the end
    assert new_tool("shuffle_list_rep.py", "out.txt")[0] == 0
    written = (tmp_path / "out.txt").read_text()
    repetitions = np.array(written.splitlines()).reshape(100, 50)
    assert all(sorted(repetition) == sorted(lines) for repetition in repetitions)
    assert len({tuple(repetition) for repetition in repetitions}) == 100

    assert new_tool("shuffle_list_rep.py", "same.txt", "--seed", "2", "--repetitions", "3")[0] == 0
    assert written.startswith((tmp_path / "same.txt").read_text())
    assert new_tool("shuffle_list_rep.py", "other.txt", "--seed", "3", "--repetitions", "3")[0] == 0
    assert not written.startswith((tmp_path / "other.txt").read_text())


def test_shuffle_needs_no_memory_for_what_it_writes(repo, tmp_path):
    line = "/data/kinetics/" + "x" * 200 + ".mp4 1\n"
    (tmp_path / "trainlist.txt").write_text(line * 20_000)
    program = f"""
import resource, runpy, sys
import numpy, tqdm
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
sys.argv = ["shuffle_list_rep.py", "out.txt", "--repetitions", "30"]
try:
    runpy.run_path({str(repo / "process_data/kinetics/shuffle_list_rep.py")!r}, run_name="__main__")
except SystemExit as end:
    assert not end.code
print("grown by", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert (tmp_path / "out.txt").stat().st_size == 30 * 20_000 * len(line)  # 133 MB
    assert int(done.stdout.rsplit(maxsplit=1)[1]) < 20_000  # KiB


def test_shuffle_refuses(tool, tmp_path):
    assert_one_line(tool("shuffle_list_rep.py", "out.txt"), "cannot read the list trainlist.txt", "gen_py_list.py",
                    "put the list of the Caffe2 program there")
    (tmp_path / "trainlist.txt").touch()
    assert_one_line(tool("shuffle_list_rep.py", "out.txt"), "trainlist.txt", "an empty file")
    assert_one_line(tool("shuffle_list_rep.py", "out.txt", "--repetitions", "0"), "--repetitions")
    assert os.listdir(tmp_path) == ["trainlist.txt"]
