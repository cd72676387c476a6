"""What is said of labels: that the first of several counts, and that one class is too few."""

import logging

import pytest
from kinetics_tools import run_tool
from video_files import make_videos, write_items, write_list

import check_dataset
from core.config import load_config
from data import data_builder, labels
from data.lists import read_list
from data.lmdb_writer import train_items
from data.records import encode_train
from data.sources import open_train_source
from engine.replicas import Replicas
from video.bad_videos import BadVideos


@pytest.fixture(autouse=True)
def untold(monkeypatch):
    monkeypatch.setattr(labels, "_told", set())


def warnings(caplog):
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


# ------------------------------------------------------------------------------------------------- several labels


def test_several_labels_of_a_list(tmp_path, caplog):
    (tmp_path / "list.txt").write_text("a.mp4 3\nb.mp4 4,5,6\nc.mp4 7,8\n")
    videos = read_list(tmp_path / "list.txt")
    assert [videos.label(line) for line in range(3)] == [3, 4, 7]
    assert warnings(caplog) == [f"{tmp_path}/list.txt:2: has the labels 4, 5, 6; the first one counts, here and in "
                                f"other records of {tmp_path}/list.txt"]


def test_several_labels_of_an_lmdb(tmp_path, caplog):
    values = [encode_train(b"a.mp4", [1]), encode_train(b"b.mp4", [2, 9]), encode_train(b"c.mp4", [3, 9])]
    write_items(tmp_path / "train", [(b"%09d" % i, value) for i, value in enumerate(values)])
    source = open_train_source(tmp_path, "train", 0, False)
    assert [source.record(slot).label for slot in range(6)] == [1, 2, 3, 1, 2, 3]
    assert warnings(caplog) == [f"record 000000001 of {tmp_path}/train: has the labels 2, 9; the first one counts, "
                                "here and in other records of LMDBs"]


def test_several_labels_that_are_written_or_checked(repo, tmp_path, call_tool):
    (tmp_path / "list.txt").write_text("a.mp4 4,5\nb.mp4 5,4\n")
    said = "list.txt:1: has the labels 4, 5; the first one counts"
    status, output, errors = run_tool(repo, tmp_path, "create_video_lmdb.py", "--dataset_dir", "lmdb", "--list_file",
                                     "list.txt")
    assert status == 0 and (output + errors).count(said) == 1
    _, output, _ = call_tool(check_dataset, "--list", tmp_path / "list.txt", "--no_decode")
    assert output.count(said) == 1


# ----------------------------------------------------------------------------------------------------- one class


def train_warnings(folder, caplog):
    cfg = load_config(None, ["DATADIR", str(folder), "CHECKPOINT.DIR", str(folder), "TRAIN.CROP_SIZE", "32",
                             "TRAIN.JITTER_SCALES", "[32,40]", "NUM_GPUS", "1"])
    caplog.clear()
    data_builder.train_loader(cfg, Replicas(1), BadVideos()).close()
    data_builder._known_facts.cache_clear()
    return warnings(caplog)


@pytest.mark.parametrize("lmdb", [False, True])
def test_training_data_of_one_class(tmp_path, caplog, lmdb):
    said = [f"The training data (train in {tmp_path}) seem to be of class 7 alone: nothing can be learned from them"]
    for number, (found, expected) in enumerate([([7] * 9, said), ([7], said), ([7] * 8 + [6], [])]):
        folder = tmp_path / str(number)
        folder.mkdir()
        if lmdb:
            write_items(folder / "train", train_items((b"a.mp4", [label]) for label in found))
        else:
            write_list(folder / "train.txt", ["a.mp4"] * len(found), found)
        assert train_warnings(folder, caplog) == [line.replace(str(tmp_path), str(folder)) for line in expected]


def test_a_check_of_one_class(tmp_path, call_tool):
    write_list(tmp_path / "list.txt", make_videos(tmp_path, 3), [0, 0, 0])
    status, output, _ = call_tool(check_dataset, "--list", tmp_path / "list.txt")
    assert status == 0
    assert ("Training data of a single class (nothing can be learned from it): 1\n"
            "    list: the label of all 3 videos is 0\n") in output


def test_a_list_of_one_class_folder(repo, tmp_path):
    (tmp_path / "v/mine").mkdir(parents=True)
    (tmp_path / "v/mine/a.mp4").touch()
    words = ["v", "list.txt", "--make_classids", "ids.json"]
    status, output, errors, *_ = run_tool(repo, tmp_path, "gen_py_list.py", *words)
    assert status == 0
    said = "v: only one class, 'mine': nothing can be learned from it; expected a folder for each class"
    assert said in output + errors
    (tmp_path / "v/other").mkdir()
    (tmp_path / "ids.json").unlink()
    _, output, errors, *_ = run_tool(repo, tmp_path, "gen_py_list.py", *words)
    assert "only one class" not in output + errors
