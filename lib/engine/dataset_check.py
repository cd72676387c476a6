"""What a configuration asks of the data: the splits that its runs read, and against which options."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

from data.dataset_check.check import Limits
from data.dataset_check.findings import Findings
from data.dataset_check.splits import Split, TestPlan
from data.sources import locate
from utils.collections import AttrDict
from utils.errors import UserError
from utils.files import make_folder

SPLITS = ("train", "val", "test")


def configured_splits(cfg: AttrDict, wanted: Collection[str] | None, findings: Findings) -> list[Split]:
    """The splits that the runs of a configuration read; those that are missing go into findings.

    wanted: some of SPLITS; None: all that the configuration needs.
    """
    splits = []
    for name, data_type in (("train", cfg.TRAIN.DATA_TYPE), ("val", cfg.TEST.DATA_TYPE)):
        if name in (wanted or SPLITS):
            splits += _split_at(cfg, data_type, findings, name=name, all_classes=name == "train")
    if "test" in (wanted or SPLITS):
        for name, plan in test_plans(cfg, findings, wanted=bool(wanted)).items():
            splits += _split_at(cfg, "test", findings, name=name, test=plan)
    return splits


def _split_at(cfg: AttrDict, data_type: str, findings: Findings, **arguments: Any) -> list[Split]:
    """[Split] of DATADIR/<data_type>; [] if there is none."""
    try:
        folder, list_file = locate(cfg.DATADIR, data_type)
    except UserError as error:
        findings.add("split", arguments["name"], str(error))
        return []
    return [Split(folder=folder, list_file=list_file, num_classes=cfg.MODEL.NUM_CLASSES, **arguments)]


def test_plans(cfg: AttrDict, findings: Findings, wanted: bool) -> dict[str, TestPlan]:
    """{name: TestPlan} of the tests that runs with a configuration do: after a training, and by the test tool.

    Unless it sets options of a test, a configuration does not show whether the latter is meant; then the plan is only
    made if it is wanted.
    """
    # Imported here because they load PyTorch, which takes longer than checking small data.
    from data.data_builder import clips_of_test, protocol_of_test
    from engine.testing import config_after_training

    configurations = {}
    if cfg.TRAIN.TEST_AFTER_TRAIN:
        configurations["test after training"] = config_after_training(cfg, weights="")
    wanted = wanted and not configurations
    if wanted or cfg.TEST.PARAMS_FILE or cfg.TEST.TEST_FULLY_CONV or cfg.TEST.TEST_FULLY_CONV_FLIP:
        configurations["test"] = cfg
    plans: dict[str, TestPlan] = {}
    for name, test_cfg in configurations.items():
        try:
            protocol = protocol_of_test(test_cfg)
            clips_of_test(protocol)
        except UserError as error:
            findings.add("options", name, str(error))
            continue
        plan = TestPlan(protocol.multi_crop, protocol.clips, test_cfg.TEST.DATASET_SIZE)
        if plan not in plans.values():
            plans[name] = plan
    return plans


def limits_of(cfg: AttrDict) -> Limits:
    """The options that videos and lists are checked against."""
    clip_frames = cfg.TRAIN.VIDEO_LENGTH * cfg.TRAIN.SAMPLE_RATE
    return Limits(clip_frames, cfg.DATALOADER.MAX_BAD_IMAGES, cfg.FILENAME_GT, cfg.DATALOADER.AS_STORED)


def facts_file(cfg: AttrDict) -> Path:
    """Where a training finds what decoding the videos revealed; its folder is made."""
    make_folder(cfg.CHECKPOINT.DIR)
    return Path(cfg.CHECKPOINT.DIR) / "frame_counts.txt"
