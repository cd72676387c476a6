"""Kill running jobs at random moments, restart them as a user would, and check the final results.

    python tests/kill_runs.py [--kills 200] [--seed S] [--job train|test|lmdb|convert|downscale|all]...

The kills (SIGKILL, of the whole process group as in a power cut, or of a tool alone) are distributed over the jobs.
After each kill, nothing that looks finished may differ from an undisturbed run; in the end, everything must be there,
byte for byte. Prints one line per job; exit status 1 if a run did not survive.
"""

import argparse
import hashlib
import random
import re
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

REPO = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(REPO / folder) for folder in ("lib", "tests/helpers", "tests/fuzz")]

import tiny_job  # noqa: E402
from video_files import moving_square, read_items, write_video  # noqa: E402
from zygote import Zygote  # noqa: E402

from formats.caffe2_pickle import dump, load  # noqa: E402
from utils import cli  # noqa: E402


class Job:
    """A job to kill; creates the input of its runs once, in its own folder.

    Attributes:
        variants: Number of variants of the job.
        most: Largest number of kills of one run.
        leftovers: Pattern of files that exist in the run's folder only during a write. A kill may wait for one.
    """

    variants = 1
    most = 4
    leftovers = None

    def __init__(self, folder, zygote):
        self.folder = folder

    def words(self, out, variant):
        """The command that writes its results to the folder `out`."""
        raise NotImplementedError

    def finished(self, out):
        """{name: digest or values} of everything under `out` that looks finished."""
        raise NotImplementedError

    def reported(self, log):
        """The part of a complete run's log that must not change."""
        return ()

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

    def __init__(self, folder, zygote):
        super().__init__(folder, zygote)
        tiny_job.make_data(folder)

    def words(self, out, variant):
        return tiny_job.command(REPO, self.folder, out, CHECKPOINT__CHECKPOINT_PERIOD=1)

    def finished(self, out):
        found = {}
        for path in (out / "checkpoints").glob("c2_model_iter*.pkl"):
            blobs = load(path)["blobs"]
            found[path.name] = {name: digest(np.asarray(blobs[name]).tobytes()) for name in sorted(blobs)}
        return found

    def reported(self, log):
        return tiny_job.values_of(tiny_job.stats(log))


class NetTest(Train):
    most = 4
    leftovers = ".*.tmp"

    def __init__(self, folder, zygote):
        super().__init__(folder, zygote)
        log = folder / "log.txt"
        if zygote.run(tiny_job.command(REPO, folder, folder), log) != 0:
            raise RuntimeError(log.read_text())

    def words(self, out, variant):
        options = {"TEST__TEST_FULLY_CONV": True, "TRAIN__JITTER_SCALES": "[200,200]", "TEST__BATCH_SIZE": 2}
        weights = self.folder / "checkpoints/c2_model_iter6.pkl"
        return tiny_job.command(REPO, self.folder, out, "test_net_video", TEST__PARAMS_FILE=weights, **options)

    def finished(self, out):
        path = out / "results_probs.pkl"
        return {path.name: digest(path.read_bytes())} if path.exists() else {}

    def reported(self, log):
        # A run that was killed after its report repeats it; the last one counts.
        text = log.read_text().rpartition("Training with config:")[2]
        return re.findall(r"\]: ((?:Num|Max|Min|Clip|top|Id).*)$", text, re.MULTILINE)


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

    def finished(self, out):
        return {str(path.relative_to(out)): digest(path.read_bytes())
                for path in out.rglob("*") if path.is_file() and not path.name.startswith(".")}

    def kill(self, run, rng):
        # Alone, as the system does when memory is short: ffmpeg continues without the tool.
        run.kill() if rng.random() < 0.5 else run.kill_group()


JOBS = {"train": Train, "test": NetTest, "lmdb": Lmdb, "convert": Convert, "downscale": Downscale}


def kill_and_restart(job, zygote, kills, rng, report):
    """Kill a job the given number of times, over as many runs as needed. Returns (tried, hit, survived)."""
    undisturbed = [run_undisturbed(job, zygote, variant) for variant in range(min(job.variants, kills))]
    tried = hit = survived = number = 0
    while tried < kills:
        variant = number % len(undisturbed)
        out, log = job.folder / f"run{number}", job.folder / f"run{number}.txt"
        out.mkdir()
        given = min(rng.randint(1, job.most), kills - tried)
        hits, problem = one_run(job, zygote, out, log, variant, given, rng, *undisturbed[variant])
        tried, hit, number = tried + given, hit + hits, number + 1
        if problem:
            report(f"{type(job).__name__.lower()}, run {number}: {problem}")
        else:
            survived += given
            shutil.rmtree(out)
    return tried, hit, survived


def run_undisturbed(job, zygote, variant):
    """(duration, finished, reported) of the second of two runs, which is the faster; both must give the same."""
    runs = []
    for name in ("whole", "again"):
        out, log = job.folder / f"{name}{variant}", job.folder / f"{name}{variant}.txt"
        out.mkdir()
        start = time.monotonic()
        if zygote.run(job.words(out, variant), log) != 0:
            raise RuntimeError(f"an undisturbed run failed: {log.read_text()[-1000:]}")
        runs.append((time.monotonic() - start, job.finished(out), job.reported(log)))
    if runs[0][1:] != runs[1][1:]:
        raise RuntimeError("two undisturbed runs differ")
    return runs[1]


def one_run(job, zygote, out, log, variant, kills, rng, duration, expected, reported):
    """Restart a run until it completes, with `kills` kills on the way. Returns (hits, problem or None)."""
    hits = 0
    for _ in range(kills + 20):
        run = zygote.start(job.words(out, variant), log)
        if kills:
            kills -= 1
            if await_moment(job, run, out, rng, duration):
                job.kill(run, rng)
        status = run.wait()
        hits += status == -signal.SIGKILL
        for name, found in job.finished(out).items():
            if found != expected.get(name):
                return hits, f"{name} looks finished but differs from the undisturbed run's"
        last = log.read_text().splitlines()[-1:] if log.exists() else []
        if status == 0 and not kills:
            break
        if status not in (0, -signal.SIGKILL) and not (status == 1 and job.clear_the_way(out, *last)):
            return hits, f"status {status}: {last}"
    else:
        return hits, "does not complete"
    if job.finished(out) != expected:
        return hits, f"missing or different: {sorted(expected.keys() - job.finished(out).keys())}"
    return hits, None if job.reported(log) == reported else "the log differs"


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


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200, help="total number of kills (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the moments (default: %(default)s)")
    parser.add_argument("--job", nargs="+", choices=[*JOBS, "all"], default=["all"], help="(default: all)")
    arguments = parser.parse_args()
    chosen = list(JOBS) if "all" in arguments.job else list(dict.fromkeys(arguments.job))
    if "downscale" in chosen and shutil.which("ffmpeg") is None:
        print("skipping downscale: ffmpeg is not on the path")
        chosen.remove("downscale")
    print(f"{'job':>10}{'kills tried':>13}{'hit a running job':>19}{'survived':>10}{'took s':>8}", flush=True)
    failed = False
    with Zygote() as zygote, tempfile.TemporaryDirectory() as folder:
        for place, name in enumerate(chosen):
            kills = arguments.kills // len(chosen) + (place < arguments.kills % len(chosen))
            start = time.monotonic()
            job_folder = Path(folder, name)
            job_folder.mkdir()
            tried, hit, survived = kill_and_restart(JOBS[name](job_folder, zygote), zygote, kills,
                                                    random.Random(f"{name} {arguments.seed}"),
                                                    lambda line: print(f"  {line}", flush=True))
            print(f"{name:>10}{tried:>13}{hit:>19}{survived:>10}{time.monotonic() - start:>8.0f}", flush=True)
            failed |= survived < tried
    return 1 if failed else 0


if __name__ == "__main__":
    cli.run(main)
