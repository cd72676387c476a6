#!/usr/bin/env python3
"""Plot the training curves of one or more logs as one picture.

    python tools/plot_log.py data/checkpoints/run_i3d_nlnet_400k/log.txt [LOG ...] [--output curves.png]
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import _init_paths  # noqa: F401, I001  (lib/ on the path, a Python that is new enough)

from reports.log_parser import read_log
from utils import cli
from utils.errors import UserError
from utils.visualize import log_names, plot_logs


def main() -> None:
    parser = cli.argument_parser(__doc__.splitlines()[0])
    parser.add_argument("logs", nargs="+", metavar="LOG", help="log of a training run")
    parser.add_argument("--output", default="curves.png", metavar="PNG", help="default: %(default)s")
    args = parser.parse_args()
    if not args.output.lower().endswith(".png"):
        raise UserError(f"--output: expected a name ending in .png, got {args.output}")
    logs = {name: read_log(path) for name, path in zip(log_names(args.logs), args.logs, strict=True)}
    plot_logs(logs, args.output)
    print(f"Curves saved to: {args.output}")


if __name__ == "__main__":
    cli.run(main)
