"""Comparisons with the legacy program's data: clips, LMDBs, pickles, conversions and the report of a test.

Each check takes a path of the references and yields (what, error, bar), like those in check_references.py.
"""

import importlib
import json
import sys
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import torch
from legacy_run import REPO, YAML
from video_files import read_items, write_list

from core.config import load_config
from data import lmdb_writer, transforms
from data.records import TestRecord
from data.sources import group_by_video, open_test_source, open_train_source
from data.test_loader import TestClips, TestLoader
from engine.solver import Solver
from formats.blobs import load_blobs
from formats.caffe2_pickle import load
from models.model_builder_video import create_model
from reports.log_parser import read_log
from reports.video_scores import score_videos
from utils.checkpoints import initialize_params_from_file, save_checkpoint
from video.bad_videos import BadVideos
from video.sampling import count_frames

# name: (function that makes the records of a list, (TEST.USE_MULTI_CROP, spatial positions) of a test LMDB)
LMDBS = {
    "trainval": (lmdb_writer.train_items, None),
    "test_singlecrop": (partial(lmdb_writer.clip_items, spatial_positions=None), (0, 1)),
    "test_multicrop": (partial(lmdb_writer.clip_items, spatial_positions=3), (1, 3)),
    "test_flipcrop": (partial(lmdb_writer.clip_items, spatial_positions=6), (2, 6)),
}
# The network of the legacy program's end-to-end run.
END_TO_END = ["MODEL.NUM_CLASSES", "10", "MODEL.VIDEO_ARC_CHOICE", "2", "RESNETS.WIDTH_PER_GROUP", "4",
              "NONLOCAL.CONV3_NONLOCAL", "False", "NONLOCAL.CONV4_NONLOCAL", "False"]


# ------------------------------------------------------------------------------------------------- clips


def check_clips(path, _):
    """Test clips of the videos in videos/, next to the references' folder."""
    expected, videos = json.loads(path.read_text()), path.parent.parent / "videos"
    names = sorted({clip["video"] for clip in expected})
    counts = {name: count_frames(str(videos / name), as_stored=True) for name in names}
    wrong = sum(_geometry(clip, counts[clip["video"]]) != _geometry_of(clip) for clip in expected)
    yield f"clips of {len(expected)} with other frames or pixels", wrong, 0
    errors = [error for kind in sorted({(clip["length"], clip["rate"]) for clip in expected})
              for error in _clip_errors([clip for clip in expected if (clip["length"], clip["rate"]) == kind],
                                        videos, list(counts), *kind)]
    yield "missing clips", len(expected) - len(errors), 0
    values, means = np.max(errors, axis=0)
    yield "values at 48 points of each clip", values, 1e-4
    yield "means over a clip", means, 1e-5


def _geometry(clip, frames):
    start, spatial = transforms.uniform_start(frames, 10, clip["temporal"]), clip["spatial"]
    size = transforms.scaled_size(clip["height"], clip["width"], 256)
    indices = transforms.clip_indices(start, clip["length"], clip["rate"], frames)
    return [frames, start, indices.tolist(), [*size], [*transforms.crop_offsets(*size, 256, spatial)],
            transforms.is_mirrored(spatial)]


def _geometry_of(clip):
    return [clip[name] for name in ("frames", "start", "indices", "scaled", "offset", "mirror")]


def _clip_errors(expected, folder, names, length, rate):
    """Yield (largest error of the values, error of the mean) of each clip with a given length and rate."""
    clips = {60 * names.index(clip["video"]) + 10 * clip["spatial"] + clip["temporal"]: clip for clip in expected}
    with tempfile.TemporaryDirectory() as scratch:
        write_list(Path(scratch, "test.txt"), [folder / name for name in names], [0] * len(names))
        source = open_test_source(scratch, "test", use_multi_crop=2, num_temporal=10)
        batches = [part for video in group_by_video(source.path_ids, sorted(clips))
                   for part in np.split(video, range(4, len(video), 4))]
        with TestLoader(source, TestClips(length, rate, 256, 256, 10), batches, 2, BadVideos(),
                        as_stored=True) as loader:
            for batch, ordinals in loader:
                for values, ordinal in zip(transforms.normalize(batch, 114.75, 57.375), ordinals, strict=True):
                    clip = clips[ordinal]
                    points = values.numpy()[tuple(np.array(clip["points"]).T)]
                    yield (np.abs(points - clip["values"]).max(),
                           abs(values.mean(dtype=torch.float64).item() - clip["mean"]))


# ------------------------------------------------------------------------------------------------- LMDBs


def check_lmdbs(folder, _):
    lines = [line.rsplit(" ", 1) for line in (folder / "list.txt").read_text().splitlines()]
    for name, (items_of, crops) in LMDBS.items():
        legacy = read_items(folder / name)
        with tempfile.TemporaryDirectory() as scratch:
            out = Path(scratch, name)
            lmdb_writer.write_lmdb(out, folder / "list.txt", items_of, sorted_keys=name == "trainval")
            yield f"{name}: records written differently", len(set(read_items(out)) ^ set(legacy)), 0
        read = _train_records(folder, name) if crops is None else _test_records(folder, name, crops[0])
        expected = [(path, int(label)) for path, label in lines]
        if crops is not None:
            # Keys are decimals in bytewise order: 0, 1, 10, 11, ...
            numbers = sorted(range(10 * crops[1] * len(lines)), key=str)
            expected = [_test_record(number, lines, *crops) for number in numbers]
        differing = sum(a != b for a, b in zip(read, expected, strict=False)) + abs(len(read) - len(expected))
        yield f"{name}: records of {len(expected)} read differently", differing, 0


def _train_records(folder, name):
    source = open_train_source(folder, name, 0, shuffle=False)
    return [(record.path, record.label) for record in map(source.record, range(len(source)))]


def _test_records(folder, name, use_multi_crop):
    source = open_test_source(folder, name, use_multi_crop, 10)
    return list(map(source.record, range(len(source))))


def _test_record(number, lines, use_multi_crop, positions):
    video, clip = divmod(number, 10 * positions)
    spatial, temporal = divmod(clip, 10)
    return TestRecord(lines[video][0], video, temporal, spatial if use_multi_crop else None)


# ------------------------------------------------------------------------------------- pickles, conversions


def check_pickles(folder, _):
    expected = json.loads((folder / "small_values.json").read_text())
    for path in sorted(folder.glob("small_*.pkl")):
        blobs = load_blobs(path)
        wrong = [name for name, values in expected.items()
                 if name not in blobs or np.ravel(blobs[name]).tolist()[:len(values)] != values]
        yield f"{path.stem}: blobs of {len(expected)} read differently", len(wrong), 0
    for path in sorted(folder.glob("c2_model_iter*.pkl")):
        legacy = load_blobs(path)
        yield f"{path.stem}: blobs of {len(legacy)} that change when saved again", len(_changed(path, legacy)), 0


def _changed(path, legacy):
    """Names of the blobs that differ after loading a checkpoint into a network and its solver and saving it again."""
    model = create_model(load_config(YAML, END_TO_END), "train")
    history = Solver(model, 0.9, True, 0, 0, False).history
    model_iter, lr = initialize_params_from_file(model, path, history)
    with tempfile.TemporaryDirectory() as scratch:
        save_checkpoint(Path(scratch, "again.pkl"), model, history, lr, model_iter)
        again = load_blobs(Path(scratch, "again.pkl"))

    def content(value):
        return type(value), np.shape(value), np.asarray(value).dtype, np.asarray(value).tobytes()

    return [name for name in legacy.keys() | again.keys()
            if name not in legacy or name not in again or content(legacy[name]) != content(again[name])]


def check_conversion(path, _):
    """SCRIPT_of_CHECKPOINT.json summarises the legacy script's output for the checkpoint in the same folder."""
    script, checkpoint = path.stem.split("_of_")
    sys.path.insert(0, str(REPO / "process_data/convert_models"))
    try:
        convert = importlib.import_module(script).convert
    finally:
        sys.path.pop(0)
    yield from conversion_errors(convert(load_blobs(path.with_name(f"{checkpoint}.pkl"))), json.loads(path.read_text()))


def conversion_errors(found, expected):
    """Yield (what, error, bar) of converted blobs, compared with a summary {name: type, shape, sample, sum, l2}."""
    kinds = {name: (type(value).__name__, [*np.shape(value)], "f8" if name == "lr" else np.asarray(value).dtype.str[1:])
             for name, value in found.items()}
    wanted = {name: (legacy["type"], legacy["shape"], "f8" if name == "lr" else "f4")
              for name, legacy in expected.items()}
    yield f"blobs of {len(expected)} with other names, types or shapes", len(set(map(str, kinds.items())) ^ set(
        map(str, wanted.items()))), 0
    different, worst = 0, 0.0
    for name in expected.keys() & found.keys():
        legacy, flat = expected[name], np.asarray(found[name], "f8").ravel()
        sample = flat if flat.size <= 8 else flat[np.linspace(0, flat.size - 1, 8).astype(int)]
        different += sample.tolist() != legacy["sample"]
        worst = max(worst,
                    abs(flat.sum() - legacy["sum"]) / max(1e-3, np.abs(flat).sum()),
                    abs(np.linalg.norm(flat) - legacy["l2"]) / max(1e-30, legacy["l2"]))
    yield f"blobs of {len(expected)} with a bit that differs in a sample", different, 0
    yield "sums and norms", worst, 1e-12


# ------------------------------------------------------------------------------------------------- report


def check_end_to_end(folder, _):
    """The report made from the scores of the legacy program's test, compared with the report in its log."""
    clips = load(folder / "results_probs.pkl")
    labels = [int(line.rsplit(" ", 1)[1]) for line in (folder / "gt.txt").read_text().splitlines()]
    log = read_log(folder / "log.txt")
    report = score_videos(np.array([video for video, _ in clips]), np.array([scores for _, scores in clips]), labels,
                          log.report["max_clips"])
    counts = report.clips_per_video
    found = {
        "empty_videos": (counts == 0).sum(),
        "corrupted_videos": (counts != report.expected_clips).sum(),
        "max_clips": counts.max(),
        "min_clips": counts.min(),
        "clip1_accuracy": _accuracy(report.clip1_correct, report.clip1_total),
        "clip_accuracy": _accuracy(report.clip_correct, report.clip_total),
        "top1_accuracy": round(100 * report.top1, 2),
        "top5_accuracy": round(100 * report.top5, 2),
    }
    differing = [name for name in found.keys() | log.report.keys() if found.get(name) != log.report.get(name)]
    yield f"lines of {len(found)} of the report that differ", len(differing), 0


def _accuracy(correct, total):
    return round(100 * correct / total, 2), correct, total
