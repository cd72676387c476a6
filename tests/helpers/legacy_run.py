"""A cheaper form of the legacy program's end-to-end run: C2D, two frames of 200 pixels."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from video_files import moving_square, write_list, write_video

REPO = Path(__file__).resolve().parents[2]
YAML = REPO / "configs/DBG_kinetics_resnet_8gpu_c2d_nonlocal_400k.yaml"
OPTIONS = {
    "NUM_GPUS": 2, "NUM_PROCESSES": 1, "LOG_PERIOD": 1,
    "TRAIN.BATCH_SIZE": 4, "TRAIN.DATASET_SIZE": 8, "TRAIN.DROPOUT_RATE": 0.5, "TRAIN.EVAL_PERIOD": 2,
    "TRAIN.ITER_COMPUTE_PRECISE_BN": 2, "TEST.BATCH_SIZE": 4, "TEST.DATASET_SIZE": 3,
    "MODEL.NUM_CLASSES": 10, "MODEL.VIDEO_ARC_CHOICE": 1, "RESNETS.WIDTH_PER_GROUP": 4,
    "RESNETS.STEM_OUT_CHANNELS": 8,
    "NONLOCAL.CONV3_NONLOCAL": False, "NONLOCAL.CONV4_NONLOCAL": False,
    "SOLVER.STEP_SIZES": "[2,1,1]", "SOLVER.LRS": "[1,0.1,0.01]", "SOLVER.MAX_ITER": 4,
    "CHECKPOINT.CHECKPOINT_PERIOD": 2,
    # Cheaper than in the legacy run:
    "TRAIN.VIDEO_LENGTH": 2, "TRAIN.SAMPLE_RATE": 3, "TRAIN.CROP_SIZE": 200, "TRAIN.JITTER_SCALES": "[200,220]",
    "TEST.SCALE": 224,
}  # fmt: skip

# The test split, in order.
TEST_VIDEOS = ["tall.mp4", "gone.mp4", "damaged.avi"]


def words(*data_and_checkpoints, **options):
    """Command line --config_file YAML KEY VALUE..., as a list; in keys, a double underscore stands for a dot."""
    data, checkpoints = data_and_checkpoints
    given = {"DATADIR": data, "FILENAME_GT": data / "gt.txt", "CHECKPOINT.DIR": checkpoints}
    given = OPTIONS | given | {name.replace("__", "."): value for name, value in options.items()}
    return ["--config_file", str(YAML), *(str(word) for pair in given.items() for word in pair)]


def run_python(script, *arguments, python=sys.executable, cwd="/", **environment):
    """Run a script of the repository from any folder, as a user does."""
    command = [str(python), str(REPO / script), *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, env=os.environ | environment, capture_output=True, text=True, timeout=300)


def make_data(folder):
    """Make good, damaged and missing videos, lists, and LMDBs (in folder/lmdb, with the scripts in process_data)."""
    write_video(folder / "tall.mp4", moving_square(24, 80, 64, seed=1))
    write_video(folder / "wide.mp4", moving_square(10, 64, 96, seed=2))
    write_video(folder / "square.mp4", moving_square(33, 72, 72, seed=3))
    damaged = write_video(folder / "damaged.avi", moving_square(60, 64, 96), fourcc="MJPG")
    damaged.write_bytes(damaged.read_bytes()[:damaged.stat().st_size // 2])
    every = [folder / name for name in ("tall.mp4", "gone.mp4", "wide.mp4", "damaged.avi", "square.mp4")]
    tested = [folder / name for name in TEST_VIDEOS]
    write_list(folder / "train.txt", every, [0, 1, 2, 3, 4])
    write_list(folder / "val.txt", every, [0, 1, 2, 3, 4])
    write_list(folder / "test.txt", tested, [0, 1, 2])
    write_list(folder / "gt.txt", tested, [0, 1, 2])
    (folder / "lmdb").mkdir()
    (folder / "lmdb/gt.txt").write_text((folder / "gt.txt").read_text())
    for split, script in (("train", ""), ("val", ""), ("test", "_test_multicrop")):
        made = run_python(f"process_data/kinetics/create_video_lmdb{script}.py", "--dataset_dir",
                          folder / "lmdb" / split, "--list_file", folder / f"{split}.txt")
        assert made.returncode == 0, made.stderr
    return folder


@dataclass(frozen=True)
class Job:
    """A training run from LMDBs, including its final fully convolutional test, in its own process."""

    data: Path  # folder of lists, with LMDBs in data/lmdb
    folder: Path  # CHECKPOINT.DIR, and the output in log.txt
    output: str
    errors: str

    @property
    def weights(self):
        return self.folder / "checkpoints/c2_model_iter4.pkl"


def run_job(data, folder):
    run = run_python("tools/train_net_video.py", *words(data / "lmdb", folder))
    assert run.returncode == 0, run.stderr + run.stdout[-3000:]
    (folder / "log.txt").write_text(run.stdout)
    return Job(data, folder, run.stdout, run.stderr)
