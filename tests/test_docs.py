"""The pages: their links lead somewhere, they are short, and they mention every program."""

import re
import subprocess
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parent.parent
FOLDERS = "tools|scripts|configs|lib|process_data|tests"
LONGEST_README, LONGEST_PAGE, WIDEST = 170, 250, 120
# Written by commands, and as long and wide as what they measured.
WRITTEN = {"tests/parity.md", "tests/figures.md"}


def pages():
    """The Markdown files of the repository: those that git knows, or would if they were added."""
    listed = subprocess.run(["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"], cwd=REPO,
                            capture_output=True, text=True)
    names = listed.stdout.split()
    if listed.returncode:  # a copy without its history
        names = [str(path.relative_to(REPO)) for pattern in ("*.md", "[!.]*/*.md") for path in REPO.glob(pattern)]
    return sorted(name for name in names if (REPO / name).exists())


PAGES = pages()


def prose(text):
    """A page without its blocks of code."""
    return re.sub(r"^( *)```.*?^\1```$", "", text, flags=re.MULTILINE | re.DOTALL)


def anchors(text):
    """What GitHub calls the headings of a page: lower case, without punctuation, -N for the N-th repetition."""
    found = []
    for heading in re.findall(r"^#{1,6} +(.+?) *#*$", prose(text), re.MULTILINE):
        heading = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading)
        anchor = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        repeated = sum(re.fullmatch(rf"{re.escape(anchor)}(-\d+)?", other) is not None for other in found)
        found.append(f"{anchor}-{repeated}" if repeated else anchor)
    return set(found)


def wrong_links(page, text, repo=REPO):
    """The relative links of a page that lead nowhere."""
    wrong = []
    for link in re.findall(r"\]\(<?([^)\s>]+)>?(?: \"[^\"]*\")?\)", prose(text)):
        if re.match(r"[a-z][a-z0-9+.-]*:", link):  # https://, mailto:
            continue
        path, _, anchor = link.partition("#")
        target = (repo / page).parent / path if path else repo / page
        there = text if not path else target.read_text() if target.suffix == ".md" and target.is_file() else ""
        if not target.exists() or not target.resolve().is_relative_to(repo) or anchor and anchor not in anchors(there):
            wrong.append(link)
    return wrong


def test_the_pages_are_found():
    assert {"README.md", "INSTALL.md", "DATASET.md", "data/README.md", "tests/parity.md"} <= set(PAGES)


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_somewhere(page):
    assert wrong_links(page, (REPO / page).read_text()) == []


@pytest.mark.parametrize("page", sorted({*PAGES} - WRITTEN))
def test_every_file_mentioned_exists(page):
    """Paths from the top of the repository, also in commands. Those of data/ are made by commands."""
    named = re.findall(rf"(?<![\w/.])(?:{FOLDERS})/[\w/.-]+\.(?:py|sh|yaml|md)\b", (REPO / page).read_text())
    assert [path for path in named if not (REPO / path).exists()] == []


@pytest.mark.parametrize("page", PAGES)
def test_pages_are_short(page):
    lines = (REPO / page).read_text().splitlines()
    assert len(lines) <= (LONGEST_README if page == "README.md" else LONGEST_PAGE)
    wide = [line for line in lines if len(line) > WIDEST and not line.lstrip().startswith("|")]
    assert page in WRITTEN or wide == []


def test_every_page_can_be_reached_from_the_readme():
    reached, new = set(), {"README.md"}
    while new:
        reached |= new
        links = {(REPO / name).parent / link for name in new
                 for link in re.findall(r"\]\(([^)#:]+\.md)[)#]", (REPO / name).read_text())}
        new = {str(link.resolve().relative_to(REPO)) for link in links} - reached
    assert set(PAGES) <= reached


@pytest.mark.parametrize(("folder", "pattern", "page"), [
    ("scripts", "[a-z]*.*", "scripts/README.md"), ("tools", "[a-z]*.py", "tools/README.md"),
    ("process_data/kinetics", "[a-z]*.*", "DATASET.md"), ("process_data/convert_models", "modify*.py", "DATASET.md"),
    ("tests", "[!tc]*.py", "tests/README.md"), ("tests", "check_*.py", "tests/README.md"),
    ("tests/bench", "bench_*.py", "tests/README.md"), ("tests/bench", "soak_*.py", "tests/README.md"),
    ("process_data/demo", "*.py", "scripts/README.md"),
])
def test_every_program_is_mentioned(folder, pattern, page):
    """By its name, in the page of its folder or the README. One for many rows of a table: with a * in its name."""
    text = (REPO / "README.md").read_text() + (REPO / page).read_text()
    names = [path.name for path in (REPO / folder).glob(pattern) if path.name != "README.md"]
    assert names and [name for name in names if name not in text] == []


@pytest.mark.parametrize(("text", "wrong"), [
    ("[a](README.md) [b](#one-two) [c](README.md#licence)\n## One: two\n", []),
    ("[a](gone.md) [b](#gone) [c](README.md#gone)\n", ["gone.md", "#gone", "README.md#gone"]),
    ("## `a_b`, c\n## X\n## X\n[a](#a_b-c) [b](#x-1) [c](#x-2) ![d](gone.png)\n", ["#x-2", "gone.png"]),
    ("```Shell\n# one\n[a](gone)\n```\n[b](#one) [c](https://gone) [d](../../outside)\n", ["#one", "../../outside"]),
])
def test_wrong_links_are_found(text, wrong):
    assert wrong_links("INSTALL.md", text) == wrong
