#!/usr/bin/env python3
"""Check data before a run of days: say what would go wrong in it.

    python tools/check_dataset.py --config_file configs/F.yaml [KEY VALUE]...
    python tools/check_dataset.py --list LIST
    python tools/check_dataset.py --lmdb FOLDER

With a configuration: all splits that its runs read, from LMDBs or lists, against its options. With --list or --lmdb:
that one, and against the options if there is a configuration, too. Exit status: 0 if all is well, 1 if not.

Every video is decoded to its end, in processes of their own. What is learnt of it is remembered in frame_counts.txt,
in CHECKPOINT.DIR (where a training finds it) or beside the list or LMDB: a second check decodes only what is new.
"""

import _init_paths  # noqa: F401, I001  (puts lib/ on the path)

import argparse
import copy
import json
import os
import sys
from pathlib import Path

from core.config import load_config
from data.dataset_check import (
    Findings,
    Split,
    TestPlan,
    check_bad_images,
    check_classes,
    check_files,
    check_ground_truth,
    check_videos,
    clean_lines,
    decode_new,
    flawed,
    lmdb_split,
    place_name,
    scan_split,
)
from video.video_facts import VideoFactsCache
from data.sources import locate
from utils import cli
from utils.errors import UserError
from utils.files import atomic_write, make_folder

SPLITS = ("train", "val", "test")
SKIP_CHECK = 20  # times as long as decoding a video takes --try_skipping at most (about 4, mostly)
EXAMPLES = 5  # of each kind of finding, in the report for people


def splits_to_check(args, cfg, findings):
    """The list of Splits that the command line asks for."""
    num_classes = cfg.MODEL.NUM_CLASSES if cfg else None
    if args.list:
        return [Split("list", None, Path(args.list), num_classes, all_classes=True)]
    if args.lmdb:
        return [lmdb_split(Path(args.lmdb), num_classes)]
    splits = []
    for name, data_type in (("train", cfg.TRAIN.DATA_TYPE), ("val", cfg.TEST.DATA_TYPE)):
        if name in (args.split or SPLITS):
            splits += split_at(cfg, data_type, findings, name=name, all_classes=name == "train")
    if "test" in (args.split or SPLITS):
        for name, plan in test_plans(cfg, findings, wanted=bool(args.split)).items():
            splits += split_at(cfg, "test", findings, name=name, test=plan)
    return splits


def split_at(cfg, data_type, findings, **arguments):
    """[Split] of DATADIR/<data_type>; [] if there is none."""
    try:
        folder, list_file = locate(cfg.DATADIR, data_type)
    except UserError as error:
        findings.add("split", arguments["name"], str(error))
        return []
    return [Split(folder=folder, list_file=list_file, num_classes=cfg.MODEL.NUM_CLASSES, **arguments)]


def test_plans(cfg, findings, wanted):
    """{name: TestPlan} of the tests that runs with a configuration do: after a training, and by the test tool.

    A configuration says nothing of the latter unless it sets options of a test; then only if it is wanted.
    """
    # Here, for they bring PyTorch, which takes longer to load than small data to check.
    from data.data_builder import temporal_positions
    from data.test_loader import TestClips
    from test_net_video import derive_test_config

    configurations = {}
    if cfg.TRAIN.TEST_AFTER_TRAIN:
        configurations["test after training"] = copy.deepcopy(cfg)
        configurations["test after training"].TEST.TEST_FULLY_CONV = True
    wanted = wanted and not configurations
    if wanted or cfg.TEST.PARAMS_FILE or cfg.TEST.TEST_FULLY_CONV or cfg.TEST.TEST_FULLY_CONV_FLIP:
        configurations["test"] = cfg
    plans = {}
    for name, test_cfg in configurations.items():
        test_cfg = derive_test_config(test_cfg)
        test, train = test_cfg.TEST, test_cfg.TRAIN
        try:
            plan = TestPlan(test.USE_MULTI_CROP, temporal_positions(test_cfg), test.DATASET_SIZE)
            TestClips(train.VIDEO_LENGTH, train.SAMPLE_RATE, train.CROP_SIZE, test.SCALE, plan.num_temporal)
        except UserError as error:
            findings.add("options", name, str(error))
            continue
        if plan not in plans.values():
            plans[name] = plan
    return plans


def memory_file(args, cfg):
    """Where it is remembered what is known of the videos."""
    if cfg:
        make_folder(cfg.CHECKPOINT.DIR)
        return Path(cfg.CHECKPOINT.DIR) / "frame_counts.txt"
    return Path(args.list or args.lmdb).resolve().parent / "frame_counts.txt"


def clip_frames(cfg):
    """Frames that a clip spans, or None if there is no configuration."""
    return cfg.TRAIN.VIDEO_LENGTH * cfg.TRAIN.SAMPLE_RATE if cfg else None


def check(args, cfg, findings):
    """Check all that the command line asks for. Returns what to tell beside the findings, for JSON."""
    splits = splits_to_check(args, cfg, findings)
    if args.write_clean_list and (len(splits) != 1 or splits[0].test):
        raise UserError("--write_clean_list: expected one split with the records of a training (--list, --lmdb, or "
                        f"--split train), got {', '.join(split.name for split in splits) or 'none'}")
    scans = [scan_split(split, findings) for split in splits]
    videos = {}
    for split, scan in zip(splits, scans, strict=True):
        for path, place in scan.videos.items():
            videos.setdefault(path, place_name(split, place))

    statuses = check_files(videos, findings)
    known, decoded = {}, 0
    if statuses and not args.no_decode:
        counts = VideoFactsCache(memory_file(args, cfg))
        time_limit = args.time_limit * (1 + SKIP_CHECK if args.try_skipping else 1)
        known, decoded = decode_new(statuses, counts, args.workers, time_limit, args.try_skipping)
    check_videos(videos, known, clip_frames(cfg), findings)
    unreadable = {path for path in videos if path not in statuses or path in known and not known[path].count}

    for split, scan in zip(splits, scans, strict=True):
        check_classes(split, scan, unreadable, findings)
        if split.test and cfg and cfg.FILENAME_GT is not None:
            check_ground_truth(cfg.FILENAME_GT, split, scan, findings)
    if cfg:
        read = {path for split, scan in zip(splits, scans, strict=True) if not split.test for path in scan.videos}
        check_bad_images(len(read & unreadable), cfg.DATALOADER.MAX_BAD_IMAGES, findings)
    if args.write_clean_list:
        with atomic_write(args.write_clean_list) as file:
            file.writelines(clean_lines(splits[0], unreadable | flawed(known, clip_frames(cfg))))
    return {
        "splits": [
            {"name": split.name, "path": str(split.folder or split.list_file),
             "records": scan.records, "videos": len(scan.videos)}
            for split, scan in zip(splits, scans, strict=True)
        ],
        "videos": {"distinct": len(videos), "decoded": decoded, "known": len(known) - decoded,
                   "skips": sum(what.skips is True for what in known.values())},
    }  # fmt: skip


def report(summary, findings):
    """Print what was checked and found."""
    for split in summary["splits"]:
        print(f"{split['name']}: {split['records']} records, {split['videos']} videos ({split['path']})")
    videos = summary["videos"]
    print(f"{videos['distinct']} distinct videos, {videos['decoded']} decoded now, {videos['known']} known before")
    if videos["skips"]:
        print(f"{videos['skips']} of them decode faster, without the packets that a clip does not need")
    for line in findings.lines(EXAMPLES):
        # Names of files can be any bytes.
        print(line.encode("utf-8", "backslashreplace").decode())
    total = sum(findings.counts.values())
    print(f"{total} findings" if total else "Nothing wrong found")


def positive(kind):
    def convert(text):
        value = kind(text)
        if not value > 0:
            raise ValueError
        return value

    convert.__name__ = f"positive {kind.__name__}"  # argparse's message has it
    return convert


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config_file", help="YAML file of options")
    one = parser.add_mutually_exclusive_group()
    one.add_argument("--list", help="check this list")
    one.add_argument("--lmdb", metavar="FOLDER", help="check this LMDB")
    parser.add_argument("--split", action="append", choices=SPLITS,
                        help="check only this split of the configuration; may be repeated")
    parser.add_argument("--no_decode", action="store_true", help="check records, files and consistency only")
    parser.add_argument("--try_skipping", action="store_true",
                        help="find out, too, of which H.264 videos packets may be left out: takes about five times as "
                             "long, and a training then decodes them faster")
    parser.add_argument("--workers", type=positive(int), default=len(os.sched_getaffinity(0)), metavar="N",
                        help="videos decoded at the same time (default: the cores, %(default)s)")
    parser.add_argument("--time_limit", type=positive(float), default=60, metavar="SECONDS",
                        help="longest time that a video may take to decode (default: %(default)s)")
    parser.add_argument("--json", metavar="FILE", help="write the report there, too")
    parser.add_argument("--write_clean_list", metavar="FILE", help="write a list of the records without any finding")
    parser.add_argument("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="options over those of the file")
    if len(sys.argv) == 1:
        parser.print_help()
        return 1
    args = parser.parse_args()
    if not (args.config_file or args.list or args.lmdb):
        parser.error("one of --config_file, --list and --lmdb is needed")
    if args.try_skipping and args.no_decode:
        parser.error("--try_skipping decodes, which --no_decode excludes")
    if args.opts and not args.config_file:
        parser.error(f"KEY VALUE options need a --config_file: {' '.join(args.opts)}")
    cli.setup_logging()
    cfg = load_config(args.config_file, args.opts) if args.config_file else None
    findings = Findings()
    summary = check(args, cfg, findings)
    report(summary, findings)
    if args.json:
        with atomic_write(args.json, "w", encoding="utf-8") as file:
            json.dump({"clean": not findings, **summary, "findings": findings.as_dict()}, file, indent=1)
    return 1 if findings else 0


if __name__ == "__main__":
    cli.run(main)
