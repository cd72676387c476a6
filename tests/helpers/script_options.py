"""What the training scripts set."""

import re

from core.config import load_config


def options_of_script(repo, script, *more):
    """The configuration that a script (in scripts/, without .sh) trains with, under further KEY VALUE words."""
    text = (repo / f"scripts/{script}.sh").read_text()
    config = re.search(r"train_net \.\./(\S+)", text)[1]
    words = [word for pair in re.findall(r"^    ([A-Z][\w.]+) (\S+) \\$", text, re.MULTILINE) for word in pair]
    return load_config(repo / config, [*words, *more])
