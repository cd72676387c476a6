"""Processes that start differently: what they compare, and what all take from the root. Real processes, with gloo."""

import json
import re
import shutil
import socket

import numpy as np
import pytest
import tiny_job
from video_files import write_items, write_list
from zygote import FOR_SEVERAL_PROCESSES

from data.lmdb_writer import train_items
from formats.caffe2_pickle import dump, load

CHEAP = {"TRAIN__COMPUTE_PRECISE_BN": False, "TRAIN__EVAL_PERIOD": 1000, "JOIN_SECONDS": 60}


@pytest.fixture
def run_both(zygote, tmp_path):
    """Run two command lines as the processes 0 and 1 of a run, in given folders: -> their statuses and logs."""
    zygote.prepare(*FOR_SEVERAL_PROCESSES)

    def run(*commands, folders=(".", ".")):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        logs = [tmp_path / f"rank{rank}.txt" for rank in range(2)]
        runs = []
        for rank, (words, log) in enumerate(zip(commands, logs, strict=True)):
            log.unlink(missing_ok=True)
            meeting = {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
                       "GLOO_SOCKET_IFNAME": "lo"}
            runs.append(zygote.start(words, log, in_folder(folders[rank]) + f"os.environ.update({meeting!r})"))
        return [one.wait() for one in runs], [log.read_text() for log in logs]

    return run


def in_folder(folder):
    """A prelude."""
    return f"import os; os.chdir({str(folder)!r}); "


def errors_in(text):
    assert "Traceback" not in text
    return [line.removeprefix("error: ") for line in text.splitlines() if line.startswith("error: ")]


def training(repo, data, folder, **options):
    return tiny_job.command(repo, data, folder, **CHEAP | options)


def blobs(folder, iteration):
    return load(folder / f"checkpoints/c2_model_iter{iteration}.pkl")["blobs"]


# ------------------------------------------------------------------------------------------------------- the tools


@pytest.mark.parametrize(("option", "values"), [("SOLVER.BASE_LR", (0.01, 0.02)), ("RNG_SEED", (2, 3))])
def test_other_options_are_one_line(option, values, run_both, repo, data, tmp_path):
    name = option.replace(".", "__")
    statuses, logs = run_both(*(training(repo, data, tmp_path / "run", **{name: value}) for value in values))
    host = socket.gethostname()
    assert statuses == [1, 1]
    assert errors_in(logs[0]) == [
        f"{option}: process 1 on {host} has {values[1]}, process 0 on {host} has {values[0]}: expected the same "
        "options and data for all processes of a run"]
    assert errors_in(logs[1]) == []
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("kind", ["list", "lmdb"])
def test_other_data_are_one_line(kind, run_both, repo, data, tmp_path):
    # The same path on two machines.
    folders = [tmp_path / "0", tmp_path / "1"]
    for folder, label in zip(folders, (1, 2), strict=True):
        shutil.copytree(data, folder / "data", ignore=shutil.ignore_patterns("*.mp4"))
        labels = [0, 1, label]
        if kind == "list":
            write_list(folder / "data/train.txt", ["a.mp4", "b.mp4", "c.mp4"], labels)
        else:
            write_items(folder / "data/train", train_items([(b"v.mp4", [label]) for label in labels]))
    words = [*training(repo, data, tmp_path / "run", MODEL__NUM_CLASSES=10), "DATADIR", "data"]
    statuses, logs = run_both(words, words, folders=folders)
    assert statuses == [1, 1]
    [error] = errors_in(logs[0])
    assert re.match(r"training data: process 1 on \S+ has '3 records \(\w{12}\)', process 0 on \S+ has '3 rec", error)
    assert errors_in(logs[1]) == []


def test_data_that_one_process_lacks(run_both, repo, data, tmp_path):
    folders = [tmp_path / "0", tmp_path / "1"]
    for folder in folders:
        folder.mkdir()
    (folders[0] / "data").symlink_to(data)
    words = [*training(repo, data, tmp_path / "run"), "DATADIR", "data"]
    statuses, logs = run_both(words, words, folders=folders)
    assert statuses == [1, 1]
    [error] = errors_in(logs[0])
    assert error == (f"process 1 on {socket.gethostname()}: no data for the split 'train': no LMDB data/train and no "
                     "list data/train.txt")
    assert errors_in(logs[1]) == []


def test_only_the_root_sees_the_folder(run_both, zygote, repo, data, undisturbed, tmp_path):
    """As on two machines without a common disk; the other one has a checkpoint of its own, and other weights."""
    folder, elsewhere = tmp_path / "run", tmp_path / "elsewhere"
    for place, iteration in ((folder, 4), (elsewhere, 2)):
        (place / "checkpoints").mkdir(parents=True)
        shutil.copy(undisturbed / f"checkpoints/c2_model_iter{iteration}.pkl", place / "checkpoints")
    before = sorted(elsewhere.rglob("*"))
    options = {"TRAIN__TEST_AFTER_TRAIN": True, "TRAIN__COMPUTE_PRECISE_BN": True}
    statuses, logs = run_both(*(training(repo, data, place, **options) for place in (folder, elsewhere)))
    assert statuses == [0, 0], logs
    assert "c2_model_iter4.pkl" in logs[0] and "Iters [5/6]" in logs[0] and "Iters [3/6]" not in logs[0]
    assert "top-1 accuracy" in logs[0] and "[INFO" not in logs[1]
    assert [path for path in sorted(elsewhere.rglob("*")) if path.name != "frame_counts.txt"] == before
    # The same as one process computes from there, up to the order of sums.
    resumed = blobs(folder, 6)
    for name, value in blobs(undisturbed, 6).items():
        np.testing.assert_allclose(resumed[name], value, rtol=1e-3, atol=1e-3 * np.abs(value).max() + 1e-6)


def test_a_problem_of_the_root_is_one_line(run_both, repo, data, undisturbed, tmp_path):
    folder = tmp_path / "run"
    (folder / "checkpoints").mkdir(parents=True)
    contents = load(undisturbed / "checkpoints/c2_model_iter4.pkl")
    contents["state"] = {"of": "a later version"}
    dump(contents, folder / "checkpoints/c2_model_iter4.pkl")
    statuses, logs = run_both(*2 * [training(repo, data, folder)])
    assert statuses == [1, 1]
    [error] = errors_in(logs[0])
    assert error.startswith(f"{folder}/checkpoints/c2_model_iter4.pkl: state: expected averages, ")
    assert errors_in(logs[1]) == []
    assert not (folder / "run.lock").exists()


def test_the_weights_of_a_test_are_the_roots(run_both, zygote, repo, data, undisturbed, tmp_path):
    options = {"TEST__TEST_FULLY_CONV": True, "TRAIN__JITTER_SCALES": "[200,200]", "JOIN_SECONDS": 60,
               "TEST__PARAMS_FILE": "w.pkl"}
    folders = [tmp_path / "0", tmp_path / "1"]
    for folder in folders:
        folder.mkdir()
    shutil.copy(undisturbed / "checkpoints/c2_model_iter6.pkl", folders[0] / "w.pkl")
    words = tiny_job.command(repo, data, tmp_path / "run", "test_net_video", **options)
    statuses, logs = run_both(words, words, folders=folders)
    assert statuses == [0, 0], logs
    assert zygote.run([*words, "CHECKPOINT.DIR", tmp_path / "alone"], tmp_path / "alone.txt",
                      prelude=in_folder(folders[0])) == 0
    alone, both = (load(tmp_path / name / "results_probs.pkl") for name in ("alone", "run"))
    assert [video for video, _ in alone] == [video for video, _ in both]
    np.testing.assert_allclose([scores for _, scores in alone], [scores for _, scores in both], atol=1e-6)


# -------------------------------------------------------------------------------------------------------- the means


PROGRAM = """
import json
import torch
from engine.agreement import agree, tensor_digest
from engine.joining import Place, join_processes
from engine.replicas import Replicas
from utils.errors import SharedError, UserError

place = Place.from_environment()
join_processes(place, torch.device("cpu"), 60, 60)
replicas = Replicas(2, place.rank, 2)
results = {}

def act():
    if replicas.rank == 1:
        raise UserError("no disk")
    return 7

def told(action):
    try:
        return action()
    except SharedError as error:
        return str(error)

results["together"] = replicas.together(lambda: replicas.rank * 10)
results["one fails"] = told(lambda: replicas.together(act))
results["from root"] = replicas.from_root(act)
results["same"] = told(lambda: agree(replicas, lambda: {"rate": 0.1}))
results["other"] = told(lambda: agree(replicas, lambda: {"rate": 0.1, "seed": replicas.rank}))
results["lacking"] = told(lambda: agree(replicas, lambda: {"rate": 0.1} if replicas.rank else {}))
weights = torch.full((2, 3, 2, 2, 2), float(replicas.rank)).to(memory_format=torch.channels_last_3d)
weights += torch.arange(48).view(2, 3, 2, 2, 2) * (1 - replicas.rank)
counter = torch.tensor(5 - replicas.rank)
replicas.broadcast([weights, counter])
results["weights"] = [weights.flatten().tolist() == list(range(48)), counter.item(), tensor_digest([weights, counter])]
print(json.dumps(results))
"""


def test_means(run_both, tmp_path):
    (tmp_path / "program.py").write_text(PROGRAM)
    statuses, logs = run_both(*2 * [[tmp_path / "program.py"]])
    assert statuses == [0, 0], logs
    first, second = (json.loads(log.splitlines()[-1]) for log in logs)
    assert first == second
    host = socket.gethostname()
    ending = "expected the same options and data for all processes of a run"
    assert first["together"] == [0, 10] and first["from root"] == 7 and first["same"] is None
    assert first["one fails"] == f"process 1 on {host}: no disk"
    assert first["other"] == f"seed: process 1 on {host} has 1, process 0 on {host} has 0: {ending}"
    assert first["lacking"] == f"rate: process 1 on {host} has 0.1, process 0 on {host} has None: {ending}"
    assert first["weights"][:2] == [True, 5]
