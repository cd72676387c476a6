"""The result of a training does not depend on processes or interruptions: real processes, signals and kills."""

import contextlib
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
import tiny_job
from process_status import catches

from formats.caffe2_pickle import load
from utils.stopping import EXIT_INTERRUPTED

# For more kills: NLNET_KILLS=20 pytest tests/test_processes.py
KILLS = int(os.environ.get("NLNET_KILLS", "4"))


def blobs(folder, iteration=6):
    return load(folder / "checkpoints" / f"c2_model_iter{iteration}.pkl")["blobs"]


def assert_same_bytes(one, other):
    assert one.keys() == other.keys()
    for name in one:
        assert np.asarray(one[name]).tobytes() == np.asarray(other[name]).tobytes(), name


# ------------------------------------------------------------------------------------------ number of processes


def test_four_replicas_agree_in_one_two_and_four_processes(zygote, repo, data, tmp_path):
    runs = {}
    for name, processes in (("one", 1), ("two", 2), ("four", 4)):
        folder, log = tmp_path / name, tmp_path / f"{name}.txt"
        words = tiny_job.command(
            repo, data, folder, NUM_GPUS=4, NUM_PROCESSES=processes, SOLVER__MAX_ITER=2, TRAIN__EVAL_PERIOD=1,
            TRAIN__BATCH_SIZE=4, TEST__BATCH_SIZE=4, TRAIN__COMPUTE_PRECISE_BN=False, SOLVER__BASE_LR=0.0001,
            SOLVER__STEP_SIZES="[9]")
        assert zygote.run(words, log, children=processes if processes > 1 else 0) == 0, log.read_text()
        runs[name] = (tiny_job.stats(log), blobs(folder, 2))
    losses, weights = runs["one"]
    for name in ("two", "four"):
        for it in (1, 2):
            assert runs[name][0][it]["train_loss"] == pytest.approx(losses[it]["train_loss"], rel=1e-5)
        for blob, value in weights.items():
            scale = max(np.abs(value).max(), 1e-3)
            errors = np.abs(np.asarray(runs[name][1][blob]) - value) / scale
            # Where a ReLU's input is zero to rounding, its gradient may come through in one run and not in the other:
            # single elements, on some processors.
            assert np.mean(errors > 1e-5) <= 1e-3 and errors.max() <= 1e-4, blob


# With all that a run has.
WHOLE = {"SOLVER__MAX_ITER": 4, "TRAIN__EVAL_PERIOD": 2, "TRAIN__TEST_AFTER_TRAIN": True}


@pytest.fixture(scope="module")
def launched(repo, zygote, data, tmp_path_factory):
    """Folder and standard output of a training in two processes."""
    folder = tmp_path_factory.mktemp("launched")
    output, errors = (folder / name for name in ("output.txt", "errors.txt"))
    words = tiny_job.command(repo, data, folder, NUM_PROCESSES=2, **WHOLE)
    assert zygote.start(words, output, children=2, errors=errors).wait() == 0, errors.read_text()
    return folder, output.read_text()


def test_torchrun_gives_the_same_result_as_the_tools_launcher(launched, repo, data, tmp_path):
    words = tiny_job.command(repo, data, tmp_path, **WHOLE)
    subprocess.run([sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
                    "tools/train_net_video.py", *words[1:]], cwd=repo, check=True, capture_output=True, timeout=600)
    assert_same_bytes(blobs(launched[0], 4), blobs(tmp_path, 4))
    assert (launched[0] / "results_probs.pkl").read_bytes() == (tmp_path / "results_probs.pkl").read_bytes()


def test_only_the_root_logs_and_it_logs_everything(launched):
    _, output = launched
    assert len(re.findall(r"^\| Train ETA", output, re.MULTILINE)) == 4
    assert len(re.findall(r"^\| Test:", output, re.MULTILINE)) == 4  # two evaluations of two batches
    assert output.count("Training with config:") == 2  # once each by the training and the test
    assert len(re.findall("Bad video .*gone.mp4", output)) == 2  # once in the training, once in the test
    assert "Num of empty videos: 1" in output


# ------------------------------------------------------------------------------------------------ interruption


def train_until_done(zygote, words, log, disturb):
    """Restart until the run finishes; disturb(run) may interrupt it. Returns the number of interruptions."""
    for disturbed in range(200):
        run = zygote.start(words, log)
        disturb(run)
        status = run.wait()
        if status == 0:
            return disturbed
        assert status in (-signal.SIGKILL, EXIT_INTERRUPTED), log.read_text()[-2000:]
    raise AssertionError("no end")


def random_signal(number, times, folder, seed):
    """A disturbance: the signal at a random moment of each of the first `times` runs. There are three kinds of moments:
    soon after the start, while a checkpoint is being written, and some time after one."""
    rng = random.Random(seed)
    moments = ["start", "writing", "after"] * times
    moments = moments[:times]
    rng.shuffle(moments)

    def waited_for(run, pattern):
        before = set(folder.glob(pattern))
        while run.wait(0.001) is None:
            if set(folder.glob(pattern)) - before:
                return

    def disturb(run):
        if not moments:
            return
        moment = moments.pop()
        if moment == "start":
            # Before its first line, any signal but SIGKILL would end the tool in Python's way. SIGHUP's handler is the
            # last that it sets there.
            while number != signal.SIGKILL and run.wait(0.001) is None and not catches(run.pid, signal.SIGHUP):
                pass
        else:
            waited_for(run, "checkpoints/.*.tmp" if moment == "writing" else "checkpoints/*.pkl")
        if run.wait(0 if moment == "writing" else rng.uniform(0, 0.4)) is None:
            run.kill(number)

    return disturb


# Of one clip an iteration. Some killed runs make no progress and some make several: two for each kill are enough.
LAST = 3 + 2 * KILLS
INTERRUPTED = {"CHECKPOINT__CHECKPOINT_PERIOD": 1, "SOLVER__MAX_ITER": LAST,
               "SOLVER__STEP_SIZES": f"[2,2,{LAST}]", "NUM_GPUS": 1, "TRAIN__BATCH_SIZE": 1}


@pytest.fixture(scope="module")
def whole(zygote, repo, data, tmp_path_factory):
    """Folder of a training with the options INTERRUPTED that nothing interrupts, and its log."""
    folder = tmp_path_factory.mktemp("whole")
    assert zygote.run(tiny_job.command(repo, data, folder, **INTERRUPTED), folder / "log.txt") == 0
    return folder, folder / "log.txt"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_an_interrupted_training_gives_the_same_result(number, zygote, repo, data, whole, tmp_path, capsys):
    kills = KILLS if number == signal.SIGKILL else max(2, KILLS // 2)
    (whole, log_of_whole), ended = whole, tmp_path / "ended"
    words = tiny_job.command(repo, data, ended, **INTERRUPTED)
    done = train_until_done(zygote, words, tmp_path / "ended.txt", random_signal(number, kills, ended, int(number)))
    assert done >= kills // 2
    assert_same_bytes(blobs(ended, LAST), blobs(whole, LAST))
    assert tiny_job.values_of(tiny_job.stats(tmp_path / "ended.txt")) == \
        tiny_job.values_of(tiny_job.stats(log_of_whole))
    with capsys.disabled():
        print(f"\n{signal.Signals(number).name}: {kills} tried, {done} hit a running training, all survived")


# Without what takes time and matters not everywhere.
CHEAP = {"NUM_GPUS": 1, "TRAIN__BATCH_SIZE": 1, "SOLVER__MAX_ITER": 4, "TRAIN__COMPUTE_PRECISE_BN": False,
         "TRAIN__EVAL_PERIOD": 1000}


def test_a_signal_leaves_a_checkpoint_and_a_distinct_status(zygote, repo, data, tmp_path):
    words = tiny_job.command(repo, data, tmp_path, CHECKPOINT__CHECKPOINT_PERIOD=-1, **CHEAP)
    run = zygote.start(words, tmp_path / "log.txt")
    log = tmp_path / "log.txt"
    while not log.exists() or "Iters [2/4]" not in log.read_text():
        assert run.wait(0.02) is None
    run.kill(signal.SIGTERM)
    assert run.wait() == EXIT_INTERRUPTED
    assert "SIGTERM: stopping; run the same command again to resume" in (tmp_path / "log.txt").read_text()
    saved = list((tmp_path / "checkpoints").glob("*.pkl"))
    assert len(saved) == 1
    assert zygote.run(words, tmp_path / "log.txt") == 0
    text = (tmp_path / "log.txt").read_text()
    assert [int(n) for n in re.findall(r"Iters \[(\d)/4\]", text)] == [1, 2, 3, 4]


def test_only_the_last_checkpoints_are_kept(zygote, repo, data, tmp_path):
    words = tiny_job.command(repo, data, tmp_path, CHECKPOINT__CHECKPOINT_PERIOD=1, CHECKPOINT__KEEP_LAST=2, **CHEAP)
    assert zygote.run(words, tmp_path / "log.txt") == 0
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == \
        ["c2_model_iter3.options.json", "c2_model_iter3.pkl", "c2_model_iter4.options.json", "c2_model_iter4.pkl"]


# ---------------------------------------------------------------------------------------------------- the test


def command_of_test(repo, data, folder, weights, **options):
    options = {"TEST__TEST_FULLY_CONV": True, "TRAIN__JITTER_SCALES": "[200,200]", "TEST__BATCH_SIZE": 2} | options
    return tiny_job.command(repo, data, folder, "test_net_video", TEST__PARAMS_FILE=weights, **options)


def report(log):
    return re.findall(r"\]: ((?:Num|Max|Min|Clip|top|Id).*)$", log.read_text(), re.MULTILINE)


def test_a_killed_test_gives_the_same_report(zygote, repo, data, undisturbed, tmp_path, capsys):
    weights = undisturbed / "checkpoints" / "c2_model_iter6.pkl"
    kills = max(3, KILLS // 2)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    start = time.monotonic()
    assert zygote.run(command_of_test(repo, data, whole, weights), tmp_path / "whole.txt") == 0
    longest = time.monotonic() - start
    rng, left = random.Random(1), list(range(kills))

    def disturb(run):
        if left and run.wait(rng.uniform(0, longest) / (kills - left.pop())) is None:
            run.kill()

    done = train_until_done(zygote, command_of_test(repo, data, killed, weights), tmp_path / "killed.txt", disturb)
    assert report(tmp_path / "killed.txt") == report(tmp_path / "whole.txt") != []
    assert (killed / "results_probs.pkl").read_bytes() == (whole / "results_probs.pkl").read_bytes()
    with capsys.disabled():
        print(f"\ntest: {kills} kills tried, {done} hit a running test, all survived")


def interrupted_test(zygote, words, log):
    """Run a test that is asked to stop after its first scores."""
    run = zygote.start(words, log)
    while not log.exists() or not re.search(r"\]: 0/\d+ iter", log.read_text()):
        assert run.wait(0.005) is None
    run.kill(signal.SIGTERM)
    assert run.wait() == EXIT_INTERRUPTED


@pytest.mark.parametrize("what, change", [
    ("weights", {}),
    ("configuration", {"TEST__SCALE": 208}),
    ("list", {}),
])
def test_scores_of_a_different_test_are_not_mixed_in(what, change, zygote, repo, data, undisturbed, tmp_path):
    weights = undisturbed / "checkpoints" / "c2_model_iter6.pkl"
    log, folder = tmp_path / "log.txt", tmp_path / "run"
    first = command_of_test(repo, data, folder, weights)
    interrupted_test(zygote, first, log)
    if what == "weights":
        weights = undisturbed / "checkpoints" / "c2_model_iter4.pkl"
    if what == "list":
        other = tmp_path / "data"
        shutil.copytree(data, other)
        lines = (other / "test.txt").read_text().splitlines(keepends=True)
        (other / "test.txt").write_text("".join(reversed(lines)))
        data = other
    before = (folder / "results_scores.h5").read_bytes()
    other_log = tmp_path / "other.txt"
    interrupted_test(zygote, command_of_test(repo, data, folder, weights, **change), other_log)
    [kept] = folder.glob("results_scores.*.h5")
    assert kept.read_bytes() == before
    assert f"of an unfinished run with another {what}: kept as {kept.name}" in other_log.read_text()
    # The first test goes on, and gives what it would have given.
    log.unlink()
    assert zygote.run(first, log) == 0
    assert f"going on with {kept.name}" in log.read_text() and "]: 0/5 iter" not in log.read_text()


def test_a_longer_training_after_an_interrupted_test(zygote, repo, data, tmp_path):
    folder, log = tmp_path / "run", tmp_path / "log.txt"
    words = {n: tiny_job.command(repo, data, folder, TRAIN__TEST_AFTER_TRAIN=True, **CHEAP | {"SOLVER__MAX_ITER": n})
             for n in (1, 2, 3)}
    interrupted_test(zygote, words[1], log)
    log.unlink()
    assert zygote.run(words[2], log) == 0
    [kept] = folder.glob("results_scores.*.h5")
    before_training, _, rest = log.read_text().partition("| Train")
    assert f"with other weights than this training makes: kept as {kept.name}" in before_training
    assert "top-1 accuracy" in rest
    # And if it is damaged, that is said before the training.
    (folder / "results_scores.h5").write_bytes(b"damage")
    log.unlink()
    assert zygote.run(words[3], log) == 1
    assert "results_scores.h5: expected an HDF5 file, the scores of a test" in log.read_text()
    assert "| Train" not in log.read_text()


def test_scores_of_a_finished_test_are_replaced(zygote, repo, data, undisturbed, tmp_path):
    for iteration in (6, 4):
        weights = undisturbed / "checkpoints" / f"c2_model_iter{iteration}.pkl"
        assert zygote.run(command_of_test(repo, data, tmp_path, weights), tmp_path / f"{iteration}.txt") == 0
    results = [entry[1] for entry in load_results(tmp_path / "results_probs.pkl")]
    assert zygote.run(command_of_test(repo, data, tmp_path / "alone", weights), tmp_path / "alone.txt") == 0
    assert results == [entry[1] for entry in load_results(tmp_path / "alone" / "results_probs.pkl")]


def load_results(path):
    import pickle

    return pickle.loads(path.read_bytes())


# ---------------------------------------------------------------------------------------------------- accidents


def children_of(pid):
    with open(f"/proc/{pid}/task/{pid}/children") as children:
        return [int(child) for child in children.read().split()]


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.fixture
def two_processes(zygote, repo, data, tmp_path):
    """A training in two processes after two iterations: (the tool, a zygote.Run; pids of its workers; its log)."""
    log = tmp_path / "log.txt"
    words = tiny_job.command(repo, data, tmp_path, NUM_PROCESSES=2, SOLVER__MAX_ITER=10000,
                             SOLVER__STEP_SIZES="[10000]", TRAIN__EVAL_PERIOD=10000)
    run = zygote.start(words, log, children=2)
    while not log.exists() or "Iters [2/" not in log.read_text():
        assert run.wait(0.05) is None, log.read_text()
    workers = children_of(run.pid)
    assert len(workers) == 2
    yield run, workers, log
    run.kill()
    for pid in workers:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    run.wait()


def test_a_killed_worker_ends_the_run(two_processes):
    run, workers, log = two_processes
    os.kill(workers[-1], signal.SIGKILL)
    start = time.monotonic()
    assert run.wait(20) == 1
    assert time.monotonic() - start < 10
    errors = [line for line in log.read_text().splitlines() if "rror" in line]
    assert len(errors) == 1 and "was killed by SIGKILL" in errors[0], errors
    assert "Traceback" not in log.read_text()
    assert not any(alive(pid) for pid in workers)


def test_no_orphans_when_the_launcher_is_killed(two_processes):
    run, workers, _ = two_processes
    run.kill()
    deadline = time.monotonic() + 10
    while any(alive(pid) for pid in workers):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_ctrl_c_stops_all_processes_with_a_checkpoint(two_processes):
    run, workers, log = two_processes
    run.kill(signal.SIGINT)
    assert run.wait(30) == EXIT_INTERRUPTED
    assert "Saving model params" in log.read_text() and "Traceback" not in log.read_text()
    assert not any(alive(pid) for pid in workers)


class Process:
    """A tool as a process of its own, with what zygote.Run has."""

    def __init__(self, repo, words, log):
        with open(log, "w") as output:
            self._process = subprocess.Popen([sys.executable, repo / f"tools/{words[0]}.py", *words[1:]], stdout=output,
                                             stderr=output)
        self.pid, self.kill = self._process.pid, self._process.send_signal

    def wait(self, timeout=120):
        try:
            return self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            return None


@pytest.mark.parametrize("moment", ["imports", "Iters [2/3]", "]: 0/"])
def test_several_processes_stop_at_any_moment(moment, zygote, repo, data, tmp_path):
    """While they are started, in the training, and in the test after it."""
    folder, log = tmp_path / "run", tmp_path / "log.txt"
    words = tiny_job.command(repo, data, folder, NUM_PROCESSES=2, SOLVER__MAX_ITER=3, TRAIN__EVAL_PERIOD=1000,
                             CHECKPOINT__CHECKPOINT_PERIOD=-1, TRAIN__COMPUTE_PRECISE_BN=False,
                             TRAIN__TEST_AFTER_TRAIN=True)
    run = Process(repo, words, log) if moment == "imports" else zygote.start(words, log, children=2)
    while not (children_of(run.pid) if moment == "imports" else log.exists() and moment in log.read_text()):
        assert run.wait(0.01) is None, log.read_text()
    workers = children_of(run.pid)
    run.kill(signal.SIGTERM)
    assert run.wait(60) == EXIT_INTERRUPTED, log.read_text()
    text = log.read_text()
    assert "Traceback" not in text and "error: " not in text
    assert not any(alive(pid) for pid in workers)
    assert not [path for path in folder.rglob("*") if path.name.endswith(".tmp") or path.name == "run.lock"]
    saved = [path.name for path in folder.rglob("*.pkl")]
    assert len(saved) == (moment != "imports")
    assert saved == ["c2_model_iter3.pkl"] or moment != "]: 0/"


def test_a_port_in_use_is_an_error(zygote, repo, data, tmp_path):
    log = tmp_path / "log.txt"
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        words = tiny_job.command(repo, data, tmp_path, NUM_PROCESSES=2)
        status = zygote.run(words, log, prelude=f"import os; os.environ['MASTER_PORT'] = '{port}'", children=2)
    errors = [line for line in log.read_text().splitlines() if line.startswith("error: ")]
    assert status == 1
    assert len(errors) == 1 and str(port) in errors[0] and "in use" in errors[0]


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system requires root")
def test_a_full_disk_is_an_error(zygote, repo, data, tmp_path):
    folder = tmp_path / "small"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", folder], capture_output=True).returncode:
        pytest.skip("mounting is not permitted")
    try:
        words = tiny_job.command(repo, data, folder, **CHEAP)
        log = tmp_path / "log.txt"
        (folder / "ballast").write_bytes(bytes((12 << 20) - (1 << 19)))
        assert zygote.run(words, log) == 1
        errors = [line for line in log.read_text().splitlines() if line.startswith("error: ")]
        assert len(errors) == 1 and "c2_model_iter2.pkl: cannot be written: No space left on device" in errors[0]
        assert "Traceback" not in log.read_text()
        assert list((folder / "checkpoints").iterdir()) == []
        (folder / "ballast").unlink()
    finally:
        subprocess.run(["umount", folder], check=True)
