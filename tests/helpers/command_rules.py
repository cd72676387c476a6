"""What test_commands.py does with each command of the pages. A new command needs a rule here, and no rule is idle."""

from dataclasses import dataclass, field

# Not run: (pattern of the whole command, why not). They are parsed: bash reads the line, the program's own parser
# accepts its words, its options load.
PARSED = [
    (r"bash scripts/setup_env\.sh.*|source \.venv/bin/activate", "installs packages; test_starting.py, the suite"),
    (r"python3 -m venv \.venv|\.venv/bin/python -m pip .*|python scripts/lock_requirements\.py", "installs packages"),
    (r"bash scripts/run_demo\.sh", "minutes"),
    (r"bash scripts/run_tests\.sh|ruff check \.|mypy|python -m pytest .*", "it is the suite"),
    (r"nvidia-smi|\.venv/bin/python -c .*", "needs a GPU"),
    (r"cd scripts|torchrun .*", "several machines; test_machines.py does the like"),
    (r"docker .*", "needs docker"),
    (r"cd data|wget .*|tar xzf .*", "downloads"),
    (r"python tests/.*|NLNET_(KILLS|ALL_KINDS)=\d+ .*", "minutes to hours; test_fuzz.py and others do less of it"),
    (r"(REFERENCES=FOLDER )?bash tests/measure_all\.sh.*", "hours; test_measuring.py runs it on stand-ins"),
    (r"bash tests/gpu/h100\.sh LOGS", "needs a GPU; test_bench.py runs its small form"),
    (r"python tools/export_model\.py --format (onnx|torch_export) .*", "packages, time; test_export_model.py does so"),
]

# Run by tests of their own, which take all commands under a heading: test -> (page, heading).
TAKEN = {
    "test_walkthrough.py": ("DATASET.md", "Fine-tuning on your own videos"),
    "test_other_data.py": ("DATASET.md", "Kinetics-600, Kinetics-700 and other data"),
    "test_sliding.py": ("tools/README.md", "Long videos"),
}

NETWORK = ("RESNETS.WIDTH_PER_GROUP 2 RESNETS.STEM_OUT_CHANNELS 8 MODEL.NUM_CLASSES 4 "
           "TRAIN.JITTER_SCALES [200,200] TRAIN.CROP_SIZE 200")
TEST = "NUM_GPUS 1 TEST.BATCH_SIZE 3 TEST.SCALE 200 TEST.DATASET_SIZE 4 TEST.NUM_TEST_CLIPS 6"
DATA = "DATADIR {data} FILENAME_GT {data}/gt.txt"
TRAINING = (f"{DATA} {NETWORK} {TEST} TRAIN.BATCH_SIZE 2 TRAIN.DATASET_SIZE 8 TRAIN.VIDEO_LENGTH 2 TRAIN.SAMPLE_RATE 1 "
            "TRAIN.COMPUTE_PRECISE_BN False TRAIN.TEST_AFTER_TRAIN False SOLVER.MAX_ITER 1 LOG_PERIOD 1 "
            "CHECKPOINT.RESUME False")


@dataclass(frozen=True)
class Run:
    """Run in a small copy of the repository.

    Attributes:
        pattern: the whole command.
        more: words that are appended: small networks, short clips, the tests' videos.
        instead: {what stands in the command: what is run in its place}, paths and numbers that a suite has no room for.
    """

    pattern: str
    more: str = ""
    instead: dict[str, str] = field(default_factory=dict)


RUN = [
    # Their non-local blocks work on groups of 4 frames.
    Run(r"bash scripts/run_i3d_nlnet_affine_400k\.sh", f"{TRAINING} TRAIN.VIDEO_LENGTH 8 TRAIN.BATCH_SIZE 1"),
    Run(r"bash scripts/run_i3d_nlnet_affine_400k_128f\.sh", f"{TRAINING} TRAIN.VIDEO_LENGTH 32 TRAIN.BATCH_SIZE 1"),
    Run(r"bash scripts/run_(c2d|i3d)_\w+\.sh.*", TRAINING),
    Run(r"bash scripts/run_test_multicrop\.sh .*", f"{DATA} {NETWORK} {TEST} TRAIN.BATCH_SIZE 2 TRAIN.VIDEO_LENGTH 2"),
    Run(r"bash scripts/test_released\.sh.*", f"{DATA} NUM_GPUS 1 TEST.BATCH_SIZE 3 TEST.NUM_TEST_CLIPS 6",
        {"--quick 500": "--quick 2"}),
    Run(r"python process_data/convert_models/\S+ .*"),
    Run(r"python tools/predict_video\.py .*", instead={" --video ": " --views 1x3 --video "}),
    Run(r"python tools/visualize_attention\.py .*"),
    Run(r"python tools/extract_features\.py .*", "TEST.SCALE 224", {"TEST.NUM_TEST_CLIPS 10": "TEST.NUM_TEST_CLIPS 1"}),
    Run(r"weights=data/\S+"),
    Run(r"python tools/export_model\.py --format \w+ --output \S+ TEST\.PARAMS_FILE \S+"),
    Run(r"python tools/export_model\.py .* --from_state_dict .*", f"{NETWORK} TRAIN.VIDEO_LENGTH 2"),
    Run(r"python tools/check_dataset\.py --config_file .*",
        f"{NETWORK} TRAIN.VIDEO_LENGTH 2 TRAIN.SAMPLE_RATE 1 TEST.DATASET_SIZE 4"),
    Run(r"python tools/check_dataset\.py --(list|lmdb) .*"),
    Run(r"python tools/plan_training\.py .*"),
    Run(r"python tools/plot_log\.py .*"),
    Run(r"python tools/report_test\.py .*", instead={"process_data/kinetics/": "truth/"}),
    Run(r"python tools/report_run\.py .*"),
    # DATASET.md: Kinetics.
    Run(r"python (gen_py_list|downscale_video_joblib)\.py .*", instead={" /data/": " {top}/"}),
    Run(r"python (change_listname|shuffle_list_rep)\.py .*|mv trainlist\.256\.txt .*"),
    Run(r"bash run_createdb\w*\.sh"),
    # DATASET.md: with the demo's videos.
    Run(r'(videos=\$PWD/data|model=\$\(ls|numbers="\$numbers) ?\S.*'),
]
