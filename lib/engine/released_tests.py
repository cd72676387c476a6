"""Tests of the released models, by the protocol that their accuracies were published for."""

import difflib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data.data_builder import protocol_of_test, read_ground_truth, test_source
from data.lists import format_line, read_list
from data.sources import TestSource
from engine.agreement import agree_on_options
from engine.replicas import Replicas
from engine.testing import test_net
from engine.weights_options import configuration_of_weights
from formats.blobs import read_checkpoint
from models.compilation import forget_compiled
from models.released import RELEASED, ReleasedModel
from reports.released_table import Measurement, measured_beside_published
from utils.collections import AttrDict
from utils.errors import UserError
from utils.files import StrPath, atomic_write, make_folder

logger = logging.getLogger(__name__)

# The published one, with the 10 clips of the files of options.
PROTOCOL = ["TEST.TEST_FULLY_CONV", "True"]
SEED = 1


@dataclass(frozen=True)
class ReleasedTests:
    """What to test.

    Attributes:
        folder: where the files of the models are.
        names: of the models; none: all that are there.
        words: KEY VALUE words: DATADIR, FILENAME_GT, and CHECKPOINT.DIR, in which each test gets a folder of its own.
        quick: number of videos of a sample; None: all.
    """

    folder: StrPath
    names: Sequence[str]
    words: Sequence[str]
    quick: int | None = None


def run_released_tests(cfg: AttrDict, replicas: Replicas, request: ReleasedTests) -> None:
    """Test the models one after another, and print their accuracies beside the published ones.

    Started again, it goes on where it was interrupted, as each test does (engine.testing). Tests that are finished only
    report again, unless their weights are others now.

    Raises:
        UserError: what is missing or damaged; of files of weights and lists before the first test begins.
    """
    tests = replicas.from_root(lambda: plan_tests(request))
    measurements = []
    for number, (model, model_cfg) in enumerate(tests, start=1):
        logger.info("Testing %s, %d of %d", model.name, number, len(tests))
        agree_on_options(model_cfg, replicas)
        report = test_net(model_cfg, replicas)
        forget_compiled()
        if report is not None:
            total = len(report.clips_per_video)
            measurements.append(Measurement(model, total, int((report.clips_per_video > 0).sum()),
                                            round(report.top1 * total), round(report.top5 * total)))
    if replicas.is_root:
        print(measured_beside_published(measurements, is_sample=request.quick is not None), flush=True)


def plan_tests(request: ReleasedTests) -> list[tuple[ReleasedModel, AttrDict]]:
    """The models to test, with their configurations; prints which are missing. Writes the list of a sample."""
    models = find_models(request.names, request.folder)
    configurations = []
    for model in models:
        path = _path(request.folder, model)
        configurations.append(configuration_of_weights(read_checkpoint(path), [
            *request.words, *PROTOCOL, "TEST.PARAMS_FILE", str(path)]))
    folder = Path(configurations[0].CHECKPOINT.DIR)
    if configurations[0].FILENAME_GT is None:
        raise UserError("FILENAME_GT: expected the list of the test videos, got None")
    videos = len(read_list(configurations[0].FILENAME_GT))
    for cfg in configurations:
        cfg.TEST.DATASET_SIZE = videos
    if request.quick is not None:
        folder /= f"quick_{request.quick}"
        sample = write_sample(configurations[0], request.quick, folder)
        for cfg in configurations:
            cfg.DATADIR, cfg.FILENAME_GT, cfg.TEST.DATASET_SIZE = str(folder), str(sample), request.quick
    for model, cfg in zip(models, configurations, strict=True):
        cfg.CHECKPOINT.DIR = str(folder / model.name)
    return list(zip(models, configurations, strict=True))


def find_models(names: Sequence[str], folder: StrPath) -> list[ReleasedModel]:
    """The models of these names (with or without `.pkl`); without any, those that are in the folder, naming the others.

    Raises:
        UserError: there is no such model, or its file is not there.
    """
    for name in (wanted := [name.removesuffix(".pkl") for name in names]):
        if name not in RELEASED:
            near = difflib.get_close_matches(name, RELEASED, n=1, cutoff=0)[0]
            raise UserError(f"{name!r:.100}: no released model has this name; the nearest is {near}")
    there = [model for model in RELEASED.values() if _path(folder, model).exists()]
    missing = [model for model in RELEASED.values() if model not in there and (not wanted or model.name in wanted)]
    for model in missing:
        print(f"not there: {_path(folder, model)}; from {model.link}", flush=True)
    if missing and (wanted or not there):
        what = f"{missing[0].name}.pkl" if wanted else "released models"
        raise UserError(f"{folder}: expected {what}, which can be had from the above")
    return [RELEASED[name] for name in dict.fromkeys(wanted)] or there


def _path(folder: StrPath, model: ReleasedModel) -> Path:
    return Path(folder, f"{model.name}.pkl")


def spread(videos: int, count: int) -> np.ndarray:
    """(count,) ascending numbers below `videos`: a random one of each of `count` equal parts; the same each time."""
    offsets = np.random.default_rng(SEED).random(count)
    return np.floor((np.arange(count) + offsets) * (videos / count)).astype(np.int64)


def write_sample(cfg: AttrDict, count: int, folder: Path) -> Path:
    """Write the list of a sample of the test's videos, `folder`/test.txt, unless it is there. Returns its path.

    Raises:
        UserError: there are not that many videos, or no test data.
    """
    labels, source = read_ground_truth(cfg), test_source(cfg, protocol_of_test(cfg))
    assert labels is not None
    videos, first = np.unique(source.video_indices, return_index=True)
    if not 1 <= count <= len(videos) or videos[-1] >= len(labels):
        raise UserError(f"--quick: expected 1 to {len(videos)} videos, which {cfg.DATADIR} has, got {count}")
    text = b"".join(_line(source, first[place], int(labels[videos[place]])) for place in spread(len(videos), count))
    make_folder(folder)
    path = folder / "test.txt"
    if not path.exists() or path.read_bytes() != text:
        with atomic_write(path) as file:
            file.write(text)
    return path


def _line(source: TestSource, record: int, label: int) -> bytes:
    path = source.paths[source.path_ids[record]]
    try:
        return format_line(path.encode("utf-8", "surrogateescape"), label) + b"\n"
    except ValueError as error:
        raise UserError(f"--quick: {error}") from error
