"""Files of results: whose rows they are, and what is noticed of damage."""

import hashlib
import logging
import os
import random

import h5py
import numpy as np
import pytest

from formats.blobs import read_checkpoint
from formats.caffe2_pickle import dump
from formats.result_file import SCORED, TODO, UNREADABLE, ResultFile, keep_unfinished
from formats.sealed_hdf5 import check_seal
from reports.video_scores import read_results
from utils.errors import UserError

ROWS = 20
VIDEOS = np.arange(ROWS) // 2
SCORES = np.random.default_rng(0).random((ROWS, 4), np.float32)


@pytest.fixture(autouse=True)
def log(caplog):
    caplog.set_level(logging.INFO)
    return caplog


@pytest.fixture
def path(tmp_path):
    return tmp_path / "results_scores.h5"


def open_file(path, weights="w", make_way=True, columns=4, **attributes):
    return ResultFile(path, "scores of a test", {"weights": weights, "list": "l"}, ROWS, {"scores": (columns,)},
                      {"video_indices": VIDEOS}, attributes, make_way)


def written(path, rows=ROWS, **arguments):
    """A file with so many rows done; row 3 is unreadable."""
    with open_file(path, **arguments) as file:
        done = np.setdiff1d(np.arange(rows), [3])
        file.write(done, SCORES[done], SCORED)
        file.write(np.array([3]), None, UNREADABLE)
    return path


def values(path, name):
    with h5py.File(path) as file:
        return file[name][:]


def change(path, name, row, value):
    with h5py.File(path, "r+") as file:
        file[name][row] = value


# ------------------------------------------------------------------------------------------------------- whose rows


def test_rows_are_kept_for_the_same_run(path):
    written(path, rows=8)
    with open_file(path) as file:
        assert file.status.tolist() == 3 * [SCORED] + [UNREADABLE] + 4 * [SCORED] + 12 * [TODO]
    written(path)
    videos, scores = read_results(path)
    good = np.setdiff1d(np.arange(ROWS), [3])
    assert np.array_equal(videos, VIDEOS[good]) and np.array_equal(scores, SCORES[good])


def test_unfinished_rows_of_other_weights_are_kept_under_their_own_name(path, log):
    before = written(path, rows=8).read_bytes()
    written(path, weights="other", rows=5)
    [kept] = path.parent.glob("results_scores.*.h5")
    assert kept.read_bytes() == before
    assert f"{path}: 8 of 20 rows done, of an unfinished run with another weights: kept as {kept.name}" in log.text
    # That run goes on from there, and the other one after it.
    with open_file(path) as file:
        assert np.flatnonzero(file.status).tolist() == list(range(8))
    assert f"{path}: going on with {kept.name}" in log.text
    with open_file(path, weights="other") as file:
        assert np.flatnonzero(file.status).tolist() == list(range(5))
    assert len(list(path.parent.iterdir())) == 2


def test_a_complete_file_is_replaced_and_so_is_one_without_rows(path):
    written(path)
    open_file(path, weights="second").close()
    open_file(path, weights="third").close()
    with open_file(path, weights="fourth") as file:
        assert not file.status.any()
    assert list(path.parent.iterdir()) == [path]


def test_a_kept_file_that_is_damaged_stops_nobody(path, log):
    written(path, rows=8)
    open_file(path, weights="other").close()
    [kept] = path.parent.glob("results_scores.*.h5")
    kept.write_bytes(b"damage")
    with open_file(path) as file:
        assert not file.status.any()
    assert f"Not used: {kept}: " in log.text


@pytest.mark.parametrize(("rows", "message"), [
    (8, "holds the scores of a test of an unfinished run with another weights: finish that run, or remove the file to "
        "start over"),
    (20, "holds the scores of a test with another weights: remove the file to start over"),
])
def test_a_file_that_somebody_has_named_is_left_alone(rows, message, path):
    before = written(path, rows=rows).read_bytes()
    with pytest.raises(UserError) as refused:
        open_file(path, weights="other", make_way=False)
    assert str(refused.value) == f"{path}: {message}"
    assert path.read_bytes() == before


def test_another_number_of_classes(path, log):
    written(path, rows=8)
    with open_file(path, columns=5) as file:
        assert file.columns["scores"].shape == (ROWS, 5)
    assert "with another size: kept as" in log.text


def test_what_is_unfinished_is_kept_before_a_training(path, log):
    keep_unfinished(path, "scores of a test", "of a test")  # none there
    written(path)
    keep_unfinished(path, "scores of a test", "of a test")  # complete
    assert path.exists() and not log.text
    path.unlink()
    written(path, rows=8)
    keep_unfinished(path, "scores of a test", "of a test")
    [kept] = path.parent.iterdir()
    assert f"{path}: 8 of 20 rows done, of a test: kept as {kept.name}" in log.text


def of_an_earlier_version(path, rows):
    with h5py.File(path, "w") as file:
        file.attrs.update(weights="w", list="l")
        file["video_indices"], file["scores"] = VIDEOS, SCORES
        file["status"] = np.where(np.arange(ROWS) < rows, SCORED, TODO).astype(np.uint8)


def test_a_file_of_an_earlier_version(path, log):
    of_an_earlier_version(path, ROWS)
    assert np.array_equal(read_results(path)[1], SCORES)
    of_an_earlier_version(path, 8)
    with open_file(path) as file:
        assert not file.status.any()
    assert "with another version of the program: kept as" in log.text


# ------------------------------------------------------------------------------------------------------------ damage


@pytest.mark.parametrize(("name", "row", "value"), [
    ("scores", 5, 0.25), ("status", 5, UNREADABLE), ("status", 5, 17), ("status", 3, SCORED), ("checksums", 5, 1)])
def test_damaged_rows_are_computed_again(name, row, value, path, log):
    written(path)
    change(path, name, row, value)
    with pytest.raises(UserError) as refused:
        read_results(path)
    assert str(refused.value) == (f"{path}: damaged: 1 of 20 rows (first row {row}); the same test, started again, "
                                  "computes them again")
    with open_file(path) as file:
        assert np.flatnonzero(file.status == TODO).tolist() == [row]
    assert f"{path}: damaged: 1 of the 20 rows are computed again" in log.text
    assert values(path, "status")[row] == TODO
    written(path)
    assert np.array_equal(read_results(path)[1], np.delete(SCORES, 3, 0))


def test_a_row_in_another_rows_place(path):
    written(path)
    change(path, "scores", 5, SCORES[6])
    change(path, "checksums", 5, values(path, "checksums")[6])
    with open_file(path) as file:
        assert np.flatnonzero(file.status == TODO).tolist() == [5]


def test_damage_outside_the_rows_is_refused(path):
    whole = written(path).read_bytes()
    with h5py.File(path) as file:
        open_to_change = {place for name in ("scores", "status", "checksums")
                          for start, size in [(file[name].id.get_offset(), file[name].id.get_storage_size())]
                          for place in range(start, start + size)}
        start = file.userblock_size + 24  # behind the flags that say that somebody is writing
    rng = random.Random(0)
    for place in rng.sample(sorted(set(range(start, len(whole))) - open_to_change), 40):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << rng.randrange(8)]) + whole[place + 1:])
        for read in (read_results, open_file):
            with pytest.raises(UserError, match="damaged: it was changed where nothing writes; remove the file to st"):
                read(path)
    for damaged in (whole[:-1], whole + b"x", whole[:700], whole[:20]):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match=f"{path}: damaged: "):
            open_file(path)
        with pytest.raises(UserError, match=f"{path}: damaged: "):
            read_results(path)


def test_writing_rows_does_not_break_the_seal(path):
    written(path, rows=8)
    assert check_seal(path)
    with open_file(path) as file:
        file.write(np.array([10]), SCORES[[10]], SCORED)
        assert check_seal(path)  # as a process that is killed leaves it


def test_many_columns_and_attributes(tmp_path):
    columns = {f"blob{i}": (2, i + 1) for i in range(40)}
    with ResultFile(tmp_path / "f.h5", "features", {"weights": "w"}, 3, columns, {"videos": [b"a", b"b"]},
                    {"note": "x" * 1000}) as file:
        file.write(np.array([1]), np.arange(sum(2 * (i + 1) for i in range(40)), dtype=np.float32)[None], SCORED)
    assert check_seal(tmp_path / "f.h5")
    with h5py.File(tmp_path / "f.h5") as file:  # as any program reads it
        assert file.attrs["note"] == "x" * 1000 and file["blob39"][1, 1, 39] == 2 * 820 - 1


def test_a_fifo(path):
    os.mkfifo(path)
    with pytest.raises(UserError, match="results_scores.h5: expected an HDF5 file, the scores of a test, got a FIFO"):
        open_file(path)


# ------------------------------------------------------------------------------------------------ digests of weights


@pytest.mark.parametrize("after", [b"", b"what follows the pickle"])
def test_the_digest_is_that_of_the_file(after, tmp_path):
    path = tmp_path / "w.pkl"
    dump({"a_w": np.random.default_rng(0).random((300, 300), np.float32), "lr": 0.1}, path)
    path.write_bytes(path.read_bytes() + after)
    assert read_checkpoint(path, with_digest=True).digest == hashlib.sha256(path.read_bytes()).hexdigest()
    assert read_checkpoint(path).digest == ""


def test_the_digest_is_that_of_the_bytes_that_were_read(tmp_path, monkeypatch):
    from formats import caffe2_pickle

    path, other = tmp_path / "w.pkl", tmp_path / "other.pkl"
    dump({"a_w": np.zeros(3, np.float32)}, path)
    dump({"a_w": np.ones(3, np.float32)}, other)
    before = hashlib.sha256(path.read_bytes()).hexdigest()

    def unpickle_and_replace(*arguments, unpickle=caffe2_pickle.unpickle):
        value = unpickle(*arguments)
        other.rename(path)
        return value

    monkeypatch.setattr(caffe2_pickle, "unpickle", unpickle_and_replace)
    checkpoint = read_checkpoint(path, with_digest=True)
    assert checkpoint.digest == before and not checkpoint.blobs["a_w"].any()
