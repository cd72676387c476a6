"""A job small enough to run many times: eight videos of noise and a very narrow network with one non-local block."""

import json
import re

import numpy as np
from video_files import write_video

OPTIONS = {
    "NUM_GPUS": 2, "LOG_PERIOD": 1,
    "TRAIN.BATCH_SIZE": 2, "TRAIN.DATASET_SIZE": 8, "TRAIN.VIDEO_LENGTH": 2, "TRAIN.SAMPLE_RATE": 2,
    "TRAIN.CROP_SIZE": 200, "TRAIN.JITTER_SCALES": "[200,210]", "TRAIN.DROPOUT_RATE": 0.5, "TRAIN.EVAL_PERIOD": 3,
    "TRAIN.ITER_COMPUTE_PRECISE_BN": 1, "TRAIN.TEST_AFTER_TRAIN": False,
    "TEST.BATCH_SIZE": 2, "TEST.DATASET_SIZE": 4, "TEST.NUM_TEST_CLIPS": 6, "TEST.SCALE": 200,
    "RESNETS.WIDTH_PER_GROUP": 2, "RESNETS.STEM_OUT_CHANNELS": 8, "MODEL.NUM_CLASSES": 4, "MODEL.VIDEO_ARC_CHOICE": 1,
    "NONLOCAL.AFTER": "['res3_1']",
    "SOLVER.STEP_SIZES": "[2,2,2]", "SOLVER.MAX_ITER": 6, "CHECKPOINT.CHECKPOINT_PERIOD": 2,
}  # fmt: skip


def make_data(folder):
    """Write eight readable videos, and train, val and test lists that also name a missing one."""
    rng = np.random.default_rng(0)
    lines = []
    for i in range(8):
        path = folder / f"v{i}.mp4"
        write_video(path, rng.integers(0, 255, (12 + i, 64, 80, 3), dtype=np.uint8))
        lines.append(f"{path} {i % 4}\n")
    with_missing = [*lines[:3], f"{folder / 'gone.mp4'} 1\n", *lines[3:]]
    (folder / "train.txt").write_text("".join(with_missing))
    (folder / "val.txt").write_text("".join(with_missing))
    (folder / "test.txt").write_text("".join(with_missing[:4]))
    (folder / "gt.txt").write_text("".join(with_missing[:4]))


def command(repo, data, folder, tool="train_net_video", **options):
    """A tool's command line, as a list; in option names, a double underscore stands for a dot."""
    options = OPTIONS | {name.replace("__", "."): value for name, value in options.items()}
    options |= {"DATADIR": data, "FILENAME_GT": data / "gt.txt", "CHECKPOINT.DIR": folder}
    yaml = repo / "configs" / "DBG_kinetics_resnet_8gpu_c2d_nonlocal_400k.yaml"
    words = [tool, "--config_file", yaml]
    return [str(word) for word in [*words, *(part for option in options.items() for part in option)]]


def stats(log):
    """The json_stats of a log by iteration; the last one counts if an iteration occurs twice."""
    found = (json.loads(text) for text in re.findall(r"^json_stats: (.*)$", log.read_text(), re.MULTILINE))
    return {values["currentIter"]: values for values in found}


def values_of(stats_of_run):
    """The values of json_stats, by iteration, that equal runs share; best_* start afresh in each process."""
    names = ("current_learning_rate", "train_loss", "train_err", "train_err5", "test_err", "test_err5", "epoch")
    return {it: {name: values[name] for name in names} for it, values in stats_of_run.items()}
