"""How a configuration comes about.

Order: the defaults (core.defaults), the YAML file, KEY VALUE pairs of the command line, derived values,
checks.

    cfg = load_config("configs/F.yaml", ["NUM_GPUS", "1", "TRAIN.PARAMS_FILE", "w.pkl"])

gives a configuration of its own. The legacy way, a global that is filled in place, works as well:

    from core.config import config as cfg, cfg_from_file, cfg_from_list, assert_and_infer_cfg
"""

import ast
import copy
import difflib
import logging
import math
import pprint
import reprlib
import sys
import warnings
from itertools import accumulate, pairwise

import yaml

from core.defaults import OPTIONS_WITHOUT_EFFECT, default_config
from utils.errors import UserError

logger = logging.getLogger(__name__)


class ConfigError(UserError):
    """An option, or a file of options, that cannot be taken as it is."""


# Options that are used as a number: (smallest value allowed, options).
_LOWER_BOUNDS = (
    (1, ("NUM_GPUS", "VIDEO_DECODER_THREADS", "LOG_PERIOD", "TRAIN.BATCH_SIZE", "TRAIN.CROP_SIZE",
         "TRAIN.EVAL_PERIOD", "TRAIN.DATASET_SIZE", "TRAIN.VIDEO_LENGTH", "TRAIN.SAMPLE_RATE",
         "TRAIN.ITER_COMPUTE_PRECISE_BN", "RESNETS.NUM_GROUPS", "RESNETS.WIDTH_PER_GROUP", "TEST.BATCH_SIZE",
         "TEST.SCALE", "TEST.DATASET_SIZE", "TEST.NUM_TEST_CLIPS", "SOLVER.MAX_ITER", "SOLVER.STEP_SIZE",
         "NONLOCAL.LAYER_MOD", "METRICS.FIRST_N")),
    (0, ("DATALOADER.MAX_BAD_IMAGES", "DATALOADER.HANG_SECONDS", "NUM_PROCESSES", "CHECKPOINT.KEEP_LAST",
         "ROOT_GPU_ID", "RNG_SEED", "TRAIN.DROPOUT_RATE", "MODEL.BN_MOMENTUM",
         "MODEL.BN_EPSILON", "MODEL.FC_INIT_STD", "MODEL.STD", "SOLVER.BASE_LR", "SOLVER.WEIGHT_DECAY",
         "SOLVER.WEIGHT_DECAY_BN", "SOLVER.MOMENTUM", "SOLVER.GAMMA", "SOLVER.WARMUP.WARMUP_START_LR",
         "SOLVER.WARMUP.WARMUP_END_ITER", "NONLOCAL.CONV_INIT_STD", "NONLOCAL.BN_MOMENTUM",
         "NONLOCAL.BN_EPSILON")),
    (-math.inf, ("MODEL.NUM_CLASSES", "MODEL.DEPTH", "MODEL.VIDEO_ARC_CHOICE", "MODEL.MEAN",
                 "MODEL.BN_INIT_GAMMA", "NONLOCAL.NO_BIAS", "NONLOCAL.BN_INIT_GAMMA",
                 "TRAIN.RESUME_FROM_BATCH_SIZE", "CHECKPOINT.CHECKPOINT_PERIOD")),
)
# Options of text for which null means: none.
_MAY_BE_NULL = {"FILENAME_GT", "DATASET", "TRAIN.PARAMS_FILE", "TEST.PARAMS_FILE", *OPTIONS_WITHOUT_EFFECT}
_UPPER_BOUNDS = ((1, ("TRAIN.DROPOUT_RATE", "MODEL.BN_MOMENTUM", "NONLOCAL.BN_MOMENTUM", "SOLVER.MOMENTUM")),)

_CHOICES = {
    "MODEL.PRECISION": ("float32", "tf32", "bfloat16"),
    "MODEL.COMPILE": ("auto", "always", "never"),
    "TEST.OUTPUT_NAME": ("pred", "softmax"),
}

_DEFAULTS = default_config()
config = default_config()


def load_config(config_file=None, opts=()):
    """Make a new configuration: defaults, file, words, derived values, checks. The global stays as it is.

    Args:
        config_file: a YAML file, or None.
        opts: KEY VALUE words, see cfg_from_list.

    Raises:
        ConfigError: the file is unreadable, or an option is unknown or wrong.
    """
    cfg = default_config()
    if config_file is not None:
        cfg_from_file(config_file, cfg)
    cfg_from_list(opts, cfg)
    assert_and_infer_cfg(cfg)
    return cfg


def cfg_from_file(filename, cfg=config):
    """Set the options of a YAML file in `cfg`. Raises ConfigError, with `cfg` as it was."""
    options = _read_yaml(filename)
    if options is None:  # an empty file
        return
    if not isinstance(options, dict):
        raise ConfigError(f"{filename}: expected a YAML mapping of options, got {_shown(options)}")
    _set_options(cfg, list(_leaves(options, _DEFAULTS)), source=filename)


def cfg_from_list(opts, cfg=config):
    """Set options from the words of a command line: ["TRAIN.BATCH_SIZE", "8", ...].

    A value is a Python literal, or the word itself where it is none. Raises ConfigError, with
    `cfg` as it was.
    """
    opts = list(opts)
    _check_words(opts)
    options = [(key, _literal(value)) for key, value in zip(opts[::2], opts[1::2], strict=True)]
    _set_options(cfg, options, source="command line")


def _check_words(words):
    """Raise a ConfigError for words that are no KEY VALUE pairs by their form."""
    for word in words:
        key, equals, value = str(word).partition("=")
        if equals and _is_option(key):
            raise ConfigError(f"command line: {_shown(word)}: expected a blank and no equals sign: {key} {value}")
    for key in words[::2]:
        if str(key).startswith("--"):
            raise ConfigError(f"command line: {_shown(key)}: KEYs have no dashes; options with dashes come before them")
    if len(words) % 2:
        stray = next((word for word in words[::2] if not _is_option(word)), words[-1])
        what = "has no value" if _is_option(stray) else "is no KEY"
        raise ConfigError(f"command line: expected pairs of KEY VALUE, got {len(words)} words; {_shown(stray)} {what}")


class _UniqueKeyLoader(yaml.SafeLoader):
    """Safe, and strict: plain PyYAML lets a second `TRAIN:` undo the first in silence."""

    def construct_mapping(self, node, deep=False):
        seen = set()
        for key_node, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if isinstance(key_node, yaml.ScalarNode) and key_node.tag != "tag:yaml.org,2002:merge":
                if key_node.value in seen:
                    problem = f"{_shown(key_node.value)} is there twice"
                    raise yaml.constructor.ConstructorError(None, None, problem, key_node.start_mark)
                seen.add(key_node.value)
        return super().construct_mapping(node, deep)


def _read_yaml(filename):
    try:
        with open(filename, encoding="utf-8") as file:
            return yaml.load(file, _UniqueKeyLoader)
    except OSError as error:
        raise ConfigError(f"{filename}: cannot read the configuration: {error.strerror}") from error
    except RecursionError:
        raise ConfigError(f"{filename}: not a configuration: nested too deeply") from None
    except (yaml.YAMLError, ValueError, LookupError, AttributeError, TypeError) as error:
        # Beside its own errors PyYAML raises what its constructors stumble over: a month 13, `!!bool x`, ...
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        what = " ".join(str(getattr(error, "problem", None) or error).split())
        raise ConfigError(f"{filename}: not valid YAML{where}: {what}") from error


def _leaves(options, defaults, prefix=""):
    """The pairs (dotted key, value) of nested options, going down where `defaults` has a group."""
    for key, value in options.items():
        default = defaults.get(key)
        if isinstance(default, dict) and isinstance(value, dict):
            yield from _leaves(value, default, f"{prefix}{key}.")
        elif not (isinstance(default, dict) and value is None):  # `TRAIN:` with nothing below sets nothing
            yield f"{prefix}{key}", value


def _literal(word):
    if not isinstance(word, str):
        return word
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)  # a path such as '\d'
            return ast.literal_eval(word)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return word


def _set_options(cfg, options, source):
    checked = [(key, _taken(key, value, source)) for key, value in options]
    for key, value in checked:
        *groups, name = key.split(".")
        group = cfg
        for group_name in groups:
            group = group[group_name]
        group[name] = value


def _taken(key, value, source):
    """`value` as it is stored for `key`, or a ConfigError."""
    what = f"{source}: {_shown_key(key)} = {_shown(value)} ({type(value).__name__})"
    try:
        default = _get(_DEFAULTS, key)
    except KeyError:
        nearest = _nearest(key)
        kind = type(_get(_DEFAULTS, nearest)).__name__
        raise ConfigError(f"{what}: no such option; the nearest is {nearest} ({kind})") from None
    if isinstance(default, dict):
        raise ConfigError(f"{what}: {key} is a group of options: expected e.g. {key}.{next(iter(default))}")
    if value is None or default is None or type(value) is type(default):
        return copy.deepcopy(value)
    if isinstance(default, float) and type(value) is int and abs(value) <= sys.float_info.max:
        return float(value)
    expected = f"{type(default).__name__}, as of the default {default!r}"
    raise ConfigError(f"{what}: expected {expected}{_hint(value, default)}")


def _get(cfg, key):
    for name in str(key).split("."):
        if not isinstance(cfg, dict):
            raise KeyError(key)
        cfg = cfg[name]
    return cfg


def _is_option(key):
    try:
        return not isinstance(_get(_DEFAULTS, key), dict)
    except KeyError:
        return False


def _nearest(key):
    # Cut, as difflib's time grows with the square of the length.
    key = str(key)[:200].upper()

    def alike(option):
        # The name counts apart from its group: the group may be the wrong one, or missing.
        names = zip((key, _name(key)), (option, _name(option)), strict=True)
        return sum(difflib.SequenceMatcher(None, a, b).ratio() for a, b in names)

    return max((option for option, _ in _all_options(_DEFAULTS)), key=alike)


def _name(key):
    return key.rsplit(".", 1)[-1]


def _all_options(cfg, prefix=""):
    for key, value in cfg.items():
        if isinstance(value, dict):
            yield from _all_options(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _hint(value, default):
    if isinstance(default, float) and isinstance(value, str):
        try:
            number = float(value)
        except ValueError:
            return ""
        # YAML 1.1 takes 1e-4 for a word.
        return f" (written {number:.1e})" if math.isfinite(number) else ""
    if isinstance(default, str) and isinstance(value, (int, float)):
        return f""" (in quotes: "'{_shown(value)}'")"""
    if isinstance(default, list) and isinstance(value, tuple):
        return " (in square brackets)"
    return ""


class _ShortRepr(reprlib.Repr):
    def repr_int(self, number, level):
        # Python raises rather than spell out the longest.
        return super().repr_int(number, level) if number.bit_length() < 10_000 else "an integer of thousands of digits"


_short_repr = _ShortRepr()
_short_repr.maxlevel = 3
_short_repr.maxstring = _short_repr.maxother = _short_repr.maxlong = 100


def _shown(value):
    """One line, bounded: a YAML alias can stand for a value of any size."""
    return _short_repr.repr(value)


def _shown_key(key):
    return key if key.isprintable() and len(key) <= 100 else _shown(key)


def assert_and_infer_cfg(cfg=config):
    """Fill in what follows from other options, and check what holds for every use of a configuration.

    What only a model, a rate or a data source can tell is checked where it is used.

    Raises:
        ConfigError: in one line.
    """
    _check_bounds(cfg)
    solver = cfg.SOLVER
    _check_list("SOLVER.STEP_SIZES", solver.STEP_SIZES, int, "a list of integers >= 0")
    _check_list("SOLVER.LRS", solver.LRS, (int, float), "a list of numbers >= 0")
    if solver.STEPS is None:
        solver.STEPS = list(accumulate(solver.STEP_SIZES, initial=0))
    _check_list("SOLVER.STEPS", solver.STEPS, int, "a list of integers >= 0")
    if not solver.STEPS or solver.STEPS[0] != 0 or any(a > b for a, b in pairwise(solver.STEPS)):
        raise ConfigError(f"SOLVER.STEPS: expected an ascending list from 0 on, got {_shown(solver.STEPS)}")

    scales = cfg.TRAIN.JITTER_SCALES
    expected = "two integers, 1 <= low <= high"
    _check_list("TRAIN.JITTER_SCALES", scales, int, expected)
    if len(scales) != 2 or not 1 <= scales[0] <= scales[1]:
        raise ConfigError(f"TRAIN.JITTER_SCALES: expected {expected}, got {_shown(scales)}")

    if cfg.TEST.TEN_CROP:
        raise ConfigError("TEST.TEN_CROP: deprecated, expected False, got True; use TEST.TEST_FULLY_CONV")
    for key, known in _CHOICES.items():
        if _get(cfg, key) not in known:
            raise ConfigError(f"{key}: expected one of {', '.join(known)}, got {_get(cfg, key)!r}")
    for option in ("TEST_FULLY_CONV", "TEST_FULLY_CONV_FLIP"):
        if cfg.TEST.TEST_FULL_SIZE and cfg.TEST[option]:
            raise ConfigError(f"TEST.TEST_FULL_SIZE: expected False with TEST.{option} True, got True: "
                              "a test takes whole frames or crops")
    if cfg.TEST.USE_MULTI_CROP not in (0, 1, 2):
        raise ConfigError(f"TEST.USE_MULTI_CROP: expected 0, 1 or 2, got {_shown(cfg.TEST.USE_MULTI_CROP)}")
    for key in ("TRAIN.BATCH_SIZE", "TEST.BATCH_SIZE"):
        if _get(cfg, key) % cfg.NUM_GPUS:
            raise ConfigError(f"{key}: expected a multiple of NUM_GPUS {cfg.NUM_GPUS}, got {_get(cfg, key)}")


def _check_bounds(cfg):
    for bound, keys in _LOWER_BOUNDS:
        for key in keys:
            value = _get(cfg, key)
            # None can come from a file or the command line for any option.
            if value is None or not _is_usable(value) or value < bound:
                kind = "a number" if isinstance(_get(_DEFAULTS, key), float) else "an integer"
                limit = "" if bound == -math.inf else f" >= {bound}"
                raise ConfigError(f"{key}: expected {kind}{limit}, got {_shown(value)}")
    for bound, keys in _UPPER_BOUNDS:
        for key in keys:
            if _get(cfg, key) > bound:
                raise ConfigError(f"{key}: expected a number <= {bound}, got {_get(cfg, key)!r}")
    for key, default in _all_options(_DEFAULTS):
        if isinstance(default, (str, bool)) and _get(cfg, key) is None and key not in _MAY_BE_NULL:
            raise ConfigError(f"{key}: expected {'text' if isinstance(default, str) else 'True or False'}, got None")
    if cfg.MODEL.STD == 0:
        raise ConfigError(f"MODEL.STD: expected a number > 0, got {cfg.MODEL.STD!r}")


def _check_list(key, values, kind, expected):
    def good(value):
        return isinstance(value, kind) and not isinstance(value, bool) and _is_usable(value) and value >= 0

    if not isinstance(values, list) or not all(map(good, values)):
        raise ConfigError(f"{key}: expected {expected}, got {_shown(values)}")


def _is_usable(value):
    return abs(value) < 2**63  # neither inf nor nan, nor an int that overflows further on


def print_cfg(cfg=config):
    """Log the whole configuration."""
    logger.info("Training with config:")
    logger.info(pprint.pformat(cfg))


def log_options_without_effect(cfg=config):
    """Log, in one line, which options were set that nothing reads. Nothing is logged if there are none."""
    defaults = dict(_all_options(_DEFAULTS))
    values = dict(_all_options(cfg))
    found = sorted(key for key in OPTIONS_WITHOUT_EFFECT if values[key] != defaults[key])
    if found:
        logger.info("Options without effect (accepted for old files): %s", ", ".join(found))
