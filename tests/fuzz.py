"""Feed large numbers of hostile inputs to the readers, and print one line of counts per area.

    python tests/fuzz.py pickles|records|yaml|lists|scores|videos|unusual|all... [--count N] [--seed S] [--first N]

"right" means that the result agrees with another program's reading of the input. "refused" means the project's own
error, which names the input. Everything else is a violation and gives exit status 1: code execution, a hang, a crash,
or "wrong" (any other exception, a wrong result, or too much memory for the input). Violations are reported with the
number of their case, which --first NUMBER --count 1 repeats.
"""

import argparse
import sys
import tempfile
import time
import warnings
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(REPO / folder) for folder in ("lib", "tests/helpers", "tests/fuzz")]

import fuzzing  # noqa: E402
from fuzz_lists import Lists  # noqa: E402
from fuzz_pickles import Pickles  # noqa: E402
from fuzz_records import Records  # noqa: E402
from fuzz_scores import Scores  # noqa: E402
from fuzz_unusual import UnusualVideos  # noqa: E402
from fuzz_videos import Videos  # noqa: E402
from fuzz_yaml import Yaml  # noqa: E402

from utils import cli  # noqa: E402

COUNTS = {Pickles: 200_000, Records: 200_000, Yaml: 20_000, Lists: 50_000, Scores: 5_000, Videos: 2_000,
          UnusualVideos: 1_000}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    areas = {area.name: area for area in COUNTS}
    parser.add_argument("areas", nargs="+", choices=[*areas, "all"], metavar="AREA")
    parser.add_argument("--count", type=int, help="cases per area (default: enough for some minutes)")
    parser.add_argument("--seed", type=int, default=0, help="seed of all cases (default: %(default)s)")
    parser.add_argument("--first", type=int, default=0, help="number of the first case (default: %(default)s)")
    arguments = parser.parse_args()
    # Damaged escapes and the like are given on purpose.
    warnings.simplefilter("ignore")

    chosen = areas if "all" in arguments.areas else dict.fromkeys(arguments.areas)
    titles = (*fuzzing.COUNTERS[:-2], "max s", "max memory", "took s")
    print("".join(title.rjust(width) for title, width in zip(("area", *titles), WIDTHS, strict=True)), flush=True)
    violations = 0
    for name in chosen:
        area, start = areas[name], time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            counters = fuzzing.run(area, arguments.count or COUNTS[area], arguments.seed, arguments.first,
                                   Path(folder), lambda line: print(f"  {line}", flush=True))
        *numbers, seconds, memory = counters.values()
        cells = (name, *numbers, f"{seconds:.3f}", f"{memory:.1f} x", f"{time.monotonic() - start:.0f}")
        print("".join(str(cell).rjust(width) for cell, width in zip(cells, WIDTHS, strict=True)), flush=True)
        violations += counters.violations
    return 1 if violations else 0


WIDTHS = (8, 8, 8, 9, 12, 7, 9, 7, 8, 12, 8)

if __name__ == "__main__":
    cli.run(main)
