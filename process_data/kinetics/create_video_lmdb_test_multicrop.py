"""Write the test LMDB of a list of videos for 3-crop testing: 30 clips per video."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))
import _init_paths  # noqa: F401, I001  (lib/ on the path, a Python that is new enough)

from functools import partial

from data import lmdb_writer  # noqa: E402
from utils import cli  # noqa: E402

if __name__ == "__main__":
    cli.run(lmdb_writer.main, __doc__, partial(lmdb_writer.clip_items, spatial_positions=3))
