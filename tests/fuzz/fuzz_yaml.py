"""Configuration files and command lines, judged by plain PyYAML and by Python's literals."""

import ast
import math
import string
from dataclasses import dataclass
from pathlib import Path

import yaml
from fuzzing import Area, Wrong, log_uniform, mutate_bytes

from core.config import ConfigError, load_config
from core.defaults import default_config

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.yaml"))
INFERRED = {"SOLVER.STEPS"}
WORDS = (
    "1", "0", "-1", "1e-4", "1.5", "True", "None", "nan", "inf", "'text'", "text", "[1,2]", "[1, 0.1]", "(1,2)", "{}",
    "''", "", " ", "1_000", "0x10", "0x" + "f" * 6000, "0b1", "01", "1j", "b'x'", "1+1", "[[]]", "[" * 300, "9" * 5000,
    "__import__('os').system('touch executed')", "-" * 2000 + "1", "lambda: 0", "f'{exit()}'", "...", "2**63",
    str(2**63), "1e999", "\\d", "'\\N{DASH}'", "\0", "\udcff", "'" * 3, "#", "\n", "{1: 2, **{}}", "set()", "{[]}",
    "[" + "1," * 5000 + "]",
)  # fmt: skip
VALUES = (
    "1", "-1", "1e-4", "1.0e-4", "true", "yes", "null", "~", ".nan", ".inf", "'x'", "text", "[1, 2]", "{a: 1}", "[]",
    "0o17", "1:30:00", "2001-13-01", "2001-01-01", "!!python/object/apply:os.system ['touch executed']", "!!int x",
    "!!python/name:os.system", "!!python/object/new:os.system [a]", "!!bool x", "!!float x", "!!binary x",
    "!!timestamp x", "!!set {a}", "!!omap [a: 1]", "&a [*a]", "&a {a: *a}", "*b", "!x 1", "'unclosed", "[1, 2",
    "{a: 1", "- 1", "|\n  a\n  b", ">\n a", "? [a]\n  : 1", "<<: 1", "%YAML 9.9", "---\n1", "\t1", "\x00", "\u2028",
    "\ud7ff", "@", "`", "0x" + "f" * 3000, "0x" + "f" * 6000, "[0x" + "f" * 6000 + "]", "9" * 5000,
    "[" * 500, "{a: " * 300,
)  # fmt: skip
LAUGHS = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{b}: &{b} [{','.join(['*' + a] * 9)}]\n" for a, b in zip("abcdefghij", "bcdefghijk", strict=True))


@dataclass
class Case:
    path: Path | None
    text: bytes
    words: list

    @property
    def size(self):
        return len(self.text) + sum(map(len, self.words)) + 1

    def __str__(self):
        return f"{self.text[:300]!r} {self.words!r:.300}"


class Yaml(Area):
    name = "yaml"
    error = ConfigError
    # PyYAML keeps some hundred bytes a token. Traced by Python, its scanner takes thirty times as long.
    memory = 30 << 20, 3000
    traced = 0
    # ast.literal_eval parses. PyYAML and Python look at a frame and a date's class.
    allowed_events = frozenset({"compile", "sys._getframe", "object.__getattr__"})

    def __init__(self, folder):
        self.path = folder / "case.yaml"
        self.seeds = [path.read_bytes() for path in CONFIGS]
        self.defaults = dict(_leaves(default_config()))
        self.keys = [*self.defaults, "TRAIN", "SOLVER.WARMUP", "TRAIN.BATCHSIZE", "train.batch_size", "NONE", "", "."]
        # What is imported when it is first needed is imported before imports are watched.
        for path in CONFIGS:
            load_config(path, ["DATASET", "'\\N{DASH}'"])

    def make(self, rng):
        if rng.random() < 0.5:
            words = [part for _ in range(rng.randrange(6)) for part in self._pair(rng)]
            return Case(None, b"", words[: -1 if rng.random() < 0.1 else None])
        kind = rng.randrange(4)
        if kind == 0:
            text = mutate_bytes(rng, rng.choice(self.seeds), self.seeds)
        elif kind == 1:
            n = log_uniform(rng, 10, 5000)
            text = rng.choice((LAUGHS, LAUGHS + "SOLVER:\n  STEPS: *k\n", "a: " + "[" * n, "\ufeffTRAIN:", "- " * n,
                               "k: " + "x" * n, "".join(f"k{i}: {i}\n" for i in range(n // 10)))).encode()
            text = rng.choice((text, text, text.decode().encode("utf-16")))
        else:
            text = self._document(rng).encode("utf-8", "surrogatepass")
            text = mutate_bytes(rng, text) if kind == 3 and rng.random() < 0.3 else text
        self.path.write_bytes(text)
        return Case(self.path, text, [])

    def _pair(self, rng):
        key = rng.choice(self.keys)
        default = self.defaults.get(key)
        # Of the right type as often as not: else nothing is ever accepted.
        value = rng.choice(WORDS) if rng.random() < 0.5 or default is None else repr(_alike(rng, default))
        if rng.random() < 0.1:
            value = "".join(rng.choices(string.printable, k=rng.randrange(12)))
        return key, value

    def _document(self, rng):
        lines = []
        for group in rng.sample(list(default_config()), rng.randrange(1, 5)):
            options = [key for key in self.defaults if key.startswith(f"{group}.")]
            if not options:
                lines.append(f"{group}: {self._value(rng, group)}")
                continue
            lines.append(f"{group}:")
            for option in rng.sample(options, min(len(options), rng.randrange(4))):
                lines.append(f"  {option.removeprefix(group + '.')}: {self._value(rng, option)}")
        return "\n".join(lines)

    def _value(self, rng, key):
        default = self.defaults.get(key)
        if rng.random() < 0.3 or default is None:
            return rng.choice(VALUES)
        value = _alike(rng, default)
        return repr(value) if not isinstance(value, float) else f"{value:.3e}"

    def load(self, case):
        return load_config(case.path, case.words)

    def check(self, case, result):
        given = self._given(case)
        for key, value in _leaves(result):
            expected = given.get(key, self.defaults[key])
            if isinstance(self.defaults[key], float) and type(expected) is int:
                expected = float(expected)
            if type(self.defaults[key]) is int and isinstance(expected, bool):
                expected = int(expected)
            if key in INFERRED and expected is None:
                continue
            if type(value) is not type(expected) or not (value == expected or value != value and expected != expected):
                raise Wrong(f"{key} is {value!r:.100}, expected {expected!r:.100}")
        if unknown := given.keys() - self.defaults.keys():
            raise Wrong(f"took {unknown}")

    def _given(self, case):
        if case.path is None:
            return {key: _literal(value) for key, value in zip(case.words[::2], case.words[1::2], strict=True)}
        # The pure Python loader: the C one takes some control characters for text.
        options = yaml.load(case.text.decode("utf-8"), yaml.SafeLoader) or {}
        return {key: _literal(value) for key, value in _leaves(options, default_config())}

    def check_refusal(self, case, error):
        message = str(error)
        if "\n" in message or len(message) > 2000:
            raise Wrong(f"a message that is not one line: {message!r:.200}")
        if not message.isprintable():
            raise Wrong(f"a message that would spoil a terminal: {message!r:.200}")
        # The last checks are of the options, wherever they came from.
        if not message.startswith((f"{case.path}: ", "command line: ", *(f"{key}: " for key in self.defaults))):
            raise Wrong(f"a message that names neither file nor option: {message!r:.200}")


def _leaves(options, groups=None, prefix=""):
    """Pairs (dotted key, value); with `groups`, what is a group there and has nothing below sets nothing."""
    for key, value in options.items():
        group = value if groups is None else groups.get(key)
        if isinstance(group, dict) and isinstance(value, dict):
            yield from _leaves(value, None if groups is None else group, f"{prefix}{key}.")
        elif not (groups is not None and isinstance(group, dict) and value is None):
            yield f"{prefix}{key}", value


def _literal(word):
    if not isinstance(word, str):
        return word
    try:
        return ast.literal_eval(word)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return word


def _alike(rng, default):
    """A value of the type of the default."""
    if isinstance(default, bool):
        return rng.random() < 0.5
    if isinstance(default, int):
        return rng.choice((default, default * 2, 1, 8, 64, 2, rng.randrange(1000)))
    if isinstance(default, float):
        return rng.choice((default, 0.1, 0.9, rng.random(), 0.0, math.pi))
    if isinstance(default, list):
        return rng.choice((default, [1, 2, 3], [0, 1], [256, 320]))
    return rng.choice((default, "x.pkl", "a b"))
