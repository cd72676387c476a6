"""Making a configuration.

Order: the defaults (core.defaults), the YAML file, KEY VALUE pairs of the command line, derived values, checks.

    cfg = load_config("configs/F.yaml", ["NUM_GPUS", "1", "TRAIN.PARAMS_FILE", "w.pkl"])

returns a new configuration. The legacy way, a global that is filled in place, works as well:

    from core.config import config as cfg, cfg_from_file, cfg_from_list, assert_and_infer_cfg
"""

import logging
import pprint
from collections.abc import Iterable, Sequence
from itertools import accumulate, pairwise

from core.assignment import is_option, option_values, set_options
from core.defaults import OPTIONS, default_config
from core.messages import ConfigError, shown
from core.yaml_file import read_yaml
from utils.collections import AttrDict, leaves, value_at
from utils.files import StrPath

logger = logging.getLogger(__name__)

config = default_config()


def load_config(config_file: StrPath | None = None, opts: Iterable[str] = ()) -> AttrDict:
    """Make a new configuration: defaults, file, words, derived values, checks. The global is not changed.

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


def cfg_from_file(filename: StrPath, cfg: AttrDict = config) -> None:
    """Set the options of a YAML file in `cfg`. Raises ConfigError and then leaves `cfg` unchanged.

    Text is evaluated as on the command line: 1e-3, which YAML 1.1 reads as text, is a number, and None is null.
    """
    options = read_yaml(filename)
    if options is None:  # an empty file
        return
    if not isinstance(options, dict):
        raise ConfigError(f"{filename}: expected a YAML mapping of options, got {shown(options)}")
    set_options(cfg, list(option_values(options)), source=str(filename))


def cfg_from_list(opts: Iterable[str], cfg: AttrDict = config) -> None:
    """Set options from the words of a command line: ["TRAIN.BATCH_SIZE", "8", ...].

    A value is a Python literal, or the word itself if it is not one. Raises ConfigError and then leaves `cfg`
    unchanged.
    """
    words = list(opts)
    _check_words(words)
    options = [(str(key), value) for key, value in zip(words[::2], words[1::2], strict=True)]
    set_options(cfg, options, source="command line")


def _check_words(words: Sequence[str]) -> None:
    """Raise ConfigError for words that do not have the form of KEY VALUE pairs."""
    for word in words:
        key, equals, value = str(word).partition("=")
        if equals and is_option(key):
            raise ConfigError(f"command line: {shown(word)}: separate key and value with a space: {key} {value}")
    for key in words[::2]:
        if str(key).startswith("--"):
            raise ConfigError(f"command line: {shown(key)}: a KEY has no dashes; options with dashes must come first")
    if len(words) % 2:
        stray = next((word for word in words[::2] if not is_option(word)), words[-1])
        what = "has no value" if is_option(stray) else "is not a KEY"
        raise ConfigError(f"command line: expected pairs of KEY VALUE, got {len(words)} words; {shown(stray)} {what}")


def assert_and_infer_cfg(cfg: AttrDict = config) -> None:
    """Fill in derived options, and check what must hold for every use of a configuration.

    What depends on the model, the learning rate policy or the data source is checked where it is used.

    Raises:
        ConfigError: in one line.
    """
    for key, option in leaves(OPTIONS):
        option.check(key, value_at(cfg, key))
    if cfg.SOLVER.STEPS is None:
        cfg.SOLVER.STEPS = list(accumulate(cfg.SOLVER.STEP_SIZES, initial=0))
    _check_combinations(cfg)


def _check_combinations(cfg: AttrDict) -> None:
    """Check what the declaration of a single option cannot express."""
    steps = cfg.SOLVER.STEPS
    if not steps or steps[0] != 0 or any(a > b for a, b in pairwise(steps)):
        raise ConfigError(f"SOLVER.STEPS: expected an ascending list that starts with 0, got {shown(steps)}")
    if cfg.TEST.TEN_CROP:
        raise ConfigError("TEST.TEN_CROP: deprecated, expected False, got True; use TEST.TEST_FULLY_CONV")
    for option in ("TEST_FULLY_CONV", "TEST_FULLY_CONV_FLIP"):
        if cfg.TEST.TEST_FULL_SIZE and cfg.TEST[option]:
            raise ConfigError(f"TEST.TEST_FULL_SIZE: expected False with TEST.{option} True, got True: "
                              "a test takes either whole frames or crops")
    for key in ("TRAIN.BATCH_SIZE", "TEST.BATCH_SIZE"):
        if value_at(cfg, key) % cfg.NUM_GPUS:
            raise ConfigError(f"{key}: expected a multiple of NUM_GPUS {cfg.NUM_GPUS}, got {value_at(cfg, key)}")


def print_cfg(cfg: AttrDict = config) -> None:
    """Log the whole configuration."""
    logger.info("Training with config:")
    logger.info(pprint.pformat(cfg))


def log_options_without_effect(cfg: AttrDict = config) -> None:
    """Log, in one line, which options without effect were set. Logs nothing if none was."""
    found = sorted(key for key, option in leaves(OPTIONS) if option.unused and value_at(cfg, key) != option.default)
    if found:
        logger.info("Options without effect (accepted for old files): %s", ", ".join(found))
