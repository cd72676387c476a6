"""The page of a run: one HTML file that needs nothing else, from the template in page/.

Whatever comes from the run (names of classes and files, options, lines of logs) is text on the page: the template
escapes it, data for the scripts are JSON in which no `<` is left, and the page's own policy lets a browser run no
other script than page/run_report.js and load nothing.
"""

import base64
import hashlib
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from utils.collections import to_json
from utils.visualize import as_label

PARTS = Path(__file__).parent / "page"


def render(**content: Any) -> str:
    """The page as text.

    Args:
        content: what page/run_report.html names; `data` is for its script, as JSON can hold it.
    """
    environment = Environment(loader=FileSystemLoader(PARTS), autoescape=True, undefined=StrictUndefined,
                              trim_blocks=True, lstrip_blocks=True)
    environment.policies["json.dumps_function"] = lambda value, **_: to_json(value)
    environment.filters.update(percent=percent, label=as_label)
    environment.globals.update(bar=bar)
    style, script = ((PARTS / f"run_report.{suffix}").read_text("utf-8") for suffix in ("css", "js"))
    page = environment.get_template("run_report.html").render(
        content, style=style, script=script, script_digest=digest(script))
    return page.encode("utf-8", "backslashreplace").decode()


def digest(script: str) -> str:
    """The digest of an inline script, as a policy names it."""
    return f"sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}"


def percent(share: float | None, decimals: int = 2) -> str:
    """0.975 -> 97.50 %; nothing for None."""
    return "" if share is None else f"{100 * share:.{decimals}f}\N{NO-BREAK SPACE}%"


def bar(share: float | None) -> str:
    """The width of a bar, as a style."""
    return f"width:{100 * min(max(share or 0, 0), 1):.2f}%"
