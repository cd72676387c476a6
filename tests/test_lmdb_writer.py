import os
import subprocess
import sys

import pytest
import reference_data
from video_files import read_items, write_list

from data.lmdb_writer import clip_items, train_items, write_lmdb
from data.records import parse_test, parse_train
from utils.errors import UserError
from utils.files import temporary_name


def test_train_lmdb(tmp_path):
    listed = write_list(tmp_path / "l.txt", [f"v{i}.mp4" for i in range(25)], range(25))
    assert write_lmdb(tmp_path / "sub" / "train", listed, train_items, sorted_keys=True) == 25
    items = read_items(tmp_path / "sub" / "train")
    assert [key for key, _ in items] == [b"%09d" % i for i in range(25)]
    assert [parse_train(value, key).label for key, value in items] == list(range(25))


@pytest.mark.parametrize(("positions", "clips"), [(None, 10), (3, 30), (6, 60)])
def test_test_lmdb(tmp_path, positions, clips):
    listed = write_list(tmp_path / "l.txt", ["a.mp4", "b.mp4"], ["5,6", 7])
    write_lmdb(tmp_path / "test", listed, lambda entries: clip_items(entries, positions), sorted_keys=False)
    items = dict(read_items(tmp_path / "test"))
    assert len(items) == 2 * clips
    record = parse_test(items[b"%d" % (2 * clips - 1)], b"", {None: 0, 3: 1, 6: 2}[positions])
    assert (record.path, record.video_index, record.temporal_index) == ("b.mp4", 1, 9)
    assert record.spatial_index == (positions and positions - 1)


def test_more_records_than_a_commit(tmp_path, monkeypatch):
    monkeypatch.setattr("data.lmdb_writer._BATCH", 7)
    listed = write_list(tmp_path / "l.txt", [f"v{i}.mp4" for i in range(25)], range(25))
    write_lmdb(tmp_path / "a", listed, train_items, sorted_keys=True)
    assert len(read_items(tmp_path / "a")) == 25


def test_nothing_is_replaced(tmp_path):
    listed = write_list(tmp_path / "l.txt", ["a"], [1])
    (tmp_path / "out").mkdir()
    write_lmdb(tmp_path / "out", listed, train_items, sorted_keys=True)  # an empty folder may be filled
    before = (tmp_path / "out" / "data.mdb").read_bytes()
    with pytest.raises(UserError, match="out exists already"):
        write_lmdb(tmp_path / "out", listed, train_items, sorted_keys=True)
    assert (tmp_path / "out" / "data.mdb").read_bytes() == before


@pytest.mark.parametrize("exists", [True, False])
def test_a_link_to_a_folder_is_followed(tmp_path, exists):
    listed = write_list(tmp_path / "l.txt", ["a", "b"], [1, 2])
    folder, link = tmp_path / "disk/folder", tmp_path / "link"
    link.symlink_to(folder)
    if exists:
        folder.mkdir(parents=True)
        left = folder / temporary_name("data.mdb")
        left.mkdir()
    before = folder.stat().st_ino if exists else None
    assert write_lmdb(link, listed, train_items, sorted_keys=True) == len(read_items(link)) == 2
    assert link.is_symlink() and os.listdir(folder) == ["data.mdb"]
    assert not exists or folder.stat().st_ino == before  # a disk of its own could not be replaced


def test_a_folder_that_exists_stays_empty_after_a_failure(tmp_path):
    (tmp_path / "l.txt").write_text("a 1\nb\n")
    (tmp_path / "out").mkdir()
    with pytest.raises(UserError):
        write_lmdb(tmp_path / "out", tmp_path / "l.txt", train_items, sorted_keys=True)
    assert os.listdir(tmp_path / "out") == []


def interrupted(entries):
    yield from list(train_items(entries))[:1]
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("text", "items_of", "error"),
    [
        ("a 1\nb\n", train_items, UserError),
        ("\n", train_items, UserError),
        ("a 1\nb 2\n", interrupted, KeyboardInterrupt),
    ],
)
def test_a_run_that_fails_leaves_nothing(tmp_path, monkeypatch, text, items_of, error):
    monkeypatch.setattr("data.lmdb_writer._BATCH", 1)
    listed = tmp_path / "l.txt"
    listed.write_text(text)
    with pytest.raises(error):
        write_lmdb(tmp_path / "out", listed, items_of, sorted_keys=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["l.txt"]


def test_what_a_killed_process_of_the_same_number_left_is_no_obstacle(tmp_path):
    listed = write_list(tmp_path / "l.txt", ["a", "b"], [1, 2])
    left = tmp_path / temporary_name("out")
    write_lmdb(left, write_list(tmp_path / "other.txt", [f"v{i}" for i in range(9)], range(9)), train_items, True)
    assert write_lmdb(tmp_path / "out", listed, train_items, sorted_keys=True) == len(read_items(tmp_path / "out")) == 2
    assert not left.exists()


SCRIPTS = {"": 1, "_test": 10, "_test_multicrop": 30, "_test_flipcrop": 60}


@pytest.mark.parametrize("script", SCRIPTS)
def test_command_lines(repo, tmp_path, script):
    write_list(tmp_path / "l.txt", ["a.mp4", "b.mp4"], [1, 2])

    def run(*arguments):
        command = [sys.executable, repo / f"process_data/kinetics/create_video_lmdb{script}.py", *arguments]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)

    done = run("--dataset_dir", "out/x", "--list_file", "l.txt")
    assert done.returncode == 0 and len(read_items(tmp_path / "out" / "x")) == 2 * SCRIPTS[script]
    failed = run("--dataset_dir", "out/y", "--list_file", "gone.txt")
    assert failed.returncode == 1
    assert failed.stderr == "error: cannot read the list gone.txt: No such file or directory\n"


def test_legacy_lmdbs(shared):
    """Each kind, written from the same list and read."""
    results = list(reference_data.check_lmdbs(shared / "reference/lmdb", None))
    assert [line for line in results if line[1] != 0] == [] and len(results) == 8
