"""The commands of the pages: the lines of their ```Shell blocks."""

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Command:
    """A line of shell.

    Attributes:
        page: the path of the page in the repository.
        section: the heading that it stands under.
        text: the line, with those that continue it, without its comment.
    """

    page: str
    section: str
    text: str


def blocks_of(repo, page):
    """The blocks of a page, in order: (heading, the block as it stands there, its lines as Commands)."""
    heading, found = "", []
    parts = r"^#{1,6} +(?P<heading>[^\n]+)$|^ *```(?P<kind>\w*)\n(?P<block>.*?)^ *```$"
    for part in re.finditer(parts, (repo / page).read_text(), re.MULTILINE | re.DOTALL):
        if part["heading"]:
            heading = part["heading"]
        elif part["kind"] == "Shell":
            lines = re.sub(r" *\\\n *", " ", part["block"]).splitlines()
            texts = [re.sub(r"(^|\s+)# .*", "", line).strip() for line in lines]
            found.append((heading, part["block"], [Command(page, heading, text) for text in texts if text]))
    return found


def section_commands(repo, page, section):
    """The commands under a heading, as text, in order. There must be some."""
    found = [command.text for heading, _, block in blocks_of(repo, page) if heading == section for command in block]
    assert found, f"{page}: no commands under {section!r}"
    return found
