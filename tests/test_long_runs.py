"""What a long run can meet: what is lost (nothing beyond the last period), what is said (one line), what comes next.

A full disk while a checkpoint is written, a taken port, killed processes and signals are in test_processes.py.
"""

import contextlib
import os
import re
import shutil
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import tiny_job
from loader_threads import wait_for_their_end
from video_files import make_videos, write_items, write_list, write_video

from data.lmdb_writer import train_items
from data.sources import open_train_source
from data.test_loader import TestClips, TestLoader
from data.train_loader import TrainClips, TrainLoader
from engine.launcher import launch
from formats.caffe2_pickle import load
from utils.errors import Hang, UserError
from video.bad_videos import BadVideos
from video.container import Container
from video.sampling import count_frames


def errors_in(log):
    text = log.read_text()
    assert "Traceback" not in text
    return [line for line in text.splitlines() if line.startswith("error: ")]


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def checkpoints_in(folder):
    """Names of the checkpoints in a folder that holds nothing but them and their options."""
    names = names_in(folder)
    checkpoints = [name for name in names if name.endswith(".pkl")]
    assert names == sorted([*checkpoints, *(name.replace(".pkl", ".options.json") for name in checkpoints)])
    return checkpoints


@contextlib.contextmanager
def file_system(folder, size="256m"):
    """A small file system of its own at a folder. Skips where mounting is not permitted."""
    folder.mkdir(exist_ok=True)
    if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], capture_output=True).returncode:
        pytest.skip("mounting is not permitted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def run_script(repo, script, *words):
    run = subprocess.run([sys.executable, repo / script, *map(str, words)], capture_output=True, text=True, timeout=60)
    return run.returncode, [line for line in run.stderr.splitlines() if line.startswith(("error: ", "Traceback"))]


# Without what takes time and matters not here.
CHEAP = {"NUM_GPUS": 1, "TRAIN__BATCH_SIZE": 1, "TRAIN__COMPUTE_PRECISE_BN": False, "TRAIN__EVAL_PERIOD": 1000}

# --------------------------------------------------------------------------------------------------- a disk that ends


AT_ITERATION = """
import os, subprocess
from engine.training import Training
def accident(it):
    {accident}
step = Training.step
def step_and_accident(self, network, it):
    step(self, network, it)
    if it + 1 == {iteration}:
        accident(it)
Training.step = step_and_accident
"""


def at_iteration(iteration, accident):
    """A prelude: `accident`, a line of Python, happens at the end of an iteration (counted from 1)."""
    return AT_ITERATION.format(iteration=iteration, accident=accident)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system takes root")
def test_a_disk_that_becomes_read_only(zygote, repo, data, tmp_path):
    with file_system(tmp_path / "disk") as folder:
        words, log = tiny_job.command(repo, data, folder, **CHEAP), tmp_path / "log.txt"
        there = str(folder / "checkpoints")
        # A whole file system with an open file is not made read-only on request.
        mounts = [["mount", "--bind", there, there], ["mount", "-o", "remount,bind,ro", there]]
        accident = f"[subprocess.run(words, check=True) for words in {mounts!r}]"
        assert zygote.run(words, log, prelude=at_iteration(3, accident)) == 1
        [error] = errors_in(log)
        assert error == (f"error: {folder}/checkpoints/c2_model_iter4.options.json: cannot be written: Read-only file "
                         "system")
        assert checkpoints_in(folder / "checkpoints") == ["c2_model_iter2.pkl"]
        # Started again it finds out before it works for a period.
        log.unlink()
        assert zygote.run(words, log) == 1
        assert errors_in(log) == [f"error: {folder}/checkpoints: cannot be written to: Read-only file system"]
        assert "| Train" not in log.read_text()
        subprocess.run(["umount", there], check=True)
        assert zygote.run(words, log) == 0
        assert [int(n) for n in re.findall(r"Iters \[(\d)/6\]", log.read_text())] == [3, 4, 5, 6]


WITHOUT_PRIVILEGES = """
import ctypes
header, nothing = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
assert ctypes.CDLL(None).capset(header, nothing) == 0  # root's rights to pass over permissions
"""


@pytest.mark.parametrize("tool", ["train_net_video", "test_net_video"])
def test_a_folder_without_permission(tool, zygote, repo, data, undisturbed, tmp_path):
    folder = tmp_path / "run"
    (folder / "checkpoints").mkdir(parents=True)
    for path in (folder / "checkpoints", folder):
        path.chmod(0o555)
    weights = undisturbed / "checkpoints/c2_model_iter6.pkl"
    words = tiny_job.command(repo, data, folder, tool, TEST__PARAMS_FILE=weights)
    if tool == "test_net_video":
        words += ["TRAIN.JITTER_SCALES", "[200,200]", "TEST.TEST_FULLY_CONV", "True"]
    assert zygote.run(words, tmp_path / "log.txt", prelude=WITHOUT_PRIVILEGES) == 1
    there = folder / "checkpoints" if tool == "train_net_video" else folder
    assert errors_in(tmp_path / "log.txt") == [f"error: {there}: cannot be written to: Permission denied"]
    assert list(folder.rglob("*")) == [folder / "checkpoints"]


def test_a_checkpoint_folder_that_is_removed(zygote, repo, data, tmp_path):
    folder, log = tmp_path / "run", tmp_path / "log.txt"
    accident = f"__import__('shutil').rmtree({str(folder)!r})"
    assert zygote.run(tiny_job.command(repo, data, folder, **CHEAP), log, prelude=at_iteration(3, accident)) == 0
    # The next checkpoint makes it again.
    assert checkpoints_in(folder / "checkpoints") == ["c2_model_iter4.pkl", "c2_model_iter6.pkl"]
    assert load(folder / "checkpoints/c2_model_iter6.pkl")["blobs"]["model_iter"] == 6


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system takes root")
def test_a_full_disk_in_a_test(zygote, repo, data, undisturbed, tmp_path):
    with file_system(tmp_path / "disk", "1m") as folder:
        weights = undisturbed / "checkpoints/c2_model_iter6.pkl"
        words = tiny_job.command(repo, data, folder, "test_net_video", TEST__PARAMS_FILE=weights,
                                 TEST__TEST_FULLY_CONV=True, TRAIN__JITTER_SCALES="[200,200]")
        with contextlib.suppress(OSError), open(folder / "ballast", "wb", buffering=0) as ballast:
            while True:
                ballast.write(bytes(4096))
        os.truncate(folder / "ballast", (folder / "ballast").stat().st_size - 4096)  # for the lock
        log = tmp_path / "log.txt"
        assert zygote.run(words, log) == 1
        [error] = errors_in(log)
        assert error.startswith(f"error: {folder}/results_scores.h5: cannot be written: ")
        assert names_in(folder) == ["ballast"]
        (folder / "ballast").unlink()
        assert zygote.run(words, tmp_path / "again.txt") == 0
        assert "top-1 accuracy" in (tmp_path / "again.txt").read_text()


@pytest.mark.parametrize(("script", "words"), [
    ("process_data/kinetics/create_video_lmdb_test_multicrop.py", ["--dataset_dir", "OUT", "--list_file", "LIST"]),
    ("process_data/kinetics/shuffle_list_rep.py", ["OUT", "--list_file", "LIST"]),
    ("process_data/demo/make_motion_videos.py", ["OUT", "--train", "1", "--val", "0"]),
])
def test_a_full_disk_while_data_are_prepared(script, words, repo, tmp_path):
    (tmp_path / "list.txt").write_text("".join(f"/a/long/way/down/to/the/video/{i:06d}.mp4 0\n" for i in range(2000)))
    with file_system(tmp_path / "disk", "16k") as folder:
        known = {"OUT": folder / "out", "LIST": tmp_path / "list.txt"}
        status, lines = run_script(repo, script, *(known.get(word, word) for word in words))
        assert status == 1
        [line] = lines
        assert line.startswith(f"error: {folder}/out")
        assert re.search("cannot be written: .*(No space left on device|is the disk full)|OpenCV cannot write", line)
        # Nothing is left but what is whole.
        for path in folder.rglob("*.*"):
            assert path.name.startswith("scene_") and count_frames(str(path)) >= 24, path


# ------------------------------------------------------------------------------------------------ an LMDB that changes


def write_lmdb(folder, videos):
    return write_items(folder, train_items([(str(video).encode(), [0]) for video in videos]))


def test_an_lmdb_that_is_replaced(tmp_path):
    write_lmdb(tmp_path / "train", ["a.mp4", "b.mp4"])
    source = open_train_source(tmp_path, "train", 0, False)
    (tmp_path / "train").rename(tmp_path / "old")
    write_lmdb(tmp_path / "train", ["c.mp4"])
    shutil.rmtree(tmp_path / "old")
    # A run goes on with what it began with.
    assert [source.record(i).path for i in range(3)] == ["a.mp4", "b.mp4", "a.mp4"]


@pytest.mark.parametrize("change", [lambda path: os.truncate(path, 4096), lambda path: path.write_bytes(b"x" * 20000)])
def test_an_lmdb_that_is_written_over(change, tmp_path):
    folder = write_lmdb(tmp_path / "train", [f"{i}.mp4" for i in range(1000)])
    source = open_train_source(tmp_path, "train", 0, False)
    change(folder / "data.mdb")
    with pytest.raises(UserError, match="train/data.mdb was changed while it was being read"):
        source.record(999)  # without the check: the end of this process (SIGBUS)


# ---------------------------------------------------------------------------------------------------- a lost device


def failing(error):
    def work(cfg, replicas):
        raise error

    return work


@pytest.fixture
def cfg():
    from core.config import load_config

    return load_config(None, ["NUM_GPUS", "1"])


RESUME = "everything saved so far is intact, run the same command again to resume"


@pytest.mark.parametrize(("error", "line"), [
    (RuntimeError("CUDA error: unspecified launch failure\nCUDA kernel errors might be asynchronously reported"),
     f"cpu: CUDA error: unspecified launch failure; {RESUME}"),
    ("accelerator", f"cpu: CUDA error: device lost; {RESUME}"),
    ("memory", "cpu: out of memory: reduce TRAIN.BATCH_SIZE and TEST.BATCH_SIZE, or increase the number of replicas "
               "(NUM_GPUS); CUDA out of memory. Tried to allocate 2.00 GiB."),
    (RuntimeError("[enforce fail at alloc_cpu.cpp:121] err == 0. DefaultCPUAllocator: can't allocate memory: you tried "
                  "to allocate 900000000000 bytes. Error code 12 (Cannot allocate memory)"),
     "cpu: out of memory: reduce TRAIN.BATCH_SIZE and TEST.BATCH_SIZE, or increase the number of replicas (NUM_GPUS); "
     "[enforce fail at alloc_cpu.cpp:121] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to "
     "allocate 900000000000 bytes. Error code 12 (Cannot allocate memory)"),
])
def test_a_device_that_fails(error, line, cfg):
    import torch

    if error == "accelerator":
        error = getattr(torch, "AcceleratorError", RuntimeError)("CUDA error: device lost\nFor debugging ...")
    if error == "memory":
        error = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nGPU 0 has ...")
    with pytest.raises(UserError) as raised:
        launch(failing(error), cfg)
    assert str(raised.value) == line


@pytest.mark.parametrize("error", [RuntimeError("CUDA error: device-side assert triggered\n..."),
                                   RuntimeError("mat1 and mat2 shapes cannot be multiplied")])
def test_a_bug_stays_a_bug(error, cfg):
    with pytest.raises(RuntimeError) as raised:
        launch(failing(error), cfg)
    assert raised.value is error


def test_a_device_that_is_lost_while_training(zygote, repo, data, tmp_path):
    accident = "raise RuntimeError('CUDA error: unspecified launch failure' + chr(10) + 'Compile with ...')"
    words, log = tiny_job.command(repo, data, tmp_path, **CHEAP), tmp_path / "log.txt"
    assert zygote.run(words, log, prelude=at_iteration(5, accident)) == 1
    [error] = errors_in(log)
    assert error.startswith("error: cpu: CUDA error: unspecified launch failure; everything saved so far is intact")
    assert checkpoints_in(tmp_path / "checkpoints") == ["c2_model_iter2.pkl", "c2_model_iter4.pkl"]


# ---------------------------------------------------------------------------------------------- a decoder that hangs


HANGING = """
import os, threading
from video.container import Container
def decode(self, packet, before=Container.decode):
    if threading.current_thread().name.startswith("decoder") and os.path.exists({checkpoint!r}):
        threading.Event().wait()  # for ever
    return before(self, packet)
Container.decode = decode
"""


@pytest.mark.parametrize("processes", [1, 2])
def test_a_decoder_that_hangs_ends_the_run(processes, zygote, repo, data, tmp_path):
    words = tiny_job.command(repo, data, tmp_path / "run", **CHEAP | {
        "DATALOADER__HANG_SECONDS": 1, "NUM_PROCESSES": processes, "NUM_GPUS": 2, "TRAIN__BATCH_SIZE": 2})
    log = tmp_path / "log.txt"
    hanging = HANGING.format(checkpoint=str(tmp_path / "run/checkpoints/c2_model_iter2.pkl"))
    assert zygote.run(words, log, prelude=hanging, children=processes if processes > 1 else 0) == 1
    # The hanging begins after this checkpoint.
    assert time.time() - (tmp_path / "run/checkpoints/c2_model_iter2.pkl").stat().st_mtime < 30
    [error] = errors_in(log)
    assert error.startswith("error: decoding hangs: no frame for 1 seconds (DATALOADER.HANG_SECONDS) of '")
    named = error.split("'")[1]
    assert named in (data / "train.txt").read_text() and error.endswith("; what has been saved stands")
    assert checkpoints_in(tmp_path / "run/checkpoints")[0] == "c2_model_iter2.pkl"


class SlowFrames(list):
    def __init__(self, *args):
        super().__init__(*args)
        self.begun = threading.Event()


@pytest.fixture
def slow_frames(monkeypatch):
    """Every frame takes as long as this list's only number says, or until the test ends."""
    seconds, ended = SlowFrames([0]), threading.Event()

    def decode(self, packet, before=Container.decode):
        seconds.begun.set()
        ended.wait(seconds[0])
        return before(self, packet)

    monkeypatch.setattr(Container, "decode", decode)
    yield seconds
    ended.set()
    wait_for_their_end()  # threads that were given up end with the frame that they hung at


@pytest.fixture
def train_data(tmp_path):
    videos = make_videos(tmp_path, 4)
    write_list(tmp_path / "train.txt", videos, range(4))
    return open_train_source(tmp_path, "train", 0, False)


def train_loader(source, hang_seconds):
    return TrainLoader(source, TrainClips(2, 1, 32, (32, 40)), batch_size=2, replicas=1, local_replicas=[0], seed=0,
                       purpose="train", num_classes=4, workers=2, bad_videos=BadVideos(), hang_seconds=hang_seconds)


def test_slow_is_not_hanging(slow_frames, train_data):
    slow_frames[0] = 0.03  # a video takes longer than the limit, no frame does
    with train_loader(train_data, hang_seconds=0.2) as loader:
        start = time.monotonic()
        next(loader)
        assert time.monotonic() - start > 0.2


def test_hanging_and_the_next_loader(slow_frames, train_data):
    slow_frames[0] = 30
    loader = train_loader(train_data, hang_seconds=0.2)
    with pytest.raises(Hang) as raised, loader:
        next(loader)
    # Both threads, their videos, and the time.
    today = time.strftime("%Y-%m-%d")
    assert str(raised.value).count(".mp4' (begun " + today) == 2
    with pytest.raises(RuntimeError, match="the loader is closed"):
        next(loader)


def test_a_hanging_decoder_does_not_keep_a_loader_from_being_closed(slow_frames, train_data):
    slow_frames[0] = 30
    loader = train_loader(train_data, hang_seconds=0.2)
    assert slow_frames.begun.wait(30)
    start = time.monotonic()
    with pytest.raises(Hang):
        loader.close()
    assert time.monotonic() - start < 5


def test_a_test_that_hangs(slow_frames, tmp_path):
    from data.sources import open_test_source

    write_video(tmp_path / "v.mp4", np.zeros((12, 64, 64, 3), np.uint8))
    write_list(tmp_path / "test.txt", [tmp_path / "v.mp4"], [0])
    source = open_test_source(tmp_path, "test", 0, 1)
    slow_frames[0] = 30
    clips = TestClips(2, 1, 32, 32, 1)
    with pytest.raises(Hang, match="v.mp4' .begun"), \
            TestLoader(source, clips, [np.array([0])], 1, BadVideos(), hang_seconds=0.2) as loader:
        next(loader)
