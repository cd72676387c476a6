"""Options, their defaults and files; what is refused, and the error messages."""

import ast
import copy
import json
import logging
import pickle
import re
import subprocess
import sys

import pytest

import core.config as config_module
from core.config import (
    ConfigError,
    assert_and_infer_cfg,
    cfg_from_file,
    cfg_from_list,
    load_config,
    log_options_without_effect,
    print_cfg,
)
from core.defaults import OPTIONS, default_config
from core.option import Option
from utils.collections import AttrDict, leaves, value_at


def flat(cfg, prefix=""):
    options = {}
    for key, value in cfg.items():
        options |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return options


def typed(options):
    return {key: (type(value), value) for key, value in options.items()}


def error_of(*words, config_file=None):
    with pytest.raises(ConfigError) as caught:
        load_config(config_file, words)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.fixture
def yaml_file(tmp_path):
    def write(text):
        path = tmp_path / "file.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return str(path)

    return write


# Defaults, YAML files, derived values


def test_defaults(repo):
    expected = json.loads((repo / "tests/data/config_defaults.json").read_text())
    assert typed(flat(default_config())) == typed(expected)


def test_legacy_log_shows_the_same_options(shared):
    lines = (shared / "reference/end_to_end/log.txt").read_text().split("\n")
    end = next(i for i, line in enumerate(lines) if "VIDEO_DECODER_THREADS" in line)
    legacy = ast.literal_eval("\n".join(lines[1 : end + 1]).removeprefix("INFO:core.config:"))
    # Legacy read SOLVER.STEP_SIZE without defining it; the others are additions of this program.
    own = {"SOLVER.STEP_SIZE", "NUM_PROCESSES", "JOIN_SECONDS", "PEER_SECONDS", "CHECKPOINT.KEEP_LAST",
           "MODEL.PRECISION", "MODEL.COMPILE", "TRAIN.CHECKPOINT_ACTIVATIONS", "NONLOCAL.AFTER",
           "NONLOCAL.AFFINITY", "NONLOCAL.REACH", "RESNETS.STEM_OUT_CHANNELS", "DATALOADER.HANG_SECONDS",
           "DATALOADER.AS_STORED", "TEST.TEST_FULL_SIZE"}
    assert flat(default_config()).keys() - flat(legacy).keys() == own
    assert flat(legacy).keys() <= flat(default_config()).keys()


BASE = {
    "DATADIR": "../data/lmdb/kinetics_lmdb_multicrop/", "FILENAME_GT": "../process_data/kinetics/vallist.txt",
    "NUM_GPUS": 8, "LOG_PERIOD": 10,
    "MODEL.NUM_CLASSES": 400, "MODEL.MODEL_NAME": "resnet_video", "MODEL.BN_MOMENTUM": 0.9,
    "MODEL.BN_EPSILON": 1.0000001e-5, "MODEL.ALLOW_INPLACE_SUM": True, "MODEL.ALLOW_INPLACE_RELU": True,
    "MODEL.ALLOW_INPLACE_RESHAPE": True, "MODEL.MEMONGER": True, "MODEL.BN_INIT_GAMMA": 0.0,
    "MODEL.DEPTH": 50, "MODEL.VIDEO_ARC_CHOICE": 1,
    "RESNETS.NUM_GROUPS": 1, "RESNETS.WIDTH_PER_GROUP": 64,
    "RESNETS.TRANS_FUNC": "bottleneck_transformation_3d",
    "TRAIN.DATA_TYPE": "train", "TRAIN.BATCH_SIZE": 64, "TRAIN.EVAL_PERIOD": 20000,
    "TRAIN.JITTER_SCALES": [256, 320], "TRAIN.MEM_CACHE": False, "TRAIN.COMPUTE_PRECISE_BN": True,
    "TRAIN.CROP_SIZE": 224, "TRAIN.VIDEO_LENGTH": 8, "TRAIN.SAMPLE_RATE": 8, "TRAIN.TEST_AFTER_TRAIN": True,
    "TEST.DATA_TYPE": "val", "TEST.BATCH_SIZE": 64, "TEST.CROP_SIZE": 224, "TEST.SCALE": 256,
    "TEST.VIDEO_LENGTH": 8, "TEST.SAMPLE_RATE": 8, "TEST.OUTPUT_NAME": "softmax", "TEST.DATASET_SIZE": 19761,
    "TEST.NUM_TEST_CLIPS": 30,
    "SOLVER.LR_POLICY": "steps_with_relative_lrs", "SOLVER.BASE_LR": 0.01,
    "SOLVER.STEP_SIZES": [150000, 150000, 100000], "SOLVER.LRS": [1, 0.1, 0.01, 0.001],
    "SOLVER.MAX_ITER": 400000, "SOLVER.WEIGHT_DECAY": 0.0001, "SOLVER.WEIGHT_DECAY_BN": 0.0,
    "SOLVER.MOMENTUM": 0.9, "SOLVER.NESTEROV": True, "SOLVER.SCALE_MOMENTUM": True,
    "SOLVER.WARMUP.WARMUP_ON": False, "SOLVER.WARMUP.WARMUP_START_LR": 0.001,
    "SOLVER.WARMUP.WARMUP_END_ITER": 2000,
    "CHECKPOINT.DIR": ".", "CHECKPOINT.CHECKPOINT_PERIOD": 10000,
    "NONLOCAL.USE_ZERO_INIT_CONV": False, "NONLOCAL.USE_BN": True, "NONLOCAL.CONV3_NONLOCAL": True,
    "NONLOCAL.CONV4_NONLOCAL": True, "NONLOCAL.USE_SCALE": True,
}
FOUR_GPUS = {"NUM_GPUS": 4, "TRAIN.BATCH_SIZE": 32, "TEST.BATCH_SIZE": 32, "SOLVER.BASE_LR": 0.005}
SHORT = {"SOLVER.STEP_SIZES": [150000, 100000, 50000], "SOLVER.MAX_ITER": 300000}
CONFIGS = {
    "8gpu_c2d_nonlocal_400k": ({}, [0, 150000, 300000, 400000]),
    "8gpu_c2d_nonlocal_300k": (SHORT, [0, 150000, 250000, 300000]),
    "4gpu_c2d_nonlocal_300k": (
        FOUR_GPUS | SHORT | {"TRAIN.JITTER_SCALES": [256, 256]}, [0, 150000, 250000, 300000],
    ),
    "4gpu_c2d_nonlocal_600k": (
        FOUR_GPUS | {"SOLVER.STEP_SIZES": [300000, 200000, 100000], "SOLVER.MAX_ITER": 600000},
        [0, 300000, 500000, 600000],
    ),
    "8gpu_c2d_nonlocal_affine_400k": (
        {
            "MODEL.USE_AFFINE": True, "TRAIN.BATCH_SIZE": 16, "TEST.BATCH_SIZE": 16,
            "TRAIN.COMPUTE_PRECISE_BN": False, "TRAIN.VIDEO_LENGTH": 32, "TEST.VIDEO_LENGTH": 32,
            "TRAIN.SAMPLE_RATE": 4, "TEST.SAMPLE_RATE": 4, "SOLVER.BASE_LR": 0.0025,
            "NONLOCAL.USE_ZERO_INIT_CONV": True, "NONLOCAL.USE_BN": False,
        },
        [0, 150000, 300000, 400000],
    ),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_yaml_files(repo, name):
    changes, steps = CONFIGS[name]
    defaults = json.loads((repo / "tests/data/config_defaults.json").read_text())
    cfg = load_config(str(repo / "configs" / f"DBG_kinetics_resnet_{name}.yaml"))
    assert typed(flat(cfg)) == typed(defaults | BASE | changes | {"SOLVER.STEPS": steps})


def test_order_of_yaml_and_command_line(yaml_file):
    path = yaml_file("TRAIN:\n  BATCH_SIZE: 16\n  CROP_SIZE: 112\nTEST:\nDATASET: kinetics\n")
    cfg = load_config(path, ["TRAIN.BATCH_SIZE", "32", "SOLVER.WARMUP.WARMUP_ON", "True"])
    assert (cfg.TRAIN.BATCH_SIZE, cfg.TRAIN.CROP_SIZE, cfg.DATASET) == (32, 112, "kinetics")
    assert cfg.SOLVER.WARMUP.WARMUP_ON is True
    assert cfg.TEST == default_config().TEST  # an empty group


def test_later_words_override_earlier_ones():
    assert load_config(None, ["RNG_SEED", "3", "RNG_SEED", "4"]).RNG_SEED == 4


def test_steps_given_by_the_user_are_kept():
    assert load_config(None, ["SOLVER.STEPS", "[0, 10, 20]"]).SOLVER.STEPS == [0, 10, 20]
    assert load_config(None, ["SOLVER.STEP_SIZES", "[7, 8]"]).SOLVER.STEPS == [0, 7, 15]


def test_values_of_the_command_line():
    cfg = load_config(None, [
        "TRAIN.PARAMS_FILE", "../data/x.pkl", "DATASET", "'12'", "SOLVER.BASE_LR", "1",
        "SOLVER.LRS", "[1, .5, .1]", "FILENAME_GT", "None", "TEST.USE_MULTI_CROP", "2",
        "DATADIR", r"C:\data", "CHECKPOINT.DIR", "",
    ])
    assert (cfg.TRAIN.PARAMS_FILE, cfg.DATASET, cfg.FILENAME_GT) == ("../data/x.pkl", "12", None)
    assert typed({"": cfg.SOLVER.BASE_LR}) == typed({"": 1.0})
    assert (cfg.SOLVER.LRS, cfg.DATADIR, cfg.CHECKPOINT.DIR) == ([1, 0.5, 0.1], r"C:\data", "")


def test_null_is_accepted_and_can_be_overridden(yaml_file):
    path = yaml_file("FILENAME_GT: null\n")
    assert load_config(path).FILENAME_GT is None
    assert load_config(path, ["FILENAME_GT", "gt.txt"]).FILENAME_GT == "gt.txt"
    assert "NUM_GPUS = 'x' (str): expected int" in error_of("NUM_GPUS", "None", "NUM_GPUS", "x")


def test_load_config_does_not_change_the_global():
    before = copy.deepcopy(config_module.config)
    cfg = load_config(None, ["TRAIN.BATCH_SIZE", "8", "SOLVER.LRS", "[1, 2]"])
    cfg.SOLVER.LRS.append(3)
    cfg.TRAIN.CROP_SIZE = 1
    assert config_module.config == before == default_config()


def test_the_global_can_be_used_as_in_legacy(repo):
    program = """
from core.config import config as cfg, cfg_from_file, cfg_from_list, assert_and_infer_cfg, print_cfg
from utils.cli import setup_logging
setup_logging()
cfg_from_file("configs/DBG_kinetics_resnet_8gpu_c2d_nonlocal_300k.yaml")
cfg_from_list(["TRAIN.BATCH_SIZE", "8"])
assert_and_infer_cfg()
print_cfg()
assert (cfg.TRAIN.BATCH_SIZE, cfg.SOLVER.STEPS) == (8, [0, 150000, 250000, 300000])
"""
    run = subprocess.run([sys.executable, "-c", program], cwd=repo, capture_output=True, text=True,
                         env={"PYTHONPATH": "lib"}, check=True)
    lines = run.stdout.split("\n")
    assert re.fullmatch(r"\[INFO: config\.py: +\d+\]: Training with config:", lines[0])
    assert re.fullmatch(r"\[INFO: config\.py: +\d+\]: \{'CHECKPOINT': \{'CHECKPOINT_MODEL': True,", lines[1])
    assert lines[2] == "                'CHECKPOINT_PERIOD': 10000,"


def test_a_refused_file_changes_nothing(yaml_file):
    cfg = default_config()
    with pytest.raises(ConfigError):
        cfg_from_file(yaml_file("NUM_GPUS: 4\nNO_SUCH: 1\n"), cfg)
    with pytest.raises(ConfigError):
        cfg_from_list(["NUM_GPUS", "4", "NO_SUCH", "1"], cfg)
    assert cfg == default_config()


# What is refused


@pytest.mark.parametrize(("key", "nearest"), [
    ("TRAIN.BATCHSIZE", "TRAIN.BATCH_SIZE"),
    ("LRS", "SOLVER.LRS"),
    ("solver.base_lr", "SOLVER.BASE_LR"),
    ("SOLVER.WARMUP_ON", "SOLVER.WARMUP.WARMUP_ON"),
    ("NUM_GPU", "NUM_GPUS"),
    ("NUM_GPUS.X", "NUM_GPUS"),
    ("CHECKPOINT.PERIOD", "CHECKPOINT.CHECKPOINT_PERIOD"),
])
def test_unknown_key(key, nearest):
    kind = type(flat(default_config())[nearest]).__name__
    expected = f"command line: {key} = 8 (int): no such option; the nearest is {nearest} ({kind})"
    assert error_of(key, "8") == expected


def test_unknown_key_in_yaml(yaml_file):
    path = yaml_file("SOLVER:\n  WARMUP:\n    WARMUP_ITER: 7\n")
    assert error_of(config_file=path) == (
        f"{path}: SOLVER.WARMUP.WARMUP_ITER = 7 (int): no such option; "
        "the nearest is SOLVER.WARMUP.WARMUP_END_ITER (int)"
    )


@pytest.mark.parametrize(("key", "value", "shown", "expected"), [
    ("TRAIN.BATCH_SIZE", "8.0", "8.0 (float)", "int"),
    ("TRAIN.BATCH_SIZE", "many", "'many' (str)", "int"),
    ("MODEL.USE_AFFINE", "1", "1 (int)", "bool"),
    ("MODEL.USE_AFFINE", "true", "'true' (str)", "bool"),
    ("METRICS.EVAL_FIRST_N", "0", "0 (int)", "bool"),
    ("SOLVER.BASE_LR", "True", "True (bool)", "float"),
    ("DATASET", "12", "12 (int)", "str"),
    ("SOLVER.LRS", "(1, 0.1)", "(1, 0.1) (tuple)", "list"),
    ("SOLVER.STEP_SIZES", "5", "5 (int)", "list"),
    ("RNG_SEED", "{'a': 1}", "{'a': 1} (dict)", "int"),
])
def test_wrong_type(key, value, shown, expected):
    assert f"command line: {key} = {shown}: expected {expected}, as of the default " in error_of(key, value)


@pytest.mark.parametrize(("text", "key", "value"), [
    ("SOLVER: {BASE_LR: 1e-3}", "SOLVER.BASE_LR", 1e-3),  # to YAML 1.1 a string
    ("SOLVER: {WEIGHT_DECAY: '1'}", "SOLVER.WEIGHT_DECAY", 1.0),
    ("TRAIN: {JITTER_SCALES: '[256, 300]'}", "TRAIN.JITTER_SCALES", [256, 300]),
    ("MODEL: {USE_BGR: 'True'}", "MODEL.USE_BGR", True),
    ("NONLOCAL: {USE_BN: \"False\"}", "NONLOCAL.USE_BN", False),
    ("FILENAME_GT: None", "FILENAME_GT", None),
    ("NUM_GPUS: '4'", "NUM_GPUS", 4),
    ("DATASET: \"'12'\"", "DATASET", "12"),
    ("DATASET: \"'None'\"", "DATASET", "None"),
    ("DATADIR: ../data/1e-3", "DATADIR", "../data/1e-3"),
    ("SOLVER: {STEPS: '[0, 10]'}", "SOLVER.STEPS", [0, 10]),
])
def test_text_of_a_yaml_file_is_evaluated_as_on_the_command_line(yaml_file, text, key, value):
    cfg = load_config(yaml_file(text))
    assert typed({key: value_at(cfg, key)}) == typed({key: value})


def test_text_of_a_yaml_file_that_is_a_literal_of_another_type(yaml_file):
    path = yaml_file("DATASET: '2017'")
    assert error_of(config_file=path) == (
        f"{path}: DATASET = 2017 (int): expected str, as of the default '' (in quotes: \"'2017'\")")
    assert "TRAIN.JITTER_SCALES = (256, 300) (tuple): expected list" in error_of(
        config_file=yaml_file("TRAIN: {JITTER_SCALES: '(256, 300)'}"))


def test_a_bool_counts_as_an_int_but_not_the_other_way_round(yaml_file):
    cfg = load_config(yaml_file("NONLOCAL: {NO_BIAS: true}"), ["TEST.USE_MULTI_CROP", "True", "RNG_SEED", "False"])
    assert typed({"": [cfg.NONLOCAL.NO_BIAS, cfg.TEST.USE_MULTI_CROP, cfg.RNG_SEED]}) == typed({"": [1, 1, 0]})
    assert type(cfg.NONLOCAL.NO_BIAS) is type(cfg.RNG_SEED) is int
    assert "expected bool" in error_of(config_file=yaml_file("MODEL: {USE_AFFINE: 1}"))


@pytest.mark.parametrize("words", [["NUM_GPUS"], ["NUM_GPUS", "1", "RNG_SEED"]])
def test_odd_number_of_words(words):
    assert f"expected pairs of KEY VALUE, got {len(words)} words" in error_of(*words)


@pytest.mark.parametrize(("words", "beginning"), [
    (["TEST.TEN_CROP", "True"], "TEST.TEN_CROP: deprecated"),
    (["TEST.TEST_FULL_SIZE", "True", "TEST.TEST_FULLY_CONV_FLIP", "True"],
     "TEST.TEST_FULL_SIZE: expected False with TEST.TEST_FULLY_CONV_FLIP True, got True"),
    (["NUM_GPUS", "3"], "TRAIN.BATCH_SIZE: expected a multiple of NUM_GPUS 3, got 64"),
    (["TEST.BATCH_SIZE", "12"], "TEST.BATCH_SIZE: expected a multiple of NUM_GPUS 8, got 12"),
    (["NUM_GPUS", "0"], "NUM_GPUS: expected an integer >= 1, got 0"),
    (["NUM_GPUS", "None"], "NUM_GPUS: expected an integer >= 1, got None"),
    (["RNG_SEED", "-1"], "RNG_SEED: expected an integer >= 0, got -1"),
    (["RNG_SEED", "1" + 30 * "0"], "RNG_SEED: expected an integer >= 0, got 1000"),
    (["TRAIN.CROP_SIZE", "0"], "TRAIN.CROP_SIZE: expected an integer >= 1, got 0"),
    (["SOLVER.BASE_LR", "1e999"], "SOLVER.BASE_LR: expected a number >= 0, got inf"),
    (["TRAIN.DROPOUT_RATE", "1.5"], "TRAIN.DROPOUT_RATE: expected a number <= 1, got 1.5"),
    (["MODEL.STD", "0"], "MODEL.STD: expected a number > 0, got 0.0"),
    (["CHECKPOINT.CHECKPOINT_PERIOD", "None"], "CHECKPOINT.CHECKPOINT_PERIOD: expected an integer, got None"),
    (["TRAIN.JITTER_SCALES", "[320, 256]"], "TRAIN.JITTER_SCALES: expected two integers, 1 <= low <= high"),
    (["TRAIN.JITTER_SCALES", "[256]"], "TRAIN.JITTER_SCALES: expected two integers, 1 <= low <= high"),
    (["TRAIN.JITTER_SCALES", "[0, 256]"], "TRAIN.JITTER_SCALES: expected two integers, 1 <= low <= high"),
    (["TRAIN.JITTER_SCALES", "[256, 320.]"], "TRAIN.JITTER_SCALES: expected two integers, 1 <= low <= high"),
    (["SOLVER.STEP_SIZES", "[10, -1]"], "SOLVER.STEP_SIZES: expected a list of integers >= 0"),
    (["SOLVER.LRS", "[1, 'a']"], "SOLVER.LRS: expected a list of numbers >= 0"),
    (["SOLVER.LRS", "None"], "SOLVER.LRS: expected a list of numbers >= 0"),
    (["SOLVER.STEPS", "[1, 2]"], "SOLVER.STEPS: expected an ascending list that starts with 0"),
    (["SOLVER.STEPS", "[0, 2, 1]"], "SOLVER.STEPS: expected an ascending list that starts with 0"),
    (["SOLVER.STEPS", "10"], "SOLVER.STEPS: expected a list of integers >= 0"),
    (["TEST.USE_MULTI_CROP", "3"], "TEST.USE_MULTI_CROP: expected one of 0, 1, 2, got 3"),
    (["TRAIN", "{}"], "command line: TRAIN = {} (dict): TRAIN is a group of options"),
])
def test_checks(words, beginning):
    assert error_of(*words).startswith(beginning)


@pytest.mark.parametrize(("text", "expected"), [
    ("- 1\n- 2\n", "expected a YAML mapping of options"),
    ("just words", "expected a YAML mapping of options"),
    ("TRAIN: {BATCH_SIZE: [}", "not valid YAML at line 1"),
    ("TRAIN:\n  CROP_SIZE: 1\nTRAIN:\n  BATCH_SIZE: 8\n", "at line 3, column 1: duplicate key 'TRAIN'"),
    ("a: !!python/object/apply:os.system ['true']", "not valid YAML at line 1"),
    (b"DATASET: \xff\xfe", "not valid YAML"),
    ("DATASET: 2001-13-45", "not valid YAML"),
    ("DATASET: !!bool perhaps", "not valid YAML"),
    ("DATASET: !!int ''", "not valid YAML"),
    ("? [1, 2]\n: 3\n", "not valid YAML"),
    ("a: " + "[" * 5000, "nested too deeply"),
    ("TRAIN: 3", "TRAIN is a group of options"),
    ("NUM_GPUS: {a: 1}", "NUM_GPUS = {'a': 1} (dict): expected int"),
    ("1: 2", "1 = 2 (int): no such option"),
    ('"two\\nlines": 2', "'two\\nlines' = 2 (int): no such option"),
    ("DATASET: &a [*a, *a]", "(list): expected str"),
    ("a0: &a0 [1,1,1,1,1,1,1,1]\n" + "".join(
        f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 8)}]\n" for i in range(1, 30)), "no such option"),
])
def test_bad_yaml_gives_one_short_line(yaml_file, text, expected):
    message = error_of(config_file=yaml_file(text))
    assert expected in message
    assert len(message) < 1000


@pytest.mark.parametrize("option", [
    "NUM_GPUS: {}", "DATADIR: {}", "SOLVER: {{STEPS: [{}]}}", "TEST: {{USE_MULTI_CROP: {}}}",
])
@pytest.mark.parametrize("digits", [3000, 6000])  # Python refuses to print integers of more than 4300 digits
def test_a_huge_integer_gives_one_short_line(yaml_file, option, digits):
    with pytest.raises(ConfigError) as caught:
        load_config(yaml_file(option.format("0x" + "f" * digits)))
    assert len(str(caught.value)) < 500 and "\n" not in str(caught.value)


def test_unreadable_yaml(tmp_path):
    path = str(tmp_path / "none.yaml")
    assert error_of(config_file=path) == f"{path}: cannot read the configuration: No such file or directory"
    assert "Is a directory" in error_of(config_file=str(tmp_path))


# Declaring options


def test_every_option_has_one_sentence_and_an_allowed_default():
    for key, option in leaves(OPTIONS):
        assert re.fullmatch(r"[A-Za-z].*\.", option.help), key
        option.check(key, option.default)


@pytest.fixture
def declared(monkeypatch):
    """A new option TRAIN.SHARE with the given declaration."""
    return lambda *args, **fields: monkeypatch.setitem(OPTIONS["TRAIN"], "SHARE", Option(*args, **fields))


def test_an_option_is_added_with_one_entry(declared, yaml_file, caplog):
    declared(0.5, "A share.", low=0, high=1)
    assert default_config().TRAIN.SHARE == load_config().TRAIN.SHARE == 0.5
    assert load_config(yaml_file("TRAIN:\n  SHARE: 0.25\n")).TRAIN.SHARE == 0.25
    cfg = load_config(None, ["TRAIN.SHARE", "1"])
    assert typed({"": cfg.TRAIN.SHARE}) == typed({"": 1.0})
    assert error_of("TRAIN.SHARE", "-1") == "TRAIN.SHARE: expected a number >= 0, got -1.0"
    assert error_of("TRAIN.SHARE", "1.5") == "TRAIN.SHARE: expected a number <= 1, got 1.5"
    assert error_of("TRAIN.SHARE", "None") == "TRAIN.SHARE: expected a number >= 0, got None"
    assert error_of("TRAIN.SHARES", "1").endswith("no such option; the nearest is TRAIN.SHARE (float)")
    with caplog.at_level(logging.INFO):
        print_cfg(cfg)
    assert "'SHARE': 1.0," in caplog.messages[1]


@pytest.mark.parametrize(("declaration", "good", "bad"), [
    (Option(1.0, "A number.", above=0), "0.5", {"0": "a number > 0, got 0.0"}),
    (Option("a", "A word.", choices=("a", "b")), "'b'", {"c": "one of a, b, got 'c'", "None": "text, got None"}),
    (Option("a", "A word.", nullable=True), "None", {}),
    (Option(True, "A switch."), "False", {"None": "True or False, got None"}),
    (Option([1], "Numbers.", items=int, low=1), "[3, 1]", {
        "[0]": "a list of integers >= 1, got [0]", "[1.5]": "a list of integers >= 1, got [1.5]",
        "None": "a list of integers >= 1, got None"}),
    (Option([0.5, 2], "A range.", items=float, low=0, interval=True), "[2, 2]", {
        "[2, 1.5]": "two numbers, 0 <= low <= high, got [2, 1.5]", "[1]": "two numbers, 0 <= low <= high, got [1]"}),
    (Option(1, "Unused.", low=1, unused=True), "None", {}),
])
def test_checks_follow_from_the_declaration(declared, declaration, good, bad):
    declared(**vars(declaration))
    cfg = load_config(None, ["TRAIN.SHARE", good])
    assert ast.literal_eval(good) == cfg.TRAIN.SHARE
    assert {value: error_of("TRAIN.SHARE", value) for value in bad} == {
        value: f"TRAIN.SHARE: expected {message}" for value, message in bad.items()}


def test_an_option_declared_unused_is_logged_when_set(declared, caplog):
    declared(1, "Unused.", unused=True)
    with caplog.at_level(logging.INFO):
        log_options_without_effect(load_config(None, ["TRAIN.SHARE", "2"]))
    assert caplog.messages == ["Options without effect (accepted for old files): TRAIN.SHARE"]


# The log, and AttrDict


def test_print_cfg(caplog):
    cfg = load_config(None, ["NUM_GPUS", "2"])
    with caplog.at_level(logging.INFO):
        print_cfg(cfg)
    assert caplog.messages[0] == "Training with config:"
    assert ast.literal_eval(caplog.messages[1]) == cfg


def test_options_without_effect_are_logged_once_in_one_line(caplog):
    with caplog.at_level(logging.INFO):
        log_options_without_effect(load_config())
        assert caplog.messages == []
        log_options_without_effect(load_config(None, ["PROF_DAG", "True", "TEST.CROP_SIZE", "256"]))
    assert len(caplog.messages) == 1
    assert caplog.messages[0].endswith(": PROF_DAG, TEST.CROP_SIZE")


def test_attrdict():
    d = AttrDict(A=AttrDict(B=1))
    d.A.C = 2
    assert d == {"A": {"B": 1, "C": 2}}
    assert copy.deepcopy(d) == pickle.loads(pickle.dumps(d)) == d
    assert type(copy.deepcopy(d).A) is AttrDict
    assert not hasattr(d, "B")
    del d.A.C
    assert d == {"A": {"B": 1}}


def test_assert_and_infer_cfg_is_idempotent():
    cfg = load_config(None, ["SOLVER.STEP_SIZES", "[2, 3]"])
    again = copy.deepcopy(cfg)
    assert_and_infer_cfg(again)
    assert again == cfg
