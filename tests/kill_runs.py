"""End running jobs at random moments, restart them as a user would, and check the final results.

    python tests/kill_runs.py [--kills 200] [--signal SIGKILL SIGTERM SIGHUP] [--seed S]
                              [--job train|test|both|lmdb|convert|downscale|all]...

The moments lie anywhere between the start of a process and its exit; SIGKILL hits the whole process group as in a power
cut, or a tool alone. The kills of each signal are distributed over the jobs. After each, nothing that looks finished
may differ from an undisturbed run; in the end, everything must be there, byte for byte, and nothing else. After SIGTERM
or SIGHUP nothing unfinished may be left, and the status must say that the run was stopped (75 for a training or test),
unless all was done before. Prints one line per job and signal; exit status 1 if a run did not survive.
"""

import argparse
import contextlib
import hashlib
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

REPO = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(REPO / folder) for folder in ("lib", "tests/helpers", "tests/fuzz")]

import tiny_job  # noqa: E402
from process_status import catches, status_of  # noqa: E402
from video_files import moving_square, read_items, write_video  # noqa: E402
from zygote import Zygote, heed_signals  # noqa: E402

from formats.caffe2_pickle import dump, load  # noqa: E402
from utils import cli  # noqa: E402
from utils.stopping import EXIT_INTERRUPTED  # noqa: E402

SIGNALS = [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP]
# Share of the runs that are processes of their own, which import everything; the others are forked from one that has.
FROM_THE_START = 0.2


# Jobs are repeated often: one clip at a time.
CHEAP = {"NUM_GPUS": 1, "TRAIN__BATCH_SIZE": 1, "SOLVER__MAX_ITER": 4, "TRAIN__EVAL_PERIOD": 4,
         "TRAIN__JITTER_SCALES": "[200,200]", "TEST__BATCH_SIZE": 1, "TEST__NUM_TEST_CLIPS": 3}


class Process:
    """A tool as a process of its own, with what zygote.Run has."""

    def __init__(self, words, log):
        tool = words[0] if words[0].endswith(".py") else f"tools/{words[0]}.py"
        with open(log, "a") as output:
            self._popen = subprocess.Popen(
                [sys.executable, REPO / tool, *map(str, words[1:])], stdout=output, stderr=output, process_group=0,
                env=os.environ | {"OMP_NUM_THREADS": "1"})
        self.pid = self._popen.pid

    def wait(self, timeout=120):
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._popen.wait(timeout)
        return self._popen.returncode

    def kill(self, number=signal.SIGKILL):
        self._popen.send_signal(number)

    def kill_group(self, number=signal.SIGKILL):
        os.killpg(self.pid, number)


@dataclass
class Moment:
    """What there was when a signal was sent. caught: whether the tool had come to its first line; complete: to its end.
    """

    caught: bool
    complete: bool


class Job:
    """A job to kill; creates the input of its runs once, in its own folder.

    Attributes:
        variants: Number of variants of the job.
        most: Largest number of kills of one run.
        leftovers: Pattern of files that exist in the run's folder only during a write. A kill may wait for one.
        on_request: How the names of files begin that are also written when a run is stopped, as far as it has got.
    """

    variants = 1
    most = 4
    leftovers = None
    on_request = ()

    def __init__(self, folder, zygote):
        self.folder = folder

    def stopped(self, number):
        """Exit status after SIGTERM or SIGHUP."""
        return 128 + number

    def words(self, out, variant):
        """The command that writes its results to the folder `out`."""
        raise NotImplementedError

    def finished(self, out):
        """{name: digest or values} of everything under `out` that looks finished."""
        raise NotImplementedError

    def is_complete(self, out, text):
        """Whether a run has done all its work; `text` is its log."""
        raise NotImplementedError

    def reported(self, log):
        """The part of a complete run's log that must not change."""
        return ()

    def unfinished(self, out):
        """Files that nobody should find when no run is at work."""
        return [path for path in out.rglob("*") if path.name.endswith(".tmp") or path.name == "run.lock"]

    def clear_the_way(self, out, message):
        """Do what the tool's error asks for before it can start; False if the error is another one."""
        return False

    def kill(self, run, rng):
        run.kill_group()


def digest(content):
    return hashlib.blake2b(content, digest_size=16).hexdigest()


class Train(Job):
    most = 6
    leftovers = "checkpoints/.*.tmp"
    on_request = ("c2_model_iter",)

    def __init__(self, folder, zygote):
        super().__init__(folder, zygote)
        tiny_job.make_data(folder)

    def stopped(self, number):
        return EXIT_INTERRUPTED

    def words(self, out, variant):
        return tiny_job.command(REPO, self.folder, out, CHECKPOINT__CHECKPOINT_PERIOD=1, **CHEAP)

    def is_complete(self, out, text):
        return '"currentIter": 4' in text

    def finished(self, out):
        found = {}
        for path in (out / "checkpoints").glob("c2_model_iter*.pkl"):
            blobs = load(path)["blobs"]
            found[path.name] = {name: digest(np.asarray(blobs[name]).tobytes()) for name in sorted(blobs)}
        return found

    def unfinished(self, out):
        orphans = [path for path in out.rglob("*.options.json") if not weights_of(path).exists()]
        return super().unfinished(out) + orphans

    def reported(self, log):
        return tiny_job.values_of(tiny_job.stats(log))


def weights_of(options):
    return options.with_name(options.name.replace(".options.json", ".pkl"))


def report_of_test(log):
    # A run that was killed after its report repeats it; the last one counts.
    text = log.read_text().rpartition("Training with config:")[2]
    return re.findall(r"\]: ((?:Num|Max|Min|Clip|top|Id).*)$", text, re.MULTILINE)


class NetTest(Train):
    most = 4
    leftovers = ".*.tmp"

    def __init__(self, folder, zygote):
        super().__init__(folder, zygote)
        log = folder / "log.txt"
        if zygote.run(super().words(folder, 0), log) != 0:
            raise RuntimeError(log.read_text())

    def words(self, out, variant):
        weights = self.folder / "checkpoints/c2_model_iter4.pkl"
        return tiny_job.command(REPO, self.folder, out, "test_net_video", TEST__PARAMS_FILE=weights,
                                TEST__TEST_FULLY_CONV=True, **CHEAP)

    def is_complete(self, out, text):
        return "Temporary file saved to" in text

    def finished(self, out):
        path = out / "results_probs.pkl"
        return {path.name: digest(path.read_bytes())} if path.exists() else {}

    def reported(self, log):
        return report_of_test(log)


class TrainAndTest(Train):
    most = 5
    leftovers = "**/.*.tmp"

    def words(self, out, variant):
        return tiny_job.command(REPO, self.folder, out, CHECKPOINT__CHECKPOINT_PERIOD=2, TRAIN__TEST_AFTER_TRAIN=True,
                                **CHEAP)

    def is_complete(self, out, text):
        return "testing finished" in text

    def finished(self, out):
        scores = out / "results_probs.pkl"
        return super().finished(out) | ({scores.name: digest(scores.read_bytes())} if scores.exists() else {})

    def reported(self, log):
        return super().reported(log), report_of_test(log)


class Lmdb(Job):
    SCRIPTS = ("", "_test", "_test_multicrop", "_test_flipcrop")
    RECORDS = 60_000
    variants = len(SCRIPTS)
    most = 3
    leftovers = ".lmdb.*.tmp/data.mdb"

    def __init__(self, folder, zygote):
        super().__init__(folder, zygote)
        for variant, clips in enumerate((1, 10, 30, 60)):
            lines = (f"videos/class_{i % 400}/video_{i:06d}.mp4 {i % 400}\n" for i in range(self.RECORDS // clips))
            (folder / f"list{variant}.txt").write_text("".join(lines))

    def words(self, out, variant):
        return [f"process_data/kinetics/create_video_lmdb{self.SCRIPTS[variant]}.py", "--dataset_dir", out / "lmdb",
                "--list_file", self.folder / f"list{variant}.txt"]

    def is_complete(self, out, text):
        return (out / "lmdb").exists()

    def finished(self, out):
        if not (out / "lmdb").exists():
            return {}
        return {"lmdb": digest(b"".join(len(part).to_bytes(4, "little") + part
                                        for item in read_items(out / "lmdb") for part in item))}

    def clear_the_way(self, out, message):
        if not re.search(r"lmdb exists already; remove it or choose another --dataset_dir$", message):
            return False
        shutil.rmtree(out / "lmdb")
        return True


class Convert(Job):
    SCRIPTS = ("modify_blob_rm.py", "modify_caffe2_ftvideo.py")
    variants = len(SCRIPTS)
    leftovers = "new/.*.tmp"

    def __init__(self, folder, zygote):
        super().__init__(folder, zygote)
        rng = np.random.default_rng(0)
        blobs = {"model_iter": 4, "lr": np.array(0.1, "f4"), "pred_w": np.ones((4, 8), "f4")}
        for i in range(30):
            blobs |= {f"res{i}_w": rng.random((512, 512), "f4"), f"res{i}_w_momentum": rng.random((512, 512), "f4")}
            blobs |= {f"res{i}_bn_{part}": rng.random(512, "f4") for part in ("s", "b", "rm", "riv")}
        dump({"blobs": blobs}, folder / "in.pkl")

    def words(self, out, variant):
        return [f"process_data/convert_models/{self.SCRIPTS[variant]}", self.folder / "in.pkl", out / "new/out.pkl"]

    def is_complete(self, out, text):
        return (out / "new/out.pkl").exists()

    def finished(self, out):
        path = out / "new/out.pkl"
        return {path.name: digest(path.read_bytes())} if path.exists() else {}


class Downscale(Job):
    leftovers = "*/.*.tmp.*"

    def __init__(self, folder, zygote):
        super().__init__(folder, zygote)
        names = [f"class_{i % 2}/video{i}.{'mp4' if i % 3 else 'avi'}" for i in range(6)]
        for i, name in enumerate(names):
            (folder / "videos" / name).parent.mkdir(parents=True, exist_ok=True)
            write_video(folder / "videos" / name, moving_square(40 + 10 * i, 96, 128, seed=i))
        (folder / "list.txt").write_text("".join(f"videos/{name} 0\n" for name in names))

    def words(self, out, variant):
        return ["process_data/kinetics/downscale_video_joblib.py", "--list_file", self.folder / "list.txt",
                "--folder", self.folder / "videos", "--out", out, "--jobs", 2]

    def is_complete(self, out, text):
        return len(self.finished(out)) == 6

    def unfinished(self, out):
        return [path for path in out.rglob(".*") if ".tmp" in path.name]

    def finished(self, out):
        return {str(path.relative_to(out)): digest(path.read_bytes())
                for path in out.rglob("*") if path.is_file() and not path.name.startswith(".")}

    def kill(self, run, rng):
        # Alone, as the system does when memory is short: ffmpeg continues without the tool.
        run.kill() if rng.random() < 0.5 else run.kill_group()


JOBS = {"train": Train, "test": NetTest, "both": TrainAndTest, "lmdb": Lmdb, "convert": Convert, "downscale": Downscale}


def kill_and_restart(job, zygote, number, kills, rng, undisturbed, report):
    """End a job by a signal the given number of times, over as many runs as needed. Returns (tried, hit, survived)."""
    tried = hit = survived = runs = 0
    while tried < kills:
        variant = runs % len(undisturbed)
        name = f"{number.name}{runs}"
        out, log = job.folder / name, job.folder / f"{name}.txt"
        out.mkdir()
        given = min(rng.randint(1, job.most), kills - tried)
        hits, problem = one_run(job, zygote, number, out, log, variant, given, rng, *undisturbed[variant])
        tried, hit, runs = tried + given, hit + hits, runs + 1
        if problem:
            report(f"{type(job).__name__.lower()}, run {name}: {problem}")
        else:
            survived += given
            shutil.rmtree(out)
    return tried, hit, survived


def run_undisturbed(job, zygote, variant):
    """(durations, finished, reported) of two runs, which must give the same: one from the start, one forked."""
    durations, results = [], []
    for name, start in (("whole", Process), ("again", zygote.start)):
        out, log = job.folder / f"{name}{variant}", job.folder / f"{name}{variant}.txt"
        out.mkdir()
        begun = time.monotonic()
        if start(job.words(out, variant), log).wait() != 0:
            raise RuntimeError(f"an undisturbed run failed: {log.read_text()[-1000:]}")
        durations.append(time.monotonic() - begun)
        results.append((job.finished(out), job.reported(log)))
    if results[0] != results[1]:
        raise RuntimeError("two undisturbed runs differ")
    return durations, *results[0]


def one_run(job, zygote, number, out, log, variant, kills, rng, durations, expected, reported):
    """Restart a run until it completes, with `kills` signals on the way. Returns (hits, problem or None)."""
    hits = 0
    for _ in range(kills + 20):
        before = log.stat().st_size if log.exists() else 0
        from_the_start = rng.random() < FROM_THE_START
        run = (Process if from_the_start else zygote.start)(job.words(out, variant), log)
        moment = None
        if kills:
            kills -= 1
            if await_moment(job, run, out, rng, durations[not from_the_start]):
                moment = send(job, run, number, out, log, before, rng)
        status = run.wait()
        if number == signal.SIGKILL and status in (0, 1):
            moment = None  # it came too late
        hits += moment is not None
        last = written_since(log, before).splitlines()[-1:]
        good = False
        if moment is not None:
            caught = number != signal.SIGKILL and moment.caught
            good = status == (job.stopped(number) if caught else -number)
        if moment is None or moment.complete:
            good |= status == 0 or status == 1 and job.clear_the_way(out, *last)
        if not good:
            return hits, f"status {status} after {moment}: {last}"
        if number != signal.SIGKILL and (left := job.unfinished(out)):
            return hits, f"left behind by a run with status {status} after {moment}: {left}"
        for name, found in job.finished(out).items():
            if found != expected.get(name) and not (number != signal.SIGKILL and name.startswith(job.on_request)):
                return hits, f"{name} looks finished but differs from the undisturbed run's"
        if status == 0 and not kills:
            break
    else:
        return hits, "does not complete"
    found = job.finished(out)
    if wrong := [name for name in expected if found.get(name) != expected[name]]:
        return hits, f"missing or different: {wrong}"
    if left := job.unfinished(out):
        return hits, f"left behind: {left}"
    return hits, None if job.reported(log) == reported else "the log differs"


def written_since(log, size):
    """What has been added to a log since it had a size in bytes; progress bars have characters of several."""
    return log.read_bytes()[size:].decode(errors="replace") if log.exists() else ""


def await_moment(job, run, out, rng, duration):
    """Wait for a random moment of a run; False if the run ends first."""
    if job.leftovers and rng.random() < 0.3:
        before = set(out.glob(job.leftovers))
        while not set(out.glob(job.leftovers)) - before:
            if run.wait(0.001) is not None:
                return False
        time.sleep(rng.uniform(0, 0.01))
        return True
    return run.wait(rng.uniform(0, duration)) is None


def send(job, run, number, out, log, before, rng):
    """Send the signal to a run. Returns the Moment, or None if the run has ended before."""
    if number == signal.SIGKILL:
        job.kill(run, rng)
        return Moment(True, complete=False)
    run.kill(signal.SIGSTOP)  # so that what is found is what the signal finds
    try:
        if status_of(run.pid)["State"].split()[0] == "Z":
            return None
        return Moment(catches(run.pid, number), job.is_complete(out, written_since(log, before)))
    except FileNotFoundError:
        return None
    finally:
        run.kill(number)
        run.kill(signal.SIGCONT)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200, help="number of kills by each signal (default: %(default)s)")
    parser.add_argument("--signal", nargs="+", choices=[number.name for number in SIGNALS],
                        default=["SIGKILL", "SIGTERM"], help="(default: SIGKILL SIGTERM)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the moments (default: %(default)s)")
    parser.add_argument("--job", nargs="+", choices=[*JOBS, "all"], default=["all"], help="(default: all)")
    arguments = parser.parse_args()
    chosen = list(JOBS) if "all" in arguments.job else list(dict.fromkeys(arguments.job))
    if "downscale" in chosen and shutil.which("ffmpeg") is None:
        print("skipping downscale: ffmpeg is not on the path")
        chosen.remove("downscale")
    heed_signals()
    print(f"{'job':>10}{'signal':>9}{'kills tried':>13}{'hit a running job':>19}{'survived':>10}{'took s':>8}",
          flush=True)
    failed = False
    needs_networks = not {"train", "test", "both"}.isdisjoint(chosen)
    zygote = Zygote() if needs_networks else Zygote(["data.lmdb_writer", "formats.caffe2_pickle"])
    with zygote, tempfile.TemporaryDirectory() as folder:
        for place, name in enumerate(chosen):
            kills = arguments.kills // len(chosen) + (place < arguments.kills % len(chosen))
            job_folder = Path(folder, name)
            job_folder.mkdir()
            job = JOBS[name](job_folder, zygote)
            undisturbed = [run_undisturbed(job, zygote, variant) for variant in range(min(job.variants, kills))]
            for number in map(signal.Signals.__getitem__, arguments.signal):
                start = time.monotonic()
                tried, hit, survived = kill_and_restart(
                    job, zygote, number, kills, random.Random(f"{name} {number.name} {arguments.seed}"), undisturbed,
                    lambda line: print(f"  {line}", flush=True))
                print(f"{name:>10}{number.name:>9}{tried:>13}{hit:>19}{survived:>10}"
                      f"{time.monotonic() - start:>8.0f}", flush=True)
                failed |= survived < tried
    return 1 if failed else 0


if __name__ == "__main__":
    cli.run(main)
